"""GenSelect: after the vote the model itself compares one solution of each candidate answer and names the best.

Source: Toshniwal et al. 2025, "GenSelect: a generative approach to best-of-n", arXiv:2507.17797, and NVIDIA's AIMO-2
paper (arXiv:2504.16891, section 4.3), which did not ship it because it was too slow there. Each judgement is a sample
like any other, with a seed of its own, so it obeys the same clock; where the time is over or no judgement can be read,
the vote stands. Every judgement sees the candidates in the same order, that of the vote.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from mathlete.errors import UserError
from mathlete.problems import Problem
from mathlete.prompts import END_THINK
from mathlete.sampling import Sample, Sampler, SamplingConfig
from mathlete.solve.clock import Clock, until
from mathlete.solve.voting import Vote

CANDIDATES = 8
"""Answers that are compared at most, those with the most votes."""
_SUMMARY = 2000
"""Characters of a candidate's solution that the judge reads: the end, where the answer is."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What the judgements gave."""

    answer: str | None
    """The answer chosen; None leaves the vote's."""
    judgements: dict[str, int]
    """Judgements for each candidate that got any."""
    refused: str = ""
    """Why the engine could not be asked: the candidates do not fit into the model's context."""


def select(
    problem: Problem,
    votes: Sequence[Vote],
    samples: Sequence[Sample],
    *,
    sampler: Sampler,
    clock: Clock,
    seeds: dict[int, int],
    config: SamplingConfig,
    deadline: float | None,
) -> Selection:
    """The candidate that most judgements name, ties by the vote; one judgement for each seed."""
    candidates = votes[:CANDIDATES]
    texts = {sample.index: sample.text for sample in samples}
    judge = replace(
        problem,
        id=f"{problem.id}/select",
        statement=judge_statement(problem, [texts[vote.indexes[0]] for vote in candidates]),
    )
    left = None if deadline is None else deadline - clock.now()
    if left is not None and left <= 0:
        return Selection(answer=None, judgements={})
    named: Counter[int] = Counter()
    drawn = sampler.stream(judge, seeds=seeds, config=replace(config, timeout_s=left))
    try:
        with closing(until(drawn, clock=clock, deadline=deadline)) as arrivals:
            choices = [_choice(sample.text, of=len(candidates)) for sample in arrivals]
            named.update(choice for choice in choices if choice is not None)
    except UserError as error:
        return Selection(answer=None, judgements={}, refused=str(error))
    best = min(named, key=lambda choice: (-named[choice], choice), default=None)
    return Selection(
        answer=None if best is None else candidates[best].answer,
        judgements={candidates[choice].answer: count for choice, count in sorted(named.items())},
    )


def judge_statement(problem: Problem, texts: Sequence[str]) -> str:
    """What the judge is asked: the problem, and a solution of each candidate, numbered from 1."""
    parts = [f"Solution {number}:\n{_summary(text)}" for number, text in enumerate(texts, start=1)]
    return (
        f"{problem.statement}\n\nBelow are {len(parts)} solutions to it, which give different answers. "
        "Check them against each other, and put the number of the solution that is most likely right in \\boxed{}.\n\n"
        + "\n\n".join(parts)
    )


def _summary(text: str) -> str:
    """What follows the reasoning, with as much of the reasoning's end as there is room for."""
    reasoning, _, said = text.rpartition(END_THINK)
    return f"{reasoning.strip()[-max(0, _SUMMARY - len(said)) :]}\n{said.strip()}".strip()[-_SUMMARY:]


def _choice(text: str, *, of: int) -> int | None:
    """The candidate's position that a judgement names, or None."""
    from mathlete.answers import extract, parse

    value = parse(extract(text).string or "").value
    return int(value) - 1 if value is not None and value in range(1, of + 1) else None
