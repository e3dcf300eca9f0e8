"""Near-duplicates within one set: time is linear but for sorting, memory is bounded, for a million problems too.

Candidates come from MinHash and LSH (Broder 1997; `rensa` makes the sketches). A whole set is read before it is
compared, so the buckets of each band come from sorting: 42 numbers per problem, where an index in memory takes four
kilobytes.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from mathlete.overlap.statements import Statement
from mathlete.overlap.suite_index import BANDS, HASHES, make_shingles, match_statements
from mathlete.problems import Problem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST_CANDIDATES = 64
"""Candidates that one problem is compared with at most. It keeps time linear for sets made from templates too."""
_BATCH = 2000
_CACHED = 20_000
"""Prepared statements kept in memory: those compared with one another often stand near each other."""


def find_first_duplicates(problems: Sequence[Problem]) -> list[int]:
    """Return the index of each problem's first exact or near duplicate; its own index if it has none.

    The relation is made transitive: where a is b and b is c, all three get a's index. In each of its buckets, small
    buckets first, a problem is compared with the first and the latest problem before it. A problem that is only
    contained in a longer text is not recognised.
    """

    @lru_cache(maxsize=_CACHED)
    def statement_at(index: int) -> Statement:
        return Statement.parse(problems[index].statement)

    firsts: list[int] = []

    def first_of(index: int, candidates: list[int]) -> int:
        if not candidates:
            return index
        problem, statement = problems[index], statement_at(index)
        for other in candidates:
            golds, conventions = zip(*((one.gold, one.answers) for one in (problem, problems[other])), strict=True)
            if match_statements(statement, statement_at(other), golds=golds, conventions=conventions) is not None:
                return firsts[other]
        return index

    for index, candidates in enumerate(_find_candidates(_hash_bands(problems))):
        firsts.append(first_of(index, candidates))
    return firsts


def _hash_bands(problems: Sequence[Problem]) -> "NDArray[np.uint64]":
    """Return a (problems, bands) array; problems with equal keys in a column share that band's bucket."""
    import numpy as np
    from rensa import RMinHash

    keys = np.empty((len(problems), BANDS), dtype=np.uint64)
    for start in range(0, len(problems), _BATCH):
        batch = [problems[index] for index in range(start, min(start + _BATCH, len(problems)))]
        shingles = [make_shingles(Statement.parse(problem.statement)) for problem in batch]
        digests = np.array(RMinHash.digests_from_token_sets(shingles, num_perm=HASHES, seed=0), dtype=np.uint64)
        hashes = digests.reshape(len(batch), BANDS, -1)
        # The three hashes of a band become one 64-bit key: multiply by an odd constant, then mix the high bits down.
        mixed = np.zeros(hashes.shape[:2], dtype=np.uint64)
        for at in range(hashes.shape[2]):
            mixed = (mixed ^ hashes[:, :, at]) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
        keys[start : start + len(batch)] = mixed
    return keys


def _find_candidates(keys: "NDArray[np.uint64]") -> Iterator[list[int]]:
    """Yield for each problem the earlier ones to compare it with, those of small buckets first."""
    import numpy as np

    rows, bands = keys.shape
    first, latest = (np.empty((rows, bands), dtype=np.int32) for _ in range(2))
    sizes = np.empty((rows, bands), dtype=np.int32)
    for band in range(bands):
        # Sorted by key, a bucket is a run of equal keys; the stable sort keeps problems of a bucket in their order.
        order = np.argsort(keys[:, band], kind="stable").astype(np.int32)
        starts = np.flatnonzero(np.diff(keys[order, band], prepend=keys[order[:1], band] + np.uint64(1)))
        lengths = np.diff(starts, append=rows)
        begin = np.repeat(starts, lengths)
        first[order, band] = order[begin]
        # The neighbour before it in the run; the first of a bucket is its own, which is filtered out below.
        latest[order, band] = order[np.maximum(np.arange(rows) - 1, begin)]
        sizes[order, band] = np.repeat(lengths, lengths)
    for row in range(rows):
        shared = np.flatnonzero(first[row] != row)
        # Small buckets first: a large one holds a template's phrase, a small one more likely the same problem.
        shared = shared[np.argsort(sizes[row, shared], kind="stable")]
        pairs = np.stack((first[row, shared], latest[row, shared]), axis=1).ravel().tolist()
        yield [*dict.fromkeys(pairs)][:_MOST_CANDIDATES]
