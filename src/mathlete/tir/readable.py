"""What a program may read of this machine: the libraries of Python and of the system, and a few plain facts.

It is a list of what is allowed, so that what is not known here is hidden too: golds, runs, tokens, keys, /proc.
"""

import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from mathlete.shipped import data_folder

_FILES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/usr/share/zoneinfo", "/etc/localtime",
          "/etc/timezone", "/etc/hostname", "/etc/os-release", "/etc/ld.so.cache")  # fmt: skip
_SITES = ("site-packages", "dist-packages")


@functools.cache
def hidden_folders() -> list[Path]:
    """Return what stays hidden in the midst of readable folders: this package, which may have golds beside it."""
    return [Path(__file__).resolve().parents[1], data_folder().resolve()]


def readable_paths() -> list[Path]:
    """Return existing files and folders, resolved; programs may read all in them but `hidden_folders`."""
    paths = {path.resolve() for path in _named_paths() if path.is_absolute() and os.access(path, os.F_OK)}
    return sorted(path for path in paths if not any(path.is_relative_to(hidden) for hidden in hidden_folders()))


def _named_paths() -> Iterator[Path]:
    # A folder of the path that holds no packages is the user's own: scripts, or the working directory with its runs.
    for folder in map(Path, sys.path):
        if folder.name in _SITES or (folder / "numpy").is_dir() or (folder / "sympy").is_dir():
            yield folder
    for prefix in (sys.base_prefix, sys.prefix, "/usr", "/usr/local", "/"):
        yield from (Path(prefix, name) for name in ("lib", "lib64"))
    for folder in map(Path, os.environ.get("LD_LIBRARY_PATH", "").split(":")):
        # One that holds none is a slip, as an empty part or a whole home is.
        if folder.is_absolute() and any(folder.glob("*.so*")):
            yield folder
    yield from map(Path, _FILES)
    # The working directory: an empty folder of the sandbox's own.
    yield Path.cwd()


def without_hidden(path: Path) -> Iterator[tuple[Path, bool]]:
    """Yield (path, whether all below it is meant) so that all of the path is covered, and nothing hidden."""
    if not any(hidden.is_relative_to(path) for hidden in hidden_folders()):
        yield path, True
    elif path not in hidden_folders():
        # To be listed, for imports; what is in it follows one by one.
        yield path, False
        for child in path.iterdir():
            if not child.is_symlink():
                yield from without_hidden(child)
