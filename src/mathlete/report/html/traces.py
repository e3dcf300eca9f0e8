"""Traces inside the page: gzipped JSON as base64, one block for each problem, unpacked only when it is read.

A long run's traces are hundreds of megabytes. Traces that do not fit are cut in the middle, and the page says how many
characters are left out and where the whole trace is. The first trace of the winner and the first right one keep most.
"""

import gzip
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mathlete.text import strict_json

_LADDER: tuple[tuple[int | None, int | None], ...] = (
    (None, None), (None, 6000), (None, 2000), (24_000, 1000), (12_000, 600), (6000, 300), (3000, 200), (1000, 120),
    (400, 60),
)  # fmt: skip
"""(characters kept of a problem's leading traces, of its others), tried in this order until all fits; None is all."""
_PROBED = 40
"""Problems that are packed to estimate the size of all."""
_MARGIN = 0.92
"""Share of the space that an estimate may fill."""
_FRONT = 0.35
"""Share of the kept characters that is taken from a trace's beginning; its end has the answer."""


@dataclass(frozen=True, kw_only=True)
class ShownText:
    """One text and what the page says about it."""

    text: str
    leading: bool
    """Whether it is one of the two that keep most."""
    facts: Sequence[Any]
    """JSON values."""
    forced: "ShownText | None" = None
    """What it was made to answer after it was cut; never a part of it."""


def pack_traces(problems: Sequence[Sequence[ShownText]], *, trace_bytes: int) -> list[str]:
    """Return a block of base64 for each problem's traces, within `trace_bytes` together as far as cutting can do it."""
    rungs = list(_LADDER)
    # Packing all traces takes seconds in a large run: an estimate skips the cuts that surely do not fit.
    while len(rungs) > 1 and _estimate_bytes(problems, rungs[0]) > trace_bytes * _MARGIN:
        rungs.pop(0)
    while True:
        blocks = [_pack(traces, rungs[0]) for traces in problems]
        if len(rungs) == 1 or sum(map(len, blocks)) <= trace_bytes:
            return blocks
        rungs.pop(0)


def _estimate_bytes(problems: Sequence[Sequence[ShownText]], rung: tuple[int | None, int | None]) -> float:
    probed = problems[:: max(1, len(problems) // _PROBED)]
    return sum(len(_pack(traces, rung)) for traces in probed) * len(problems) / max(1, len(probed))


def _pack(traces: Sequence[ShownText], rung: tuple[int | None, int | None]) -> str:
    rows = [_row(trace, rung[0] if trace.leading else rung[1]) for trace in traces]
    return b64encode(gzip.compress(strict_json(rows).encode(), compresslevel=6, mtime=0)).decode()


def _row(trace: ShownText, most: int | None) -> list[Any]:
    """Return [facts …, beginning, end, characters left out], and behind them such a row of a forced answer."""
    row = [*trace.facts, *_cut(trace.text, most)]
    return [*row, _row(trace.forced, most)] if trace.forced else row


def _cut(text: str, most: int | None) -> tuple[str, str, int]:
    """Return (beginning, end, characters left out between them).

    >>> _cut("abcdefghij", 4), _cut("abc", 4)
    (('a', 'hij', 6), ('abc', '', 0))
    """
    if most is None or len(text) <= most:
        return text, "", 0
    front = int(most * _FRONT)
    return text[:front], text[front - most :], len(text) - most
