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
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from mathlete.errors import UserError

LOCK = ".lock"
"""File in a folder that is being written; it says which process does."""
_BEGINNING = b'{"pid": '
"""Of such a file, by which it is told from another program's."""


@contextmanager
def hold(folder: Path) -> Iterator[Callable[[], None]]:
    """Make the folder where it is missing, and hold it for as long as the context is entered.

    Yields a check, which raises UserError where another folder, or none, has the name by now: one that was moved away
    while it was written lacks what is written last.

    The lock belongs to the open file. So it is gone with a killed process, a process that was forked from this one
    holds it too for as long as it lives, and a process that this one starts needs none. On a file system that has no
    locks, only a process of this machine that is still at work is found. Folders that were made here and are empty at
    the end are removed again.

    Raises:
        UserError: another process holds it, it is no folder, or another program has a file of the lock's name there.
    """
    made = _make(folder)
    try:
        file, holder = _lock(folder), os.getpid()

        def require_place() -> None:
            if not _is_named(file, folder / LOCK):
                raise moved_away(folder)

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


def moved_away(path: Path) -> UserError:
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
    import fcntl

    while True:
        folder.mkdir(parents=True, exist_ok=True)  # its last holder may have removed it
        file = _open(folder / LOCK)
        held = False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held = True
        except OSError:  # no locks here: the file alone says who is at work
            held = _is_at_work(_read(file))
        if held:
            holder = _describe(_read(file))
            os.close(file)
            raise UserError(
                "one process at a time writes into a folder",
                value=f"{folder}, held {holder}",
                cure="wait for it, end it, or choose another --run",
            )
        if _is_named(file, folder / LOCK):
            _sign(file, folder / LOCK)
            return file
        os.close(file)


def _open(path: Path) -> int:
    """Open the lock's file, and no file that its name is a link to."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR):
            raise
        raise _not_ours(path) from error


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


def _is_at_work(holder: bytes) -> bool:
    """Return whether the process that a lock's file names is one of this machine, and still runs."""
    try:
        row = json.loads(holder)
        words = Path("/proc", str(int(row["pid"])), "cmdline").read_bytes().decode(errors="surrogateescape")
        return bool(row["host"] == socket.gethostname() and row["command"] == _join(words.split("\0")[:-1]))
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return False


def _describe(holder: bytes) -> str:
    try:
        row = json.loads(holder)
        command = " ".join(row["command"].split())[:200]
        return f"since {row['since']} by process {row['pid']} on {row['host']}: {command}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "by another process"  # which has not written its name yet
