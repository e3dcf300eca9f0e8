"""Near-duplicates within one set, of a million problems as of a thousand: time linear but for sorting, memory bounded.

Candidates are found by MinHash and LSH (Broder 1997; `rensa` makes the sketches). A set is read whole before it is
compared, so the buckets are found by sorting, one band after another: 42 numbers a problem, where an index in memory
takes four kilobytes.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mathlete.corpus.overlap import BANDS, HASHES, kind_of, shingles_of
from mathlete.corpus.statements import Statement
from mathlete.problems import Problem

if TYPE_CHECKING:
    from numpy import ndarray

_COMPARED = 64
"""Look-alikes that a problem is compared with at most, so that sets made from templates take linear time too."""
_BATCH = 2000
_READ = 20_000
"""Statements kept read: those compared with one another often stand near each other."""


def first_of_each(problems: Sequence[Problem]) -> list[int]:
    """For each problem the place of the first that is the same one, word for word or reworded: its own, if new.

    Where a is b and b is c, all three have a's place. A problem is compared with the first and the latest of those
    before it in each of its buckets, small buckets first. One that merely holds the other's words in a longer text is
    not found.
    """

    @lru_cache(maxsize=_READ)
    def read(place: int) -> Statement:
        return Statement.of(problems[place].statement)

    places: list[int] = []
    for number, candidates in enumerate(_candidates(_bands(problems))):
        own, same = number, (problems[number], read(number)) if candidates else None
        for other in candidates:
            assert same is not None
            if kind_of(same[1], read(other), golds=(same[0].gold, problems[other].gold)) is not None:
                own = places[other]
                break
        places.append(own)
    return places


def _bands(problems: Sequence[Problem]) -> "ndarray[Any, Any]":
    """(problems, bands) uint64: equal numbers in a column are a bucket."""
    import numpy as np
    from rensa import RMinHash

    found = np.empty((len(problems), BANDS), dtype=np.uint64)
    for start in range(0, len(problems), _BATCH):
        some = [problems[place] for place in range(start, min(start + _BATCH, len(problems)))]
        sets = [shingles_of(Statement.of(problem.statement)) for problem in some]
        digests = np.array(RMinHash.digests_from_token_sets(sets, num_perm=HASHES, seed=0), dtype=np.uint64)
        parts = digests.reshape(len(some), BANDS, -1)
        mixed = np.zeros(parts.shape[:2], dtype=np.uint64)
        for at in range(parts.shape[2]):
            mixed = (mixed ^ parts[:, :, at]) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
        found[start : start + len(some)] = mixed
    return found


def _candidates(bands: "ndarray[Any, Any]") -> Iterator[list[int]]:
    """For each problem the earlier ones it is to be compared with, those of small buckets first."""
    import numpy as np

    rows, count = bands.shape
    first, latest = (np.empty((rows, count), dtype=np.int32) for _ in range(2))
    sizes = np.empty((rows, count), dtype=np.int32)
    for band in range(count):
        order = np.argsort(bands[:, band], kind="stable").astype(np.int32)
        starts = np.flatnonzero(np.diff(bands[order, band], prepend=bands[order[:1], band] + np.uint64(1)))
        lengths = np.diff(starts, append=rows)
        begin = np.repeat(starts, lengths)
        first[order, band] = order[begin]
        latest[order, band] = order[np.maximum(np.arange(rows) - 1, begin)]
        sizes[order, band] = np.repeat(lengths, lengths)
    for row in range(rows):
        shared = np.flatnonzero(first[row] != row)
        shared = shared[np.argsort(sizes[row, shared], kind="stable")]
        pairs = np.stack((first[row, shared], latest[row, shared]), axis=1).ravel().tolist()
        yield [*dict.fromkeys(pairs)][:_COMPARED]
