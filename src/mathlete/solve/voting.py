"""Votes: samples with the same answer form a class, and the class with the most votes wins.

A sample without an answer never votes. Nothing here depends on the order in which samples arrived: they are put in the
order of their indexes first, votes are whole numbers of 1/1024, and a tie goes to the class whose first sample has the
lowest index. Since sample i is the same whatever n is, that rule prefers no kind of answer, unlike "the smallest
number".

How much a sample's vote counts depends on that sample alone. It is between 0 and 1:

| name | a sample's vote |
|---|---|
| `majority` | 1 (Wang et al. 2023, "Self-consistency", arXiv:2203.11171) |
| `logprob` | half of 1 + exp(mean log-probability of its tokens), which falls as their entropy rises |
| `tail` | the same over its last 2048 tokens (after Fu et al. 2025, "Deep think with confidence", arXiv:2508.15260, |
| | section 3.1, whose confidence also looks at the tokens that were not drawn; those are not recorded here) |
| `length` | 1 - half its share of the token cap: at the cap a sample counts half |
| `strength` | 1 in a box or another clear form, 1/4 read out of loose prose or of thoughts that never end |

On the pocket model's recording `length` and `strength` do not beat majority at 95% with n = 4, 8 or 16; `logprob` and
`tail` do with 4 and 8, not with 16; on the real one `logprob` and `tail` do with 4 alone, and `length` does not
(docs/solving.md; `python -m eval replay RUN --vote all` says it of any recording).

A log-probability that is missing or not finite counts 1/2, so one sample's NaN neither wins nor spoils the vote. With
`logprob`, `tail` and `length` no sample outweighs two others: a lone confident one never overrides four, as it did with
a weight of 1/entropy.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from mathlete.errors import UserError, nearest
from mathlete.sampling import Sample
from mathlete.solve.stopping import UNIT

Weigh = Callable[[Sample], int]
"""A sample's vote in 1/1024."""


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One class of equal answers."""

    answer: str
    """As its lowest-index sample wrote it; a forced answer only where no sample wrote it by itself."""
    indexes: tuple[int, ...]
    """Indexes of its samples, ascending."""
    harvested: tuple[int, ...] = ()
    """Indexes of those that vote for it and count as no samples that gave it, ascending: samples that were made to give
    it after they were cut, and those that the clock cut behind it."""
    weight: float
    """Sum of its samples' votes; their number in a majority vote."""

    @property
    def count(self) -> int:
        """Samples that voted for it by themselves."""
        return len(self.indexes)

    @property
    def first(self) -> int:
        """Index of the sample that gave the answer as it is written here."""
        return (self.indexes or self.harvested)[0]


def weigher(kind: str, *, max_tokens: int) -> Weigh:
    """Return how a vote of that kind counts a sample.

    Args:
        kind: one of VOTES; see the table above.
        max_tokens: the cap that `length` is relative to.

    Raises:
        UserError: an unknown kind.
    """
    if kind not in VOTES:
        raise UserError("the vote must be a known one", value=repr(kind), cure=nearest(kind, [*VOTES]))
    if kind == "majority":
        return lambda sample: UNIT
    vote = VOTES[kind]

    def weigh(sample: Sample) -> int:
        return round(UNIT * min(1.0, max(0.0, vote(sample, max_tokens))))

    return weigh


def _probability(mean: float | None) -> float:
    return 0.5 if mean is None or not math.isfinite(mean) else math.exp(min(0.0, mean)) / 2 + 0.5


def _strength(sample: Sample, max_tokens: int) -> float:
    from mathlete.answers import extract

    return 0.25 if extract(sample.text, thinking=sample.in_thoughts).strength == "weak" else 1.0


VOTES: dict[str, Callable[[Sample, int], float]] = {
    "majority": lambda sample, max_tokens: 1.0,
    "logprob": lambda sample, max_tokens: _probability(sample.logprob_mean),
    "tail": lambda sample, max_tokens: _probability(sample.logprob_tail),
    "length": lambda sample, max_tokens: 1 - min(1.0, sample.tokens / max_tokens) / 2,
    "strength": _strength,
}
"""{name: a sample's vote, 0 to 1, given the token cap}."""
SCORED_VOTES = ("logprob", "tail")
"""Those that read log-probabilities."""


def count_votes(
    samples: Iterable[Sample],
    *,
    weigh: Weigh = lambda sample: UNIT,
    settings: str = "",
    harvest: float = 0.0,
    spelled: bool = False,
) -> list[Vote]:
    """Return the classes of equal answers, winner first; empty where no sample has an answer.

    Args:
        samples: of one problem.
        weigh: what a sample's vote weighs.
        settings: the conventions of the problem's answers.
        harvest: what a forced answer's vote weighs beside one that a sample gave by itself, 0 to 1; 0: it has none.
        spelled: whether it is known that answers are equal only where they are written alike.
    """
    from mathlete.answers import label_classes

    voting = [one for one in samples if one.answer is not None or (harvest and one.is_harvested)]
    voting.sort(key=_index)
    answers = [one.read_as_finished().answer for one in voting]
    labels: Sequence[Hashable] = answers if spelled else label_classes(answers, settings)
    members: dict[Hashable, list[Sample]] = {}
    for sample, label in zip(voting, labels, strict=True):
        members.setdefault(label, []).append(sample)
    votes = [_class_of(group, weigh=weigh, harvest=harvest) for group in members.values()]
    return sorted(votes, key=lambda vote: (-vote.weight, min(vote.indexes + vote.harvested)))


def _class_of(group: list[Sample], *, weigh: Weigh, harvest: float) -> Vote:
    own: list[Sample] = []
    forced: list[Sample] = []
    for one in group:
        (own if one.answer is not None and one.finish != "clock" else forced).append(one)
    # Weighed as if it had ended so: a vote by length or strength looks at the sample, which has no answer of its own.
    # One that was cut behind a clear answer has given that by itself.
    units = sum(
        weigh(one) if one.answer is not None else round(harvest * weigh(one.read_as_finished())) for one in group
    )
    return Vote(
        answer=str((own or forced)[0].read_as_finished().answer),
        indexes=tuple(map(_index, own)),
        harvested=tuple(map(_index, forced)),
        weight=units / UNIT,
    )


def _index(sample: Sample) -> int:
    return sample.index
