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
    HSM_REFUSE_EXEC = 1,    /* to run another program, or to start another process: threads only */
    HSM_REFUSE_NETWORK = 2, /* sockets that are not AF_UNIX */
    HSM_REFUSE_MODES = 4    /* what Landlock does not see of files: to change modes, owners, attributes; and, since it
                             * sees that from version 3 on only, to truncate what was not opened for writing */
};

/* From now on system calls that a signing process has no business with answer EPERM, in all threads, and so do
 * those of `refuse` (enum hsm_refusal). Wants hsm_harden_process before it. It cannot be undone.
 * HSM_E_UNSUPPORTED: the kernel, or this processor, has no such filter. HSM_E_IO: errno says what. */
hsm_status hsm_filter_system_calls(uint32_t refuse);

/* From now on the calling thread, and those that it starts, read and execute only what is at or below `readable`, and
 * do anything with what is at or below `writable`, but for making device files; open descriptors stay. Where the kernel
 * can (Linux 6.10, 6.12), they command no device, signal no other process, and connect to no abstract address of
 * another. Modes, owners and attributes of files, and on kernels before 6.2 their length, want HSM_REFUSE_MODES beside
 * it. Wants hsm_harden_process before it. It cannot be undone. HSM_E_UNSUPPORTED: the kernel has no Landlock.
 * HSM_E_IO: errno says what. */
hsm_status hsm_restrict_files(const char *const *readable, size_t readable_count, const char *const *writable,
                              size_t writable_count);

#endif
