"""Many problems through the one solve loop: at once, so that the engine's batch stays full, or in turn on one clock."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mathlete.errors import UserError
from mathlete.jsonl import JsonLines
from mathlete.problems import Problem
from mathlete.sampling.record import SampleLog
from mathlete.sampling.samples import Sample, Sampler
from mathlete.solve.budget import Budget, BudgetSettings, Speed
from mathlete.solve.clock import Clock
from mathlete.solve.solver import Policy, Solution, solve


def solve_all(
    problems: Sequence[Problem],
    *,
    sampler: Sampler,
    clock: Clock,
    policy: Policy,
    samples: SampleLog,
    on_sample: Callable[[Sample], None],
    at_once: int,
) -> list[Solution]:
    """The problems' solutions in their order; samples already in the log are not drawn again.

    After an error or Ctrl-C close the sampler before the log: the solver threads end with it.
    """
    recorded = by_problem(samples.recorded)

    def keep(sample: Sample) -> None:
        samples.append(sample)
        on_sample(sample)

    def one(problem: Problem) -> Solution:
        known = recorded.get(problem.id, ())
        return solve(problem, sampler=sampler, clock=clock, policy=policy, recorded=known, on_sample=keep)

    pool = ThreadPoolExecutor(at_once, thread_name_prefix="solve")
    try:
        return [future.result() for future in [pool.submit(one, problem) for problem in problems]]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def by_problem(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """The samples of each problem, in their order."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.problem_id, []).append(sample)
    return found


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a problem took of the shared clock."""

    problem_id: str
    seconds: float


class SpentLog:
    """The problems that are over, on file, so that a killed run goes on with the time it has left.

    What the problem that was being solved had taken before the kill is not known and not counted.
    """

    def __init__(self, path: Path) -> None:
        self._lines = JsonLines(path)
        rows = (_read_spent(row, where=where) for where, row in self._lines.read())
        self.by_problem = {row.problem_id: row for row in rows}

    def append(self, spent: Spent) -> None:
        """Adds one line, on the disk when this returns."""
        self._lines.append(asdict(spent))
        self.by_problem[spent.problem_id] = spent


def _read_spent(row: object, *, where: str) -> Spent:
    if not isinstance(row, dict) or set(row) != {"problem_id", "seconds"}:
        raise UserError(f"{where}: must be problem_id and seconds", value=row, cure="delete the run's folder")
    return Spent(problem_id=str(row["problem_id"]), seconds=float(row["seconds"]))


def solve_in_turn(
    problems: Sequence[Problem],
    *,
    sampler: Sampler,
    clock: Clock,
    policy: Policy,
    samples: SampleLog,
    spent: SpentLog,
    budget: BudgetSettings,
    on_sample: Callable[[Sample], None],
) -> list[Solution]:
    """The problems' solutions, solved one after another on one clock as a competition serves them.

    Each has the allowance of `Budget`, and as many samples as are expected to finish in it at the speed learned so far.
    Problems in `spent` are over: the samples they have are all they get.
    """
    recorded = by_problem(samples.recorded)
    spent_s = sum(row.seconds for row in spent.by_problem.values())
    shared = Budget(budget, clock=clock, spent_s=spent_s, served=len(spent.by_problem))
    speed, solutions = Speed(), []
    for problem in problems:
        over = spent.by_problem.get(problem.id)
        allowed = 0.0 if over else shared.next_question_s()
        fitting = policy.n if over else speed.samples_that_fit(seconds=allowed, n=policy.n)
        known = recorded.get(problem.id, [])
        running = fitting - len(known)

        def keep(sample: Sample) -> None:
            nonlocal running
            speed.learn(tokens=sample.tokens, seconds=sample.seconds, rows=max(1, running))
            running -= 1
            samples.append(sample)
            on_sample(sample)

        solution = solve(
            problem,
            sampler=sampler,
            clock=clock,
            policy=replace(policy, n=max(fitting, len(known))),
            recorded=known,
            on_sample=keep,
            timeout_s=allowed,
        )
        if over is None:
            spent.append(Spent(problem_id=problem.id, seconds=solution.seconds))
        solutions.append(replace(solution, seconds=over.seconds if over else solution.seconds))
    return solutions
