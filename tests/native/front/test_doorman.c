/* The doorman, between real Unix sockets. */
#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "native/front/front.h"
#include "tests/native/host/check.h"

static char outer_path[64], inner_path[64];
static int outer_listen, inner_listen;
static hsm_doorman *doorman;

static struct sockaddr_un address(const char *path)
{
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    (void)snprintf(where.sun_path, sizeof where.sun_path, "%s", path);
    return where;
}

static int listen_at(const char *path)
{
    const struct sockaddr_un where = address(path);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    (void)unlink(path);
    CHECK(fd >= 0 && bind(fd, (const struct sockaddr *)&where, sizeof where) == 0 && listen(fd, 64) == 0);
    return fd;
}

static int call(void)
{
    const struct sockaddr_un where = address(outer_path);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(fd >= 0 && connect(fd, (const struct sockaddr *)&where, sizeof where) == 0);
    return fd;
}

static void set_up_for(uint32_t max, uint32_t max_of_a_uid)
{
    (void)snprintf(outer_path, sizeof outer_path, "/tmp/hsm-door-%d-o", (int)getpid());
    (void)snprintf(inner_path, sizeof inner_path, "/tmp/hsm-door-%d-i", (int)getpid());
    outer_listen = listen_at(outer_path);
    inner_listen = listen_at(inner_path);
    const hsm_doorman_config config = {.listen_fd = outer_listen,
                                       .inner_path = inner_path,
                                       .prefix = "hsmsign/test",
                                       .max_connections = max,
                                       .max_of_a_uid = max_of_a_uid};
    CHECK(hsm_doorman_start(&config, &doorman) == HSM_OK);
}

static void set_up(uint32_t max)
{
    set_up_for(max, max);
}

static void tear_down(void)
{
    hsm_doorman_free(doorman);
    (void)close(outer_listen);
    (void)close(inner_listen);
    (void)unlink(outer_path);
    (void)unlink(inner_path);
}

static void the_inner_side_sees_who_calls(void)
{
    set_up(10);
    const int caller = call();
    struct sockaddr_un from;
    memset(&from, 0, sizeof from);
    socklen_t size = sizeof from;
    const int callee = accept(inner_listen, (struct sockaddr *)&from, &size);
    CHECK(callee >= 0 && from.sun_path[0] == 0);
    char wanted[80];
    const int length = snprintf(wanted, sizeof wanted, "hsmsign/test/%u/%u/%d/", (unsigned)getuid(),
                                (unsigned)getgid(), (int)getpid());
    CHECK(strncmp(from.sun_path + 1, wanted, (size_t)length) == 0);
    const char *nonce = from.sun_path + 1 + length;
    CHECK(strlen(nonce) > 0 && strspn(nonce, "0123456789") == strlen(nonce));
    (void)close(caller);
    (void)close(callee);
    tear_down();
}

/* What a neighbour who knows the prefix and our caller could do: take the addresses that come next. */
static void addresses_taken_beforehand_keep_nobody_out(void)
{
    int taken[64];
    for (unsigned i = 0; i < 64; i++) {
        struct sockaddr_un from = {.sun_family = AF_UNIX};
        const int length = snprintf(from.sun_path + 1, sizeof from.sun_path - 1, "hsmsign/test/%u/%u/%d/%u",
                                    (unsigned)getuid(), (unsigned)getgid(), (int)getpid(), i);
        taken[i] = socket(AF_UNIX, SOCK_STREAM, 0);
        CHECK(bind(taken[i], (struct sockaddr *)&from,
                   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length)) == 0);
    }
    set_up(10);
    const int caller = call();
    struct pollfd door = {inner_listen, POLLIN, 0};
    CHECK(poll(&door, 1, 10000) == 1);
    const int callee = accept(inner_listen, NULL, NULL);
    CHECK(callee >= 0);
    (void)close(caller);
    (void)close(callee);
    for (unsigned i = 0; i < 64; i++)
        (void)close(taken[i]);
    tear_down();
}

static uint8_t pattern(size_t at)
{
    return (uint8_t)(at * 31u + (at >> 11));
}

/* Sends `total` bytes one way while the reader is slow to begin: nothing is lost, memory stays bounded. */
static void carry(int from, int to, size_t total)
{
    static uint8_t out[4096], in[65536];
    size_t sent = 0, got = 0;
    while (got < total) {
        struct pollfd ends[2] = {{from, sent < total ? POLLOUT : 0, 0}, {to, POLLIN, 0}};
        CHECK(poll(ends, 2, 20000) > 0);
        if (ends[0].revents & POLLOUT) {
            size_t n = total - sent < sizeof out ? total - sent : sizeof out;
            for (size_t i = 0; i < n; i++)
                out[i] = pattern(sent + i);
            const ssize_t done = send(from, out, n, MSG_DONTWAIT);
            sent += done > 0 ? (size_t)done : 0;
        }
        if (ends[1].revents & POLLIN) {
            const ssize_t n = recv(to, in, sizeof in, MSG_DONTWAIT);
            CHECK(n > 0);
            for (ssize_t i = 0; i < n; i++)
                CHECK(in[i] == pattern(got + (size_t)i));
            got += (size_t)n;
        }
    }
}

static void bytes_go_both_ways_and_a_half_close_is_handed_on(void)
{
    set_up(10);
    const int caller = call();
    const int callee = accept(inner_listen, NULL, NULL);
    carry(caller, callee, 3u << 20);
    carry(callee, caller, 3u << 20);
    CHECK(shutdown(caller, SHUT_WR) == 0);
    uint8_t byte;
    CHECK(recv(callee, &byte, 1, 0) == 0);
    CHECK(send(callee, "x", 1, 0) == 1);
    CHECK(recv(caller, &byte, 1, 0) == 1 && byte == 'x');
    (void)close(callee);
    CHECK(recv(caller, &byte, 1, 0) == 0);
    (void)close(caller);
    tear_down();
}

static const struct timespec moment = {0, 1000000};

/* Sends until all buffers on the way are full. */
static size_t fill(int from)
{
    static uint8_t bytes[150000];
    size_t sent = 0;
    memset(bytes, 7, sizeof bytes);
    for (int turn = 0; turn < 400 && sent < (4u << 20); turn++) {
        const ssize_t n = send(from, bytes, sizeof bytes, MSG_DONTWAIT);
        sent += n > 0 ? (size_t)n : 0;
        (void)nanosleep(&moment, NULL);
    }
    return sent;
}

/* Reads to the end, of which it may be told by an error; and says something after each read, if it `talks`. */
static size_t read_all(int fd, int talks)
{
    uint8_t bytes[4096];
    size_t got = 0;
    ssize_t n;
    while ((n = recv(fd, bytes, sizeof bytes, 0)) > 0) {
        got += (size_t)n;
        if (talks)
            (void)send(fd, "window", 6, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    CHECK(n == 0 || errno == ECONNRESET);
    return got;
}

static void wait_until_nobody_is_connected(void)
{
    while (hsm_doorman_connections(doorman) > 0)
        (void)nanosleep(&moment, NULL);
}

static void what_a_side_sent_before_it_went_arrives_whole(void)
{
    set_up(10);
    const int caller = call();
    const int callee = accept(inner_listen, NULL, NULL);
    const size_t sent = fill(callee);
    (void)close(callee);
    CHECK(read_all(caller, 0) == sent);
    (void)close(caller);
    tear_down();
}

static void it_arrives_whole_though_the_other_side_still_speaks(void)
{
    set_up(10);
    const int caller = call();
    const int callee = accept(inner_listen, NULL, NULL);
    const size_t sent = fill(callee);
    (void)close(callee);
    CHECK(read_all(caller, 1) == sent);
    (void)close(caller);
    wait_until_nobody_is_connected();
    tear_down();
}

static void it_arrives_whole_though_that_side_left_bytes_unread(void)
{
    for (int talks = 0; talks < 2; talks++) {
        set_up(10);
        const int caller = call();
        const int callee = accept(inner_listen, NULL, NULL);
        struct pollfd unread = {callee, POLLIN, 0};
        CHECK(send(caller, "unread", 6, 0) == 6 && poll(&unread, 1, 20000) == 1);
        const size_t sent = fill(callee);
        (void)close(callee);
        CHECK(read_all(caller, talks) == sent);
        (void)close(caller);
        wait_until_nobody_is_connected();
        tear_down();
    }
}

static void a_short_answer_arrives_though_bytes_were_left_unread(void)
{
    set_up(100);
    for (int turn = 0; turn < 50; turn++) {
        const int caller = call();
        const int callee = accept(inner_listen, NULL, NULL);
        struct pollfd unread = {callee, POLLIN, 0};
        CHECK(send(caller, "unread", 6, 0) == 6 && poll(&unread, 1, 20000) == 1);
        CHECK(send(callee, "answer", 6, 0) == 6);
        (void)close(callee);
        CHECK(read_all(caller, 0) == 6);
        (void)close(caller);
    }
    wait_until_nobody_is_connected();
    tear_down();
}

static void what_a_caller_asked_for_arrives_though_it_left_the_answer_unread(void)
{
    set_up(10);
    const int caller = call();
    const int callee = accept(inner_listen, NULL, NULL);
    struct pollfd unread = {caller, POLLIN, 0};
    CHECK(send(callee, "unread", 6, 0) == 6 && poll(&unread, 1, 20000) == 1);
    const size_t sent = fill(caller);
    (void)close(caller);
    CHECK(read_all(callee, 1) == sent);
    (void)close(callee);
    wait_until_nobody_is_connected();
    tear_down();
}

static void who_is_gone_on_both_sides_is_forgotten(void)
{
    set_up(10);
    for (int first = 0; first < 2; first++) {
        const int caller = call();
        const int callee = accept(inner_listen, NULL, NULL);
        (void)fill(caller);
        (void)fill(callee);
        (void)close(first == 0 ? caller : callee);
        (void)close(first == 0 ? callee : caller);
        wait_until_nobody_is_connected();
    }
    tear_down();
}

static void too_many_are_turned_away(void)
{
    set_up(2);
    int callers[3], callees[2];
    for (int i = 0; i < 3; i++)
        callers[i] = call();
    for (int i = 0; i < 2; i++)
        CHECK((callees[i] = accept(inner_listen, NULL, NULL)) >= 0);
    uint8_t byte;
    CHECK(recv(callers[2], &byte, 1, 0) == 0);
    CHECK(hsm_doorman_connections(doorman) == 2);
    for (int i = 0; i < 3; i++)
        (void)close(callers[i]);
    for (int i = 0; i < 2; i++) {
        CHECK(recv(callees[i], &byte, 1, 0) == 0);
        (void)close(callees[i]);
    }
    tear_down();
}

static void one_user_leaves_room_for_others(void)
{
    set_up_for(10, 2);
    int callers[3], callees[2];
    for (int i = 0; i < 3; i++)
        callers[i] = call();
    for (int i = 0; i < 2; i++)
        CHECK((callees[i] = accept(inner_listen, NULL, NULL)) >= 0);
    uint8_t byte;
    CHECK(recv(callers[2], &byte, 1, 0) == 0);
    if (geteuid() == 0) { /* only root can be somebody else */
        CHECK(chmod(outer_path, 0777) == 0);
        const pid_t other = fork();
        CHECK(other >= 0);
        if (other == 0) {
            if (setuid(65534) != 0)
                _exit(1);
            const int theirs = call();
            _exit(recv(theirs, &byte, 1, 0) == 0 ? 0 : 1); /* until the other side closes */
        }
        const int callee = accept(inner_listen, NULL, NULL);
        CHECK(callee >= 0);
        (void)close(callee);
        int status = 0;
        CHECK(waitpid(other, &status, 0) == other && status == 0);
    }
    (void)close(callers[0]); /* who leaves makes room */
    CHECK(recv(callees[0], &byte, 1, 0) == 0);
    while (hsm_doorman_connections(doorman) > 1)
        (void)nanosleep(&moment, NULL);
    const int again = call();
    const int callee = accept(inner_listen, NULL, NULL);
    CHECK(callee >= 0);
    carry(again, callee, 100);
    const int open[] = {callers[1], callers[2], callees[0], callees[1], again, callee};
    for (size_t i = 0; i < sizeof open / sizeof *open; i++)
        (void)close(open[i]);
    tear_down();
}

static void a_closed_door_keeps_what_is_open(void)
{
    set_up(10);
    const int caller = call();
    const int callee = accept(inner_listen, NULL, NULL);
    hsm_doorman_close_door(doorman);
    carry(caller, callee, 1000);
    const int late = call(); /* into the backlog: another worker may take it */
    struct pollfd door = {inner_listen, POLLIN, 0};
    carry(callee, caller, 1000);
    CHECK(poll(&door, 1, 100) == 0);
    (void)close(late);
    (void)close(caller);
    (void)close(callee);
    tear_down();
}

static double processor_seconds(void)
{
    struct timespec now;
    CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now) == 0);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Rung when the door is closed already, as when another event was faster than the bell. */
static void a_bell_that_rings_late_does_not_ring_for_ever(void)
{
    set_up(10);
    const int caller = call();
    const int callee = accept(inner_listen, NULL, NULL);
    hsm_doorman_close_door(doorman);
    carry(caller, callee, 1000);
    hsm_doorman_close_door(doorman);
    carry(callee, caller, 1000);
    const double before = processor_seconds();
    const struct timespec a_while = {0, 400000000};
    (void)nanosleep(&a_while, NULL);
    CHECK(processor_seconds() - before < 0.2); /* of the processor: a thread that sleeps takes none, on any machine */
    (void)close(caller);
    (void)close(callee);
    tear_down();
}

/* Two doormen at one door, each of a worker of its own. */
static void connections_are_shared_out_and_counted_together(void)
{
    hsm_ledger *maker, *ledgers[2];
    hsm_doorman *doormen[2];
    int memory, callers[9];
    uint32_t slot;
    (void)snprintf(outer_path, sizeof outer_path, "/tmp/hsm-door-%d-o", (int)getpid());
    (void)snprintf(inner_path, sizeof inner_path, "/tmp/hsm-door-%d-i", (int)getpid());
    outer_listen = listen_at(outer_path);
    inner_listen = listen_at(inner_path);
    CHECK(hsm_ledger_new(&memory, &maker) == HSM_OK);
    for (int i = 0; i < 2; i++) {
        CHECK(hsm_ledger_take(maker, &slot) == HSM_OK && hsm_ledger_open(memory, slot, &ledgers[i]) == HSM_OK);
        const hsm_doorman_config config = {.listen_fd = outer_listen,
                                           .inner_path = inner_path,
                                           .prefix = "hsmsign/test",
                                           .max_connections = 100,
                                           .max_of_a_uid = 100,
                                           .ledger = ledgers[i],
                                           .shared_connections = 100,
                                           .shared_of_a_uid = 8,
                                           .generation = 1};
        CHECK(hsm_doorman_start(&config, &doormen[i]) == HSM_OK);
    }
    for (uint32_t i = 0; i < 8; i++) {
        callers[i] = call();
        while (hsm_doorman_connections(doormen[0]) + hsm_doorman_connections(doormen[1]) <= i)
            (void)usleep(1000);
    }
    CHECK(hsm_doorman_connections(doormen[0]) == 4 && hsm_doorman_connections(doormen[1]) == 4);
    char byte;
    callers[8] = call();
    CHECK(read(callers[8], &byte, 1) == 0); /* one too many, of both together */
    for (int i = 0; i < 9; i++)
        (void)close(callers[i]);
    for (int i = 0; i < 2; i++)
        hsm_doorman_free(doormen[i]);
    hsm_no_entry why;
    const hsm_claim nobody_left = {.tag = {UINT64_C(0x646f6f72736d616e) ^ 1, getuid()}, .most = 8};
    CHECK(hsm_ledger_enter(ledgers[0], &nobody_left, 1, 8, 1, &why) == HSM_OK);
    for (int i = 0; i < 2; i++)
        hsm_ledger_free(ledgers[i]);
    hsm_ledger_free(maker);
    (void)close(memory);
    (void)close(outer_listen);
    (void)close(inner_listen);
}

int main(void)
{
    int passed = 0;
    RUN(the_inner_side_sees_who_calls);
    RUN(addresses_taken_beforehand_keep_nobody_out);
    RUN(bytes_go_both_ways_and_a_half_close_is_handed_on);
    RUN(what_a_side_sent_before_it_went_arrives_whole);
    RUN(it_arrives_whole_though_the_other_side_still_speaks);
    RUN(it_arrives_whole_though_that_side_left_bytes_unread);
    RUN(a_short_answer_arrives_though_bytes_were_left_unread);
    RUN(what_a_caller_asked_for_arrives_though_it_left_the_answer_unread);
    RUN(who_is_gone_on_both_sides_is_forgotten);
    RUN(too_many_are_turned_away);
    RUN(one_user_leaves_room_for_others);
    RUN(a_closed_door_keeps_what_is_open);
    RUN(a_bell_that_rings_late_does_not_ring_for_ever);
    RUN(connections_are_shared_out_and_counted_together);
    (void)printf("%d passed, 0 failed\n", passed);
    return 0;
}
