"""Losses: why samples and problems did not end in a right answer, in classes of which each takes exactly one.

A sample that could not be right says so by itself (`find_cause`: cut, no box, no integer, out of range). The others are
judged by who has the gold: an evaluation, or the reader of a submission's journal. `ProblemLosses` puts a problem's
samples together, `Losses` those of a run, with one line of advice for the largest class.

>>> seven = [ProblemLosses.of(name, won=False, samples={"cut_at_cap": 5, "no_right_answer": 3}) for name in "abcdefg"]
>>> losses = Losses.of([*seven, ProblemLosses.of("h", won=True, samples={"won": 6, "no_box": 2})])
>>> losses.problems["cut_at_cap"], losses.samples["no_right_answer"], losses.largest
(7, 21, 'cut_at_cap')
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Self

from mathlete.answers import read_integer
from mathlete.competitions import Competition
from mathlete.problems import Problem
from mathlete.sampling import Sample

Cause = Literal[
    "won",
    "outvoted",
    "no_right_answer",
    "out_of_range",
    "no_integer",
    "no_box",
    "cut_at_cap",
    "cut_by_clock",
    "unknown",
]


@dataclass(frozen=True, kw_only=True)
class CauseWords:
    """What is said of a class."""

    label: str
    sample: str
    """Which samples are of it."""
    advice: str
    """What to do where most lost problems are of it."""


CAUSES: dict[Cause, CauseWords] = {
    "won": CauseWords(
        label="right and won",
        sample="equal to the gold, of a problem whose answer is right",
        advice="",
    ),
    "outvoted": CauseWords(
        label="right but outvoted",
        sample="equal to the gold, of a problem whose answer is not right",
        advice="some samples are right, the vote lost them: draw more (--n), or see by `python -m eval replay RUN "
        "--stop none --vote all` whether another vote pays",
    ),
    "no_right_answer": CauseWords(
        label="no right answer",
        sample="an answer that is not equal to the gold; of a problem: none of its samples is",
        advice="the model cannot do these yet: train on problems of this kind or take a larger model; more samples "
        "help only where pass@k still rises",
    ),
    "out_of_range": CauseWords(
        label="out of range",
        sample="an integer that the competition does not take",
        advice="name the range in the model's instruction: an answer outside it is never sent",
    ),
    "no_integer": CauseWords(
        label="no integer",
        sample="an answer that is no integer where one is asked for",
        advice="say in the model's instruction that the answer is an integer, and read some of these in the report: "
        "what the checker cannot read is a fault of ours",
    ),
    "no_box": CauseWords(
        label="no box",
        sample="ended by itself without an answer: no box, or none that says anything",
        advice="the model does not give its answer in a box: train on traces that end in one, or ask for it in the "
        "model's instruction",
    ),
    "cut_at_cap": CauseWords(
        label="cut at the cap",
        sample="cut at its token cap, or without room in the context, before an answer",
        advice="let samples be longer (--sampling.max-tokens), or train on shorter traces",
    ),
    "cut_by_clock": CauseWords(
        label="cut by the clock",
        sample="cancelled, or never drawn, because the time was over",
        advice="the time is too short: ask for fewer or shorter samples (--n, --sampling.max-tokens), or stop early "
        "(--policy clock)",
    ),
    "unknown": CauseWords(
        label="unknown",
        sample="cannot be said: the checker could not compare it, no gold is known, or the run broke off",
        advice="give the golds of a journal with --golds; else read these in the report, where an answer or a gold is "
        "written in a way that the checker cannot read",
    ),
}
_SOONEST_MENDED: tuple[Cause, ...] = (
    *("cut_by_clock", "cut_at_cap", "no_box", "no_integer", "out_of_range", "no_right_answer", "unknown"),
)
"""Which of equally large classes names a lost problem: what a setting can mend comes first."""


def find_cause(sample: Sample, *, integer: bool = False, rules: Competition | None = None) -> Cause | None:
    """Return why a sample cannot be right, whatever the gold is; None where it can.

    Args:
        sample: a finished sample with its answer.
        integer: whether the answer must be an integer.
        rules: the competition, whose answers must be integers of its range; None: no range.

    >>> from mathlete.competitions import competition
    >>> def draw(answer, finish="stop"):
    ...     return Sample(problem_id="a", index=0, seed=0, text="", answer=answer, tokens=9, finish=finish, seconds=1.0)
    >>> [find_cause(one) for one in (draw(None), draw(None, "length"), draw("1/2"))]
    ['no_box', 'cut_at_cap', None]
    >>> [find_cause(draw(answer), rules=competition("aimo-3")) for answer in ("1/2", "100000", "7")]
    ['no_integer', 'out_of_range', None]
    """
    if sample.answer is None:
        return "cut_at_cap" if sample.finish == "length" else "cut_by_clock" if sample.was_cut else "no_box"
    return find_answer_cause(sample.answer, integer=integer, rules=rules)


def find_answer_cause(
    answer: str, *, integer: bool, rules: Competition | None
) -> Literal["no_integer", "out_of_range"] | None:
    """Return why an answer cannot be right; None where it can. The arguments are those of `find_cause`."""
    if (integer or rules) and read_integer(answer, competition=None) is None:
        return "no_integer"
    return "out_of_range" if rules and read_integer(answer, competition=rules) is None else None


def asks_for_integer(problem: Problem) -> bool:
    """Return whether the gold is an integer, so that no other answer can equal it.

    >>> [asks_for_integer(Problem(id="a", statement="?", gold=gold)) for gold in ("042", "1{,}000", "1/2", "x=3")]
    [True, True, False, False]
    """
    return "=" not in problem.gold and read_integer(problem.gold, competition=None) is not None


@dataclass(frozen=True, kw_only=True)
class ProblemLosses:
    """One problem's class, and how many of its samples are of each."""

    id: str
    cause: Cause
    """won: its answer is right. Else outvoted: one of its samples is. Else the class of most of its samples."""
    samples: dict[Cause, int]
    """In the order of CAUSES, without those that have none."""

    @classmethod
    def of(cls, problem_id: str, *, won: bool | None, samples: Mapping[Cause, int]) -> Self:
        """Classify a problem by its samples' classes; one without samples is unknown.

        `won` is None where no gold says whether the answer is right: then a problem with answers is unknown.
        """
        lost = max(_SOONEST_MENDED, key=lambda cause: samples.get(cause, 0))
        most = "unknown" if not samples.get(lost) or (won is None and samples.get("unknown")) else lost
        return cls(
            id=problem_id,
            cause="won" if won else "outvoted" if samples.get("outvoted") else most,
            samples={cause: samples[cause] for cause in CAUSES if samples.get(cause)},
        )


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Problems and samples of a run by class; each counted once."""

    problems: dict[Cause, int]
    samples: dict[Cause, int]
    """Those that were drawn and those that the clock kept from it."""

    @classmethod
    def of(cls, rows: Iterable[ProblemLosses]) -> Self:
        """Count the problems."""
        problems, samples = Counter[Cause](), Counter[Cause]()
        for row in rows:
            problems[row.cause] += 1
            samples.update(row.samples)
        return cls(
            problems={cause: problems[cause] for cause in CAUSES}, samples={cause: samples[cause] for cause in CAUSES}
        )

    @property
    def largest(self) -> Cause | None:
        """The class of most problems that are not known to be right, the first of equals; None where all are."""
        lost: list[Cause] = [cause for cause, count in self.problems.items() if cause != "won" and count]
        if not lost:
            return None
        return max(lost, key=lambda cause: self.problems[cause])

    def describe(self) -> str:
        """Say how many problems are not known to be right, most of them why, and what to do about it.

        >>> print(Losses.of([ProblemLosses.of("a", won=False, samples={"cut_at_cap": 2})]).describe())
        not right: 1 of 1 problems, 1 of them "cut at the cap": let samples be longer (--sampling.max-tokens), or \
train on shorter traces
        """
        total = sum(self.problems.values())
        cause = self.largest
        if cause is None:
            return f"not right: none of {total} problems"
        words = CAUSES[cause]
        other = total - self.problems["won"]
        known = "not known to be right" if cause == "unknown" else "not right"
        return f'{known}: {other} of {total} problems, {self.problems[cause]} of them "{words.label}": {words.advice}'

    def to_json(self) -> dict[str, object]:
        """Return the counts and the advice as JSON."""
        return {"problems": self.problems, "samples": self.samples, "largest": self.largest, "words": self.describe()}

    @classmethod
    def from_json(cls, row: Mapping[str, Mapping[Cause, int]]) -> Self:
        """Return the losses in their JSON."""
        return cls(problems={**row["problems"]}, samples={**row["samples"]})
