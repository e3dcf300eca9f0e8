"""What a program may read of this machine: the libraries of Python and of the system, and a few plain facts.

It is a list of what is allowed, so that what is not known here is hidden too: golds, runs, tokens, keys, /proc.
"""

import functools
import importlib.metadata
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from mathlete.shipped import data_folder

_FILES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/usr/share/zoneinfo", "/etc/localtime",
          "/etc/timezone", "/etc/hostname", "/etc/os-release", "/etc/ld.so.cache")  # fmt: skip
_SITES = ("site-packages", "dist-packages")
_NEEDED = ("numpy", "numpy.libs", "sympy", "mpmath")


@functools.cache
def hidden_folders() -> list[Path]:
    """Return what stays hidden in the midst of readable folders: this package, which may have golds beside it."""
    return [Path(__file__).resolve().parents[1], data_folder().resolve()]


def readable_paths() -> list[Path]:
    """Return existing files and folders, resolved; programs may read all in them but `hidden_folders`."""
    paths = {path.resolve() for path in _named_paths() if path.is_absolute() and os.access(path, os.F_OK)}
    return sorted(path for path in paths if not any(path.is_relative_to(hidden) for hidden in hidden_folders()))


def mixed_folders() -> list[Path]:
    """Return the folders of Python's path that hold packages among other files, as `pip install --target` leaves them.

    For imports they may be listed; of what is in them only the packages may be read.
    """
    return [
        folder
        for folder in map(Path, sys.path)
        # One without packages is the user's own: scripts, or the working directory with its runs.
        if folder.name not in _SITES and folder.is_absolute() and any((folder / name).is_dir() for name in _NEEDED)
    ]


def library_files() -> list[Path]:
    """Return the libraries in the folders of LD_LIBRARY_PATH, beside which a home may have anything."""
    folders = map(Path, os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    return [file for folder in folders if folder.is_absolute() for file in folder.glob("*.so*")]


def _named_paths() -> Iterator[Path]:
    yield from (folder for folder in map(Path, sys.path) if folder.name in _SITES)
    for folder in mixed_folders():
        yield from (folder / name for name in _installed_names(folder))
    for prefix in (sys.base_prefix, sys.prefix, "/usr", "/usr/local", "/"):
        yield from (Path(prefix, name) for name in ("lib", "lib64"))
    yield from library_files()
    yield from map(Path, _FILES)
    # The working directory: an empty folder of the sandbox's own.
    yield Path.cwd()


@functools.cache
def _installed_names(folder: Path) -> set[str]:
    """Return what pip has put into a folder, by its own records, and what programs need even without any."""
    installed = importlib.metadata.distributions(path=[str(folder)])
    rows = [row for one in installed for row in (one.read_text("RECORD") or "").splitlines()]
    recorded = {row.split(",")[0].split("/")[0] for row in rows}
    # The compiled scripts of the user are in one folder with those of packages.
    return {*_NEEDED, *recorded} - {"", "..", "__pycache__"}


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
