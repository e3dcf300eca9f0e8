"""Votes: samples with the same answer stand together, the largest class wins, ties go to the class begun first.

A sample without an answer never votes. Nothing here depends on the order in which samples arrived: they are put in the
order of their indexes first, and a tie goes to the class whose first sample has the lowest index. Since sample i is the
same whatever n is, that rule prefers no kind of answer, unlike "the smallest number".
"""

from collections.abc import Iterable
from dataclasses import dataclass

from mathlete.answers import cluster
from mathlete.sampling.samples import Sample


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One class of equal answers."""

    answer: str
    """As its lowest-index sample wrote it."""
    indexes: tuple[int, ...]
    """Indexes of its samples, ascending."""

    @property
    def count(self) -> int:
        """Samples that voted for it."""
        return len(self.indexes)


def count_votes(samples: Iterable[Sample]) -> list[Vote]:
    """The classes of equal answers, winner first; empty where no sample has an answer."""
    answered = sorted((s.index, s.answer) for s in samples if s.answer is not None)
    votes = [
        Vote(answer=answered[members[0]][1], indexes=tuple(answered[member][0] for member in members))
        for members in map(sorted, cluster([answer for _, answer in answered]))
    ]
    return sorted(votes, key=lambda vote: (-vote.count, vote.indexes[0]))


def is_decided(votes: list[Vote], *, outstanding: int) -> bool:
    """Whether the leader stays the leader whatever the outstanding samples say ("exact" early stop).

    Strictly more votes than the runner-up and all outstanding samples together: with a tie possible, the answer could
    still turn on the indexes of samples to come. A class not seen yet starts from 0, so with one class it must lead
    by more than all that is outstanding.

    >>> leader, other = Vote(answer="7", indexes=(0, 1, 4)), Vote(answer="8", indexes=(2,))
    >>> is_decided([leader, other], outstanding=1), is_decided([leader, other], outstanding=2)
    (True, False)
    """
    if not votes:
        return False
    runner_up = votes[1].count if len(votes) > 1 else 0
    return votes[0].count - runner_up > outstanding
