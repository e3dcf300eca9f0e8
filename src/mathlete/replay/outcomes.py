"""Outcomes: what policies are expected to score and to cost, from simulated submissions, with their intervals."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from mathlete.errors import UserError
from mathlete.metrics import Interval, bootstrap
from mathlete.replay.simulation import Bank, Simulated, Wall, banks, draws, question_sets, rows_per_problem, simulate
from mathlete.sampling import SamplingConfig
from mathlete.scoring import Pool
from mathlete.solve import BudgetSettings, Policy

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

SAFE_LOSS = 0.005
"""A stopping rule is called safe where the score it loses, at the low end of its 95% interval, is no more than this."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """All combinations of these are tried."""

    n: tuple[int, ...]
    max_tokens: tuple[int, ...]
    stop: tuple[str, ...]
    vote: tuple[str, ...]
    walls: tuple[Wall | None, ...]

    @property
    def size(self) -> int:
        """How many policies these are."""
        return math.prod(map(len, (self.n, self.max_tokens, self.stop, self.vote, self.walls)))


@dataclass(frozen=True, kw_only=True)
class Submissions:
    """What is simulated."""

    simulations: int
    """Submissions for each policy and kind of interval."""
    questions: int
    """Questions of a submission."""
    slots: int | None
    """Samples of a problem running at once; None is all n."""
    seed: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One policy's figures. Scores are right questions of a submission; intervals of single scores are 90%."""

    n: int
    max_tokens: int
    stop: str
    vote: str
    wall: Wall | None
    new_set: Interval
    """Against other questions of this kind: questions drawn with replacement. The right one for a competition."""
    subset: Interval
    """Against questions drawn from these without replacement."""
    same_set: Interval
    """On the same questions again: only the samples differ."""
    two_runs: Interval
    """The mean of two runs on the same new set, 0 where either overran: AIMO-3's score."""
    change: Interval
    """Score minus that of the majority of all n samples without cap, stop or clock; 95% interval over problems."""
    p_overrun: float
    """Share of submissions that passed the wall."""
    spent: "Cost"
    """For a problem, on average."""
    saved: "Cost"
    """Shares of these saved against all n samples without cap, stop or clock."""
    submission_s: float
    """Mean of a whole submission."""
    submission_p95_s: float
    """95% of the submissions take no longer."""
    questions: int

    @property
    def safe(self) -> bool:
        """Whether it surely loses no more than `SAFE_LOSS` a question."""
        return self.change.lo >= -SAFE_LOSS * self.questions


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Three different figures: at n samples side by side, one may save much of one and little of another."""

    arrivals: float
    """Samples that finished."""
    wall_s: float
    """From the problem's start to its end."""
    generated_s: float
    """Seconds of generating, all samples together; a cancelled one counts until it is cancelled."""

    def saved_of(self, whole: "Cost") -> "Cost":
        """The shares of `whole` that are not spent."""
        return Cost(
            arrivals=1 - self.arrivals / whole.arrivals,
            wall_s=1 - self.wall_s / whole.wall_s if whole.wall_s else 0.0,
            generated_s=1 - self.generated_s / whole.generated_s if whole.generated_s else 0.0,
        )


def wall_from(words: str, *, questions: int) -> Wall | None:
    """The clock of a `--budget` word: none, SECONDS, SECONDS:FLOOR:CEILING or SECONDS:free.

    >>> wall_from("18000", questions=50)
    Wall(wall_s=18000.0, floor_s=300.0, ceiling_s=900.0)
    >>> wall_from("18000:free", questions=50)
    Wall(wall_s=18000.0, floor_s=None, ceiling_s=None)
    >>> wall_from("none", questions=50) is None
    True

    Raises:
        UserError: other words, or floors that do not fit.
    """
    if words == "none":
        return None
    first, *rest = words.split(":")
    try:
        numbers = [float(first), *map(float, [] if rest == ["free"] else rest)]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3) or not numbers[0] > 0:
        raise UserError(
            "a budget must be none, SECONDS, SECONDS:FLOOR:CEILING or SECONDS:free",
            value=repr(words),
            cure="write --budget 18000 for five hours",
        )
    if rest == ["free"]:
        return Wall(wall_s=numbers[0])
    shared = BudgetSettings.even(wall_s=numbers[0], questions=questions)
    if rest:
        shared = replace(shared, floor_s=numbers[1], ceiling_s=numbers[2])
    shared.check()
    return Wall(wall_s=numbers[0], floor_s=shared.floor_s, ceiling_s=shared.ceiling_s)


def outcomes(
    pool: Pool, grid: Grid, submissions: Submissions, *, on_outcome: Callable[[], None] = lambda: None
) -> list[Outcome]:
    """Every policy of the grid, in its order; `on_outcome` is called after each.

    Raises:
        UserError: more samples asked than recorded.
    """
    most = max(grid.n)
    if min(grid.n) < 1 or most > pool.fewest:
        raise UserError(
            f"--n must be 1 to {pool.fewest}, which is what every problem has recorded",
            value=most if most > pool.fewest else min(grid.n),
            cure="replay a smaller n, or record more samples",
        )
    for cap in grid.max_tokens:
        replace(SamplingConfig(), max_tokens=cap).check()
    wanted = submissions.simulations * submissions.questions
    rows = rows_per_problem(pool, n=most, wanted=wanted)
    drawn = draws(pool, n=most, rows=rows, seed=submissions.seed)
    found = []
    for n, vote in product(grid.n, grid.vote):
        for outcome in _with_n(pool, drawn, Policy(n=n, vote=vote), grid, submissions):
            found.append(outcome)
            on_outcome()
    return found


def _with_n(pool: Pool, drawn: "Array", policy: Policy, grid: Grid, submissions: Submissions) -> Iterable[Outcome]:
    def under(max_tokens: int, stops: Sequence[str]) -> dict[str, Bank]:
        capped = replace(policy, sampling=replace(policy.sampling, max_tokens=max_tokens))
        return banks(pool, drawn, policy=capped, stops=stops, slots=submissions.slots)

    longest = max(pool.longest, 1)
    uncapped = under(longest, [*dict.fromkeys(("none", *grid.stop))])
    plain = replace(policy, vote="majority", sampling=replace(policy.sampling, max_tokens=longest))
    whole = (
        uncapped["none"]
        if policy.vote == "majority"
        else banks(pool, drawn, policy=plain, stops=["none"], slots=submissions.slots)["none"]
    )
    for max_tokens in grid.max_tokens:
        found = uncapped if max_tokens == longest else under(max_tokens, grid.stop)
        for stop, bank in ((stop, found[stop]) for stop in grid.stop):
            for wall in grid.walls:
                yield _outcome(
                    replace(policy, stop=stop, sampling=replace(policy.sampling, max_tokens=max_tokens)),
                    bank,
                    whole,
                    wall,
                    submissions,
                )


def _outcome(policy: Policy, bank: Bank, whole: Bank, wall: Wall | None, submissions: Submissions) -> Outcome:
    import numpy as np

    # The same questions and draws for every policy, so that policies differ by themselves alone.
    random = np.random.default_rng(submissions.seed + 1)
    problems, questions, count = len(bank.stop) // bank.rows, submissions.questions, submissions.simulations

    def sets(*, again: bool) -> "Array":
        return question_sets(problems=problems, questions=questions, submissions=count, again=again, random=random)

    def run(asked: "Array") -> Simulated:
        rows: Array = random.integers(0, bank.rows, (count, questions))
        return simulate(bank, asked, rows, wall=wall)

    new = sets(again=True)
    first, second = run(new), run(random.permuted(new, axis=1))
    some = sets(again=False) if questions <= problems else new
    inside = run(some)
    expected = _by_problem(bank, inside, some, wall)
    spent = _cost(inside.arrivals, inside.seconds, inside.generated)
    lost = first.overrun | second.overrun
    return Outcome(
        n=policy.n,
        max_tokens=policy.sampling.max_tokens,
        stop=policy.stop,
        vote=policy.vote,
        wall=wall,
        new_set=_spread(first.scores),
        subset=_spread(inside.scores),
        same_set=_spread(inside.scores - expected[some].sum(1) + expected.mean() * questions),
        two_runs=_spread(np.where(lost, 0, (first.scores + second.scores) / 2)),
        change=_scaled(bootstrap((expected - whole.by_problem).tolist()), questions),
        p_overrun=float(first.overrun.mean()),
        spent=spent,
        saved=spent.saved_of(_cost(whole.stop, whole.seconds, whole.generated)),
        submission_s=float(first.seconds.sum(1).mean()),
        submission_p95_s=float(np.percentile(first.seconds.sum(1), 95)),
        questions=questions,
    )


def _cost(arrivals: "Array", seconds: "Array", generated: "Array") -> Cost:
    return Cost(arrivals=float(arrivals.mean()), wall_s=float(seconds.mean()), generated_s=float(generated.mean()))


def _by_problem(bank: Bank, inside: Simulated, asked: "Array", wall: Wall | None) -> "Array":
    """(problems,): expected score of each problem; under a clock, its mean over the submissions that asked it."""
    import numpy as np

    if wall is None:
        return bank.by_problem
    size = len(bank.stop) // bank.rows
    times = np.bincount(asked.ravel(), minlength=size)
    kept = inside.right & ~inside.overrun[:, None]
    won = np.bincount(asked.ravel(), weights=kept.ravel(), minlength=size)
    found: Array = won / np.maximum(times, 1)
    return found


def _spread(scores: "Array") -> Interval:
    """Mean and 90% interval of submissions' scores."""
    import numpy as np

    lo, hi = np.percentile(scores, [5, 95])
    return Interval(value=float(scores.mean()), lo=float(lo), hi=float(hi))


def _scaled(interval: Interval, factor: int) -> Interval:
    return Interval(value=interval.value * factor, lo=interval.lo * factor, hi=interval.hi * factor)
