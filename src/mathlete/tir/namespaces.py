"""Namespaces without the machine's network, shared memory, /proc, or files but the readable ones."""

import ctypes
import os
import sys
from pathlib import Path

from mathlete.tir.readable import hidden_folders, library_files, readable_paths

_CLONE_NEWUSER, _CLONE_NEWNS, _CLONE_NEWNET, _CLONE_NEWIPC = 0x10000000, 0x00020000, 0x40000000, 0x08000000
_READ_ONLY, _PLAIN = 0x1, 0x2 | 0x4
"""No set-user-ID files and no devices but those that are bound."""
_REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
_DETACH = 2
_PR_SET_DUMPABLE = 4


def enter_namespaces() -> None:
    """Enter namespaces in which there is only what a program may have.

    Raises:
        OSError: no user namespace may be made here, or nothing may be mounted in it.
    """
    library = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    # After a change of user the process may not write its own /proc files without this.
    library.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    _raise_errno(library.unshare(_CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWNET | _CLONE_NEWIPC))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    _change_root(library, Path.cwd())


def _change_root(library: ctypes.CDLL, root: Path) -> None:
    """Make a root of readable paths in memory, at a folder of the sandbox's own."""

    def mount(source: Path | None, target: Path, flags: int, size: bytes = b"") -> None:
        kind = b"" if source else b"tmpfs"
        _raise_errno(library.mount(os.fsencode(source or "tmpfs"), os.fsencode(target), kind, flags, size))

    paths, hidden = readable_paths(), hidden_folders()
    # /lib may be a link to /usr/lib, a library one to another version, and a folder of Python's path anything.
    named = (*Path("/").iterdir(), *map(Path, sys.path), *library_files())
    links = {path: path.resolve() for path in named if path.is_absolute()}
    mount(Path("/"), Path("/"), _RECURSIVE | _PRIVATE)
    mount(None, root, _PLAIN, b"size=1m")
    # A bind of a folder brings all below it: a path in another that is there already needs none.
    for path in paths:
        target = root / path.relative_to("/")
        if path == root:
            target.mkdir(parents=True, exist_ok=True)
        elif not any(path != other and path.is_relative_to(other) for other in paths):
            (target if path.is_dir() else target.parent).mkdir(parents=True, exist_ok=True)
            if not path.is_dir():
                target.touch()
            mount(path, target, _BIND | _RECURSIVE)
    for folder in hidden:
        if (target := root / folder.relative_to("/")).is_dir():
            mount(None, target, _READ_ONLY | _PLAIN, b"size=4k")
    for path, real in links.items():
        target = root / path.relative_to("/")
        if path != real and (root / real.relative_to("/")).exists() and not os.path.lexists(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(real)
    mount(root, root, _REMOUNT | _BIND | _READ_ONLY | _PLAIN)
    os.chdir(root)
    _raise_errno(library.pivot_root(b".", b"."))
    _raise_errno(library.umount2(b".", _DETACH))
    os.chdir(root)


def _raise_errno(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
