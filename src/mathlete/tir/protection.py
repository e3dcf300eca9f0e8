"""Protection of this machine from programs: layers, each used where it works, and limits, used everywhere.

| layer | needs | keeps a program from |
|---|---|---|
| filter | Linux with libseccomp | network, other processes, signals, writing files (`mathlete.tir.seccomp`) |
| uid | root, an interpreter others may read | files and /proc entries of this and every other user |
| namespaces | the right to make user namespaces | any network device, /proc |
| hook | nothing | the same as the filter, but only as far as Python's own functions are used |

The hook is used where there is no filter; a program that means harm gets around it. Nothing keeps a program from
reading files that its user may read: what it prints ends up in the sample, and there is no network.
"""

import ctypes
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mathlete.tir.seccomp import filter_calls

_CLONE_NEWUSER, _CLONE_NEWNS, _CLONE_NEWNET, _CLONE_NEWIPC = 0x10000000, 0x00020000, 0x40000000, 0x08000000
_READ_ONLY_NO_EXEC = 0x1 | 0x2 | 0x4 | 0x8
_PR_SET_DUMPABLE = 4
_FIRST_UID, _UIDS = 61000, 4000
"""User ids of the programs: below 65534, the last id that a container maps by default."""


@dataclass(frozen=True, kw_only=True)
class ProgramLimits:
    """Limits of one sample's programs."""

    timeout_s: float
    """Wall of one program, after which a TimeoutError is raised in it."""
    grace_s: float = 2.0
    """Seconds from then to the kill."""
    memory_mib: int
    """Address space that they may add to the interpreter's."""
    output_chars: int
    """Of a program's output that is kept, half from its start and half from its end."""
    cpu_s: int
    """CPU seconds of all of them together: a backstop behind the wall."""


def drop_root() -> None:
    """Change from root to a user id that nobody else has.

    Raises:
        OSError: this is not root, or the interpreter would be out of reach.
    """
    uid = _FIRST_UID + os.getpid() % _UIDS
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    for folder in (*filter(os.path.exists, sys.path), sys.base_prefix):
        if not os.access(folder, os.R_OK | os.X_OK):
            raise PermissionError(13, "not to be read by another user", folder)


def enter_namespaces() -> None:
    """Enter namespaces without the machine's network, shared memory and /proc.

    Raises:
        OSError: no user namespace may be made here.
    """
    library = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    # After a change of user the process may not write its own /proc files without this.
    library.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    _raise_errno(library.unshare(_CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWNET | _CLONE_NEWIPC))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    _raise_errno(library.mount(b"tmpfs", b"/proc", b"tmpfs", _READ_ONLY_NO_EXEC, b"size=4k"))


def _raise_errno(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def add_hook() -> None:
    """Refuse network, processes and writing in Python's own functions."""

    def refuse(event: str, arguments: tuple[object, ...]) -> None:
        if event.startswith(("socket.", "subprocess.", "os.", "shutil.", "ctypes.dlopen")) and event not in _HARMLESS:
            raise PermissionError(1, f"a program may not do this here: {event}")
        if event == "open" and isinstance(flags := arguments[2], int) and flags & (os.O_ACCMODE | os.O_CREAT):
            raise PermissionError(1, "a program may not write files here")

    sys.addaudithook(refuse)


_HARMLESS = ("os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.getxattr", "os.add_dll_directory")
LAYERS: dict[str, Callable[[], None]] = {
    "uid": drop_root,
    "namespaces": enter_namespaces,
    "filter": filter_calls,
    "hook": add_hook,
}
"""In the order in which they are applied: the filter comes after those whose calls it forbids."""


def usable_layers() -> list[str]:
    """Return the names of the layers that work here; each is tried in a child, on top of those before it."""
    usable: list[str] = []
    for name in LAYERS:
        if name != "hook" and _works([*usable, name]):
            usable.append(name)
    # The hook would only repeat, with holes, what the filter does.
    return usable if "filter" in usable else [*usable, "hook"]


def _works(names: list[str]) -> bool:
    child = os.fork()
    if child == 0:
        try:
            apply_layers(names)
        except (OSError, AttributeError):
            # AttributeError: a C library without unshare or mount.
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def apply_layers(names: list[str]) -> None:
    """Put this process behind these layers, for good.

    Raises:
        OSError: one of them does not work here.
    """
    for name in names:
        LAYERS[name]()


def set_limits(limits: ProgramLimits) -> None:
    """Set this process's resource limits, which it cannot raise again."""
    # The interpreter itself has numpy and sympy loaded: the limit is for what the programs add to that.
    memory = limits.memory_mib * 2**20 + _address_space()
    for kind, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(kind, (limit, limit))


def _address_space() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        # No /proc, as on macOS: what numpy and sympy take.
        return 2**30
