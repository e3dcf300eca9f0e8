"""Temporary folders that nobody has to clean up: they go with their process, or when the next one makes its own.

Each is held by a lock of the kernel's on the folder itself, which ends with its process, whatever ends that. So one
without a holder is nobody's any more, also where process numbers mean something else, as in another container.

>>> with TemporaryFolder("example") as folder:
...     folder.name.startswith("mathlete-example-"), folder.is_dir()
(True, True)
>>> folder.exists()
False
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from types import TracebackType

_PREFIX, _SUFFIX = "mathlete-", ".held"
_made = weakref.WeakSet["TemporaryFolder"]()


class TemporaryFolder:
    """One such folder; remove it by `close`, at the end of a context, or with this process."""

    def __init__(self, kind: str) -> None:
        """Make it, and remove what killed processes of this user have left.

        Args:
            kind: what it is for, a word of its name.
        """
        remove_abandoned()
        self.path, lock = _make(kind)
        self._remove = weakref.finalize(self, _remove, self.path, lock, os.getpid())
        _made.add(self)

    def close(self) -> None:
        """Remove it; a second time does nothing."""
        self._remove()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def remove_own() -> None:
    """Remove all that this process has made, before it ends in a way that cleans up nothing."""
    for folder in [*_made]:
        folder.close()


def remove_abandoned() -> None:
    """Remove the temporary folders of this user whose process has ended."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*{_SUFFIX}"):
        with contextlib.suppress(OSError):  # another process was faster, or the disk has no locks: then it stays
            lock = _open(path)
            try:
                if os.fstat(lock).st_uid == os.geteuid() and _hold(lock):
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def _make(kind: str) -> tuple[Path, int]:
    """Return a new folder and the open file that holds it."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{kind}-", suffix=_SUFFIX))
        with contextlib.suppress(FileNotFoundError):
            lock = _open(path)
            # Before it was held it was anybody's to remove.
            if _hold(lock, unknown=True) and os.path.samestat(os.fstat(lock), path.stat()):
                return path, lock
            os.close(lock)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def _hold(lock: int, *, unknown: bool = False) -> bool:
    """Return whether the open folder is held here now; `unknown` where the disk has no locks."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return unknown
    return True


def _remove(path: Path, lock: int, maker: int) -> None:
    # A forked process has the same objects, and ends like any other.
    if os.getpid() == maker:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)
