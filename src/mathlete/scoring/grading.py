"""Solutions against gold answers: which samples and votes are right, wrong or cannot be told."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

from mathlete.answers import compare
from mathlete.metrics import maj_at_k, pass_at_k
from mathlete.problems import Problem
from mathlete.sampling import Sample
from mathlete.solve import Solution

Verdict = Literal["equal", "different", "unknown", "none"]
"""Of an answer against the gold; none where there is no answer."""


@dataclass(frozen=True, kw_only=True)
class Graded:
    """One problem's solution with its verdicts."""

    problem: Problem
    solution: Solution
    verdict: Verdict
    """Of the vote."""
    verdicts: tuple[Verdict, ...]
    """Of each sample."""

    @property
    def right(self) -> int:
        """Samples equal to the gold."""
        return self.verdicts.count("equal")

    @property
    def group(self) -> str:
        """The part of the problem's subset before the first slash."""
        return self.problem.subset.split("/")[0]

    @cached_property
    def labels(self) -> list[int | None]:
        """Each sample's class in the vote; None without an answer."""
        classes = {index: label for label, vote in enumerate(self.solution.votes) for index in vote.indexes}
        return [classes.get(sample.index) for sample in self.solution.samples]

    @cached_property
    def right_labels(self) -> set[int]:
        """Classes that hold the gold: those whose representative, which the vote would answer with, is equal to it."""
        verdicts = {sample.index: verdict for sample, verdict in zip(self.solution.samples, self.verdicts, strict=True)}
        return {label for label, vote in enumerate(self.solution.votes) if verdicts[vote.indexes[0]] == "equal"}

    @cached_property
    def _majorities(self) -> dict[int, float]:
        # A problem counts in the whole, in its group and in its subset.
        return {}

    @property
    def vote_share(self) -> float:
        """Share of the samples that voted for the winner; 0 without an answer."""
        return self.solution.votes[0].count / len(self.verdicts) if self.solution.votes else 0.0

    def pass_at(self, k: int) -> float:
        """Unbiased pass@k of this problem; 0 where its time was over before any sample."""
        return 0.0 if not self.verdicts else pass_at_k(n=len(self.verdicts), right=self.right, k=k)

    def maj_at(self, k: int) -> float:
        """maj@k of this problem over the subsets of its samples; 0 where it has none."""
        if k not in self._majorities:
            found = maj_at_k(self.labels, right=self.right_labels, k=k) if self.verdicts else 0.0
            self._majorities[k] = found
        return self._majorities[k]


def grade(problems: Sequence[Problem], solutions: Sequence[Solution]) -> list[Graded]:
    """Each problem's solution, graded; both in the same order."""
    return [_graded(problem, solution) for problem, solution in zip(problems, solutions, strict=True)]


def _graded(problem: Problem, solution: Solution) -> Graded:
    known: dict[str | None, Verdict] = {None: "none"}
    for sample in solution.samples:
        if sample.answer not in known:
            known[sample.answer] = judge(sample.answer, gold=problem.gold)
    return Graded(
        problem=problem,
        solution=solution,
        verdict=known[solution.answer],
        verdicts=tuple(known[sample.answer] for sample in solution.samples),
    )


def finish_times(samples: Sequence[Sample], verdicts: Sequence[Verdict]) -> list[tuple[float, bool]]:
    """(seconds, right) of each sample that is known to be right or wrong, for `mathlete.metrics.finish_order`."""
    pairs = zip(samples, verdicts, strict=True)
    return [(sample.seconds, verdict == "equal") for sample, verdict in pairs if verdict in ("equal", "different")]


@lru_cache(maxsize=2**16)
def judge(answer: str | None, *, gold: str) -> Verdict:
    """The verdict on one answer; the same pair, which many samples bring, is judged once."""
    return "none" if answer is None else compare(answer=answer, gold=gold).outcome
