"""Refusals in Python's own functions: of what a program does by accident. One that means it gets around them."""

import importlib
import os
import sys
from pathlib import Path

from mathlete.tir.readable import hidden_folders, readable_paths

_REFUSED = (
    *("socket.", "subprocess.", "os.", "shutil.", "ctypes.dlopen", "ctypes.dlsym", "sqlite3.", "fcntl.", "resource."),
    *("pty.", "syslog."),
)
_HARMLESS = ("os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.getxattr", "os.add_dll_directory")
_SILENT = {
    "posix": ("mkfifo", "mknod", "memfd_create", "nice", "setpriority", "sched_setaffinity", "sched_setscheduler",
              "sched_setparam", "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups",
              "setpgid", "setsid", "setns", "unshare", "chroot", "pidfd_open", "sendfile", "copy_file_range", "splice",
              "lockf", "login_tty", "tcsetpgrp"),
    "_posixsubprocess": ("fork_exec",),
    "_posixshmem": ("shm_open", "shm_unlink"),
    "_multiprocessing": ("SemLock",),
    "_socket": ("socketpair",),
    "_gdbm": ("open",),
    "_dbm": ("open",),
    "_signal": ("pidfd_send_signal",),
}  # fmt: skip
"""{module: functions of which an audit hook does not hear}."""
_COPIES = {"posix": "os", "_socket": "socket", "_signal": "signal"}
"""{module: the one that has its functions under the same names}."""


def add_hook() -> None:
    """Refuse network, processes, writing, and files but the readable ones."""
    readable, hidden = _as_prefixes(readable_paths()), _as_prefixes(hidden_folders())

    def refuse(event: str, arguments: tuple[object, ...]) -> None:
        if event.startswith(_REFUSED) and event not in _HARMLESS:
            raise PermissionError(1, f"a program may not do this here: {event}")
        if event != "open":
            return
        path, _, flags = arguments
        if isinstance(flags, int) and flags & (os.O_ACCMODE | os.O_CREAT | os.O_TRUNC):
            raise PermissionError(1, "a program may not write files here")
        if isinstance(path, str | bytes | os.PathLike):
            real = os.path.realpath(os.fsdecode(path)) + os.sep
            if not real.startswith(readable) or real.startswith(hidden):
                raise PermissionError(1, "a program may not read this here")

    for module, names in _SILENT.items():
        _silence(module, names)
    sys.addaudithook(refuse)


def _as_prefixes(paths: list[Path]) -> tuple[str, ...]:
    return tuple(f"{path}{os.sep}" for path in paths)


def _silence(module: str, names: tuple[str, ...]) -> None:
    try:
        owners = [importlib.import_module(name) for name in (module, _COPIES.get(module, module))]
    except ImportError:
        # Not on this system.
        return
    for name in names:
        for owner in owners:
            if hasattr(owner, name):
                setattr(owner, name, _refuse_call)


def _refuse_call(*_: object, **__: object) -> None:
    raise PermissionError(1, "a program may not do this here")
