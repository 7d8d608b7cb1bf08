/* A filter of system calls (seccomp, classic BPF). It names what is refused: a vendor's library may need anything
 * else, and differs from one release to the next. */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harden.h"

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

#ifdef ARCHITECTURE

#define X32_BIT 0x40000000u
#define REFUSE BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)
#define NOT_THERE BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS)
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, field))

/* Calls that the headers of an older C library do not have; on both processors they have the same number. */
enum { CLONE3 = 435, OPENAT2 = 437, FCHMODAT2 = 452, SETXATTRAT = 463, REMOVEXATTRAT = 466, OPEN_TREE_ATTR = 467,
       FILE_SETATTR = 469 };

static const uint32_t never[] = {
    /* into other processes */
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, SYS_pidfd_getfd, SYS_process_madvise,
    /* into the kernel */
    SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register,
    SYS_kexec_load, SYS_kexec_file_load, SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_syslog,
    SYS_add_key, SYS_request_key, SYS_keyctl, SYS_personality,
    /* into the machine */
    SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_move_mount, SYS_open_tree, SYS_fsopen, SYS_fsmount,
    SYS_mount_setattr, SYS_setns, SYS_unshare, SYS_reboot, SYS_swapon, SYS_swapoff, SYS_acct, SYS_quotactl,
    SYS_settimeofday, SYS_clock_settime, SYS_adjtimex, SYS_clock_adjtime, SYS_sethostname, SYS_setdomainname,
    SYS_name_to_handle_at, SYS_open_by_handle_at, OPEN_TREE_ATTR,
#ifdef __x86_64__
    SYS_iopl, SYS_ioperm, SYS_modify_ldt,
#endif
};
static const uint32_t programs[] = {
    SYS_execve, SYS_execveat,
#ifdef __x86_64__
    SYS_fork, SYS_vfork,
#endif
};
/* Also by descriptor: what may only be read can be opened, and would then be changed. */
static const uint32_t modes[] = {
    SYS_fchmod, SYS_fchmodat, FCHMODAT2, SYS_fchown, SYS_fchownat, SYS_setxattr, SYS_lsetxattr, SYS_fsetxattr,
    SETXATTRAT, SYS_removexattr, SYS_lremovexattr, SYS_fremovexattr, REMOVEXATTRAT, FILE_SETATTR, SYS_truncate,
#ifdef __x86_64__
    SYS_chmod, SYS_chown, SYS_lchown,
#endif
};

#define NAMESPACES                                                                                                     \
    (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)
#define COUNT(list) (sizeof(list) / sizeof *(list))
#define ROOM (64 + 2 * (COUNT(never) + COUNT(programs) + COUNT(modes)))

struct program {
    struct sock_filter steps[ROOM];
    unsigned short count;
};

static void add(struct program *program, struct sock_filter step)
{
    program->steps[program->count++] = step;
}

static void refuse_all(struct program *program, const uint32_t *calls, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i], 0, 1));
        add(program, (struct sock_filter)REFUSE);
    }
}

/* What is inside of a call's own part may load arguments: the part ends in an answer. `steps`: of the part. */
static void begin_call(struct program *program, uint32_t call, uint8_t steps)
{
    add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, steps));
}

static void act_as_if_missing(struct program *program, uint32_t call)
{
    begin_call(program, call, 1);
    add(program, (struct sock_filter)NOT_THERE);
}

/* No namespaces: in one of its own a process may do what it likes to the kernel. clone3 has its flags where no filter
 * sees them; C libraries then take clone. With `threads_only`, no process is left behind that outlives this one. */
static void refuse_processes(struct program *program, int threads_only)
{
    act_as_if_missing(program, CLONE3);
    begin_call(program, SYS_clone, threads_only ? 6 : 4);
    add(program, (struct sock_filter)LOAD(args[0]));
    add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, NAMESPACES, 0, 1));
    add(program, (struct sock_filter)REFUSE);
    if (threads_only) {
        add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 1, 0));
        add(program, (struct sock_filter)REFUSE);
    }
    add(program, (struct sock_filter)ALLOW);
}

/* O_TRUNC without opening for writing (or with the odd access mode 3), which the first two versions of Landlock let
 * through. `flags`: where they are. */
static void refuse_truncation(struct program *program, uint32_t call, uint32_t flags)
{
    begin_call(program, call, 6);
    add(program, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, flags));
    add(program, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, O_TRUNC | O_ACCMODE));
    add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, O_TRUNC | O_RDONLY, 1, 0));
    add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, O_TRUNC | O_ACCMODE, 0, 1));
    add(program, (struct sock_filter)REFUSE);
    add(program, (struct sock_filter)ALLOW);
}

static void refuse_modes(struct program *program)
{
    refuse_all(program, modes, COUNT(modes));
    act_as_if_missing(program, OPENAT2); /* its flags are where no filter sees them */
    refuse_truncation(program, SYS_openat, (uint32_t)offsetof(struct seccomp_data, args[2]));
#ifdef __x86_64__
    refuse_truncation(program, SYS_open, (uint32_t)offsetof(struct seccomp_data, args[1]));
#endif
}

static void write_program(struct program *program, uint32_t refuse)
{
    program->count = 0;
    add(program, (struct sock_filter)LOAD(arch));
    add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0));
    add(program, (struct sock_filter)REFUSE); /* 32-bit calls, which have other numbers */
    add(program, (struct sock_filter)LOAD(nr));
#ifdef __x86_64__
    add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1));
    add(program, (struct sock_filter)REFUSE);
#endif
    refuse_all(program, never, COUNT(never));
    if (refuse & HSM_REFUSE_EXEC)
        refuse_all(program, programs, COUNT(programs));
    if (refuse & HSM_REFUSE_MODES)
        refuse_modes(program);
    refuse_processes(program, (refuse & HSM_REFUSE_EXEC) != 0);
    if (refuse & HSM_REFUSE_NETWORK) {
        begin_call(program, SYS_socket, 3);
        add(program, (struct sock_filter)LOAD(args[0]));
        add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_UNIX, 1, 0));
        add(program, (struct sock_filter)REFUSE);
    }
    add(program, (struct sock_filter)ALLOW);
}

hsm_status hsm_filter_system_calls(uint32_t refuse)
{
    struct program program;
    if (refuse & ~(uint32_t)(HSM_REFUSE_EXEC | HSM_REFUSE_NETWORK | HSM_REFUSE_MODES))
        return HSM_E_BAD_INPUT;
    write_program(&program, refuse);
    const struct sock_fprog filter = {program.count, program.steps};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter) == 0)
        return HSM_OK;
    return errno == ENOSYS || errno == EINVAL ? HSM_E_UNSUPPORTED : HSM_E_IO;
}

#else

hsm_status hsm_filter_system_calls(uint32_t refuse)
{
    (void)refuse;
    return HSM_E_UNSUPPORTED;
}

#endif
