/* The yardstick: how fast the PKCS #11 module itself signs, C_SignInit and C_Sign in a loop, nothing around it.
 *
 *   rawloop MODULE TOKEN_LABEL KEY_LABEL THREADS SECONDS [ALGORITHM]      with the PIN in HSMSIGN_PIN
 *
 * KEY_LABEL may also be an id: "id:0102". ALGORITHM is the key's: ecdsa-p256 (where none is named), ecdsa-p384, rsa-2048
 * or ed25519; what is signed is as long as a digest for it, or its DigestInfo (RFC 8017, section 9.2). Prints
 *   {"signatures": 71234, "seconds": 2.0, "threads": 2, "signatures_per_second": 35617.0}
 *
 * cc -std=c11 -D_GNU_SOURCE -O2 -o rawloop bench/rawloop.c -ldl -lpthread */
#define CRYPTOKI_COMPAT 1
#include "../native/third_party/pkcs11.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct algorithm {
    const char *name;
    CK_MECHANISM_TYPE mechanism;
    CK_ULONG input_len;
} algorithms[] = {
    {"ecdsa-p256", CKM_ECDSA, 32},
    {"ecdsa-p384", CKM_ECDSA, 48},
    {"rsa-2048", CKM_RSA_PKCS, 19 + 32},
    {"ed25519", CKM_EDDSA, 32},
};
#define ALGORITHMS (sizeof algorithms / sizeof algorithms[0])
#define INPUT_MAX 64
#define SIGNATURE_MAX 512

static CK_FUNCTION_LIST *p11;
static const struct algorithm *algorithm = &algorithms[0];
static CK_SLOT_ID slot;
static atomic_int stop;
static const char *key_name;

struct worker {
    pthread_t thread;
    unsigned long signatures;
    CK_SESSION_HANDLE session;
    CK_OBJECT_HANDLE key;
};

static void fail(const char *what, CK_RV rv)
{
    (void)fprintf(stderr, "rawloop: %s (CKR 0x%lx)\n", what, rv);
    exit(69);
}

static void open_module(const char *path)
{
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    CK_C_GetFunctionList get = NULL;
    void *symbol = handle == NULL ? NULL : dlsym(handle, "C_GetFunctionList");
    memcpy(&get, &symbol, sizeof get);
    if (get == NULL)
        fail("the module cannot be loaded", 0);
    CK_C_INITIALIZE_ARGS arguments;
    memset(&arguments, 0, sizeof arguments);
    arguments.flags = CKF_OS_LOCKING_OK;
    CK_RV rv = get(&p11);
    if (rv != CKR_OK || (rv = p11->C_Initialize(&arguments)) != CKR_OK)
        fail("the module refuses to start", rv);
}

static void find_token(const char *label)
{
    CK_SLOT_ID slots[64];
    CK_ULONG count = 64;
    CK_RV rv = p11->C_GetSlotList(CK_TRUE, slots, &count);
    if (rv != CKR_OK)
        fail("no list of slots", rv);
    for (CK_ULONG i = 0; i < count; i++) {
        CK_TOKEN_INFO info;
        size_t len = strlen(label);
        if (p11->C_GetTokenInfo(slots[i], &info) == CKR_OK && len <= sizeof info.label &&
            memcmp(info.label, label, len) == 0 && (len == sizeof info.label || info.label[len] == ' ')) {
            slot = slots[i];
            return;
        }
    }
    fail("no token has this label", 0);
}

static CK_SESSION_HANDLE open_session(void)
{
    CK_SESSION_HANDLE session = 0;
    CK_RV rv = p11->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &session);
    if (rv != CKR_OK)
        fail("no session", rv);
    return session;
}

static CK_OBJECT_HANDLE find_key(CK_SESSION_HANDLE session)
{
    CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
    CK_BYTE id[64];
    CK_ATTRIBUTE wanted[2] = {{CKA_CLASS, &class, sizeof class},
                              {CKA_LABEL, (void *)(unsigned long)key_name, strlen(key_name)}};
    if (strncmp(key_name, "id:", 3) == 0) {
        CK_ULONG len = 0;
        unsigned byte = 0;
        for (const char *at = key_name + 3; len < sizeof id && sscanf(at, "%2x", &byte) == 1; at += 2)
            id[len++] = (CK_BYTE)byte;
        wanted[1] = (CK_ATTRIBUTE){CKA_ID, id, len};
    }
    CK_OBJECT_HANDLE found[2] = {0, 0};
    CK_ULONG count = 0;
    CK_RV rv = p11->C_FindObjectsInit(session, wanted, 2);
    if (rv == CKR_OK)
        rv = p11->C_FindObjects(session, found, 2, &count);
    if (rv == CKR_OK)
        rv = p11->C_FindObjectsFinal(session);
    if (rv != CKR_OK || count != 1)
        fail("not exactly one private key fits", rv);
    return found[0];
}

static void *sign(void *argument)
{
    struct worker *self = argument;
    CK_MECHANISM mechanism = {algorithm->mechanism, NULL, 0};
    CK_BYTE input[INPUT_MAX];
    memset(input, 0x5a, sizeof input);
    unsigned long count = 0;
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        CK_BYTE signature[SIGNATURE_MAX];
        CK_ULONG len = sizeof signature;
        CK_RV rv = p11->C_SignInit(self->session, &mechanism, self->key);
        if (rv == CKR_OK)
            rv = p11->C_Sign(self->session, input, algorithm->input_len, signature, &len);
        if (rv != CKR_OK)
            fail("a signature failed", rv);
        count++;
    }
    self->signatures = count;
    return NULL;
}

/* Whether there is one of that name; it is what is measured. */
static bool choose(const char *name)
{
    for (size_t i = 0; i < ALGORITHMS; i++) {
        if (strcmp(algorithms[i].name, name) == 0) {
            algorithm = &algorithms[i];
            return true;
        }
    }
    return false;
}

static double seconds_now(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    char *pin = getenv("HSMSIGN_PIN");
    if (argc < 6 || argc > 7 || pin == NULL || atoi(argv[4]) < 1 || atof(argv[5]) <= 0 ||
        (argc == 7 && !choose(argv[6]))) {
        (void)fprintf(stderr, "usage: HSMSIGN_PIN=… rawloop MODULE TOKEN_LABEL KEY_LABEL|id:HEX THREADS SECONDS "
                              "[ecdsa-p256|ecdsa-p384|rsa-2048|ed25519]\n");
        return 64;
    }
    unsigned threads = (unsigned)atoi(argv[4]);
    key_name = argv[3];
    open_module(argv[1]);
    find_token(argv[2]);
    CK_SESSION_HANDLE login = open_session();
    CK_RV rv = p11->C_Login(login, CKU_USER, (CK_BYTE_PTR)pin, strlen(pin));
    if (rv != CKR_OK)
        fail("the token refuses the PIN", rv);

    struct worker *workers = calloc(threads, sizeof *workers);
    if (workers == NULL)
        fail("no memory", 0);
    for (unsigned i = 0; i < threads; i++) {
        workers[i].session = open_session();
        workers[i].key = find_key(workers[i].session);
    }
    double start = seconds_now();
    for (unsigned i = 0; i < threads; i++) {
        if (pthread_create(&workers[i].thread, NULL, sign, &workers[i]) != 0)
            fail("no thread", 0);
    }
    double wanted = atof(argv[5]);
    const struct timespec span = {(time_t)wanted, (long)((wanted - (double)(time_t)wanted) * 1e9)};
    (void)nanosleep(&span, NULL);
    atomic_store(&stop, 1);
    unsigned long total = 0;
    for (unsigned i = 0; i < threads; i++) {
        (void)pthread_join(workers[i].thread, NULL);
        total += workers[i].signatures;
    }
    double elapsed = seconds_now() - start;
    (void)printf("{\"signatures\": %lu, \"seconds\": %.3f, \"threads\": %u, \"signatures_per_second\": %.1f}\n", total,
                 elapsed, threads, (double)total / elapsed);
    free(workers);
    (void)p11->C_Finalize(NULL);
    return 0;
}
