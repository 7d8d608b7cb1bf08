#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "front.h"
#include "order.h"
#include "outbox.h"
#include "table.h"

#define READ_STEP (256u << 10)
#define READS_A_PUMP 16 /* then other things of the event loop have their turn */

struct order_list {
    struct order *first, *last;
};

struct hsm_link {
    hsm_link_config config;
    int fd; /* -1: no connection */
    uint64_t last_id;
    uint32_t jobs;
    uint64_t bytes;
    struct order_table table;   /* the orders in `waiting` */
    struct order_list waiting;  /* as they were submitted */
    struct order_list finished; /* as they ended; owned until reaped */
    struct order *reaped;       /* out with the caller */
    struct outbox outbox;
    uint8_t *inbox;
    size_t inbox_len;
    size_t inbox_room;
};

static void list_add(struct order_list *list, struct order *order)
{
    order->next = NULL;
    order->previous = list->last;
    if (list->last != NULL)
        list->last->next = order;
    else
        list->first = order;
    list->last = order;
}

static void list_remove(struct order_list *list, struct order *order)
{
    if (order->previous != NULL)
        order->previous->next = order->next;
    else
        list->first = order->next;
    if (order->next != NULL)
        order->next->previous = order->previous;
    else
        list->last = order->previous;
    order->next = order->previous = NULL;
}

/* The order no longer counts and no answer reaches it. It may still stand in the outbox. */
static void retire(hsm_link *link, struct order *order)
{
    hsm_table_remove(&link->table, order);
    list_remove(&link->waiting, order);
    link->jobs -= order->count;
    link->bytes -= order->inputs_len;
}

static void finish(hsm_link *link, struct order *order)
{
    retire(link, order);
    if (order->queued && order->frame_sent == 0)
        hsm_outbox_remove(&link->outbox, order);
    list_add(&link->finished, order);
}

/* Frees the order, at once or, where its frame is half sent, when the outbox is done with it. */
static void discard(hsm_link *link, struct order *order)
{
    if (order->queued && order->frame_sent == 0)
        hsm_outbox_remove(&link->outbox, order);
    if (order->queued)
        order->forgotten = 1;
    else
        hsm_order_free(order);
}

hsm_status hsm_link_new(const hsm_link_config *config, hsm_link **out)
{
    *out = NULL;
    if (config->max_jobs == 0 || config->max_bytes == 0 || config->max_attempts == 0)
        return HSM_E_BAD_INPUT;
    hsm_link *link = calloc(1, sizeof *link);
    if (link == NULL)
        return HSM_E_NO_MEMORY;
    link->config = *config;
    link->fd = -1;
    hsm_outbox_init(&link->outbox);
    *out = link;
    return HSM_OK;
}

void hsm_link_detach(hsm_link *link)
{
    if (link->fd < 0)
        return;
    (void)close(link->fd); /* a stream of ours: nothing to learn from its end */
    link->fd = -1;
    hsm_outbox_clear(&link->outbox);
    free(link->inbox); /* it may have grown large; a connection is rarely lost */
    link->inbox = NULL;
    link->inbox_len = link->inbox_room = 0;
    for (struct order *order = link->waiting.first; order != NULL; order = order->next) {
        order->attempts += order->frame_sent > 0;
        hsm_order_reset(order);
    }
}

void hsm_link_free(hsm_link *link)
{
    if (link == NULL)
        return;
    hsm_link_detach(link);
    hsm_outbox_clear(&link->outbox);
    while (link->waiting.first != NULL) {
        struct order *order = link->waiting.first;
        list_remove(&link->waiting, order);
        hsm_order_free(order);
    }
    while (link->finished.first != NULL) {
        struct order *order = link->finished.first;
        list_remove(&link->finished, order);
        hsm_order_free(order);
    }
    hsm_order_free(link->reaped);
    free(link);
}

hsm_status hsm_link_attach(hsm_link *link, int fd)
{
    hsm_link_detach(link);
    hsm_outbox_clear(&link->outbox); /* what was submitted while there was no connection stands in `waiting` */
    link->fd = fd;
    for (struct order *order = link->waiting.first, *next; order != NULL; order = next) {
        next = order->next;
        if (order->attempts >= link->config.max_attempts) {
            hsm_order_give_up(order, HSM_E_HOST_LOST);
            finish(link, order);
        } else if (hsm_outbox_add_order(&link->outbox, order) != HSM_OK) {
            return HSM_E_NO_MEMORY; /* the caller detaches and tries anew: nothing is lost */
        }
    }
    return hsm_link_flush(link);
}

hsm_status hsm_link_submit(hsm_link *link, const hsm_order *from, uint64_t *order_id)
{
    if (!hsm_order_fits(from))
        return HSM_E_BAD_INPUT;
    if (from->count > link->config.max_jobs - link->jobs || from->inputs_len > link->config.max_bytes - link->bytes)
        return HSM_E_FULL;
    struct order *order = hsm_order_new(link->last_id + 1, from);
    if (order == NULL)
        return HSM_E_NO_MEMORY;
    if (link->fd >= 0 && hsm_outbox_add_order(&link->outbox, order) != HSM_OK) {
        hsm_order_free(order);
        return HSM_E_NO_MEMORY;
    }
    link->last_id = order->id;
    link->jobs += order->count;
    link->bytes += order->inputs_len;
    hsm_table_add(&link->table, order);
    list_add(&link->waiting, order);
    *order_id = order->id;
    (void)hsm_link_flush(link); /* a broken connection shows when it is read; the order stays */
    return HSM_OK;
}

static void tell_host(hsm_link *link, const struct order *order)
{
    /* without memory for it the host signs what nobody waits for; the answer finds no order */
    if (link->fd >= 0 && order->frame_sent > 0)
        (void)hsm_outbox_add_cancel(&link->outbox, order->id);
}

void hsm_link_cancel(hsm_link *link, uint64_t order_id)
{
    struct order *order = hsm_table_find(&link->table, order_id);
    if (order == NULL)
        return;
    retire(link, order);
    tell_host(link, order);
    discard(link, order);
    (void)hsm_link_flush(link);
}

void hsm_link_fail_all(hsm_link *link, hsm_status status)
{
    while (link->waiting.first != NULL) {
        struct order *order = link->waiting.first;
        tell_host(link, order);
        hsm_order_give_up(order, status);
        finish(link, order);
    }
    (void)hsm_link_flush(link);
}

hsm_status hsm_link_flush(hsm_link *link)
{
    return link->fd < 0 ? HSM_OK : hsm_outbox_flush(&link->outbox, link->fd);
}

int hsm_link_wants_write(const hsm_link *link)
{
    return link->fd >= 0 && link->outbox.first != NULL;
}

static hsm_status take_frame(hsm_link *link, const struct hsm_frame_header *header, const uint8_t *body)
{
    struct order *order = hsm_table_find(&link->table, header->order_id);
    if (order == NULL)
        return HSM_OK; /* cancelled meanwhile */
    if (order->frame_sent < order->frame_len)
        return HSM_E_FRAME; /* an answer to what was not asked yet */
    const hsm_status answered = hsm_order_answer(order, header->count, body, header->length);
    if (answered == HSM_OK && order->unanswered == 0)
        finish(link, order);
    return answered;
}

static hsm_status check_header(const struct hsm_frame_header *header)
{
    if (header->magic != HSM_FRAME_MAGIC || header->type != HSM_FRAME_DONE || header->reserved != 0 ||
        header->length > HSM_FRAME_MAX || header->count > HSM_ORDER_MAX_ITEMS)
        return HSM_E_FRAME;
    return HSM_OK;
}

/* Takes every whole frame out of the inbox; *missing is how many bytes the next one still needs. */
static hsm_status take_frames(hsm_link *link, size_t *missing)
{
    size_t at = 0;
    hsm_status status = HSM_OK;
    *missing = 0;
    while (status == HSM_OK && link->inbox_len - at >= sizeof(struct hsm_frame_header)) {
        struct hsm_frame_header header;
        memcpy(&header, link->inbox + at, sizeof header);
        status = check_header(&header);
        const size_t whole = sizeof header + (size_t)header.length;
        if (status != HSM_OK)
            break;
        if (link->inbox_len - at < whole) {
            *missing = whole - (link->inbox_len - at);
            break;
        }
        status = take_frame(link, &header, link->inbox + at + sizeof header);
        at += whole;
    }
    link->inbox_len -= at;
    if (at > 0 && link->inbox_len > 0)
        memmove(link->inbox, link->inbox + at, link->inbox_len);
    return status;
}

static hsm_status make_inbox_room(hsm_link *link, size_t more)
{
    const size_t needed = link->inbox_len + (more > READ_STEP ? more : READ_STEP);
    if (needed <= link->inbox_room)
        return HSM_OK;
    uint8_t *grown = realloc(link->inbox, needed);
    if (grown == NULL)
        return HSM_E_NO_MEMORY;
    link->inbox = grown;
    link->inbox_room = needed;
    return HSM_OK;
}

hsm_status hsm_link_pump(hsm_link *link)
{
    if (link->fd < 0)
        return HSM_E_CLOSED;
    size_t missing = 0;
    for (int reads = 0; reads < READS_A_PUMP; reads++) {
        if (make_inbox_room(link, missing) != HSM_OK)
            return HSM_E_NO_MEMORY;
        const size_t room = link->inbox_room - link->inbox_len;
        const ssize_t got = recv(link->fd, link->inbox + link->inbox_len, room, MSG_DONTWAIT);
        if (got == 0)
            return HSM_E_CLOSED;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return HSM_OK;
        if (got < 0 && errno != EINTR)
            return HSM_E_IO;
        if (got < 0)
            continue;
        link->inbox_len += (size_t)got;
        const hsm_status taken = take_frames(link, &missing);
        if (taken != HSM_OK || (size_t)got < room)
            return taken;
    }
    return HSM_OK;
}

int hsm_link_reap(hsm_link *link, hsm_done *out)
{
    struct order *order = link->finished.first;
    if (order == NULL || link->reaped != NULL)
        return 0;
    list_remove(&link->finished, order);
    link->reaped = order;
    out->order_id = order->id;
    out->count = order->count;
    out->failed = order->failed;
    out->statuses = order->statuses;
    out->ckrs = order->ckrs;
    out->offsets = order->offsets;
    out->lengths = order->lengths;
    out->signatures = order->signatures;
    out->signatures_len = order->signatures_len;
    return 1;
}

void hsm_link_release(hsm_link *link, uint64_t order_id)
{
    struct order *order = link->reaped;
    if (order == NULL || order->id != order_id)
        return;
    link->reaped = NULL;
    discard(link, order);
}

uint32_t hsm_link_jobs(const hsm_link *link)
{
    return link->jobs;
}
