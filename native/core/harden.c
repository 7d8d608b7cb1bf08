#include "harden.h"

#include <sys/prctl.h>
#include <sys/resource.h>

hsm_status hsm_harden_process(void)
{
    const struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_CORE, &none) != 0)
        return HSM_E_IO;
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        return HSM_E_IO;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return HSM_E_IO;
    return HSM_OK;
}
