"""Simulation: what recorded samples would have given under another policy, for thousands of draws at once.

A draw takes n of a problem's N samples without replacement, in random order. The stopping rules and votes are those of
the solve loop: `solve()` over a `ReplaySampler` with a `VirtualClock` gives the same on the same draw, which
tests/test_replay.py checks.

Not modelled: an engine that runs faster once others are cancelled (recorded seconds are kept, so walls are upper
bounds), start-up time, and what a sample that a smaller cap cuts would have answered (it counts as no answer).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mathlete.competitions import Competition
from mathlete.errors import UserError
from mathlete.kernel import KernelConfig
from mathlete.replay.sampler import cap_sample
from mathlete.replay.schedule import find_starts
from mathlete.sampling import Sample
from mathlete.scoring import Pool
from mathlete.solve import BudgetSettings, Course, Policy

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_CHUNK = 50_000
"""Draws replayed together, so that their arrays stay in the processor's cache."""
_CELLS = 8_000_000
"""Drawn samples at most: of 5,000 problems with n = 64, 25 draws each, whose noise is far below the problems'."""


def rows_per_problem(pool: Pool, *, n: int, wanted: int) -> int:
    """Return how often to draw each problem: enough for `wanted` in all and at least 200, as far as memory allows."""
    problems = len(pool.problems)
    return max(1, min(max(200, -(-wanted // problems)), _CELLS // (problems * n)))


def draw_samples(pool: Pool, *, n: int, rows: int, seed: int) -> "Array":
    """Return (problems, rows, n): positions of the samples drawn, without replacement."""
    import numpy as np

    random = np.random.default_rng(seed)
    drawn = np.empty((len(pool.problems), rows, n), dtype=np.int32)
    row = np.arange(rows)
    for problem, item in enumerate(pool.problems):
        recorded = len(item.samples)
        # A Fisher-Yates shuffle of all rows at once, stopped after n positions: the rest of a deck is never looked at.
        deck = np.tile(np.arange(recorded, dtype=np.int32), (rows, 1))
        for position in range(n):
            other = random.integers(position, recorded, rows)
            deck[row, position], deck[row, other] = deck[row, other], deck[row, position].copy()
        drawn[problem] = deck[:, :n]
    return drawn


@dataclass(frozen=True, kw_only=True)
class Bank:
    """Every draw of every problem, replayed under one policy; row r of problem p is draw p * rows + r."""

    rows: int
    """Draws of each problem."""
    times: "Array"
    """(draws, n): when each sample arrived, seconds, ascending."""
    starts: "Array | None"
    """(draws, n): when each had started; None where all start at once."""
    right: "Array"
    """(draws, n): whether the vote is right after each arrival."""
    stop: "Array"
    """(draws,): arrivals after which the rule ends the problem."""
    forced: "Forced | None" = None
    """What the forced answers of cut samples make of it; None where none votes."""

    @cached_property
    def seconds(self) -> "Array":
        """(draws,): seconds to the end without a deadline."""
        seconds: Array = self.times[_rows(self.stop), self.stop - 1]
        return seconds if self.forced is None else seconds + self.forced.seconds * self._is_whole

    @cached_property
    def won(self) -> "Array":
        """(draws,): whether the vote is right where the rule ends the problem, or all its samples are in."""
        import numpy as np

        won: Array = self.right[_rows(self.stop), self.stop - 1]
        return won if self.forced is None else np.where(self._is_whole, self.forced.right[:, -1], won)

    @property
    def _is_whole(self) -> "Array":
        """(draws,): whether no rule ended the problem before its last sample."""
        whole: Array = self.stop == self.times.shape[1]
        return whole

    @cached_property
    def generated(self) -> "Array":
        """(draws,): seconds of generating until the rule ends the problem, all samples together."""
        import numpy as np

        parts = np.array_split(np.arange(len(self.stop)), max(1, len(self.stop) // _CHUNK))
        return np.concatenate([self.sum_generated(part, self.seconds[part]) for part in parts])

    def sum_generated(self, at: "Array", ends: "Array") -> "Array":
        """Return (draws,): seconds that all samples of the draws `at` generate when the problem ends at `ends`."""
        import numpy as np

        # A sample runs from its start to its arrival, or to the end that cancels it; one that was still waiting for a
        # slot would come out below 0.
        begun = 0.0 if self.starts is None else self.starts[at]
        generated: Array = np.clip(np.minimum(self.times[at], ends[:, None]) - begun, 0.0, None).sum(1)
        return generated

    @property
    def by_problem(self) -> "Array":
        """(problems,): share of the draws whose vote is right."""
        shares: Array = self.won.reshape(-1, self.rows).mean(1)
        return shares


@dataclass(frozen=True, kw_only=True)
class Forced:
    """The votes of samples that were made to answer, which count where no rule ended the problem."""

    right: "Array"
    """(draws, n): whether the vote with them is right after each arrival."""
    seconds: "Array"
    """(draws,): until the last of them is there."""


def _rows(array: "Array") -> "Array":
    import numpy as np

    return np.arange(len(array))


def replay_draws(
    pool: Pool, drawn: "Array", *, policy: Policy, stops: Iterable[str], slots: int | None = None
) -> dict[str, Bank]:
    """Return {stop: bank} of the draws under a policy, whose n, cap and vote are the same for all the stops.

    Args:
        pool: the recorded samples.
        drawn: (problems, rows, at least n) positions from `draw_samples`.
        policy: n, `sampling.max_tokens` and the vote; its own stop is ignored.
        stops: stopping rules.
        slots: samples of a problem running at once; None is all n.
    """
    import numpy as np

    problems, rows, _ = drawn.shape
    n, tables = policy.n, _tables(pool, policy)
    names = list(stops)
    total = problems * rows
    times, won = np.empty((total, n)), np.empty((total, n), dtype=bool)
    starts = None if slots is None or slots >= n else np.empty((total, n))
    ends = {stop: np.empty(total, dtype=np.int64) for stop in names}
    forced = Forced(right=np.empty((total, n), dtype=bool), seconds=np.empty(total)) if policy.harvest else None
    each = max(1, _CHUNK // rows)
    for first in range(0, problems, each):
        of = np.arange(first, min(first + each, problems)).repeat(rows)[:, None]
        part = slice(first * rows, first * rows + len(of))
        sample = drawn[first : first + each, :, :n].reshape(-1, n)
        cell = of * tables.labels.shape[1] + sample
        seconds = tables.seconds.take(cell)
        begun = find_starts(seconds, slots=slots)
        ended = begun + seconds
        # Stable: samples that arrive together keep the order of their indexes, as in the solve loop.
        order = np.argsort(ended, axis=1, kind="stable")
        arrived = np.take_along_axis(cell, order, axis=1)
        times[part] = np.take_along_axis(ended, order, axis=1)
        if starts is not None:
            starts[part] = np.take_along_axis(begun, order, axis=1)
        # The course and its votes do not depend on the stop: they are made once, and each rule reads them.
        course = Course(labels=tables.labels.take(arrived), weights=tables.weights.take(arrived), indexes=order, n=n)
        won[part] = tables.right[of, course.standing.leader]
        for stop in names:
            ends[stop][part] = course.stops_after(stop)
        if forced is not None:
            # Another course: rules never look at it.
            votes = (tables.forced_labels.take(arrived), tables.forced_weights.take(arrived))
            course = Course(labels=votes[0], weights=votes[1], indexes=order, n=n)
            forced.right[part] = tables.right[of, course.standing.leader]
            forced.seconds[part] = tables.forced_seconds.take(cell).max(1)
    return {
        stop: Bank(rows=rows, times=times, starts=starts, right=won, stop=ends[stop], forced=forced) for stop in names
    }


@dataclass(frozen=True, kw_only=True)
class _Tables:
    """The pool's samples under one cap and vote; arrays are (problems, samples) but for `right`."""

    labels: "Array"
    seconds: "Array"
    weights: "Array"
    right: "Array"
    """(problems, classes + 1): whether the class is right. The last column is that of -1, no answer, and never is."""
    forced_labels: "Array"
    """The labels, with the forced answers of samples that have none of their own."""
    forced_weights: "Array"
    forced_seconds: "Array"
    """Until each forced answer was there; 0 where none was asked for."""


def _tables(pool: Pool, policy: Policy) -> _Tables:
    import numpy as np

    cut = {id(item): [cap_sample(one, policy.sampling.max_tokens) for one in item.samples] for item in pool.problems}
    # A sample that the cap cuts has no answer, though its class is still in the pool's labels.
    kept = pool.table(lambda item: [one.answer is not None for one in cut[id(item)]], fill=0, kind="bool")
    labels = pool.table(lambda item: item.labels, fill=-1, kind="int64")
    said = pool.table(lambda item: item.forced or [-1] * len(item.labels), fill=-1, kind="int64")
    right = np.zeros((len(pool.problems), int(max(labels.max(initial=0), said.max(initial=0))) + 2), dtype=bool)
    for position, item in enumerate(pool.problems):
        right[position, sorted(item.right_classes)] = True
    labels = np.where(kept, labels, -1)
    seconds = pool.table(lambda item: [one.seconds for one in cut[id(item)]], fill=0, kind="float64")
    weights = pool.table(lambda item: [policy.weigh(one) for one in cut[id(item)]], fill=0, kind="int64")
    # Where no forced answer votes, nobody looks at them.
    plain = {"forced_labels": labels, "forced_weights": weights, "forced_seconds": np.zeros_like(seconds)}
    return _Tables(
        labels=labels,
        seconds=seconds,
        weights=weights,
        right=right,
        **(_force(pool, policy, cut, labels=labels, said=said) if policy.harvest else plain),
    )


def _force(
    pool: Pool, policy: Policy, cut: "dict[int, list[Sample]]", *, labels: "Array", said: "Array"
) -> "dict[str, Array]":
    """Return the columns of the forced answers; `said` are their classes, `labels` those of the samples' own."""
    import numpy as np

    def weigh(one: Sample) -> int:
        # As `mathlete.solve.voting` counts the votes of a problem.
        return round(policy.harvest * policy.weigh(one.read_as_finished())) if one.is_harvested else policy.weigh(one)

    there = pool.table(lambda item: [one.is_harvested for one in cut[id(item)]], fill=0, kind="bool")
    seconds = pool.table(
        lambda item: [one.harvest.seconds if one.harvest else 0.0 for one in cut[id(item)]], fill=0, kind="float64"
    )
    return {
        "forced_labels": np.where(there, said, labels),
        "forced_weights": pool.table(lambda item: [weigh(one) for one in cut[id(item)]], fill=0, kind="int64"),
        "forced_seconds": seconds,
    }


@dataclass(frozen=True, kw_only=True)
class Wall:
    """The clock of one submission."""

    wall_s: float
    """All questions together, seconds."""
    floor_s: float | None = None
    """Seconds that each question gets at least (`mathlete.solve.budget`); None: no allowances, an overrun loses all."""
    ceiling_s: float | None = None
    """Seconds that one question gets at most."""
    reserve_s: float = 0.0
    """Seconds kept back at the end for what is not solving."""

    @classmethod
    def parse(cls, words: str, *, questions: int, rules: Competition | None = None) -> "Wall | None":
        """Return the clock of a `--budget` word: those of `BudgetSettings.parse`, or SECONDS:free.

        By the rules of a competition that takes a notebook, it is that notebook's clock (`KernelConfig.read_budget`).

        >>> Wall.parse("18000", questions=50)
        Wall(wall_s=18000.0, floor_s=300.0, ceiling_s=900.0, reserve_s=0.0)
        >>> Wall.parse("18000:free", questions=50).floor_s is Wall.parse("none", questions=50) is None
        True

        Raises:
            UserError: other words, or floors that do not fit.
        """
        seconds, free, rest = words.partition(":free")
        words = words if rest or not free else seconds
        if rules is None or rules.deliverable != "notebook" or free:
            shared = BudgetSettings.parse(words, questions=questions)
        else:
            shared = KernelConfig.read_budget(words, rules=rules, questions=questions)
        if shared is None:
            return None
        if free:
            return cls(wall_s=shared.wall_s)
        return cls(wall_s=shared.wall_s, floor_s=shared.floor_s, ceiling_s=shared.ceiling_s, reserve_s=shared.reserve_s)

    @property
    def words(self) -> str:
        """The `--budget` word that means this clock by any rules: RESERVE stands in it even where it is 0."""
        if self.floor_s is None or self.ceiling_s is None:
            return f"{self.wall_s:.12g}:free"
        return ":".join(f"{part:.12g}" for part in (self.wall_s, self.floor_s, self.ceiling_s, self.reserve_s))

    def refuse(self, *, questions: int, rules: Competition) -> UserError | None:
        """Return why the clock, replayed for so many questions, is not the notebook's; None where it can be.

        In a competition that takes no notebook there is nothing to refuse.
        """
        if rules.deliverable != "notebook":
            return None
        if questions != rules.problems:
            return UserError(
                f"a clock that is handed on must be for the {rules.problems} questions of {rules.name}",
                value=f"{self.words} for {questions}",
                cure=f"replay it with --questions {rules.problems}, or by the rules of another --competition",
            )
        if self.wall_s > rules.notebook.wall_s:
            return UserError(
                f"a clock that is handed on must keep within the {rules.notebook.wall_s} s of {rules.name}",
                value=f"{self.wall_s:g} s",
                cure="replay a shorter one, or by the rules of another --competition",
            )
        return None


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """Simulated submissions."""

    right: "Array"
    """(submissions, questions)."""
    seconds: "Array"
    """(submissions, questions)."""
    arrivals: "Array"
    """(submissions, questions): samples that had finished."""
    generated: "Array"
    """(submissions, questions): seconds of generating, all samples together."""
    overrun: "Array"
    """(submissions,): whether the wall was passed and everything lost."""

    @property
    def scores(self) -> "Array":
        """(submissions,): right answers, 0 after an overrun."""
        import numpy as np

        return np.where(self.overrun, 0, self.right.sum(1))


def simulate(bank: Bank, sets: "Array", rows: "Array", *, wall: Wall | None) -> Simulated:
    """Simulate submissions whose questions come in the order of `sets`.

    Args:
        bank: the draws.
        sets: (submissions, questions), the problem's position in the pool.
        rows: (submissions, questions), which of its draws.
        wall: the clock; None is none.
    """
    import numpy as np

    at = sets * bank.rows + rows
    if wall is None or wall.floor_s is None or wall.ceiling_s is None:
        seconds = bank.seconds[at]
        over = np.zeros(len(at), dtype=bool) if wall is None else seconds.sum(1) > wall.wall_s
        return Simulated(
            right=bank.won[at], seconds=seconds, arrivals=bank.stop[at], generated=bank.generated[at], overrun=over
        )
    return _with_allowances(bank, at, wall.wall_s - wall.reserve_s, wall.floor_s, wall.ceiling_s)


def _with_allowances(bank: Bank, at: "Array", wall_s: float, floor_s: float, ceiling_s: float) -> Simulated:
    import numpy as np

    right, arrivals = bank.won[at], bank.stop[at]
    seconds, generated = bank.seconds[at], bank.generated[at]
    questions = at.shape[1]
    shared = BudgetSettings(wall_s=wall_s, floor_s=floor_s, ceiling_s=ceiling_s, questions=questions)
    left = np.full(len(at), float(wall_s))
    for question in range(questions):
        allowed = shared.allowance_s(left, to_come=questions - question - 1)
        # Only submissions whose rule has not ended the question in time need a second look: there the vote is over the
        # samples that were in at the deadline, and nobody's where none was.
        late = (seconds[:, question] > allowed).nonzero()[0]
        draw = at[late, question]
        # What is cut then is made to answer in the same time, which ends the drawing so much sooner.
        votes, reserve = (bank.right, 0.0) if bank.forced is None else (bank.forced.right, bank.forced.seconds[draw])
        in_time = (bank.times[draw] <= (allowed[late] - reserve)[:, None]).sum(1)
        arrivals[late, question] = in_time
        right[late, question] = (in_time > 0) & votes[draw, np.maximum(in_time - 1, 0)]
        seconds[late, question] = allowed[late]
        generated[late, question] = bank.sum_generated(draw, allowed[late])
        left = np.maximum(0.0, left - seconds[:, question])
    overrun = np.zeros(len(at), dtype=bool)
    return Simulated(right=right, seconds=seconds, arrivals=arrivals, generated=generated, overrun=overrun)
