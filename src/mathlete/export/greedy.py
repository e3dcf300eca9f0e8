"""Greedy answers of a model to held-out problems, and those of two models side by side."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mathlete.answers import compare, read_answer
from mathlete.metrics import PairedChange, paired_change
from mathlete.problems import Problem
from mathlete.prompts import PromptFormat

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel

Answers = dict[str, str | None]
"""{problem id: greedy answer, or None}."""
Watch = Callable[[str], None]
"""Told how far a measurement is, in words."""


def list_problems(rows: "Dataset") -> list[Problem]:
    """Return the problems of rows, each once."""
    columns = zip(rows["problem_id"], rows["statement"], rows["gold"], rows["answers"], strict=True)
    problems = (Problem(id=name, statement=text, gold=gold, answers=how) for name, text, gold, how in columns)
    return list({problem.id: problem for problem in problems}.values())


def draw_greedy_answers(
    model: "PreTrainedModel",
    *,
    prompts: PromptFormat,
    problems: Sequence[Problem],
    max_tokens: int,
    watch: Watch = lambda _: None,
) -> Answers:
    """Draw {problem id: greedy answer}, None where the completion has none. The model cannot be used afterwards.

    The same model gives the same answers every time: which rows are decoded together follows from the problems alone.
    `watch` is told how many there are.
    """
    from mathlete.sampling.embedded import draw_greedy

    answers, thinking = Answers(), prompts.prefilled
    for one in draw_greedy(model, prompts=prompts, problems=problems, max_tokens=max_tokens):
        answers[one.problem_id] = read_answer(one.text, cut=one.finish == "length", thinking=thinking)
        watch(f"{len(answers)} of {len(problems)} answers")
    return answers


@dataclass(frozen=True, kw_only=True)
class GreedyComparison:
    """Greedy answers of the trained model beside those of another."""

    problems: int
    answered: int
    """Problems that at least one of the two answers; the others say nothing."""
    unchanged: int
    right_before: int
    right_after: int
    change: PairedChange
    """Right answers, after - before, as a share of the problems, with its paired 95% interval."""

    @property
    def share(self) -> float | None:
        """Unchanged answers as a share of the answered problems; None where neither model answers any."""
        return self.unchanged / self.answered if self.answered else None


def compare_greedy(
    problems: Sequence[Problem], *, before: Mapping[str, str | None], after: Mapping[str, str | None]
) -> GreedyComparison:
    """Count the unchanged and the right answers."""
    pairs = [(before[problem.id], after[problem.id]) for problem in problems]
    right = [
        [float(_is_same(answers[problem.id], problem.gold, problem.answers)) for problem in problems]
        for answers in (before, after)
    ]
    unchanged = [is_unchanged(*pair, problem.answers) for pair, problem in zip(pairs, problems, strict=True)]
    return GreedyComparison(
        problems=len(problems),
        answered=sum(a is not None or b is not None for a, b in pairs),
        unchanged=sum(same for same, (a, _) in zip(unchanged, pairs, strict=True) if a is not None),
        right_before=int(sum(right[0])),
        right_after=int(sum(right[1])),
        change=paired_change(*right),
    )


def is_unchanged(before: str | None, after: str | None, answers: str) -> bool:
    """Return whether two models give the same answer by the problem's conventions, or both none."""
    return before == after or (before is not None and after is not None and _is_same(before, after, answers))


def _is_same(answer: str | None, gold: str, answers: str) -> bool:
    return answer is not None and (
        answer == gold or compare(answer=answer, gold=gold, settings=answers).outcome == "equal"
    )
