"""Signs of life of a process that loads: what it prints, and what it and all that it started take into memory.

Whoever reads weights takes in pages, however slow the disk is; so does a compiler. What waits for a lock, or spins
until a GPU answers that never will, takes in nothing: time of the CPU tells it from work no better than silence does.
"""

import os
from contextlib import suppress
from pathlib import Path

_TAKEN = 2**20
"""Bytes taken in that are a sign: one that hangs may still look around now and then."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Signs:
    """The signs of a process group with a log."""

    def __init__(self, log: Path, *, group: int) -> None:
        """Take where to look."""
        self._log, self._group, self._size, self._taken = log, group, 0, 0

    def came(self) -> bool:
        """Return whether there was one since this last said so."""
        size, taken = self._log.stat().st_size, count_taken(self._group)
        if size == self._size and abs(taken - self._taken) < _TAKEN:
            return False
        self._size, self._taken = size, taken
        return True


def count_taken(group: int) -> int:
    """Return a measure, in bytes, of what the processes of a group took into memory: pages, and what they read.

    It moves with everything that they take. 0: the system does not tell (proc(5) of Linux).
    """
    taken = 0
    for place in Path("/proc").glob("[0-9]*"):
        # It may end meanwhile; not every system counts bytes.
        with suppress(OSError):
            of_group, *pages = _read_numbers(place)
            if of_group == group:
                taken += sum(pages) * _PAGE
                taken += _read_bytes(place)
    return taken


def _read_numbers(place: Path) -> list[int]:
    """Return a process's group, its page faults and those of its ended children, and the pages that it holds.

    One fault may bring a page or, of a mapped file, a MiB.
    """
    fields = (place / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return [int(fields[number]) for number in (2, 7, 8, 9, 10, 21)]


def _read_bytes(place: Path) -> int:
    """Return the bytes that a process and its ended children asked for with calls such as read(2)."""
    return int((place / "io").read_text(encoding="ascii").split()[1])
