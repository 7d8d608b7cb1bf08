/* What a process that holds secrets, or reads what strangers send, gives up. */
#ifndef HSMSIGN_HARDEN_H
#define HSMSIGN_HARDEN_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

/* No core dumps, not dumpable (no ptrace by others of the same uid), no new privileges. It cannot be
 * undone. HSM_E_IO: errno says what. */
hsm_status hsm_harden_process(void);

enum hsm_refusal {
    HSM_REFUSE_EXEC = 1,    /* to run another program */
    HSM_REFUSE_NETWORK = 2  /* sockets that are not AF_UNIX */
};

/* From now on system calls that a signing process has no business with answer EPERM, in all threads, and so do
 * those of `refuse` (enum hsm_refusal). Wants hsm_harden_process before it. It cannot be undone.
 * HSM_E_UNSUPPORTED: the kernel, or this processor, has no such filter. HSM_E_IO: errno says what. */
hsm_status hsm_filter_system_calls(uint32_t refuse);

/* From now on the calling thread, and those that it starts, read and execute only what is at or below `readable`, and
 * do anything with what is at or below `writable`; open descriptors stay. Wants hsm_harden_process before it. It
 * cannot be undone. HSM_E_UNSUPPORTED: the kernel has no Landlock. HSM_E_IO: errno says what. */
hsm_status hsm_restrict_files(const char *const *readable, size_t readable_count, const char *const *writable,
                              size_t writable_count);

#endif
