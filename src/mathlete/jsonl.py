"""JSON lines: files with one JSON value a line, read with line numbers, and appended to in whole lines only."""

import gc
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from mathlete.errors import OnBad, UserError, stop
from mathlete.text import clean, parse_json

RECODE = "save the file as UTF-8, as `iconv -f ITS-ENCODING -t UTF-8` does"
"""The cure for a file in another encoding."""
_MEND = "mend or delete the line"


def read_json_lines(path: Path, *, on_bad: OnBad = stop) -> Iterator[tuple[str, object]]:
    """Yield (`file:line`, parsed value) for each non-empty line; a bad line goes to `on_bad`.

    Raises:
        UserError: no such file; with `stop`, a line that is not UTF-8 or not JSON.
    """
    if not path.is_file():
        raise UserError("the file must exist", value=str(path), cure="check the path")
    with path.open("rb") as lines:
        yield from parse_json_lines(lines, path, on_bad=on_bad)


def parse_json_lines(lines: Iterable[bytes], path: Path, *, on_bad: OnBad = stop) -> Iterator[tuple[str, object]]:
    """Yield (`file:line`, parsed value) for each non-empty line of the open file; a bad line goes to `on_bad`."""
    file = str(path)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{file}:{number}"
        try:
            value = parse_json(line)
        except UnicodeDecodeError as error:
            on_bad(UserError(f"{where}: text must be UTF-8 ({error})", cure=RECODE))
            continue
        except ValueError as error:
            cure = "write one object a line, as `jq -c .` does" if line.strip() in (b"{", b"[") else _MEND
            # "line 2 column 1" would be of this one line, and read as the file's.
            what = f"{error.msg}, column {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else error
            on_bad(UserError(f"{where}: must be one line of JSON ({what})", cure=cure))
            continue
        yield where, value


@contextmanager
def pause_collection() -> Iterator[None]:
    """Collect no garbage meanwhile: among hundreds of thousands of samples that all stay, each search is in vain."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class JsonLines:
    """An append-only file of JSON objects that survives a kill at any moment.

    A last line without its newline was left by a killed writer: it is never read, and is cut off before the next
    append. The file is opened for each append, so there is nothing to close.

    >>> from tempfile import mkdtemp
    >>> log = JsonLines(Path(mkdtemp()) / "log.jsonl")
    >>> log.append({"id": "7", "seconds": 1.5})
    >>> with log.path.open("a") as file:
    ...     _ = file.write('{"id": "8", "sec')
    >>> [row for where, row in log.read()]
    [{'id': '7', 'seconds': 1.5}]
    >>> log.cut_half_line()
    16
    """

    def __init__(self, path: Path, *, sync_s: float | None = 0.0, shared: bool = False) -> None:
        """Take the path; the first append makes the file, in a folder that exists.

        `sync_s` is the least number of seconds between two fsyncs: 0 has every line on the disk when `append` returns,
        None leaves that to the operating system. A killed process loses no line in either case; a machine without
        power does. `shared` is for files that several processes append to: it takes a file lock for each append.
        """
        self.path = path
        self._sync_s, self._shared = sync_s, shared
        self._lock, self._synced = threading.Lock(), time.monotonic()

    def append(self, record: Mapping[str, object]) -> None:
        """Add one line; may be called from any thread."""
        line = clean(json.dumps(record, ensure_ascii=False)) + "\n"
        with self._lock, self._open("ab+") as file:
            # A full disk leaves half a line as well as a kill does.
            _cut_half_line(file)
            file.write(line.encode())
            file.flush()
            if self._sync_s is not None and time.monotonic() - self._synced >= self._sync_s:
                self._sync(file)

    def sync(self) -> None:
        """Flush all lines to the disk."""
        with self._lock, self.path.open("ab") as file:
            self._sync(file)

    def _sync(self, file: BinaryIO) -> None:
        os.fsync(file.fileno())
        self._synced = time.monotonic()

    def read(self) -> Iterator[tuple[str, object]]:
        """Yield (`file:line`, parsed value) of every whole line; nothing where there is no file yet.

        Raises:
            UserError: a line that is not UTF-8 or not JSON.
        """
        if self.path.is_file():
            with self.path.open("rb") as lines:
                yield from parse_json_lines((line for line in lines if line.endswith(b"\n")), self.path)

    def cut_half_line(self) -> int:
        """Cut off a last line that has no newline; return the number of bytes cut, 0 for a whole or absent file."""
        if not self.path.is_file():
            return 0
        with self._lock, self._open("rb+") as file:
            if cut := _cut_half_line(file):
                self._sync(file)
            return cut

    @contextmanager
    def _open(self, mode: str) -> Iterator[BinaryIO]:
        with self.path.open(mode) as file:
            if self._shared:
                import fcntl

                # Without it, this process would cut the half of a line that another is still writing.
                fcntl.flock(file, fcntl.LOCK_EX)
            yield cast(BinaryIO, file)


def _cut_half_line(file: BinaryIO) -> int:
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return 0
    file.seek(end - 1)
    # Reading the last byte is enough for a whole file, however long it is.
    if file.read(1) == b"\n":
        return 0
    file.seek(0)
    whole = file.read().rfind(b"\n") + 1
    file.truncate(whole)
    return end - whole
