"""Two runs on the same problems: is B better than A, or how many more problems would tell?"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from mathlete.errors import UserError
from mathlete.metrics import Interval, maj_at_k, paired_difference, paired_p, problems_to_tell
from mathlete.scoring.pool import Pool, Recorded

if TYPE_CHECKING:
    from rich.table import Table

Better = Literal["A", "B", "neither"]
_SHOWN = 0.05
"""p below which a difference counts as shown."""


@dataclass(frozen=True, kw_only=True)
class Paired:
    """One score of both runs."""

    score: str
    a: float
    b: float
    difference: Interval
    """B - A, with its paired 95% interval."""
    p: float
    """Two-sided, of the sign-flip test over problems."""
    better: Better
    more_problems: int | None
    """What is lacking to show a difference like this one in 8 of 10 comparisons; 0 where it is shown, None for 0."""

    @property
    def in_words(self) -> str:
        """Whether B is better, or what it would take to tell.

        >>> by = Interval(value=0.02, lo=-0.01, hi=0.05)
        >>> Paired(score="pass@1", a=0.5, b=0.52, difference=by, p=0.2, better="neither", more_problems=90).in_words
        'pass@1: no difference shown; to show one as large as this (+2.0 points) takes about 90 more problems'
        """
        points = f"{100 * self.difference.value:+.1f} points"
        if self.better != "neither":
            return f"{self.score}: {self.better} is better ({points} for B, p {self.p:.2g})"
        if self.more_problems is None:
            return f"{self.score}: no difference at all"
        return (
            f"{self.score}: no difference shown; to show one as large as this ({points}) takes about "
            f"{self.more_problems} more problems"
        )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Both scores on the problems that both runs have."""

    problems: int
    left_out: int
    """Problems that only one of them has."""
    k: int
    """Samples of the vote: the fewest that any problem has in either."""
    scores: list[Paired]
    stopped_early: bool
    """Whether problems have different numbers of samples in a run: its pass@1 is over those that were in."""

    @property
    def table(self) -> "Table":
        """Both scores, a line each, in percent."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        table = Table(box=SIMPLE_HEAD, title=f"A and B on the same {self.problems} problems")
        for name in ("", "A", "B", "B - A [95%]", "p"):
            table.add_column(name, justify="left" if not name else "right", no_wrap=True)
        for row in self.scores:
            by = row.difference
            table.add_row(
                row.score,
                f"{100 * row.a:.1f}",
                f"{100 * row.b:.1f}",
                f"{100 * by.value:+.1f} [{100 * by.lo:+.1f}, {100 * by.hi:+.1f}]",
                f"{row.p:.4f}",
            )
        return table


def compare_runs(a: Pool, b: Pool) -> Comparison:
    """The comparison of two runs.

    Raises:
        UserError: they share no problem, or an id stands for two problems.
    """
    mine, other = ({item.problem.id: item for item in pool.problems} for pool in (a, b))
    shared = [name for name in mine if name in other]
    if not shared:
        raise UserError(
            "two runs compare only on problems they share",
            value=f"none of {len(mine)} and {len(other)}",
            cure="evaluate both models on the same suite",
        )
    if differing := [name for name in shared if mine[name].problem != other[name].problem]:
        raise UserError(
            "equal ids must be equal problems",
            value=f"{differing[0]} is another in each run",
            cure="evaluate both models on the same version of the suite",
        )
    pairs = [(mine[name], other[name]) for name in shared]
    k = min(len(item.samples) for pair in pairs for item in pair)
    return Comparison(
        problems=len(shared),
        left_out=len(mine) + len(other) - 2 * len(shared),
        k=k,
        stopped_early=a.stopped_early or b.stopped_early,
        scores=[
            _paired("pass@1", [_pass(first) for first, _ in pairs], [_pass(second) for _, second in pairs]),
            _paired(f"maj@{k}", [_vote(first, k) for first, _ in pairs], [_vote(second, k) for _, second in pairs]),
        ],
    )


def _pass(item: Recorded) -> float:
    return item.verdicts.count("equal") / len(item.verdicts)


def _vote(item: Recorded, k: int) -> float:
    labels = [None if label < 0 else label for label in item.labels]
    return maj_at_k(labels, right=item.right_classes, k=k)


def _paired(score: str, a: Sequence[float], b: Sequence[float]) -> Paired:
    differences = [after - before for before, after in zip(a, b, strict=True)]
    mean, p, needed = fmean(differences), paired_p(differences), problems_to_tell(differences)
    better: Better = "neither" if p >= _SHOWN else "B" if mean > 0 else "A"
    return Paired(
        score=score,
        a=fmean(a),
        b=fmean(b),
        difference=paired_difference(a, b),
        p=p,
        better=better,
        more_problems=None if needed is None else 0 if better != "neither" else max(1, needed - len(a)),
    )
