"""Protection of this machine from programs: layers, each used where it works, and limits, used everywhere.

| layer | needs | keeps a program from |
|---|---|---|
| uid | root, an interpreter others may read | files and /proc entries of this and every other user |
| namespaces | the right to make user namespaces | any network device, /proc, files but the readable ones |
| landlock | Linux 5.13 with Landlock | files but the readable ones, other processes (`mathlete.tir.landlock`) |
| filter | Linux with libseccomp | all calls but computing and reading (`mathlete.tir.seccomp`) |
| hook | nothing | by accident what the others refuse, as far as Python's own functions are used (`mathlete.tir.hook`) |

Behind each of them a process has no capabilities, so that root's programs cannot look into root's other processes. What
is readable says `mathlete.tir.readable`. The hook is used where there is no filter, or where neither namespaces nor
Landlock hide files; a program that means it gets around the hook.
"""

import ctypes
import errno
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mathlete.tir.hook import add_hook
from mathlete.tir.landlock import restrict_files
from mathlete.tir.namespaces import enter_namespaces
from mathlete.tir.readable import readable_paths
from mathlete.tir.seccomp import filter_calls

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 1, 4, 24
_CAPABILITIES_3 = 0x20080522
"""Version of the sets' layout, two words each."""
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
    uid, needed = _FIRST_UID + os.getpid() % _UIDS, readable_paths()
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    _require_readable(needed)


def _require_readable(paths: list[Path]) -> None:
    for path in paths:
        # The working directory is empty: nobody misses it.
        if path != Path.cwd() and not os.access(path, os.R_OK):
            closed = next((above for above in reversed(path.parents) if not os.access(above, os.X_OK)), path)
            raise PermissionError(errno.EACCES, "not to be read by another user", str(closed))


def hide_memory() -> None:
    """Have the kernel refuse this process's environment, memory and descriptors to others of the same user."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _give_up_rights() -> None:
    """Drop all capabilities, hide from other programs, and end with the process that forked this one."""
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None, use_errno=True)
    for number in range(64):
        library.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    header, none = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0), (ctypes.c_uint32 * 6)()
    if library.capset(header, none) < 0:
        raise OSError(ctypes.get_errno(), "capset")
    hide_memory()
    library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


LAYERS: dict[str, Callable[[], None]] = {
    "uid": drop_root,
    "namespaces": enter_namespaces,
    "landlock": restrict_files,
    "filter": filter_calls,
    "hook": add_hook,
}
"""In the order in which they are applied: the filter comes after those whose calls it forbids."""
SEPARATING = frozenset({"uid", "namespaces", "landlock"})
"""With one of these a program is out of the reach of processes of this user."""


def usable_layers() -> list[str]:
    """Return the names of the layers that work here; each is tried in a child, on top of those before it."""
    usable: list[str] = []
    for name in LAYERS:
        if name != "hook" and _works([*usable, name]):
            usable.append(name)
    # Else the hook would only repeat, with holes, what these do.
    hidden = "filter" in usable and {"namespaces", "landlock"} & {*usable}
    return usable if hidden else [*usable, "hook"]


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
        # After the layers that need rights, and before the one that forbids to give them up.
        if name == next((last for last in ("filter", "hook") if last in names), None):
            _give_up_rights()
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
