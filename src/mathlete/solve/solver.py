"""The one solve loop: eval runs it, the replay simulates it, the notebook answers with it."""

import hashlib
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Literal

from mathlete.answers import extract
from mathlete.errors import UserError
from mathlete.problems import Problem
from mathlete.sampling.samples import Sample, Sampler, SamplingConfig
from mathlete.solve.clock import Clock
from mathlete.solve.voting import Vote, count_votes, is_decided

Stop = Literal["none", "exact"]
"""When a problem ends: after all its samples · once its leader cannot be overtaken any more."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How one problem is solved."""

    n: int = 8
    """Samples a problem."""
    seed: int = 0
    """Sample i of a problem has a seed made of this, the problem's id and i, whatever else is run."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    stop: Stop = "none"
    """none: all n samples; exact: stop once the result is certain, it is the same as with all n."""

    def check(self) -> None:
        """Raises UserError where a value is out of its range."""
        if self.n < 1:
            raise UserError("--n must be at least 1", value=self.n, cure="use --n 8")
        self.sampling.check()


@dataclass(frozen=True, kw_only=True)
class Solution:
    """What solving one problem gave."""

    problem_id: str
    answer: str | None
    """The winner's; None where no sample has an answer, never a made-up one."""
    votes: list[Vote]
    """Winner first."""
    samples: list[Sample]
    """With their answers, by index; fewer than n after an early stop."""
    seconds: float
    """From the call to the result on the caller's clock."""


def sample_seed(*, seed: int, problem_id: str, index: int) -> int:
    """The seed of a problem's sample: 53 bits, which every JSON reader keeps.

    >>> sample_seed(seed=0, problem_id="424e18", index=3)
    5434184233325401
    """
    digest = hashlib.sha256(f"{seed}/{problem_id}/{index}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 11


def solve(
    problem: Problem,
    *,
    sampler: Sampler,
    clock: Clock,
    policy: Policy,
    recorded: Iterable[Sample] = (),
    on_sample: Callable[[Sample], None] = lambda sample: None,
) -> Solution:
    """Samples a problem, reads the answers, votes. The result does not depend on the order in which samples arrive.

    Args:
        problem: what to solve; its gold answer is not looked at.
        sampler: the engine.
        clock: tells the seconds.
        policy: how many samples, how drawn, when to stop.
        recorded: samples of this problem and policy that an interrupted run has already drawn.
        on_sample: called with each new sample and its answer as it arrives.
    """
    started = clock.now()
    samples = {sample.index: sample for sample in recorded}
    seeds = {
        index: sample_seed(seed=policy.seed, problem_id=problem.id, index=index)
        for index in range(policy.n)
        if index not in samples
    }
    if seeds and not _enough(samples.values(), policy):
        # Closing the stream cancels what is still being drawn.
        with closing(sampler.stream(problem, seeds=seeds, config=policy.sampling)) as stream:
            for drawn in stream:
                sample = replace(drawn, answer=read_answer(drawn.text))
                samples[sample.index] = sample
                on_sample(sample)
                if _enough(samples.values(), policy):
                    break
    votes = count_votes(samples.values())
    return Solution(
        problem_id=problem.id,
        answer=votes[0].answer if votes else None,
        votes=votes,
        samples=[samples[index] for index in sorted(samples)],
        seconds=clock.now() - started,
    )


def read_answer(text: str) -> str | None:
    """The final answer in a completion, or None."""
    found = extract(text)
    return found.string if found is not None else None


def _enough(samples: Iterable[Sample], policy: Policy) -> bool:
    if policy.stop == "none":
        return False
    known = list(samples)
    return is_decided(count_votes(known), outstanding=policy.n - len(known))
