/* Landlock: a process says which files it will need, and reaches no others. */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harden.h"

/* What the headers of an older C library do not have (linux/landlock.h of Linux 6.12). A kernel that knows less of the
 * structure takes it if the rest is 0. */
#define TRUNCATE (UINT64_C(1) << 14)
#define IOCTL_DEV (UINT64_C(1) << 15)
#define SCOPE_ABSTRACT_UNIX_SOCKET (UINT64_C(1) << 0)
#define SCOPE_SIGNAL (UINT64_C(1) << 1)
struct ruleset {
    uint64_t handled_access_fs;
    uint64_t handled_access_net;
    uint64_t scoped;
};

/* Those of the first version (Linux 5.13), which every kernel with Landlock has. */
#define FIRST ((LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1)
#define READ (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
/* Device files lead past all rules, and nobody here makes any. */
#define WRITE ((FIRST & ~(uint64_t)(LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK)) | TRUNCATE)
#define OF_FILES (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | TRUNCATE)

/* All that this kernel can refuse. LANDLOCK_ACCESS_FS_REFER (version 2) is refused by every ruleset that does not name
 * it. IOCTL_DEV: a terminal or device that may be read is not to be commanded. Version 4, the network, is not for us:
 * a worker talks to databases and collectors. */
static struct ruleset all_of(long version)
{
    struct ruleset handled = {.handled_access_fs = FIRST};
    if (version >= 3)
        handled.handled_access_fs |= TRUNCATE;
    if (version >= 5)
        handled.handled_access_fs |= IOCTL_DEV;
    if (version >= 6)
        handled.scoped = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL;
    return handled;
}

/* Allows `access` on a file, or on all that is below a folder. What is not there is left out. */
static hsm_status allow(int ruleset, const char *path, uint64_t access)
{
    struct landlock_path_beneath_attr rule = {.allowed_access = access};
    rule.parent_fd = open(path, O_PATH | O_CLOEXEC);
    if (rule.parent_fd < 0)
        return errno == ENOENT || errno == ENOTDIR || errno == EACCES ? HSM_OK : HSM_E_IO;
    struct stat what;
    hsm_status status = fstat(rule.parent_fd, &what) == 0 ? HSM_OK : HSM_E_IO;
    if (status == HSM_OK && !S_ISDIR(what.st_mode))
        rule.allowed_access &= OF_FILES;
    if (status == HSM_OK && syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0)
        status = HSM_E_IO;
    (void)close(rule.parent_fd);
    return status;
}

static hsm_status allow_all(int ruleset, const char *const *paths, size_t count, uint64_t access)
{
    hsm_status status = HSM_OK;
    for (size_t i = 0; i < count && status == HSM_OK; i++)
        status = allow(ruleset, paths[i], access);
    return status;
}

hsm_status hsm_restrict_files(const char *const *readable, size_t readable_count, const char *const *writable,
                              size_t writable_count)
{
    const long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    const struct ruleset handled = all_of(version);
    const int ruleset = version < 1 ? -1 : (int)syscall(SYS_landlock_create_ruleset, &handled, sizeof handled, 0);
    if (ruleset < 0)
        return errno == ENOSYS || errno == EOPNOTSUPP ? HSM_E_UNSUPPORTED : HSM_E_IO;
    hsm_status status = allow_all(ruleset, readable, readable_count, READ & handled.handled_access_fs);
    if (status == HSM_OK)
        status = allow_all(ruleset, writable, writable_count, WRITE & handled.handled_access_fs);
    if (status == HSM_OK && syscall(SYS_landlock_restrict_self, ruleset, 0) != 0)
        status = HSM_E_IO;
    const int why = errno;
    (void)close(ruleset);
    errno = why;
    return status;
}
