"""Many problems through the one solve loop at once, so that the engine's batch stays full."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from mathlete.problems import Problem
from mathlete.sampling.record import Journal
from mathlete.sampling.samples import Sample, Sampler
from mathlete.solve.clock import Clock
from mathlete.solve.solver import Policy, Solution, solve


def solve_all(
    problems: Sequence[Problem],
    *,
    sampler: Sampler,
    clock: Clock,
    policy: Policy,
    journal: Journal,
    on_sample: Callable[[Sample], None],
    at_once: int,
) -> list[Solution]:
    """The problems' solutions in their order; samples already in the journal are not drawn again.

    After an error or Ctrl-C close the sampler before the journal: the solver threads end with it.
    """
    recorded: dict[str, list[Sample]] = {}
    for sample in journal.opened.samples:
        recorded.setdefault(sample.problem_id, []).append(sample)

    def keep(sample: Sample) -> None:
        journal.append(sample)
        on_sample(sample)

    def one(problem: Problem) -> Solution:
        known = recorded.get(problem.id, ())
        return solve(problem, sampler=sampler, clock=clock, policy=policy, recorded=known, on_sample=keep)

    pool = ThreadPoolExecutor(at_once, thread_name_prefix="solve")
    try:
        return [future.result() for future in [pool.submit(one, problem) for problem in problems]]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
