"""Which of the right traces are kept: one of several equal ones, and of each problem those that the policy names."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Column = NDArray[Any]
    """A column of the table of rows: a value of each row."""


def hash_text(text: str) -> str:
    """Return a key that is equal for texts that differ only in white space."""
    return hashlib.blake2b(" ".join(text.split()).encode(), digest_size=8).hexdigest()


def mark_duplicates(problems: "Sequence[object] | Column", traces: "Sequence[str] | Column") -> "NDArray[np.bool_]":
    """Return True for each row whose problem and trace an earlier row has."""
    import numpy as np

    keys = [f"{problem}/{trace}" for problem, trace in zip(problems, traces, strict=True)]
    _, first = np.unique(keys, return_index=True)
    repeated = np.ones(len(problems), dtype=bool)
    repeated[first] = False
    return repeated


def choose_traces(
    problems: "Sequence[str] | Column",
    lengths: "Sequence[int] | Column",
    *,
    shortest: int | None = None,
    longest_under: int | None = None,
) -> "NDArray[np.bool_]":
    """Return True for each row that is kept; without `shortest` and `longest_under`, all of them are.

    Args:
        problems: the problem of each row.
        lengths: tokens of each row's trace.
        shortest: keep so many of each problem, the shortest first, earlier rows before later ones.
        longest_under: keep the longest trace of each problem that has fewer tokens than this, if there is one.
    """
    import numpy as np

    sizes = np.asarray(lengths)
    if shortest is None and longest_under is None:
        return np.ones(len(sizes), dtype=bool)
    allowed = np.flatnonzero(sizes < longest_under) if longest_under else np.arange(len(sizes))
    _, group = np.unique(np.asarray(problems), return_inverse=True)
    # Sort by problem, then by length in the wanted direction, then by place: each problem is a run of `order`.
    wanted = -sizes if longest_under else sizes
    order = allowed[np.lexsort((allowed, wanted[allowed], group[allowed]))]
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    # The rank of each row within its problem's run: its place minus the place where the run starts.
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    kept = np.zeros(len(sizes), dtype=bool)
    kept[order[rank < (shortest or 1)]] = True
    return kept
