"""A system-call filter for this process, through libseccomp: no network, processes, signals or written files.

It needs no privilege and cannot be taken off again, by root neither. A refused call fails with EPERM, so that Python
raises PermissionError in the program. The list names what is refused; the kernel's other calls stay.
"""

import ctypes
import errno
import os

_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | errno.EPERM
_ABSENT = 0x00050000 | errno.ENOSYS
"""Looks like an old kernel to the caller, which then tries the older call, whose arguments the filter can check."""
_EQUAL_UNDER_MASK = 7
_THREAD = 0x00010000

_REFUSED = (
    # processes: a program is one process, so that one SIGKILL ends all of it
    *("fork", "vfork", "execve", "execveat"),
    # signals and other processes' memory or limits
    *("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_open", "pidfd_send_signal"),
    *("pidfd_getfd", "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp"),
    *("setrlimit", "prlimit64", "setpriority", "sched_setscheduler", "sched_setattr"),
    # network, and the queue through which calls are made unseen
    *("socket", "io_uring_setup", "io_uring_enter", "io_uring_register"),
    # files: what changes one without opening it
    *("creat", "truncate", "rename", "renameat", "renameat2", "mkdir", "mkdirat", "rmdir", "link", "linkat"),
    *("unlink", "unlinkat", "symlink", "symlinkat", "mknod", "mknodat", "chmod", "fchmod", "fchmodat", "fchmodat2"),
    *("chown", "fchown", "lchown", "fchownat", "utime", "utimes", "futimesat", "utimensat", "setxattr", "lsetxattr"),
    *("fsetxattr", "removexattr", "lremovexattr", "fremovexattr", "setxattrat", "removexattrat"),
    # memory that outlives the process or is not in its address space
    *("memfd_create", "memfd_secret", "shmget", "msgget", "semget", "mq_open"),
    # the machine, and who one is on it
    *("mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount", "fspick"),
    *("mount_setattr", "unshare", "setns", "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid"),
    *("setgroups", "setfsuid", "setfsgid", "capset", "reboot", "swapon", "swapoff", "settimeofday", "clock_settime"),
    *("clock_adjtime", "adjtimex", "sethostname", "setdomainname", "init_module", "finit_module", "delete_module"),
    *("kexec_load", "kexec_file_load", "bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key"),
    *("acct", "quotactl", "quotactl_fd", "iopl", "ioperm", "syslog", "vhangup", "open_by_handle_at", "personality"),
)
_WRITING = (os.O_WRONLY, os.O_RDWR, os.O_ACCMODE)


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp of seccomp.h."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("mask", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
    )


def filter_calls() -> None:
    """Put the filter on this process and all its threads to come.

    Raises:
        OSError: there is no libseccomp, or the kernel takes no filter.
    """
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(_ALLOW))

    def rule(action: int, name: str, *comparisons: tuple[int, int, int]) -> None:
        number = library.seccomp_syscall_resolve_name(name.encode())
        # This machine has no such call, or libseccomp is older than the call.
        if number < 0:
            return
        array = (_Comparison * len(comparisons))(*(_Comparison(a, _EQUAL_UNDER_MASK, m, v) for a, m, v in comparisons))
        _raise_failure(library.seccomp_rule_add_array(context, action, number, len(comparisons), array), name)

    for name in _REFUSED:
        rule(_REFUSE, name)
    # Numpy's libraries may start threads, which are clones with this flag; a clone without it is a process.
    rule(_REFUSE, "clone", (0, _THREAD, 0))
    # These take their flags in memory, where a filter cannot look.
    for name in ("clone3", "openat2"):
        rule(_ABSENT, name)
    # Reading stays: programs import modules.
    for name, flags in (("open", 1), ("openat", 2)):
        for mode in _WRITING:
            rule(_REFUSE, name, (flags, os.O_ACCMODE, mode))
        for flag in (os.O_CREAT, os.O_TRUNC):
            rule(_REFUSE, name, (flags, flag, flag))
    _raise_failure(library.seccomp_load(context), "seccomp_load")
    library.seccomp_release(context)


def _raise_failure(result: int, name: str) -> None:
    if result < 0:
        raise OSError(-result, f"libseccomp: {name}")
