"""Landlock: this process may read what `mathlete.tir.readable` names, and change no file, for good.

It needs Linux 5.13 with Landlock switched on, and no privilege. The kernel then also keeps it from the memory,
environment and descriptors of every process outside (`/proc/PID`), from version 4 on from TCP, and from version 6 on
from signals to them. Numbers and structures: linux/landlock.h.
"""

import ctypes
import os
from pathlib import Path

from mathlete.tir.readable import mixed_folders, readable_paths, without_hidden

_CREATE, _ADD, _RESTRICT = 444, 445, 446
"""The same on every architecture."""
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_TCP, _SCOPES = 0b11, 0b11
_PR_SET_NO_NEW_PRIVS = 38


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("handle", ctypes.c_int32))


def restrict_files() -> None:
    """Refuse this process all files but the readable ones, for reading alone.

    Raises:
        OSError: the kernel has no Landlock.
    """
    library = ctypes.CDLL(None, use_errno=True)

    def call(*arguments: object) -> int:
        result: int = library.syscall(*arguments)
        if result < 0:
            raise OSError(ctypes.get_errno(), "Landlock: " + os.strerror(ctypes.get_errno()))
        return result

    version = call(_CREATE, None, ctypes.c_size_t(0), _VERSION_FLAG)
    # All rights that this version knows: rights that it does not know are an error.
    rights = (1 << (13 + (version >= 2) + (version >= 3) + (version >= 5))) - 1
    rules = _Ruleset(rights, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 8 * (1 + (version >= 4) + (version >= 6))
    ruleset = call(_CREATE, ctypes.byref(rules), ctypes.c_size_t(size), 0)
    parts = [part for path in readable_paths() for part in without_hidden(path)]
    for part, whole in [*parts, *((folder, False) for folder in mixed_folders())]:
        handle = os.open(part, os.O_PATH | os.O_CLOEXEC)
        call(_ADD, ruleset, _PATH_BENEATH, ctypes.byref(_Beneath(_rights(part, whole=whole), handle)), 0)
        os.close(handle)
    library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call(_RESTRICT, ruleset, 0)
    os.close(ruleset)


def _rights(path: Path, *, whole: bool) -> int:
    if not path.is_dir():
        return _READ_FILE
    return _READ_FILE | _READ_DIR if whole else _READ_DIR
