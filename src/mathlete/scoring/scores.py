"""Scores of some graded problems: counts, pass@k and maj@k, as each part of results.json has them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Self

from mathlete.metrics import (
    Interval,
    bootstrap,
    curve_points,
    format_interval,
    format_percent,
    format_with_error,
    is_error_known,
    standard_error,
    wilson,
)
from mathlete.scoring.grading import Graded


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Samples of some problems, by what came of them."""

    samples: int
    right: int
    unknown: int
    """Answers that the checker could not compare with the gold; they count as not right."""
    unanswered: int
    capped: int
    """Cut at the token cap."""
    tokens: int

    @classmethod
    def of(cls, graded: Sequence[Graded]) -> Self:
        """Count the samples of these problems."""
        samples = [sample for item in graded for sample in item.solution.samples]
        verdicts = [verdict for item in graded for verdict in item.verdicts]
        return cls(
            samples=len(samples),
            right=verdicts.count("equal"),
            unknown=verdicts.count("unknown"),
            unanswered=verdicts.count("none"),
            capped=sum(sample.finish == "length" for sample in samples),
            tokens=sum(sample.tokens for sample in samples),
        )

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Return the counts among the keys of a row of results.json."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of some problems."""

    problems: int
    counts: Counts
    pass_at_1: float
    pass_at_1_se: float | None
    """Standard error over problems; None where too few problems inform it (`mathlete.metrics.is_error_known`)."""
    k: int
    """Samples of the problem that has most."""
    maj_at_k: Interval
    """Share of problems whose vote over all samples is right, with Wilson's interval."""
    pass_at: dict[int, float]
    """Unbiased pass@k by k. Where an early stop drew fewer samples of some problem, curves end at the fewest."""
    maj_at: dict[int, Interval]
    """maj@k by k: Wilson's interval where it is the vote over all samples, else the bootstrap's over problems."""
    unknown_votes: int
    fallbacks: int
    """Problems without any answer, where a submission has to send something else."""

    @classmethod
    def of(cls, graded: Sequence[Graded]) -> Self:
        """Score these problems."""
        passes = [item.pass_at(1) for item in graded]
        ks = curve_points(max(1, min(len(item.verdicts) for item in graded)))
        vote = wilson(right=sum(item.verdict == "equal" for item in graded), n=len(graded))
        return cls(
            problems=len(graded),
            counts=Counts.of(graded),
            pass_at_1=fmean(passes),
            pass_at_1_se=standard_error(passes) if is_error_known(passes) else None,
            k=max(len(item.verdicts) for item in graded),
            maj_at_k=vote,
            pass_at={k: fmean(item.pass_at(k) for item in graded) for k in ks},
            maj_at={k: _majority(graded, k, vote) for k in ks},
            unknown_votes=sum(item.verdict == "unknown" for item in graded),
            fallbacks=sum(item.solution.answer is None for item in graded),
        )

    def format(self, k: int | None = None) -> tuple[str, str, str]:
        """Return pass@1, the vote and pass@k in percent, with their errors; k is that of these problems, or another."""
        return (
            format_with_error(self.pass_at_1, self.pass_at_1_se),
            format_interval(self.maj_at_k),
            format_percent(self.pass_at.get(k or self.k)),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the scores as results.json has them."""
        return {
            "problems": self.problems,
            **asdict(self.counts),
            "pass_at_1": self.pass_at_1,
            "pass_at_1_se": self.pass_at_1_se,
            "k": self.k,
            "maj_at_k": self.maj_at_k.value,
            "maj_at_k_interval": [self.maj_at_k.lo, self.maj_at_k.hi],
            "pass_at": {str(k): value for k, value in self.pass_at.items()},
            "maj_at": {str(k): asdict(interval) for k, interval in self.maj_at.items()},
            "unknown_votes": self.unknown_votes,
            "fallbacks": self.fallbacks,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Return the scores among the keys of a row of results.json."""
        lo, hi = row["maj_at_k_interval"]
        return cls(
            problems=row["problems"],
            counts=Counts.from_json(row),
            pass_at_1=row["pass_at_1"],
            pass_at_1_se=row["pass_at_1_se"],
            k=row["k"],
            maj_at_k=Interval(value=row["maj_at_k"], lo=lo, hi=hi),
            pass_at={int(k): value for k, value in row["pass_at"].items()},
            maj_at={int(k): Interval(**interval) for k, interval in row["maj_at"].items()},
            unknown_votes=row["unknown_votes"],
            fallbacks=row["fallbacks"],
        )


def split_scores(graded: Sequence[Graded], key: Callable[[Graded], str]) -> dict[str, Scores]:
    """Return the scores of each part of the problems, by the part's name; empty where no problem names one."""
    names = sorted({key(item) for item in graded})
    if names == [""]:
        return {}
    return {name: Scores.of([item for item in graded if key(item) == name]) for name in names}


def _majority(graded: Sequence[Graded], k: int, vote: Interval) -> Interval:
    # With all samples in, maj@k is the vote itself, right or wrong for each problem: a share, so Wilson's interval.
    # For fewer it is a mean of fractions, which Wilson's formula does not cover.
    if all(len(item.verdicts) == k for item in graded):
        return vote
    return bootstrap([item.maj_at(k) for item in graded])
