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
import json
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from mathlete.errors import UserError

LOCK = ".lock"
"""File in a folder that is being written; it says which process does."""


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Make the folder where it is missing, and hold it for as long as the context is entered.

    The lock belongs to the open file. So it is gone with a killed process, a process that was forked from this one
    holds it too for as long as it lives, and a process that this one starts needs none. A file system that has no
    locks is used without them. Folders that were made here and are empty at the end are removed again.

    Raises:
        UserError: another process holds it, or it is no folder.
    """
    made = _make(folder)
    try:
        file = _lock(folder)
        try:
            yield
        finally:
            # Deleted while it is held: who opened it meanwhile finds another file under its name, and opens that.
            (folder / LOCK).unlink(missing_ok=True)
            os.close(file)
    finally:
        for empty in made:
            with contextlib.suppress(OSError):
                empty.rmdir()


def _make(folder: Path) -> list[Path]:
    """Make the folder; return those of it and the ones above that were missing, the lowest first."""
    if not folder.is_dir() and (folder.exists() or folder.is_symlink()):
        kind = "a file" if folder.exists() else "a link that leads nowhere"
        raise UserError("a run must be a folder", value=f"{folder}, {kind}", cure="move it, or choose another --run")
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _lock(folder: Path) -> int:
    """Return the open file that holds the lock."""
    import fcntl

    while True:
        folder.mkdir(parents=True, exist_ok=True)  # its last holder may have removed it
        file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 2**16)
            os.close(file)
            raise UserError(
                "one process at a time writes into a folder",
                value=f"{folder}, held {_describe(holder)}",
                cure="wait for it, end it, or choose another --run",
            ) from None
        except OSError:
            return file  # no locks here: as good as a folder that nobody else uses
        if _is_named(file, folder / LOCK):
            os.ftruncate(file, 0)
            os.write(file, json.dumps(_holder()).encode())
            return file
        os.close(file)


def _is_named(file: int, path: Path) -> bool:
    """Return whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _holder() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        "command": shlex.join([Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]]),
    }


def _describe(holder: bytes) -> str:
    try:
        row = json.loads(holder)
        command = " ".join(row["command"].split())[:200]
        return f"since {row['since']} by process {row['pid']} on {row['host']}: {command}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "by another process"  # which has not written its name yet
