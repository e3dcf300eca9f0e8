"""Two runs on the same problems: whether B is better than A, or how many more problems it takes to say."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, Self

from mathlete.metrics import INFORMATIVE, Interval, PairedChange, paired_difference, paired_p, problems_needed
from mathlete.scoring.ballot import maj_at_k
from mathlete.scoring.pool import Pool, Recorded
from mathlete.text import agree, counted

if TYPE_CHECKING:
    from rich.table import Table

Better = Literal["A", "B", "neither"]
_FLOOR_P = 1e-4
"""p-values below it are not told apart: the least that `paired_p` can give is 0.00005."""


@dataclass(frozen=True, kw_only=True)
class Paired:
    """One score of both runs."""

    score: str
    a: float
    b: float
    difference: Interval
    """B - A, with its paired 95% interval."""
    p: float
    """Two-sided p-value of the sign-flip test over problems."""
    better: Better
    more_problems: int | None
    """Problems to add until a difference of this size is shown in 8 of 10 comparisons. 0 where it is shown already,
    None where there is no difference, or where too few problems differ to say."""
    differing: int | None = None
    """Problems on which the runs differ; None in a file that was written before they were counted."""

    @classmethod
    def of(cls, score: str, a: Sequence[float], b: Sequence[float]) -> Self:
        """Test one score's values of the same problems in the same order."""
        differences = [after - before for before, after in zip(a, b, strict=True)]
        mean, p, needed = fmean(differences), paired_p(differences), problems_needed(differences)
        differing = sum(difference != 0 for difference in differences)
        by = paired_difference(a, b)
        better: Better = "neither" if not PairedChange(**asdict(by), p=p).is_shown else "B" if mean > 0 else "A"
        # The formula is a normal approximation: it may say that the problems suffice where the exact test does not.
        # Then "one more" is the least that can be said.
        more = None if needed is None else 0 if better != "neither" else max(1, needed - len(a))
        # The spread of a handful of differences is no guide to that of others.
        more = None if more and differing < INFORMATIVE else more
        return cls(
            score=score,
            a=fmean(a),
            b=fmean(b),
            difference=by,
            p=p,
            better=better,
            more_problems=more,
            differing=differing,
        )

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Return the score in its JSON, which is its fields."""
        return cls(**{**row, "difference": Interval(**row["difference"])})

    @property
    def p_words(self) -> str:
        """The p-value, no smaller than 20,000 random signs can tell."""
        return f"p < {_FLOOR_P:.4f}" if self.p < _FLOOR_P else f"p {self.p:.2g}"

    def describe(self) -> str:
        """Return whether B is better, or what it takes to say.

        >>> by = Interval(value=0.02, lo=-0.01, hi=0.05)
        >>> Paired(score="pass@1", a=0.5, b=0.52, difference=by, p=0.2, better="neither", more_problems=90).describe()
        'pass@1: no difference shown; to show one as large as this (+2.0 points) takes about 90 more problems'
        """
        points = f"{100 * self.difference.value:+.1f} points"
        if self.better != "neither":
            return f"{self.score}: {self.better} is better ({points} for B, {self.p_words})"
        if self.more_problems is None and self.differing:
            return (
                f"{self.score}: no difference shown ({points}); too few to say what it takes to show one: the runs "
                f"differ on {counted(self.differing, 'problem')}, and {INFORMATIVE} are needed"
            )
        if self.more_problems is None:
            return f"{self.score}: no difference at all"
        return (
            f"{self.score}: no difference shown; to show one as large as this ({points}) takes about "
            f"{counted(self.more_problems, 'more problem')}"
        )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """pass@1 and maj@k of two runs on the problems that both have."""

    problems: int
    left_out: int
    """Problems that only one of the runs has."""
    k: int
    """Samples of the vote: those of the problem that has fewest in either run."""
    scores: list[Paired]
    stopped_early: bool
    """Whether the problems of a run have different numbers of samples; its pass@1 is over those it has."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Return the comparison among the keys of a JSON object."""
        plain = {name: row[name] for name in ("problems", "left_out", "k", "stopped_early")}
        return cls(**plain, scores=[Paired.from_json(score) for score in row["scores"]])

    def describe(self) -> list[str]:
        """Return sentences: what each score shows, and on which samples and problems it rests."""
        sentences = [score.describe() for score in self.scores]
        if self.left_out:
            sentences.append(
                f"{counted(self.left_out, 'problem')} that only one of the runs has "
                f"{agree(self.left_out, 'is', 'are')} left out"
            )
        if self.stopped_early:
            sentences.append(
                "a run stopped early, or lost samples: its pass@1 is over the samples that were in, and votes are over "
                f"{self.k}"
            )
        return sentences

    def to_table(self) -> "Table":
        """Return both scores for the terminal, a line each, in percent."""
        from mathlete.tables import FittingTable

        table = FittingTable(
            f"A and B on the same {agree(self.problems, 'problem', f'{self.problems} problems')}",
            columns=("", "A", "B", "B - A [95%]", "p"),
        )
        for row in self.scores:
            by = row.difference
            table.add_row(
                row.score,
                f"{100 * row.a:.1f}",
                f"{100 * row.b:.1f}",
                f"{100 * by.value:+.1f} [{100 * by.lo:+.1f}, {100 * by.hi:+.1f}]",
                row.p_words.removeprefix("p "),
            )
        return table


def compare_runs(a: Pool, b: Pool) -> Comparison:
    """Compare two runs on the problems that both have.

    Raises:
        UserError: they share no problem, or an id stands for two problems.
    """
    pairs = [*zip(*(pool.problems for pool in Pool.share([a, b])), strict=True)]
    # One k for all: a vote of more samples is right more often, which would count as a difference of the models.
    k = min(len(item.samples) for pair in pairs for item in pair)
    return Comparison(
        problems=len(pairs),
        left_out=len(a.problems) + len(b.problems) - 2 * len(pairs),
        k=k,
        stopped_early=a.stopped_early or b.stopped_early,
        scores=[
            Paired.of("pass@1", *([_pass_at_1(item) for item in run] for run in zip(*pairs, strict=True))),
            Paired.of(f"maj@{k}", *([_maj_at(item, k) for item in run] for run in zip(*pairs, strict=True))),
        ],
    )


def _pass_at_1(item: Recorded) -> float:
    return item.verdicts.count("equal") / len(item.verdicts)


def _maj_at(item: Recorded, k: int) -> float:
    labels = [None if label < 0 else label for label in item.labels]
    return maj_at_k(labels, right=item.right_classes, k=k)
