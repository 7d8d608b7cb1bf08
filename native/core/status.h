/* The one list of outcomes of the native code. The numbers cross the process wall and stand again in
 * hsmsign/model/device.py (JobStatus); a test holds the two against each other. */
#ifndef HSMSIGN_STATUS_H
#define HSMSIGN_STATUS_H

typedef enum hsm_status {
    HSM_OK = 0,
    HSM_E_DEADLINE = 1,
    HSM_E_CANCELLED = 2,
    HSM_E_KEY_NOT_FOUND = 3,
    HSM_E_DEVICE = 4,       /* the CK_RV travels beside it */
    HSM_E_NOT_PRESENT = 5,
    HSM_E_PIN_REFUSED = 6,
    HSM_E_PIN_LOCKED = 7,
    HSM_E_HOST_LOST = 8,
    HSM_E_BAD_INPUT = 9,
    HSM_E_UNSUPPORTED = 10,
    HSM_E_NO_MEMORY = 11,
    HSM_E_BROKEN = 12,
    HSM_E_BUSY = 13,        /* what waits already takes longer than the order has time */
    HSM_E_LAST_IN_FRAME = HSM_E_BUSY, /* what comes after stays within its process */
    HSM_E_BUFFER = 100,     /* the caller's buffer is too small */
    HSM_E_FRAME = 101,      /* bytes that are no frame of ours: the connection is to be closed */
    HSM_E_IO = 102,         /* errno says what */
    HSM_E_CLOSED = 103,     /* the other side closed the connection */
    HSM_E_FULL = 104,       /* a limit of waiting work is reached */
    HSM_E_MODULE = 105      /* the PKCS #11 module cannot be loaded or used */
} hsm_status;

#endif
