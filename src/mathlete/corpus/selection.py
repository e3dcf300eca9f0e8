"""Which of the right traces are kept: one of several that are the same, and of each problem those the policy names."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mathlete.corpus.statements import tokens_of

if TYPE_CHECKING:
    from numpy import ndarray


def key_of(statement: str) -> str:
    """The same for statements that differ in typesetting only."""
    return _hash(" ".join(tokens_of(statement)) or statement)


def text_key(text: str) -> str:
    """The same for texts that differ in white space only."""
    return _hash(" ".join(text.split()))


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def duplicates(
    problems: "Sequence[object] | ndarray[Any, Any]", traces: "Sequence[str] | ndarray[Any, Any]"
) -> "ndarray[Any, Any]":
    """True for each row whose problem and trace an earlier row has."""
    import numpy as np

    _, first = np.unique([f"{one}/{other}" for one, other in zip(problems, traces, strict=True)], return_index=True)
    found = np.ones(len(problems), dtype=bool)
    found[first] = False
    return found


def chosen(
    problems: "Sequence[str] | ndarray[Any, Any]",
    lengths: "Sequence[int] | ndarray[Any, Any]",
    *,
    shortest: int | None = None,
    longest_under: int | None = None,
) -> "ndarray[Any, Any]":
    """True for each row that is kept of its problem's: all of them where neither number is given.

    Args:
        problems: the problem of each row.
        lengths: tokens of each row's trace.
        shortest: keep so many of each problem, the shortest first, earlier rows before later ones.
        longest_under: keep the longest that has fewer tokens than this, if there is one.
    """
    import numpy as np

    sizes = np.asarray(lengths)
    if shortest is None and longest_under is None:
        return np.ones(len(sizes), dtype=bool)
    allowed = np.flatnonzero(sizes < longest_under) if longest_under else np.arange(len(sizes))
    _, group = np.unique(np.asarray(problems), return_inverse=True)
    wanted = -sizes if longest_under else sizes
    order = allowed[np.lexsort((allowed, wanted[allowed], group[allowed]))]
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    place = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    found = np.zeros(len(sizes), dtype=bool)
    found[order[place < (shortest or 1)]] = True
    return found
