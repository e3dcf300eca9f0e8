"""A system-call filter for this process, through libseccomp: it may compute and read, and nothing else.

It needs no privilege and cannot be taken off again, by root neither. What is not on the list is refused with EPERM, so
that Python raises PermissionError in the program, and so is every call that is newer than the list. Calls with many
faces (fcntl, ioctl, open) are allowed for single arguments only.
"""

import ctypes
import errno
import fcntl
import os
import termios

_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | errno.EPERM
_ABSENT = 0x00050000 | errno.ENOSYS
"""Looks like an old kernel to the caller, which then tries the older call, whose arguments the filter can check."""
_EQUAL_UNDER_MASK = 7
_INT = 0xFFFFFFFF
"""Of an argument that the kernel takes as an int it does not look at the upper half, and neither must the filter."""
_WHOLE = 0xFFFFFFFFFFFFFFFF
_THREAD = 0x00010000
_WRITING = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC
_ARCH_SET_FS = 0x1002
_PR_SET_NAME, _PR_GET_NAME = 15, 16

_ALLOWED = (
    # memory of its own
    *("brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "mincore", "membarrier", "pkey_alloc", "pkey_free"),
    *("pkey_mprotect", "map_shadow_stack"),
    # files that are open, and what may be learnt about others
    *("read", "readv", "pread64", "preadv", "preadv2", "write", "writev", "pwrite64", "lseek", "close", "close_range"),
    *("dup", "dup2", "dup3", "pipe", "pipe2", "eventfd2", "fadvise64", "readahead"),
    *("stat", "fstat", "lstat", "newfstatat", "statx", "statfs", "fstatfs", "access", "faccessat", "faccessat2"),
    *("readlink", "readlinkat", "getdents", "getdents64", "getcwd", "chdir", "fchdir", "umask", "getxattr"),
    *("lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr"),
    # the socket over which programs come; sendto is below
    *("recvfrom", "shutdown", "getsockopt", "getsockname", "getpeername", "poll", "ppoll", "select", "pselect6"),
    *("epoll_create", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2"),
    # time, and signals that come to itself
    *("time", "gettimeofday", "times", "clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "pause"),
    *("alarm", "getitimer", "setitimer", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending"),
    *("rt_sigsuspend", "rt_sigtimedwait", "sigaltstack", "restart_syscall"),
    # threads of its own
    *("futex", "set_tid_address", "set_robust_list", "rseq", "sched_yield", "exit", "exit_group", "wait4", "waitid"),
    # what it is, and how much there is of the machine
    *("getpid", "gettid", "getppid", "getpgrp", "getpgid", "getsid", "getuid", "geteuid", "getgid", "getegid"),
    *("getresuid", "getresgid", "getgroups", "getrlimit", "getrusage", "getpriority", "getcpu", "getrandom", "uname"),
    *("sysinfo", "sched_getaffinity", "sched_getparam", "sched_getscheduler"),
    *("sched_get_priority_max", "sched_get_priority_min"),
)
"""What Python, numpy and sympy use and what harms nobody. `_ALLOWED_WITH` has the rest."""

_ALLOWED_WITH: tuple[tuple[str, tuple[tuple[int, int, int], ...]], ...] = (
    # Numpy's libraries may start threads, which are clones with this flag; a clone without it is a process.
    ("clone", ((0, _THREAD, _THREAD),)),
    # Reading stays: programs import modules.
    ("open", ((1, _WRITING, os.O_RDONLY),)),
    ("openat", ((2, _WRITING, os.O_RDONLY),)),
    # Without an address: what goes to the other end of its own socket.
    ("sendto", ((4, _WHOLE, 0),)),
    # Reading a limit, of whomever; the new one is at the third argument's address.
    ("prlimit64", ((2, _WHOLE, 0),)),
    # F_SETOWN, F_SETSIG, F_SETLEASE and F_NOTIFY send signals, and locks are seen by others.
    *(
        ("fcntl", ((1, _INT, command),))
        for command in (fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC)
    ),
    ("fcntl", ((1, _INT, fcntl.F_SETFL), (2, os.O_ASYNC, 0))),
    # Of devices only what Python asks of a file that it opens: FIOCLEX and FIONCLEX, FIONBIO, FIONREAD, size, terminal.
    *(
        ("ioctl", ((1, _INT, request),))
        for request in (0x5451, 0x5450, termios.FIONBIO, termios.FIONREAD, termios.TIOCGWINSZ, 0x5401)
    ),
    ("arch_prctl", ((0, _INT, _ARCH_SET_FS),)),
    *(("prctl", ((0, _INT, option),)) for option in (_PR_SET_NAME, _PR_GET_NAME)),
)
"""(call, ((argument, mask, its value under the mask), …)), all of which must hold."""


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
    context = ctypes.c_void_p(library.seccomp_init(_REFUSE))

    def rule(action: int, name: str, *comparisons: tuple[int, int, int]) -> None:
        number = library.seccomp_syscall_resolve_name(name.encode())
        # This machine has no such call, or libseccomp is older than the call.
        if number < 0:
            return
        array = (_Comparison * len(comparisons))(*(_Comparison(a, _EQUAL_UNDER_MASK, m, v) for a, m, v in comparisons))
        _raise_failure(library.seccomp_rule_add_array(context, action, number, len(comparisons), array), name)

    for name in _ALLOWED:
        rule(_ALLOW, name)
    for name, comparisons in _ALLOWED_WITH:
        rule(_ALLOW, name, *comparisons)
    # These take their flags in memory, where a filter cannot look.
    for name in ("clone3", "openat2"):
        rule(_ABSENT, name)
    _raise_failure(library.seccomp_load(context), "seccomp_load")
    library.seccomp_release(context)


def _raise_failure(result: int, name: str) -> None:
    if result < 0:
        raise OSError(-result, f"libseccomp: {name}")
