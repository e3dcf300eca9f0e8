"""The one solve loop: eval runs it, the replay simulates it, the notebook answers with it."""

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Literal

from mathlete.lost import OnRefused, QuestionRefused, raise_refusal
from mathlete.problems import Problem
from mathlete.reasoning import is_within_thoughts
from mathlete.sampling import Sample, Sampler, SamplingConfig
from mathlete.solve.clock import Clock, until
from mathlete.solve.harvesting import Reserve, harvest
from mathlete.solve.policy import Policy
from mathlete.solve.selection import Selection, select
from mathlete.solve.stopping import Course, stopping_rule
from mathlete.solve.voting import Vote

Ended = Literal["all", "rule", "time", "refused"]
"""Why a problem ended: all its samples are in · its stopping rule held · its time was over · its engine refuses it."""


@dataclass(frozen=True, kw_only=True)
class Solution:
    """The result of solving one problem."""

    problem_id: str
    answer: str | None
    """The answer of the class that won; None where no sample has an answer, never a made-up one."""
    votes: list[Vote]
    """Winner first."""
    samples: list[Sample]
    """With their answers, by index; fewer than n after an early stop."""
    unfinished: list[Sample] = field(default_factory=list)
    """What others had said when the time was over, where the policy asks for forced answers; no samples that count."""
    seconds: float
    """From the call to the result on the caller's clock."""
    ended: Ended = "all"
    selection: Selection | None = None
    """The result of the model's own judgements, where the policy asks for them and answers differ."""

    @property
    def voting(self) -> list[Sample]:
        """The samples that may vote, those among them that the clock cut."""
        return [*self.samples, *self.unfinished]


def solve(
    problem: Problem,
    *,
    sampler: Sampler,
    clock: Clock,
    policy: Policy,
    recorded: Iterable[Sample] = (),
    on_sample: Callable[[Sample], None] = lambda sample: None,
    on_harvest: Callable[[Sample], None] = lambda sample: None,
    timeout_s: float | None = None,
    thinking: bool | None = False,
    reserve: Reserve | None = None,
    on_refused: OnRefused = raise_refusal,
) -> Solution:
    """Sample a problem, read the answers, vote.

    With the stops `none` and `exact` the answer does not depend on the order in which samples arrive; the vote over
    given samples never does.

    Args:
        problem: what to solve; its gold answer is not looked at.
        sampler: the engine.
        clock: tells the seconds.
        policy: how many samples, how drawn, when to stop, how to vote.
        recorded: samples of this problem and policy that an interrupted run has already drawn, in arrival order.
        on_sample: called with each new sample and its answer as it arrives.
        on_harvest: called again with each sample that was made to answer after it was cut.
        timeout_s: the result is there after so many seconds of the clock, whatever the engine does; None is no limit.
        thinking: whether the engine's prompts open the reasoning, so that a sample without its end is unfinished;
            None where nobody knows, and so a cut one is.
        reserve: how long forced answers take, as far as earlier questions have shown.
        on_refused: called where the engine refuses this problem, though it may take others; where it raises nothing,
            the samples that came till then are all.
    """
    started, settings, reserve = clock.now(), problem.answers, reserve or Reserve()
    deadline = None if timeout_s is None else started + timeout_s
    samples = {sample.index: sample for sample in recorded}
    # What the clock cut is no sample that a rule may look at.
    unfinished = {index: samples.pop(index) for index, one in [*samples.items()] if one.finish == "clock"}
    # Where there are any, the time was over when the run was killed.
    missing = [] if unfinished else [index for index in range(policy.n) if index not in samples]
    # A run that was killed may have drawn enough already: the rule is asked before anything more is drawn.
    # Where all are there, it is too late for a rule: a run that was not killed asks it before the last one only.
    ended: Ended = "rule" if missing and _is_settled(samples.values(), policy, settings) else "all"
    if missing and ended == "all":
        seeds = {index: policy.sample_seed(problem_id=problem.id, index=index) for index in missing}
        kept_s = reserve.seconds(timeout_s) if policy.harvest and timeout_s is not None else 0.0
        config = _config(policy, known=len(samples), timeout_s=None if timeout_s is None else timeout_s - kept_s)
        drawn = (sampler.stream_all if kept_s else sampler.stream)(problem, seeds=seeds, config=config)
        # Closing the stream cancels what is still being drawn.
        try:
            with closing(until(drawn, clock=clock, deadline=deadline)) as stream:
                for sample in (_with_answer(one, thinking=thinking) for one in stream):
                    (unfinished if sample.finish == "clock" else samples)[sample.index] = sample
                    on_sample(sample)
                    if len(samples) < policy.n and not unfinished and _is_settled(samples.values(), policy, settings):
                        ended = "rule"
                        break
        except QuestionRefused as refused:
            on_refused(problem.id, refused)
            ended = "refused"
    if ended == "all" and len(samples) < policy.n:
        ended = "time"
    # A rule that ended the problem did so without these answers, and they do not change its vote.
    if policy.harvest and ended not in ("rule", "refused"):
        cut = [*samples.values(), *unfinished.values()]
        for sample in harvest(
            problem, cut, sampler=sampler, clock=clock, policy=policy, deadline=deadline, reserve=reserve
        ):
            (unfinished if sample.finish == "clock" else samples)[sample.index] = sample
            on_harvest(sample)
    voting = [*samples.values(), *unfinished.values()]
    votes = policy.count_votes(voting, settings=settings, settled=ended == "rule")
    selection = None
    # A single class of answers leaves nothing to choose between.
    if policy.select and len(votes) > 1:
        selection = select(
            problem,
            votes,
            voting,
            sampler=sampler,
            clock=clock,
            policy=policy,
            deadline=deadline,
            thinking=thinking,
        )
    return Solution(
        problem_id=problem.id,
        answer=(selection and selection.answer) or (votes[0].answer if votes else None),
        votes=votes,
        samples=[samples[index] for index in sorted(samples)],
        unfinished=[unfinished[index] for index in sorted(unfinished)],
        seconds=clock.now() - started,
        ended=ended,
        selection=selection,
    )


def _config(policy: Policy, *, known: int, timeout_s: float | None) -> SamplingConfig:
    enough = policy.sampling.enough or policy.fewest_samples
    return replace(
        policy.sampling,
        timeout_s=policy.sampling.timeout_s if timeout_s is None else timeout_s,
        # Where so many are there already and have not settled it, the vote needs all the others.
        enough=enough if known < enough else None,
    )


def _with_answer(sample: Sample, *, thinking: bool | None) -> Sample:
    from mathlete.answers import read_answer

    cut = sample.was_cut
    return replace(
        sample,
        answer=read_answer(sample.text, cut=cut, thinking=thinking),
        in_thoughts=is_within_thoughts(sample.text, cut=cut, thinking=thinking),
    )


def _is_settled(samples: Iterable[Sample], policy: Policy, settings: str) -> bool:
    """Return whether the rule holds after the latest of these samples, given in arrival order."""
    known = list(samples)
    if policy.stop == "none" or len(known) < policy.fewest_samples:
        return False
    return bool(stopping_rule(policy.stop)(_course(known, policy, settings))[0, -1])


def _course(samples: list[Sample], policy: Policy, settings: str) -> Course:
    """Return one problem's samples in arrival order, as the stopping rules see them."""
    import numpy as np

    from mathlete.answers import label_classes

    return Course(
        labels=np.array([label_classes([sample.answer for sample in samples], settings)]),
        weights=np.array([[policy.weigh(sample) for sample in samples]]),
        indexes=np.array([[sample.index for sample in samples]]),
        n=policy.n,
    )
