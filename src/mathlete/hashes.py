"""SHA-256 of JSON values and of files.

>>> sha256_json({"a": 1, "b": [2]}) == sha256_json({"b": [2], "a": 1})
True
"""

import hashlib
import json
from functools import lru_cache
from pathlib import Path

_LARGE_BYTES = 2**26
"""From here a file is known again by its times, size and inode: a clock's tick is shorter than writing so much."""


def sha256_json(value: object) -> str:
    """Return the SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    # A path may hold what UTF-8 cannot; of any other text these are its bytes.
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, read in pieces; a large file is read once a process."""
    stat = path.stat()
    if stat.st_size < _LARGE_BYTES:
        return _read_sha256(path)
    return _remembered_sha256(path.resolve(), (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino))


@lru_cache(maxsize=1024)
def _remembered_sha256(path: Path, _version: tuple[int, ...]) -> str:
    return _read_sha256(path)


def _read_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
