"""Forced answers: samples that were cut before they had an answer are closed, and the box of an answer begun for them.

What a sample says then is no answer that it came to: it is recorded apart (`Sample.harvest`), never counts as the
sample's own, and votes with the weight that the policy gives it. Stopping rules do not see it, and a problem that a
rule ended has no need of it. Ending the reasoning at a budget and asking for the answer is that of Muennighoff et al.
2025, "s1: simple test-time scaling", arXiv:2501.19393, section 3.1, there for a single sample.
"""

from collections import deque
from collections.abc import Generator, Iterable
from contextlib import closing

from mathlete.problems import Problem
from mathlete.sampling import Sample, Sampler
from mathlete.solve.clock import Clock, until
from mathlete.solve.policy import Policy

_FIRST_SHARE = 0.1
"""Share of a question's time that is kept for forced answers while none has been measured."""
_MOST_SHARE = 0.25
"""Share that is kept at most: the samples themselves are worth more."""
_MARGIN = 1.5
"""How much longer than the slowest of late they may take."""
_LATE = 8
"""Questions of which the slowest counts."""


class Reserve:
    """How much of a question's time its forced answers need, learned from those of the questions before."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_LATE)

    def seconds(self, allowed_s: float) -> float:
        """Return the seconds to keep of a question's time.

        >>> reserve = Reserve()
        >>> reserve.seconds(300.0)
        30.0
        >>> reserve.learn(8.0)
        >>> reserve.seconds(300.0), reserve.seconds(20.0)
        (12.0, 5.0)
        """
        if not self._seconds:
            return _FIRST_SHARE * allowed_s
        return min(_MOST_SHARE * allowed_s, _MARGIN * max(self._seconds))

    def learn(self, seconds: float) -> None:
        """Take the seconds that a question's forced answers took."""
        self._seconds.append(seconds)


def harvest(
    problem: Problem,
    samples: Iterable[Sample],
    *,
    sampler: Sampler,
    clock: Clock,
    policy: Policy,
    deadline: float | None,
    reserve: Reserve,
) -> Generator[Sample, None, None]:
    """Yield each sample that was cut without an answer once more, with the one that it gives now.

    All are asked at once. What has not come by the deadline is dropped, whatever the engine does. `reserve` learns how
    long they took.

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
    began, left_out = clock.now(), len(cut)
    with closing(until(drawn, clock=clock, deadline=deadline)) as stream:
        for tail in stream:
            left_out -= 1
            # A box that was not closed may have been about to say another answer.
            answer = read_answer(tail.text) if tail.finish == "boxed" else None
            yield cut[tail.index].with_harvest(tail, answer=answer)
    # Where some did not come, twice the time might have been enough.
    reserve.learn((clock.now() - began) * (2 if left_out else 1))
