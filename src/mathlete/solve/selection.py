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
from mathlete.reasoning import split
from mathlete.sampling import Sample, Sampler
from mathlete.solve.clock import Clock, until
from mathlete.solve.policy import Policy
from mathlete.solve.voting import Vote

CANDIDATES = 8
"""Answers that are compared at most, those with the most votes."""
_SUMMARY = 2000
"""Characters of a candidate's solution that the judge reads: the end, where the answer is."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The result of the judgements."""

    answer: str | None
    """The answer chosen; None leaves the vote's."""
    judgements: dict[str, int]
    """Judgements for each candidate that got any."""
    refused: str = ""
    """Why there are none: the candidates do not fit into the model's context."""


def select(
    problem: Problem,
    votes: Sequence[Vote],
    samples: Sequence[Sample],
    *,
    sampler: Sampler,
    clock: Clock,
    policy: Policy,
    deadline: float | None,
    thinking: bool | None = False,
) -> Selection:
    """Select the candidate that most of `policy.select` judgements name; ties go by the vote.

    `thinking` is that of `solve`: a number in the middle of a judgement's thoughts is no judgement.
    """
    candidates = votes[:CANDIDATES]
    texts = {sample.index: sample.read_as_finished().text for sample in samples}
    # An id of its own gives the judgements seeds of their own.
    judge = replace(
        problem,
        id=f"{problem.id}/select",
        statement=judge_statement(problem, [texts[vote.first] for vote in candidates]),
    )
    left = None if deadline is None else deadline - clock.now()
    if left is not None and left <= 0:
        return Selection(answer=None, judgements={})
    seeds = {index: policy.sample_seed(problem_id=judge.id, index=index) for index in range(policy.select)}
    drawn = sampler.stream(judge, seeds=seeds, config=replace(policy.sampling, timeout_s=left))
    try:
        with closing(until(drawn, clock=clock, deadline=deadline)) as stream:
            choices = [_read_choice(sample, of=len(candidates), thinking=thinking) for sample in stream]
    except UserError as error:
        # Eight solutions may be more than the context holds: the vote stands, and the run goes on.
        return Selection(answer=None, judgements={}, refused=str(error))
    named = Counter(choice for choice in choices if choice is not None)
    # Candidates come in the order of the vote, so the smallest position is the tie's winner.
    best = min(named, key=lambda choice: (-named[choice], choice), default=None)
    return Selection(
        answer=None if best is None else candidates[best].answer,
        judgements={candidates[choice].answer: count for choice, count in sorted(named.items())},
    )


def judge_statement(problem: Problem, texts: Sequence[str]) -> str:
    """Return the judge's question: the problem, and a solution of each candidate, numbered from 1."""
    parts = [f"Solution {number}:\n{_summary(text)}" for number, text in enumerate(texts, start=1)]
    return (
        f"{problem.statement}\n\nBelow are {len(parts)} solutions to it, which give different answers. "
        "Check them against each other, and put the number of the solution that is most likely right in \\boxed{}.\n\n"
        + "\n\n".join(parts)
    )


def _summary(text: str) -> str:
    """Return what follows the reasoning, with as much of the reasoning's end as there is room for."""
    reasoning, said = split(text) or ("", text)
    return f"{reasoning.strip()[-max(0, _SUMMARY - len(said)) :]}\n{said.strip()}".strip()[-_SUMMARY:]


def _read_choice(sample: Sample, *, of: int, thinking: bool | None) -> int | None:
    """Return the candidate's position that a judgement names, or None."""
    from mathlete.answers import parse, read_answer

    value = parse(read_answer(sample.text, cut=sample.was_cut, thinking=thinking) or "").value
    return int(value) - 1 if value is not None and value in range(1, of + 1) else None
