"""Forced answers: samples that were cut before they had an answer are closed, and the box of an answer begun for them.

What a sample says then is no answer that it came to: it is recorded apart (`Sample.harvest`), never counts as the
sample's own, and votes with the weight that the policy gives it. Stopping rules do not see it, and a problem that a
rule ended has no need of it. Ending the reasoning at a budget and asking for the answer is that of Muennighoff et al.
2025, "s1: simple test-time scaling", arXiv:2501.19393, section 3.1, there for a single sample.
"""

from collections.abc import Generator, Iterable
from contextlib import closing

from mathlete.problems import Problem
from mathlete.sampling import Sample, Sampler
from mathlete.solve.clock import Clock, until
from mathlete.solve.policy import Policy


def harvest(
    problem: Problem,
    samples: Iterable[Sample],
    *,
    sampler: Sampler,
    clock: Clock,
    policy: Policy,
    deadline: float | None,
) -> Generator[Sample, None, None]:
    """Yield each sample that was cut without an answer once more, with the one that it gives now.

    All are asked at once. What has not come by the deadline is dropped, whatever the engine does.

    Raises:
        UserError: the engine cannot go on from what a sample has said.
    """
    from mathlete.answers import read_answer

    cut = {sample.index: sample for sample in samples if sample.needs_harvest}
    left = None if deadline is None else deadline - clock.now()
    if not cut or (left is not None and left <= 0):
        return
    drawn = sampler.force_answers(
        problem, cut=[cut[index] for index in sorted(cut)], max_tokens=policy.harvest_tokens, timeout_s=left
    )
    with closing(until(drawn, clock=clock, deadline=deadline)) as stream:
        for tail in stream:
            # A box that was not closed may have been about to say another answer.
            answer = read_answer(tail.text) if tail.finish == "boxed" else None
            yield cut[tail.index].with_harvest(tail, answer=answer)
