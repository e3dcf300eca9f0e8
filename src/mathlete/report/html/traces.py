"""Traces inside the page: gzip of JSON as base64, one block a problem, unpacked only when it is read.

A long run's traces are hundreds of megabytes. What does not fit is cut in the middle, openly: the page says how many
characters are left out and where they stand. The first trace of the winner and the first right one keep most.
"""

import gzip
import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_LADDER: tuple[tuple[int | None, int | None], ...] = (
    (None, None), (None, 6000), (None, 2000), (24_000, 1000), (12_000, 600), (6000, 300), (3000, 200), (1000, 120),
    (400, 60),
)  # fmt: skip
"""(characters kept of a problem's leading traces, of its others), from all down to next to nothing."""
_TRIED = 40
"""Problems whose packed size stands for all."""
_SURE = 0.92
"""Share of the room that an estimate may fill."""
_FRONT = 0.35
"""Share of the kept characters that is taken from a trace's beginning; its end has the answer."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One text with what the page tells of it."""

    text: str
    leading: bool
    facts: Sequence[Any]
    """JSON values."""


def packed(problems: Sequence[Sequence[Trace]], *, room: int) -> list[str]:
    """A block of base64 for each problem's traces, within `room` bytes together as far as cutting can do it."""
    rungs = list(_LADDER)
    while len(rungs) > 1 and _estimate(problems, rungs[0]) > room * _SURE:
        rungs.pop(0)
    while True:
        blocks = [_block(traces, rungs[0]) for traces in problems]
        if len(rungs) == 1 or sum(map(len, blocks)) <= room:
            return blocks
        rungs.pop(0)


def _estimate(problems: Sequence[Sequence[Trace]], rung: tuple[int | None, int | None]) -> float:
    tried = problems[:: max(1, len(problems) // _TRIED)]
    return sum(len(_block(traces, rung)) for traces in tried) * len(problems) / max(1, len(tried))


def _block(traces: Sequence[Trace], rung: tuple[int | None, int | None]) -> str:
    rows = [[*trace.facts, *_cut(trace.text, rung[0] if trace.leading else rung[1])] for trace in traces]
    content = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode("utf-8", errors="replace")
    return b64encode(gzip.compress(content, compresslevel=6, mtime=0)).decode()


def _cut(text: str, most: int | None) -> tuple[str, str, int]:
    """(beginning, end, characters left out between them).

    >>> _cut("abcdefghij", 4), _cut("abc", 4)
    (('a', 'hij', 6), ('abc', '', 0))
    """
    if most is None or len(text) <= most:
        return text, "", 0
    front = int(most * _FRONT)
    return text[:front], text[front - most :], len(text) - most
