/* What a process that holds secrets gives up. */
#ifndef HSMSIGN_HARDEN_H
#define HSMSIGN_HARDEN_H

#include "status.h"

/* No core dumps, not dumpable (no ptrace by others of the same uid), no new privileges. It cannot be
 * undone. HSM_E_IO: errno says what. */
hsm_status hsm_harden_process(void);

#endif
