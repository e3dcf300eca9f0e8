"""Stopping rules: when a problem's vote is settled, or settled enough, before all its samples are in.

A rule's name is what a user writes; `+` joins several, any of which stops ("beta95+exact"). Every rule looks only at
the answers in the order they arrived. An answerless sample never votes, never fills a window and never counts as
distinct; it only uses up one of the n.

| name | stops when | guarantee |
|---|---|---|
| `none` | all n are in | |
| `exact` | the leader leads by more than all that is still to come | the answer is that of all n, always |
| `beta95` | P(the leader is the commoner of the top two) ≥ 0.95 | if answers come in random order |
| `dirichlet95` | P(the leader is the commonest of all seen) ≥ 0.95 | the same |
| `esc4` | one of the consecutive windows of 4 answers agrees | none; ESC |
| `votes4` | any answer has 4 votes | exact up to ties where 4 ≥ n / 2 |
| `4of5` | 4 of the latest 5 answers are the newest one | none |
| `aimo2` | 4 of 4, 4 of the latest 5, 5 of 7 or 6 of 9 | none; AIMO-2's second place |
| `hopeless6of8` | 6 of the first 8 answers are distinct | none; gives the question up with its leader |

The same code decides for one problem in the solve loop and for thousands of rows in the replay.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any

from mathlete.errors import UserError

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

UNIT = 1024
"""Votes are whole numbers of 1/1024, so that sums do not depend on their order. One sample has at most one vote."""
_INDEXES = 1 << 20
"""More than any index a sample has."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """The votes of problems as their samples arrived: one row a problem, one column an arrival."""

    labels: "Array"
    """(rows, arrivals), int: the answer's class, -1 without an answer."""
    weights: "Array"
    """(rows, arrivals), int: the vote in 1/1024, 0 to 1024."""
    indexes: "Array"
    """(rows, arrivals), int: the sample's own index, which decides ties."""
    n: int
    """Samples started for each problem; more than the arrivals while some are outstanding."""

    @cached_property
    def answered(self) -> "Array":
        """(rows, arrivals): the number of answers so far."""
        return (self.labels >= 0).cumsum(1)

    @cached_property
    def standing(self) -> "Standing":
        """Who leads after each arrival, by weight; ties go to the class with the lowest index."""
        return _rank(self, self.weights)

    @cached_property
    def counts(self) -> "Standing":
        """The same by plain counts, which the statistical rules are about."""
        import numpy as np

        if (self.weights == UNIT).all():
            return self.standing
        return _rank(self, np.full_like(self.weights, UNIT))

    @cached_property
    def answers(self) -> "Array":
        """(rows, arrivals): the labels of the answered samples in order, then -1."""
        import numpy as np

        row, arrival = (self.labels >= 0).nonzero()
        # One number of answers after the other in memory: rules compare whole columns.
        answers = np.full(self.labels.shape, -1, dtype=self.labels.dtype, order="F")
        answers[row, self.answered[row, arrival] - 1] = self.labels[row, arrival]
        return answers

    def stops_after(self, stop: str) -> "Array":
        """Return (rows,): arrivals after which the rule of that name ends each problem; n where it never does."""
        import numpy as np

        flags = stopping_rule(stop)(self)
        return np.where(flags.any(1), flags.argmax(1) + 1, self.n)

    def move_to_arrivals(self, flags: "Array") -> "Array":
        """Return (rows, arrivals): `flags`, one a number of answers, moved to the arrivals with so many answers."""
        import numpy as np

        moved = np.take_along_axis(flags, np.maximum(self.answered - 1, 0), axis=1)
        return moved & (self.answered > 0)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Leader and runner-up after each arrival; arrays (rows, arrivals)."""

    leader: "Array"
    """Class, -1 where there is no answer yet."""
    first: "Array"
    """The leader's votes in 1/1024."""
    second: "Array"
    """The runner-up's."""


def _rank(course: Course, weights: "Array") -> Standing:
    import numpy as np

    rows, arrivals = course.labels.shape
    classes = int(course.labels.max(initial=0)) + 1
    # Arrival by arrival, each in one piece of memory. No answer is a last class, which has no votes and never leads.
    labels = np.ascontiguousarray(np.where(course.labels < 0, classes, course.labels).T)
    votes = np.ascontiguousarray(np.where(course.labels < 0, 0, weights).T)
    indexes = np.ascontiguousarray(course.indexes.T)
    total = np.zeros(rows * (classes + 1), dtype=np.int64)
    lowest = np.full_like(total, _INDEXES - 1)
    leader, best = np.full(rows, -1), np.full(rows, -1, dtype=np.int64)
    first, second = np.zeros((2, rows), dtype=np.int64)
    standings = np.empty((3, arrivals, rows), dtype=np.int64)
    begins = np.arange(rows) * (classes + 1)
    for arrival, label in enumerate(labels):
        cell = begins + label
        sums = total[cell] + votes[arrival]
        low = np.minimum(lowest[cell], indexes[arrival])
        total[cell], lowest[cell] = sums, low
        # A class's key orders by weight, then by its lowest index. One number for both, so that a tie is decided by the
        # same comparison that decides the lead.
        key = np.where(label == classes, -1, sums * _INDEXES + (_INDEXES - 1 - low))
        # A vote only ever raises its own class's key. So the two best stay known by looking at that class alone, and
        # an arrival costs the same however many classes there are.
        leads = leader == label
        overtakes = ~leads & (key > best)
        # The leader that is overtaken was ahead of all others, so it is the runner-up now.
        np.maximum(second, np.where(overtakes, first, np.where(leads, 0, sums)), out=second)
        leader = np.where(overtakes, label, leader)
        np.maximum(best, key, out=best)
        np.maximum(first, sums, out=first)
        standings[:, arrival] = leader, first, second
    return Standing(leader=standings[0].T, first=standings[1].T, second=standings[2].T)


Rule = Callable[[Course], "Array"]
"""(rows, arrivals), bool: whether a problem may end after that arrival."""


def stopping_rule(name: str) -> Rule:
    """Return the rule of that name.

    Raises:
        UserError: an unknown name, with the known ones.
    """
    rules = [_single_rule(part.strip(), whole=name) for part in name.split("+")]

    def any_of(course: Course) -> "Array":
        flags = rules[0](course)
        for rule in rules[1:]:
            flags = flags | rule(course)
        return flags

    return any_of


def _single_rule(name: str, *, whole: str) -> Rule:
    for pattern, make in RULES.values():
        if match := re.fullmatch(pattern, name):
            return partial(make, *(int(group) for group in match.groups()))
    raise UserError(
        "a stopping rule must be a known one, or several joined by +",
        value=repr(whole),
        cure=f"known: {', '.join(RULES)}; the numbers in them may be others",
    )


@cache
def fewest_samples(name: str, n: int) -> int:
    """Return the arrivals after which the rule can end a problem of n samples at the earliest.

    That is when all answers agree, or, for a rule that gives up, when no two do.

    >>> [fewest_samples(name, 16) for name in ("exact", "beta95+exact", "hopeless6of8", "none")]
    [9, 4, 8, 16]
    """
    import numpy as np

    indexes = np.tile(np.arange(n), (2, 1))
    labels = indexes * np.array([[0], [1]])
    extremes = Course(labels=labels, weights=np.full_like(labels, UNIT), indexes=indexes, n=n)
    return int(extremes.stops_after(name).min())


def _none(course: Course) -> "Array":
    import numpy as np

    return np.zeros(course.labels.shape, dtype=bool)


def _exact(course: Course) -> "Array":
    """Strictly more than the runner-up and all outstanding samples together, each with a whole vote.

    With a tie possible the answer could still turn on the indexes of samples to come. A class not seen yet starts
    from 0, so with one class it must lead by more than all that is outstanding.
    """
    import numpy as np

    outstanding = course.n - np.arange(1, course.labels.shape[1] + 1)
    standing = course.standing
    return (standing.leader >= 0) & (standing.first - standing.second > outstanding * UNIT)


def _beta(percent: int, course: Course) -> "Array":
    import numpy as np

    size = course.labels.shape[1] + 1
    table = np.array([[posterior(a, b) if a >= b else 0.0 for b in range(size)] for a in range(size)])
    counts = course.counts
    flags: Array = table[counts.first // UNIT, counts.second // UNIT] >= percent / 100
    return flags


@cache
def posterior(leader: int, runner_up: int) -> float:
    """Return the probability that the leader of two answers is the commoner, given their counts and a uniform prior.

    P(Bin(a + b + 1, 1/2) ≤ a), which equals the integral of Beta(a + 1, b + 1) over [1/2, 1]. Source: Aggarwal et al.
    2023, "Let's sample step by step: adaptive-consistency", arXiv:2305.11860, section 3 (its Beta criterion). It
    stops at 4-0, 6-1, 8-2 with 0.95:

    >>> [round(posterior(*counts), 3) for counts in ((3, 0), (4, 0), (5, 1), (6, 1))]
    [0.938, 0.969, 0.938, 0.965]
    """
    total = leader + runner_up + 1
    return sum(math.comb(total, wins) for wins in range(leader + 1)) / float(2**total)


def _dirichlet(percent: int, course: Course) -> "Array":
    import numpy as np

    rows, arrivals = course.labels.shape
    tally = np.zeros((rows, int(course.labels.max(initial=0)) + 1), dtype=np.int64)
    flags = np.zeros((rows, arrivals), dtype=bool)
    for arrival in range(arrivals):
        label = course.labels[:, arrival]
        at = (label >= 0).nonzero()[0]
        tally[at, label[at]] += 1
        # Many rows share few sorted tallies, and each tally costs an integral.
        kinds, kind = np.unique(-np.sort(-tally, axis=1), axis=0, return_inverse=True)
        shares = [dirichlet_posterior(tuple(int(c) for c in counts if c)) for counts in kinds]
        flags[:, arrival] = np.array(shares)[kind.reshape(-1)] >= percent / 100
    return flags


@cache
def dirichlet_posterior(counts: tuple[int, ...]) -> float:
    """Return the probability that the commonest of several answers is the commonest by nature, given their counts,
    largest first.

    Source: Aggarwal et al. 2023, arXiv:2305.11860, section 3 (its Dirichlet criterion), which samples; here a Dirichlet
    is independent Gamma(count + 1) variables over their sum, and the integral is taken on a grid. With two answers it
    is the Beta criterion:

    >>> round(dirichlet_posterior((4, 1)), 3), round(posterior(4, 1), 3), round(dirichlet_posterior((4, 1, 1)), 3)
    (0.891, 0.891, 0.813)
    """
    import numpy as np

    if not counts:
        return 0.0
    if len(counts) == 1:
        # One answer alone is compared with a second one that has not been seen.
        return posterior(counts[0], 0)
    x = np.linspace(1e-9, counts[0] + 12 * math.sqrt(counts[0] + 1) + 12, 4001)
    density = np.exp(counts[0] * np.log(x) - x - math.lgamma(counts[0] + 1))
    for count in counts[1:]:
        # The distribution function of a Gamma with whole shape c + 1 is 1 - exp(-x) (1 + x + ... + x^c / c!).
        below = sum((np.exp(j * np.log(x) - x - math.lgamma(j + 1)) for j in range(count + 1)), np.zeros_like(x))
        density = density * (1 - below)
    return float(np.trapezoid(density, x))


def _window(size: int, course: Course) -> "Array":
    """Stop where a window of answers agrees.

    Source: Li et al. 2024, "Escape sky-high cost: early-stopping self-consistency", arXiv:2401.10480, section 3.
    Their script answers with the window's value; here the leader of all does, which differs in 0.1 to 0.3% of draws.
    """
    answers = course.answers
    flags = _count_agreeing(answers, of=size) >= size
    # Windows do not overlap: the first `size` answers, the next `size`, and so on.
    flags[:, [end for end in range(answers.shape[1]) if (end + 1) % size]] = False
    return course.move_to_arrivals(flags)


def _count_agreeing(answers: "Array", *, of: int) -> "Array":
    """Return (rows, answers): how many of the latest `of` answers equal the newest, at each; 0 at an empty place."""
    import numpy as np

    counts = np.zeros(answers.shape, dtype=np.int16, order="F")
    for back in range(min(of, answers.shape[1])):
        counts[:, back:] += answers[:, back:] == answers[:, : answers.shape[1] - back]
    return np.where(answers >= 0, counts, 0)


def _votes(votes: int, course: Course) -> "Array":
    return course.counts.first >= votes * UNIT


def _latest(votes: int, of: int, course: Course) -> "Array":
    return course.move_to_arrivals(_agree(votes, of, course))


def _agree(votes: int, of: int, course: Course) -> "Array":
    """Return (rows, answers): whether so many of the latest `of` answers are the newest one, at each."""
    agree: Array = _count_agreeing(course.answers, of=of) >= votes
    return agree


def _aimo2(course: Course) -> "Array":
    """Stop where 4 of 5, 5 of 7 or 6 of 9 answers agree.

    Source: imagination-research/aimo2, imagination_aimo2/local_eval_kaggle.py, `consistency_rules`.
    """
    return course.move_to_arrivals(_agree(4, 5, course) | _agree(5, 7, course) | _agree(6, 9, course))


def _hopeless(distinct: int, of: int, course: Course) -> "Array":
    import numpy as np

    answers = course.answers
    flags = np.zeros(answers.shape, dtype=bool)
    if of <= answers.shape[1]:
        head = np.sort(answers[:, :of], axis=1)
        kinds = (np.diff(head, axis=1) != 0).sum(1) + 1
        # Empty places are -1 and sort first: with one among them there are not `of` answers yet.
        flags[:, of - 1] = (head[:, 0] >= 0) & (kinds >= distinct)
    return course.move_to_arrivals(flags)


RULES: dict[str, tuple[str, Callable[..., "Array"]]] = {
    "none": ("none", _none),
    "exact": ("exact", _exact),
    "beta95": (r"beta([5-9]\d)", _beta),
    "dirichlet95": (r"dirichlet([5-9]\d)", _dirichlet),
    "esc4": (r"esc([1-9]\d?)", _window),
    "votes4": (r"votes([1-9]\d?)", _votes),
    "4of5": (r"([1-9]\d?)of([1-9]\d?)", _latest),
    "aimo2": ("aimo2", _aimo2),
    "hopeless6of8": (r"hopeless([1-9]\d?)of([1-9]\d?)", _hopeless),
}
"""{example of a name: (pattern of such names, rule)}; the rule takes the pattern's numbers, then the course."""
