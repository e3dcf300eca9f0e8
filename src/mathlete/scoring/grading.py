"""Solutions graded against gold answers: which samples and votes are right, wrong or cannot be judged."""

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from mathlete.answers import compare
from mathlete.competitions import Competition
from mathlete.jsonl import pause_collection
from mathlete.losses import Cause, ProblemLosses, asks_for_integer, find_cause
from mathlete.metrics import pass_at_k
from mathlete.organiser import BothJudged, Grade, choose_sent, judge_both, organisers_gold
from mathlete.problems import Problem
from mathlete.sampling import Sample
from mathlete.scoring.ballot import Ballot
from mathlete.solve import Solution


@dataclass(frozen=True, kw_only=True)
class Graded:
    """One problem's solution with its grades."""

    problem: Problem
    solution: Solution
    verdict: Grade
    """Of the vote."""
    verdicts: tuple[Grade, ...]
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
        """The classes that count as right."""
        # The vote answers with the first sample of its class. "Same answer" need not be transitive where the checker
        # gives up, so the class is as right as that sample is.
        return {label for label in range(len(self.solution.votes)) if self.judge_class(label) == "equal"}

    @cached_property
    def _ballot(self) -> Ballot:
        return Ballot.of(self.labels, right=self.right_labels)

    @cached_property
    def _majorities(self) -> dict[int, float]:
        # A problem is scored three times: among all problems, in its group and in its subset.
        return {}

    def judge_class(self, label: int) -> Grade:
        """Grade a class of the vote: as its first sample's, or a forced one where no sample gave it by itself."""
        vote = self.solution.votes[label]
        if not vote.indexes:
            return self.judge_answer(vote.answer)
        return self._of_index[vote.indexes[0]]

    def judge_answer(self, answer: str | None) -> Grade:
        """Grade another answer to the problem, such as a forced one."""
        return judge(answer, gold=self.problem.gold, settings=self.problem.answers)

    @cached_property
    def _of_index(self) -> dict[int, Grade]:
        return {sample.index: grade for sample, grade in zip(self.solution.samples, self.verdicts, strict=True)}

    @property
    def vote_share(self) -> float:
        """Share of the samples that voted for the winner; 0 without an answer."""
        # A problem whose time was over before any sample may still have forced answers.
        return self.solution.votes[0].count / len(self.verdicts) if self.solution.votes and self.verdicts else 0.0

    def find_losses(
        self, *, n: int | None = None, rules: Competition | None = None, tells_finish: bool = True
    ) -> ProblemLosses:
        """Return why samples and problem did not end in a right answer.

        Args:
            n: samples that there would be but for a clock; None where no clock kept one from being drawn.
            rules: the competition whose range the answers must keep to, if there is one.
            tells_finish: whether samples say how they ended; where a log does not, those without an answer are unknown.
        """
        integer, won = asks_for_integer(self.problem), self.verdict == "equal"
        causes = Counter[Cause]()
        # What a sample is lost by depends on its answer and its end alone, and most have those of others.
        alike: defaultdict[tuple[str | None, str, Grade], list[Sample]] = defaultdict(list)
        for sample, verdict in zip(self.solution.samples, self.verdicts, strict=True):
            alike[sample.answer, sample.finish, verdict].append(sample)
        for (_, _, verdict), samples in alike.items():
            if verdict == "equal":
                causes["won" if won else "outvoted"] += len(samples)
            else:
                unsaid = verdict == "none" and not tells_finish
                other: Cause = "unknown" if verdict == "unknown" or unsaid else "no_right_answer"
                lost = None if unsaid else find_cause(samples[0], integer=integer, rules=rules)
                causes[lost or other] += len(samples)
        # A rule that ended the problem did not need the others.
        if n is not None and self.solution.ended != "rule":
            causes["cut_by_clock"] += max(0, n - len(self.verdicts))
        return ProblemLosses.of(self.problem.id, won=won, samples=causes)

    def judge_by(self, rules: Competition) -> list[BothJudged]:
        """Return what the competition's scorer makes of what would be handed in, beside the checker's verdict.

        That is the problem's answer, or each sample where the scorer reads the model's text; nothing where the gold is
        no answer of the competition.
        """
        gold = organisers_gold(self.problem.gold, rules=rules)
        if gold is None:
            return []
        given: Any = {"gold": gold, "rules": rules, "problem_id": self.problem.id}
        if rules.scorer.reads_text:
            return [
                judge_both(sample.text, **given, index=sample.index, answer=sample.answer, own=verdict)
                for sample, verdict in zip(self.solution.samples, self.verdicts, strict=True)
            ]
        answers = filter(None, [self.solution.answer, *(vote.answer for vote in self.solution.votes)])
        return [judge_both(choose_sent(answers, rules=rules), **given, answer=self.solution.answer, own=self.verdict)]

    def pass_at(self, k: int) -> float:
        """Return the unbiased pass@k of this problem; 0 where its time was over before any sample."""
        return 0.0 if not self.verdicts else pass_at_k(n=len(self.verdicts), right=self.right, k=k)

    def maj_at(self, k: int) -> float:
        """Return maj@k of this problem over the subsets of its samples; 0 where it has none."""
        if k not in self._majorities:
            self._majorities[k] = self._ballot.maj_at(k) if self.verdicts else 0.0
        return self._majorities[k]


@pause_collection()
def grade(problems: Iterable[Problem], solutions: Iterable[Solution]) -> list[Graded]:
    """Return each problem's solution with its grades; both are in the same order."""
    return [grade_one(problem, solution) for problem, solution in zip(problems, solutions, strict=True)]


def grade_one(problem: Problem, solution: Solution, grades: Mapping[str | None, Grade] | None = None) -> Graded:
    """Return a problem's solution with its grades; those of its samples' answers may be known."""
    # Most samples give one of few answers: each is looked up once.
    if grades is None:
        answers = dict.fromkeys(sample.answer for sample in solution.samples)
        grades = {answer: judge(answer, gold=problem.gold, settings=problem.answers) for answer in answers}
    # The vote's answer may be none of the samples': the model's own judgement can name another candidate.
    return Graded(
        problem=problem,
        solution=solution,
        verdict=grades.get(solution.answer) or judge(solution.answer, gold=problem.gold, settings=problem.answers),
        verdicts=tuple(grades[sample.answer] for sample in solution.samples),
    )


def finish_times(samples: Sequence[Sample], verdicts: Sequence[Grade]) -> list[tuple[float, bool | None]]:
    """Return (seconds, right) of each sample for `mathlete.finish_order`; None: neither right nor wrong."""
    known, pairs = {"equal": True, "different": False}, zip(samples, verdicts, strict=True)
    return [(sample.seconds, known.get(verdict)) for sample, verdict in pairs]


@lru_cache(maxsize=2**16)
def judge(answer: str | None, *, gold: str, settings: str = "") -> Grade:
    """Grade one answer. Many samples give the same one, which is compared with the gold only once."""
    return "none" if answer is None else compare(answer=answer, gold=gold, settings=settings).outcome


class RunningScore:
    """Share of right samples so far, for a progress bar; samples may be added from several threads."""

    def __init__(self, problems: Iterable[Problem], recorded: Iterable[Sample]) -> None:
        self._problems = {problem.id: problem for problem in problems}
        self._lock = threading.Lock()
        self.samples = self._right = self.new_tokens = 0
        for sample in recorded:
            self.add(sample)
        self.new_tokens = 0

    def add(self, sample: Sample) -> None:
        """Count one sample."""
        problem = self._problems[sample.problem_id]
        right = judge(sample.answer, gold=problem.gold, settings=problem.answers) == "equal"
        with self._lock:
            self.samples += 1
            self._right += right
            self.new_tokens += sample.tokens

    def describe(self) -> str:
        """Return the share as text."""
        return f"right {self._right / self.samples:.1%}" if self.samples else "right –"
