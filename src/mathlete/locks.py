"""One writer a folder: a lock of the kernel's, which goes with the process that holds it, whatever ends that.

>>> from tempfile import mkdtemp
>>> folder = Path(mkdtemp()) / "runs" / "base"
>>> with hold(folder):
...     sorted(path.name for path in folder.iterdir())
['.lock']
>>> folder.parent.exists()
False
"""

import contextlib
import errno
import json
import os
import shlex
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from mathlete.errors import UserError

LOCK = ".lock"
"""File in a folder that is being written; it says which process does."""
_SETTLED_S = 0.3
"""In which, on a disk without locks, all that have begun in the same moment have signed."""
_BEGINNING = b'{"pid": '
"""Of such a file, by which it is told from another program's."""


@contextmanager
def hold(folder: Path) -> Iterator[Callable[[], None]]:
    """Make the folder where it is missing, and hold it for as long as the context is entered.

    Yields a check, which raises UserError where another folder, or none, has the name by now: one that was moved away
    while it was written lacks what is written last.

    The lock belongs to the open file. So it is gone with a killed process, a process that was forked from this one
    holds it too for as long as it lives, and a process that this one starts needs none. On a file system that has no
    locks, the file itself says who writes: a process of this machine that has ended is passed over, one of another
    machine is not. Folders that were made here and are empty at the end are removed again.

    Raises:
        UserError: another process holds it, it is no folder, or another program has a file of the lock's name there.
    """
    made = _make(folder)
    try:
        file, holder = _lock(folder), os.getpid()

        def require_place() -> None:
            if not _is_named(file, folder / LOCK):
                raise explain_moved(folder)

        try:
            yield require_place
        finally:
            # Deleted while it is held: who opened it meanwhile finds another file under its name, and opens that. Where
            # the folder was moved away, the name may be another holder's.
            if os.getpid() == holder and _is_named(file, folder / LOCK):
                (folder / LOCK).unlink()
            os.close(file)
    finally:
        for empty in made:
            with contextlib.suppress(OSError):
                empty.rmdir()


def explain_moved(path: Path) -> UserError:
    """Return the error for a folder or file of a run that is no longer where it was opened."""
    rule = "a run's folder must stay where it is while it is written"
    return UserError(rule, value=str(path), cure="put it back, and run the same command again")


def _make(folder: Path) -> list[Path]:
    """Make the folder; return those of it and the ones above that were missing, the lowest first."""
    if not folder.is_dir() and (folder.exists() or folder.is_symlink()):
        kind = "a file" if folder.exists() else "a link that leads nowhere"
        raise UserError("a run must be a folder", value=f"{folder}, {kind}", cure="move it, or choose another --run")
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # as /proc says it
        rule = "a run must be where folders can be made"
        raise UserError(rule, value=str(folder), cure="choose another --run") from error
    return missing


def _lock(folder: Path) -> int:
    """Return the open file that holds the lock."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)  # its last holder may have removed it
        file = _open(folder / LOCK)
        has_locks = _claim(file, folder)
        if _is_named(file, folder / LOCK):
            _sign(file, folder / LOCK)
            if not has_locks:
                _settle(file, folder)
            return file
        os.close(file)


def _claim(file: int, folder: Path) -> bool:
    """Lock the file; return whether the disk has locks. Where it has none, the file alone says who is at work.

    Raises:
        UserError: somebody else holds it, or may hold it.
    """
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _refuse(file, folder)
    except OSError:
        holder = _parse(_read(file))
        if holder is not None and holder.get("host") != socket.gethostname():
            rule = f"this disk has no locks, so nobody knows whether that runs: if not, delete {folder / LOCK}"
            _refuse(file, folder, cure=rule)
        if holder is not None and _is_at_work(holder):
            _refuse(file, folder)
        return False
    return True


def _settle(file: int, folder: Path) -> None:
    """Give way to another that began in the same moment, where the disk has no locks: the last to sign holds it."""
    time.sleep(_SETTLED_S)
    holder = _parse(_read(file))
    if holder is not None and (holder.get("host"), holder.get("pid")) != (socket.gethostname(), os.getpid()):
        _refuse(file, folder)


def _refuse(file: int, folder: Path, *, cure: str = "wait for it, end it, or choose another --run") -> NoReturn:
    holder = _describe(_parse(_read(file)))
    os.close(file)
    raise UserError("one process at a time writes into a folder", value=f"{folder}, held {holder}", cure=cure)


def _open(path: Path) -> int:
    """Open the lock's file, and no file that its name is a link to."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):  # a link, a folder, a socket
            raise
        raise _not_ours(path) from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise _not_ours(path)
    return file


def _read(file: int) -> bytes:
    return os.pread(file, 2**16, 0)


def _sign(file: int, path: Path) -> None:
    """Write this process's name into the lock's file, unless it is another program's."""
    content = _read(file)
    if content and not content.startswith(_BEGINNING):
        os.close(file)
        raise _not_ours(path)
    with contextlib.suppress(OSError):  # a full disk holds the lock without the name
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(_holder()).encode(), 0)


def _not_ours(path: Path) -> UserError:
    rule = "a run's folder must leave the name of its lock free"
    return UserError(rule, value=f"{path} of another program", cure="move it, or choose another --run")


def _is_named(file: int, path: Path) -> bool:
    """Return whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return False


def _holder() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        "command": _join(sys.orig_argv),
    }


def _join(words: list[str]) -> str:
    return shlex.join([Path(words[0]).name, *words[1:]])


def _parse(content: bytes) -> Mapping[str, object] | None:
    """Return what a lock's file says of its holder; None where it says nothing yet."""
    try:
        row = json.loads(content)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _is_at_work(holder: Mapping[str, object]) -> bool:
    """Return whether it is a process of this machine that still runs."""
    try:
        words = Path("/proc", str(holder["pid"]), "cmdline").read_bytes().decode(errors="surrogateescape")
        return bool(holder["command"] == _join(words.split("\0")[:-1]))
    except (OSError, ValueError, KeyError, IndexError):
        return False


def _describe(holder: Mapping[str, object] | None) -> str:
    if holder is None or not {"since", "pid", "host", "command"} <= holder.keys():
        return "by another process"  # which has not written its name yet
    command = " ".join(str(holder["command"]).split())[:200]
    return f"since {holder['since']} by process {holder['pid']} on {holder['host']}: {command}"
