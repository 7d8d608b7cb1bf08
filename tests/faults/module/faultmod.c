/* A PKCS #11 module for tests: it forwards every call to a real module and makes faults on the way.
 *
 *   FAULT_MODULE_REAL      the real module (default: SoftHSM where Debian has it)
 *   FAULT_MODULE_CONTROL   a text file, read again whenever it changes; one rule a line:
 *
 *     C_Sign delay_ms=5                         every call takes that much longer
 *     C_Sign hang after=100                     from the 101st call on: never comes back
 *     C_Sign crash after=50                     the 51st call: SIGSEGV
 *     C_Sign rv=CKR_DEVICE_ERROR count=3        the next three calls fail, without reaching the device
 *     C_Login rv=CKR_PIN_LOCKED                 every call fails
 *     C_Login log=/path                         a line is added to the file for each call
 *     C_GetTokenInfo flags=USER_PIN_FINAL_TRY   a flag is added to what the device says
 *     C_OpenSession most=2                      CKR_SESSION_COUNT while that many sessions are open
 *     C_GetSlotList moved                       slots have other numbers than before
 *     C_SignInit lose after=5 count=1           before the call all sessions are closed, and the login with them
 *
 * `after` and `count` are of calls since the rule was read. A line that cannot be read ends the process
 * (exit 99): a test whose fault is not made would prove nothing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "pkcs11.h"

#define RULES_MAX 32
#define MOVED (1UL << 40) /* the bit that a moved slot's number has more */
#define DEFAULT_REAL "/usr/lib/softhsm/libsofthsm2.so"

struct rule {
    char function[48];
    char log[256];
    unsigned long delay_ms, after, count; /* count 0: for ever */
    unsigned long rv, flags, most;
    bool has_rv, hang, crash, lose, moved;
    unsigned long calls;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* A device loses its sessions between two calls; SoftHSM frees them under a call that uses them. Hence a `lose`
 * waits for the calls that run. */
static pthread_rwlock_t calls = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
/* Counting the open sessions and opening one more are one step. */
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
static struct rule rules[RULES_MAX];
static size_t rule_count;
static struct timespec read_at;
static off_t read_size = -1;
static ino_t read_inode;
static CK_FUNCTION_LIST real;
static CK_FUNCTION_LIST ours;
static CK_SLOT_ID last_slot;
static unsigned long open_sessions;

static const struct {
    const char *name;
    unsigned long value;
} names[] = {
    {"CKR_GENERAL_ERROR", CKR_GENERAL_ERROR},
    {"CKR_FUNCTION_FAILED", CKR_FUNCTION_FAILED},
    {"CKR_HOST_MEMORY", CKR_HOST_MEMORY},
    {"CKR_DEVICE_ERROR", CKR_DEVICE_ERROR},
    {"CKR_DEVICE_MEMORY", CKR_DEVICE_MEMORY},
    {"CKR_DEVICE_REMOVED", CKR_DEVICE_REMOVED},
    {"CKR_TOKEN_NOT_PRESENT", CKR_TOKEN_NOT_PRESENT},
    {"CKR_SESSION_HANDLE_INVALID", CKR_SESSION_HANDLE_INVALID},
    {"CKR_SESSION_CLOSED", CKR_SESSION_CLOSED},
    {"CKR_SESSION_COUNT", CKR_SESSION_COUNT},
    {"CKR_OBJECT_HANDLE_INVALID", CKR_OBJECT_HANDLE_INVALID},
    {"CKR_KEY_HANDLE_INVALID", CKR_KEY_HANDLE_INVALID},
    {"CKR_MECHANISM_INVALID", CKR_MECHANISM_INVALID},
    {"CKR_OPERATION_NOT_INITIALIZED", CKR_OPERATION_NOT_INITIALIZED},
    {"CKR_USER_NOT_LOGGED_IN", CKR_USER_NOT_LOGGED_IN},
    {"CKR_PIN_INCORRECT", CKR_PIN_INCORRECT},
    {"CKR_PIN_LOCKED", CKR_PIN_LOCKED},
    {"CKR_CRYPTOKI_NOT_INITIALIZED", CKR_CRYPTOKI_NOT_INITIALIZED},
    {"USER_PIN_COUNT_LOW", CKF_USER_PIN_COUNT_LOW},
    {"USER_PIN_FINAL_TRY", CKF_USER_PIN_FINAL_TRY},
    {"USER_PIN_LOCKED", CKF_USER_PIN_LOCKED},
};

static void give_up(const char *what, const char *text)
{
    (void)fprintf(stderr, "fault module: %s: %s\n", what, text);
    _exit(99);
}

static unsigned long named(const char *text)
{
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i].name, text) == 0)
            return names[i].value;
    char *end = NULL;
    unsigned long value = strtoul(text, &end, 0);
    if (end == text || *end != '\0')
        give_up("unknown name", text);
    return value;
}

static void read_word(struct rule *rule, const char *word)
{
    const char *value = strchr(word, '=');
    value = value != NULL ? value + 1 : "";
    if (strcmp(word, "hang") == 0) {
        rule->hang = true;
    } else if (strcmp(word, "crash") == 0) {
        rule->crash = true;
    } else if (strcmp(word, "moved") == 0) {
        rule->moved = true;
    } else if (strcmp(word, "lose") == 0) {
        rule->lose = true;
    } else if (strncmp(word, "most=", 5) == 0) {
        rule->most = named(value);
    } else if (strncmp(word, "delay_ms=", 9) == 0) {
        rule->delay_ms = named(value);
    } else if (strncmp(word, "after=", 6) == 0) {
        rule->after = named(value);
    } else if (strncmp(word, "count=", 6) == 0) {
        rule->count = named(value);
    } else if (strncmp(word, "rv=", 3) == 0) {
        rule->rv = named(value);
        rule->has_rv = true;
    } else if (strncmp(word, "flags=", 6) == 0) {
        rule->flags |= named(value);
    } else if (strncmp(word, "log=", 4) == 0 && strlen(value) < sizeof rule->log) {
        (void)strcpy(rule->log, value);
    } else {
        give_up("unknown word", word);
    }
}

static void read_line(char *line)
{
    char *rest = NULL;
    const char *word = strtok_r(line, " \t\n", &rest);
    if (word == NULL || word[0] == '#')
        return;
    if (rule_count == RULES_MAX || strlen(word) >= sizeof rules[0].function)
        give_up("too many rules, or too long a name", word);
    struct rule *rule = &rules[rule_count];
    (void)memset(rule, 0, sizeof *rule);
    (void)strcpy(rule->function, word);
    while ((word = strtok_r(NULL, " \t\n", &rest)) != NULL)
        read_word(rule, word);
    rule_count++;
}

/* Under the lock. No file: no rules. */
static void read_rules(void)
{
    const char *path = getenv("FAULT_MODULE_CONTROL");
    struct stat found;
    if (path == NULL || stat(path, &found) != 0) {
        rule_count = 0;
        read_size = -1;
        return;
    }
    if (found.st_size == read_size && found.st_ino == read_inode && found.st_mtim.tv_sec == read_at.tv_sec &&
        found.st_mtim.tv_nsec == read_at.tv_nsec)
        return;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        give_up("cannot be read", path);
    read_at = found.st_mtim;
    read_size = found.st_size;
    read_inode = found.st_ino;
    rule_count = 0;
    char line[512];
    while (fgets(line, sizeof line, file) != NULL)
        read_line(line);
    (void)fclose(file);
}

static void note(const char *path, const char *function)
{
    char line[64];
    int length = snprintf(line, sizeof line, "%s\n", function);
    int descriptor = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (descriptor < 0 || length < 0 || write(descriptor, line, (size_t)length) != length)
        give_up("cannot be written", path);
    (void)close(descriptor);
}

/* What is to become of a call of `function`. True: *rv is its answer, the device is not asked. */
static bool fault(const char *function, CK_RV *rv, unsigned long *flags)
{
    bool answered = false, hang = false, crash = false, lose = false;
    unsigned long delay_ms = 0;
    (void)pthread_mutex_lock(&lock);
    read_rules();
    for (size_t i = 0; i < rule_count; i++) {
        struct rule *rule = &rules[i];
        if (strcmp(rule->function, function) != 0)
            continue;
        unsigned long before = rule->calls++;
        if (before < rule->after || (rule->count != 0 && before >= rule->after + rule->count))
            continue;
        if (rule->log[0] != '\0')
            note(rule->log, function);
        delay_ms += rule->delay_ms;
        hang = hang || rule->hang;
        crash = crash || rule->crash;
        lose = lose || rule->lose;
        *flags |= rule->moved ? MOVED : rule->flags;
        if (rule->has_rv && !answered) {
            *rv = rule->rv;
            answered = true;
        } else if (rule->most != 0 && open_sessions >= rule->most) {
            *rv = CKR_SESSION_COUNT;
            answered = true;
        }
    }
    (void)pthread_mutex_unlock(&lock);
    if (delay_ms != 0) {
        struct timespec wait = {(time_t)(delay_ms / 1000), (long)(delay_ms % 1000) * 1000000L};
        (void)nanosleep(&wait, NULL);
    }
    if (crash)
        (void)raise(SIGSEGV);
    if (lose) {
        (void)pthread_rwlock_wrlock(&calls);
        (void)real.C_CloseAllSessions(last_slot);
        (void)pthread_rwlock_unlock(&calls);
        (void)pthread_mutex_lock(&lock);
        open_sessions = 0;
        (void)pthread_mutex_unlock(&lock);
    }
    while (hang)
        (void)pause();
    return answered;
}

#define FORWARD(function, parameters, arguments)         \
    static CK_RV fault_##function parameters             \
    {                                                    \
        CK_RV rv = CKR_OK;                               \
        unsigned long flags = 0;                         \
        if (fault(#function, &rv, &flags))               \
            return rv;                                   \
        (void)pthread_rwlock_rdlock(&calls);             \
        rv = real.function arguments;                    \
        (void)pthread_rwlock_unlock(&calls);             \
        return rv;                                       \
    }

FORWARD(C_Initialize, (void *arguments), (arguments))
FORWARD(C_GetSlotInfo, (CK_SLOT_ID slot, CK_SLOT_INFO *info), (slot & ~MOVED, info))
FORWARD(C_GetMechanismList, (CK_SLOT_ID slot, CK_MECHANISM_TYPE *list, CK_ULONG *count),
        (slot & ~MOVED, list, count))
FORWARD(C_GetMechanismInfo, (CK_SLOT_ID slot, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *info), (slot & ~MOVED, type, info))
FORWARD(C_Login, (CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR *pin, CK_ULONG pin_len),
        (session, user, pin, pin_len))
FORWARD(C_Logout, (CK_SESSION_HANDLE session), (session))
FORWARD(C_DestroyObject, (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object), (session, object))
FORWARD(C_GetAttributeValue, (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *template, CK_ULONG count),
        (session, object, template, count))
FORWARD(C_FindObjectsInit, (CK_SESSION_HANDLE session, CK_ATTRIBUTE *template, CK_ULONG count), (session, template, count))
FORWARD(C_FindObjects, (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE *objects, CK_ULONG max, CK_ULONG *count),
        (session, objects, max, count))
FORWARD(C_SignInit, (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key), (session, mechanism, key))
FORWARD(C_Sign, (CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *signature, CK_ULONG *signature_len),
        (session, data, data_len, signature, signature_len))
FORWARD(C_GenerateKeyPair,
        (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_ATTRIBUTE *public_template, CK_ULONG public_count,
         CK_ATTRIBUTE *private_template, CK_ULONG private_count, CK_OBJECT_HANDLE *public_key, CK_OBJECT_HANDLE *private_key),
        (session, mechanism, public_template, public_count, private_template, private_count, public_key, private_key))

static CK_RV fault_C_GetSlotList(CK_BBOOL present, CK_SLOT_ID *slots, CK_ULONG *count)
{
    CK_RV rv = CKR_OK;
    unsigned long flags = 0;
    if (fault("C_GetSlotList", &rv, &flags))
        return rv;
    rv = real.C_GetSlotList(present, slots, count);
    for (CK_ULONG i = 0; rv == CKR_OK && slots != NULL && i < *count; i++)
        slots[i] |= flags;
    return rv;
}

static CK_RV fault_C_OpenSession(CK_SLOT_ID slot, CK_FLAGS session_flags, void *context, CK_NOTIFY notify,
                                 CK_SESSION_HANDLE *session)
{
    CK_RV rv = CKR_OK;
    unsigned long flags = 0;
    (void)pthread_mutex_lock(&opening);
    if (!fault("C_OpenSession", &rv, &flags)) {
        rv = real.C_OpenSession(slot & ~MOVED, session_flags, context, notify, session);
        (void)pthread_mutex_lock(&lock);
        last_slot = slot & ~MOVED;
        open_sessions += rv == CKR_OK;
        (void)pthread_mutex_unlock(&lock);
    }
    (void)pthread_mutex_unlock(&opening);
    return rv;
}

static CK_RV fault_C_CloseSession(CK_SESSION_HANDLE session)
{
    CK_RV rv = CKR_OK;
    unsigned long flags = 0;
    if (fault("C_CloseSession", &rv, &flags))
        return rv;
    rv = real.C_CloseSession(session);
    (void)pthread_mutex_lock(&lock);
    open_sessions -= rv == CKR_OK && open_sessions > 0;
    (void)pthread_mutex_unlock(&lock);
    return rv;
}

static CK_RV fault_C_GetTokenInfo(CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
    CK_RV rv = CKR_OK;
    unsigned long flags = 0;
    if (fault("C_GetTokenInfo", &rv, &flags))
        return rv;
    rv = real.C_GetTokenInfo(slot & ~MOVED, info);
    if (rv == CKR_OK)
        info->flags |= flags;
    return rv;
}

__attribute__((visibility("default"))) CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list)
{
    static bool loaded;
    if (list == NULL)
        return CKR_ARGUMENTS_BAD;
    (void)pthread_mutex_lock(&lock);
    if (!loaded) {
        const char *path = getenv("FAULT_MODULE_REAL");
        void *library = dlopen(path != NULL ? path : DEFAULT_REAL, RTLD_NOW | RTLD_LOCAL);
        if (library == NULL)
            give_up("the real module cannot be loaded", dlerror());
        CK_RV (*get)(CK_FUNCTION_LIST **) = NULL;
        *(void **)&get = dlsym(library, "C_GetFunctionList");
        CK_FUNCTION_LIST *found = NULL;
        if (get == NULL || get(&found) != CKR_OK || found == NULL)
            give_up("the real module has no function list", path != NULL ? path : DEFAULT_REAL);
        real = *found;
        ours = *found;
        ours.C_Initialize = fault_C_Initialize;
        ours.C_GetSlotList = fault_C_GetSlotList;
        ours.C_GetSlotInfo = fault_C_GetSlotInfo;
        ours.C_GetTokenInfo = fault_C_GetTokenInfo;
        ours.C_GetMechanismList = fault_C_GetMechanismList;
        ours.C_GetMechanismInfo = fault_C_GetMechanismInfo;
        ours.C_OpenSession = fault_C_OpenSession;
        ours.C_CloseSession = fault_C_CloseSession;
        ours.C_Login = fault_C_Login;
        ours.C_Logout = fault_C_Logout;
        ours.C_DestroyObject = fault_C_DestroyObject;
        ours.C_GetAttributeValue = fault_C_GetAttributeValue;
        ours.C_FindObjectsInit = fault_C_FindObjectsInit;
        ours.C_FindObjects = fault_C_FindObjects;
        ours.C_SignInit = fault_C_SignInit;
        ours.C_Sign = fault_C_Sign;
        ours.C_GenerateKeyPair = fault_C_GenerateKeyPair;
        ours.C_GetFunctionList = C_GetFunctionList;
        loaded = true;
    }
    (void)pthread_mutex_unlock(&lock);
    *list = &ours;
    return CKR_OK;
}
