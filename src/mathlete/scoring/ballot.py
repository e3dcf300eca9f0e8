"""maj@k: what share of the votes of k of a problem's samples is right."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from random import Random
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

EXACT_SUBSETS = 2000
"""Subsets up to which maj@k is computed over all of them; beyond, over this many drawn with a fixed seed."""


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """The classes of a problem's samples, made ready once for every k."""

    samples: int
    voters: "list[Array]"
    """Positions of the samples of each class; classes in the order of their labels."""
    places: "Array"
    """(samples,): each one's class in `voters`; the number of classes without an answer, which never votes."""
    is_right: "Array"
    """(classes,): whether the class equals the gold."""

    @classmethod
    def of(cls, labels: Sequence[int | None], *, right: set[int]) -> Self:
        """Return the ballot of samples with these classes, None without an answer; `right` equal the gold."""
        import numpy as np

        classes = sorted({label for label in labels if label is not None})
        place = {label: at for at, label in enumerate(classes)}
        places = np.array([len(classes) if label is None else place[label] for label in labels])
        return cls(
            samples=len(labels),
            voters=[np.flatnonzero(places == at) for at in range(len(classes))],
            places=places,
            is_right=np.array([label in right for label in classes], dtype=bool),
        )

    def maj_at(self, k: int) -> float:
        """Return the share of the subsets of k samples whose majority vote is right (see `maj_at_k`).

        Raises:
            ValueError: there are fewer than k samples, or k is below 1.
        """
        import numpy as np

        n = self.samples
        if not 1 <= k <= n:
            raise ValueError(f"needs 1 <= k <= samples, got k={k} of {n}")
        if not self.is_right.any():
            return 0.0
        subsets, chosen = _subsets(n, k)
        # Sums of rows, not a product of matrices: BLAS wakes its threads for each, which costs ten times the sums.
        counts = np.stack([np.add.reduce(subsets[rows], axis=0, dtype=subsets.dtype) for rows in self.voters])
        most_right = counts[self.is_right].max(axis=0)
        most_wrong = counts[~self.is_right].max(axis=0, initial=0)
        won = np.count_nonzero(most_right > most_wrong)
        tied = np.flatnonzero((most_right == most_wrong) & (most_right > 0))
        if len(tied):
            # Of the samples in such a subset that vote for a leading class, the first decides.
            leads = np.zeros((len(tied), len(counts) + 1), dtype=bool)
            leads[:, :-1] = counts.T[tied] == most_right[tied, None]
            voted, row = self.places[chosen[tied]], np.arange(len(tied))
            first = leads[row[:, None], voted].argmax(axis=1)
            won += np.count_nonzero(self.is_right[voted[row, first]])
        return float(won / len(chosen))


def maj_at_k(labels: Sequence[int | None], *, right: set[int], k: int) -> float:
    """Return the share of the size-k subsets of a problem's samples whose majority vote is right.

    `labels[i]` is the answer class of sample i, None without an answer, which never votes; `right` are the classes
    equal to the gold. Ties go to the class whose first sample in the subset has the lowest index, as in
    `mathlete.solve.voting`, so that with k = all samples this is the vote itself. A single drawn subset would add
    noise to every problem; here all subsets are counted, or 2000 with a fixed seed where there are more. Of samples
    a, b, a the pairs vote a (tie, first), a, b (tie, first):

    >>> round(maj_at_k([0, 1, 0], right={0}, k=2), 4)
    0.6667
    >>> maj_at_k([0, 1, 0], right={0}, k=3), maj_at_k([None, 1, None], right={1}, k=3)
    (1.0, 1.0)

    Raises:
        ValueError: there are fewer than k samples, or k is below 1.
    """
    return Ballot.of(labels, right=right).maj_at(k)


@lru_cache(maxsize=64)
def _subsets(n: int, k: int) -> "tuple[Array, Array]":
    """Return what maj@k counts, the same for all problems.

    That is (n, subsets), 1 where a subset has the sample, and (subsets, k), the positions of its samples, ascending.
    """
    import numpy as np

    if math.comb(n, k) <= EXACT_SUBSETS:
        chosen = np.array(list(combinations(range(n), k)))
    else:
        random = Random(n * 1_000_003 + k)
        chosen = np.array([sorted(random.sample(range(n), k)) for _ in range(EXACT_SUBSETS)])
    # The smallest type that holds a count of n: its sums are the fastest.
    subsets = np.zeros((n, len(chosen)), dtype=np.min_scalar_type(n))
    np.put_along_axis(subsets, chosen.T, 1, axis=0)
    return subsets, chosen
