"""Outcomes: which policies are tried in which submissions, and what each is expected to score and to cost."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from mathlete.competitions import Competition
from mathlete.metrics import INFORMATIVE, Interval, Verdict, judge_change
from mathlete.replay.simulation import Wall
from mathlete.solve import Policy

SAFE_LOSS = 0.005
"""Share of the questions that a safe stopping rule may lose at most, at the low end of the 95% interval."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The policies to try: all combinations of these."""

    n: tuple[int, ...]
    max_tokens: tuple[int, ...]
    stop: tuple[str, ...]
    vote: tuple[str, ...]
    walls: tuple[Wall | None, ...]
    harvest: tuple[float, ...] = (0.0,)
    """Weights of forced answers; 0 is none."""

    @property
    def size(self) -> int:
        """Number of policies."""
        return math.prod(map(len, (self.n, self.max_tokens, self.stop, self.vote, self.walls, self.harvest)))

    def check(self) -> None:
        """Raise UserError where a stop or a vote is unknown, which the replay would meet when it gets there."""
        for stop, vote in itertools.product(self.stop, self.vote):
            Policy(stop=stop, vote=vote).check()


@dataclass(frozen=True, kw_only=True)
class Submissions:
    """The submissions to simulate."""

    simulations: int
    """Submissions for each policy and kind of interval."""
    questions: int
    """Questions of a submission."""
    rules: Competition
    """How the runs of a submission are scored."""
    slots: int | None
    """Samples of a problem running at once; None is all n."""
    seed: int


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Three different figures: with n samples side by side, a rule may save much of one and little of another."""

    arrivals: float
    """Samples that finished."""
    wall_s: float
    """From the problem's start to its end."""
    generated_s: float
    """Seconds of generating, all samples together; a cancelled one counts until it is cancelled."""

    def compute_savings(self, baseline: "Cost") -> "Cost":
        """Return the shares of the baseline that are not spent."""
        return Cost(
            arrivals=1 - self.arrivals / baseline.arrivals,
            wall_s=1 - self.wall_s / baseline.wall_s if baseline.wall_s else 0.0,
            generated_s=1 - self.generated_s / baseline.generated_s if baseline.generated_s else 0.0,
        )


@dataclass(frozen=True, kw_only=True)
class Score:
    """Right questions of a submission, with 90% intervals against different kinds of chance."""

    new_set: Interval
    """Against other questions of this kind: questions drawn with replacement. The right one for a competition."""
    subset: Interval
    """Against questions drawn from these without replacement."""
    same_set: Interval
    """On the same questions again: only the samples differ."""
    all_runs: Interval
    """The competition's score of all its runs on the same new set, 0 where any overran."""
    hardest_first: Interval | None = None
    """Against other questions, the hardest first: the worst order under a clock with allowances; None without one."""


@dataclass(frozen=True, kw_only=True)
class Change(Interval):
    """A paired change of the score, with its 95% interval over problems."""

    informative: int
    """Problems whose expected score changes."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one policy scores and costs."""

    n: int
    max_tokens: int
    stop: str
    vote: str
    wall: Wall | None
    score: Score
    change: Interval
    """Score minus that of the majority of all n samples without cap, stop or clock; 95% interval over problems."""
    p_overrun: float
    """Share of submissions that passed the wall."""
    spent: Cost
    """For a problem, on average."""
    saved: Cost
    """Shares saved against all n samples without cap, stop or clock."""
    submission_s: float
    """Mean time of a submission."""
    submission_p95_s: float
    """95% of the submissions take no longer."""
    informative: int | None = None
    """Problems whose expected score changes; None in a file of a version that did not count them."""
    harvest: float = 0.0
    """Weight of forced answers; 0: none votes."""
    by_stop: Change | None = None
    """What the stopping rule alone changes: against all n samples under the same vote and cap, without a clock; None in
    a file of a version that did not say it."""
    by_vote: Change | None = None
    """What the vote and its forced answers alone change: against majority under the same stopping rule and cap, without
    a clock; None of majority itself, and in a file of a version that did not say it."""

    def is_safe(self, *, questions: int) -> bool:
        """Return whether it surely loses no more than `SAFE_LOSS` of so many questions."""
        return is_safe(self.change, informative=self.informative, questions=questions)

    def stops_safely(self, *, questions: int) -> bool:
        """Return whether its stopping rule alone does so, whatever a clock, a cap or a vote changes."""
        if self.by_stop is None:
            return self.wall is not None or self.is_safe(questions=questions)
        return is_safe(self.by_stop, informative=self.by_stop.informative, questions=questions)

    @property
    def verdict(self) -> Verdict:
        """What its change shows."""
        return judge_change(self.change, differing=self.informative)

    @property
    def is_shown(self) -> bool:
        """Whether its vote is the plain majority's, or it is shown at 95% to beat that."""
        if self.vote == "majority" and not self.harvest:
            return True
        # A clock or a cap that costs anything is no loss of the vote's.
        by = self.by_vote
        return (self.verdict if by is None else judge_change(by, differing=by.informative)) == "better"

    def to_json(self, *, questions: int) -> dict[str, Any]:
        """Return the outcome in replay.json. `score`, `lo` and `hi` are against a new set of questions."""
        score, wall = self.score, self.wall
        intervals = {"new_set": score.new_set, "subset": score.subset, "same_set": score.same_set}
        if score.hardest_first:
            intervals["hardest_first"] = score.hardest_first
        return {
            "n": self.n,
            "max_tokens": self.max_tokens,
            "stop": self.stop,
            "vote": self.vote,
            **({"harvest": self.harvest} if self.harvest else {}),
            "budget_s": wall and wall.wall_s,
            "floor_s": wall and wall.floor_s,
            "ceiling_s": wall and wall.ceiling_s,
            **({"reserve_s": wall.reserve_s} if wall and wall.reserve_s else {}),
            "score": score.new_set.value,
            "lo": score.new_set.lo,
            "hi": score.new_set.hi,
            "p_overrun": self.p_overrun,
            "samples_per_problem": self.spent.arrivals,
            "penalised": score.all_runs.value,
            "penalised_lo": score.all_runs.lo,
            "penalised_hi": score.all_runs.hi,
            "intervals": {name: asdict(interval) for name, interval in intervals.items()},
            "change": asdict(self.change),
            **({} if self.informative is None else {"informative": self.informative}),
            **({"by_stop": asdict(self.by_stop)} if self.by_stop else {}),
            **({"by_vote": asdict(self.by_vote)} if self.by_vote else {}),
            "safe": self.is_safe(questions=questions),
            "spent_per_problem": asdict(self.spent),
            "saved": asdict(self.saved),
            "submission_s": self.submission_s,
            "submission_p95_s": self.submission_p95_s,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Return the outcome in a row of replay.json."""
        intervals = {name: Interval(**interval) for name, interval in row["intervals"].items()}
        all_runs = Interval(value=row["penalised"], lo=row["penalised_lo"], hi=row["penalised_hi"])
        plain = ("n", "max_tokens", "stop", "vote", "p_overrun", "submission_s", "submission_p95_s")
        clock = {"floor_s": row["floor_s"], "ceiling_s": row["ceiling_s"], "reserve_s": row.get("reserve_s", 0.0)}
        return cls(
            **{name: row[name] for name in plain},
            wall=None if row["budget_s"] is None else Wall(wall_s=row["budget_s"], **clock),
            score=Score(**intervals, all_runs=all_runs),
            change=Interval(**row["change"]),
            spent=Cost(**row["spent_per_problem"]),
            saved=Cost(**row["saved"]),
            informative=row.get("informative"),
            harvest=row.get("harvest", 0.0),
            by_stop=Change(**row["by_stop"]) if "by_stop" in row else None,
            by_vote=Change(**row["by_vote"]) if "by_vote" in row else None,
        )


def is_safe(change: Interval, *, informative: int | None, questions: int) -> bool:
    """Return whether a change surely loses no more than `SAFE_LOSS` of so many questions.

    >>> [is_safe(Interval(value=0.4, lo=0.0, hi=1.25), informative=number, questions=50) for number in (1, 40)]
    [False, True]
    >>> is_safe(Interval(value=-0.02, lo=-0.05, hi=0.0), informative=2, questions=50)
    True
    """
    return find_low_end(change, informative=informative) >= -SAFE_LOSS * questions


def find_low_end(change: Interval, *, informative: int | None) -> float:
    """Return what a change may come to at worst: the low end of its interval.

    Where fewer than `INFORMATIVE` problems differ, which way they do is luck: there a gain as large counts as a loss.
    """
    few = informative is not None and informative < INFORMATIVE
    return min(change.lo, -change.hi) if few else change.lo
