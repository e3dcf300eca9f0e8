"""Files that are written whole or not at all, and JSON read back from them.

>>> from tempfile import mkdtemp
>>> file = Path(mkdtemp()) / "new" / "score.json"
>>> write_json(file, {"right": 3})
>>> file.read_text(), [path.name for path in file.parent.iterdir()]
('{\\n  "right": 3\\n}\\n', ['score.json'])
"""

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from mathlete.errors import UserError
from mathlete.text import clean, parse_json

T = TypeVar("T")
_POINTER, _POINTED_BYTES = b"version https://git-lfs", re.compile(rb"(?m)^size (\d+)\r?$")
"""How the file begins, and says its size, that a clone without git-lfs has in place of a large one (git-lfs' spec.md,
"The Pointer")."""
_POINTER_BYTES = 1024
"""Below how many it is one."""


def write_atomically(path: Path, text: str) -> None:
    """Write text to a temporary file, flush it to disk and rename it: a reader sees all of it or none.

    Where the file system has files without a name, the temporary file gets one only for the moment of the renaming, so
    that a kill leaves nothing behind. An error leaves nothing anywhere.
    """
    data = clean(text).encode()
    require_ordinary(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}")
    try:
        if not _write_nameless(temporary, data):
            with temporary.open("wb") as file:
                _write_through(file.fileno(), data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_folder(name: str) -> bool:
    """Return whether a name out of somebody's file is that of a folder; what can be no path at all is none.

    >>> is_folder("."), is_folder("1" * 5000), is_folder("\\0")
    (True, False, False)
    """
    try:
        return Path(name).is_dir()
    except OSError:  # pathlib passes on that a name is too long, or that what leads to it is closed
        return False


def require_ordinary(path: Path) -> None:
    """Check that a file which is replaced is an ordinary one: a device or a pipe would be gone from its place.

    Raises:
        UserError: it is not.
    """
    # /dev/stdout is a link into /proc, behind which there may be an ordinary file.
    is_stream = path.is_symlink() and str(path.readlink()).startswith(("/proc/", "/dev/"))
    if is_stream or (path.exists() and not path.is_file() and not path.is_dir()):
        rule = "a file that is written must be an ordinary one, no device and no pipe"
        raise UserError(rule, value=str(path), cure="name another file")


def require_place(path: Path) -> None:
    """Check that a file can be made where the path says; nothing is left of the trial.

    Raises:
        UserError: it is a place like /proc.
    """
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except FileNotFoundError as error:
        raise UserError("a file must be where files can be made", value=str(path), cure="name another file") from error


def _write_nameless(temporary: Path, data: bytes) -> bool:
    """Write a file that gets its name when it is whole; return False where that cannot be done."""
    if not hasattr(os, "O_TMPFILE"):
        return False
    try:
        file = os.open(temporary.parent, os.O_WRONLY | os.O_TMPFILE, 0o666)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
            return False  # an old kernel, or a file system without such files
        raise
    try:
        _write_through(file, data)
        temporary.unlink(missing_ok=True)
        # With a folder given, Python calls linkat, which alone follows the link in /proc.
        os.link(f"/proc/self/fd/{file}", temporary, src_dir_fd=file)
    except FileNotFoundError:
        return False  # no /proc here
    finally:
        os.close(file)
    return True


def _write_through(file: int, data: bytes) -> None:
    """Write all of it, to the disk."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]
    os.fsync(file)


@contextmanager
def replace_when_done(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file that takes the file's place in the end, and is deleted where it never does.

    For what another library writes, which only takes a path.
    """
    require_ordinary(path)
    temporary = path.with_name(f".{path.stem[:100]}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write indented JSON atomically."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def share_files(folder: Path) -> Path:
    """Let others read a folder's files, as far as this user's mask says; return it.

    Libraries make some files for their owner alone.
    """
    mask = os.umask(0)
    os.umask(mask)
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.chmod(file.stat().st_mode | 0o644 & ~mask)
    return folder


def read_text(path: Path) -> str:
    """Return the text in a file of a person's.

    Raises:
        UserError: no such file, or it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"must be a readable text in UTF-8 ({error})", value=str(path), cure="make it again") from error


def read_pointer(file: Path) -> int | None:
    """Return how many bytes the file has that git-lfs' pointer stands for, 0 where it does not say it; None of a file
    that is no such pointer.

    >>> from tempfile import mkdtemp
    >>> file = Path(mkdtemp()) / "model.safetensors"
    >>> _ = file.write_text("version https://git-lfs.github.com/spec/v1\\noid sha256:0\\nsize 135000\\n")
    >>> read_pointer(file)
    135000
    """
    if not file.is_file() or file.stat().st_size >= _POINTER_BYTES:
        return None
    try:
        content = file.read_bytes()
    except OSError:  # whoever reads the file tells of that
        return None
    if not content.startswith(_POINTER):
        return None
    said = _POINTED_BYTES.search(content)
    return int(said[1]) if said else 0


def choose_cure(file: Path, *, otherwise: str) -> str:
    """Return the cure of a file that cannot be read: git-lfs' where it is its pointer, else what is given."""
    # Beside a small file all weights may be pointers too, of a model that is served elsewhere.
    alone = f" --include {file.name}" if file.suffix == ".json" else ""
    return otherwise if read_pointer(file) is None else f"run `git lfs pull{alone}` in {file.parent}"


def read_json(path: Path) -> dict[str, object]:
    """Return the JSON object in a file.

    Raises:
        UserError: no such file, or not a JSON object.
    """
    try:
        value = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        cure = choose_cure(path, otherwise="make it again")
        raise UserError(f"must be a readable JSON file ({error})", value=str(path), cure=cure) from error
    if not isinstance(value, dict):
        raise UserError("must hold a JSON object", value=str(path), cure="make it again")
    return value


def read_record(file: Path, parse: Callable[[dict[str, Any]], T]) -> T:
    """Return what `parse` makes of the JSON object in a file.

    Raises:
        UserError: no such file, or `parse` cannot read its content.
    """
    content = read_json(file)
    try:
        return parse(content)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file} must be as it was written",
            value=f"{type(error).__name__}: {error}",
            cure="put back what was there, or run the command that made it again",
        ) from error


def require_space(path: Path, *, needed_bytes: int) -> None:
    """Check that the disk under `path` has room.

    Raises:
        UserError: fewer than `needed_bytes` are free.
    """
    existing = next(parent for parent in (path, *path.resolve().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise UserError(
            f"{path} needs {needed_bytes / 2**30:.2f} GiB of free disk",
            value=f"{free / 2**30:.2f} GiB",
            cure="free some space or choose another folder with --run",
        )
