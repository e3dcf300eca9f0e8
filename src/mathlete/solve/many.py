"""Many problems through the one solve loop: at once, so that the engine's batch stays full, or in turn on one clock."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from mathlete.errors import UserError
from mathlete.jsonl import JsonLines
from mathlete.lost import OnRefused, raise_refusal
from mathlete.problems import Problem
from mathlete.sampling import Sample, SampleLog, Sampler
from mathlete.solve.budget import Budget, BudgetSettings, Speed
from mathlete.solve.clock import Clock
from mathlete.solve.policy import Policy
from mathlete.solve.solver import Solution, solve


def solve_all(
    problems: Sequence[Problem],
    *,
    sampler: Sampler,
    clock: Clock,
    policy: Policy,
    samples: SampleLog,
    on_sample: Callable[[Sample], None],
    on_harvest: Callable[[Sample], None] = lambda sample: None,
    on_solution: Callable[[Solution], None] = lambda solution: None,
    on_refused: OnRefused = raise_refusal,
    at_once: int,
    thinking: bool | None = False,
) -> list[Solution]:
    """Return the problems' solutions in their order; samples already in the log are not drawn again.

    After an error or Ctrl-C close the sampler before the log: the solver threads end with it. `on_solution` is called
    with each solution as it is there, in the thread that solved it. `thinking` and `on_refused` are those of
    `solve`, the latter called in that thread too.
    """
    recorded = _by_problem(samples.recorded)

    def keep(sample: Sample) -> None:
        samples.append(sample)
        on_sample(sample)

    def keep_harvest(sample: Sample) -> None:
        samples.append(sample)
        on_harvest(sample)

    def solve_one(problem: Problem) -> Solution:
        known = recorded.get(problem.id, ())
        solution = solve(
            problem,
            sampler=sampler,
            clock=clock,
            policy=policy,
            recorded=known,
            on_sample=keep,
            on_harvest=keep_harvest,
            on_refused=on_refused,
            thinking=thinking,
        )
        on_solution(solution)
        return solution

    pool = ThreadPoolExecutor(at_once, thread_name_prefix="solve")
    try:
        return [future.result() for future in [pool.submit(solve_one, problem) for problem in problems]]
    finally:
        # No waiting here: a thread may hang in the engine until its sampler is closed.
        pool.shutdown(wait=False, cancel_futures=True)


def _by_problem(samples: Sequence[Sample]) -> Mapping[str, list[Sample]]:
    groups: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.problem_id].append(sample)
    return groups


class _SpentLog:
    """Seconds of each problem that is over, on file, so that a killed run goes on with the time it has left.

    What the problem that was being solved had taken before the kill is not known and not counted.
    """

    def __init__(self, path: Path) -> None:
        self._lines = JsonLines(path)
        self.seconds = dict(_read_spent(row, where=where) for where, row in self._lines.read())
        """{problem id: seconds}."""

    def append(self, problem_id: str, seconds: float) -> None:
        """Add one line, on the disk when this returns."""
        self._lines.append({"problem_id": problem_id, "seconds": seconds})
        self.seconds[problem_id] = seconds


def _read_spent(row: object, *, where: str) -> tuple[str, float]:
    if not isinstance(row, dict) or set(row) != {"problem_id", "seconds"}:
        raise UserError(f"{where}: must be problem_id and seconds", value=row, cure="delete the run's folder")
    return str(row["problem_id"]), float(row["seconds"])


def solve_in_turn(
    problems: Sequence[Problem],
    *,
    sampler: Sampler,
    clock: Clock,
    policy: Policy,
    samples: SampleLog,
    spent: Path,
    budget: BudgetSettings,
    on_sample: Callable[[Sample], None],
    on_harvest: Callable[[Sample], None] = lambda sample: None,
    on_solution: Callable[[Solution], None] = lambda solution: None,
    on_refused: OnRefused = raise_refusal,
    thinking: bool | None = False,
) -> list[Solution]:
    """Return the problems' solutions, solved one after another on one clock as a competition serves them.

    Each has the allowance of `Budget`, and as many samples as are expected to finish in it at the speed learned so far.
    `spent` is the JSONL file of the seconds that each problem took. Problems in it are over: the samples they have are
    all they get. Its seconds count also of problems that are not asked any more.
    """
    recorded, log = _by_problem(samples.recorded), _SpentLog(spent)
    shared = Budget(budget, clock=clock, spent_s=sum(log.seconds.values()), served=len(log.seconds))
    speed, solutions = Speed(), []
    for problem in problems:
        over = log.seconds.get(problem.id)
        allowed = 0.0 if over is not None else shared.next_question_s()
        fitting = policy.n if over is not None else speed.samples_that_fit(seconds=allowed, n=policy.n)
        known = recorded.get(problem.id, [])
        running = fitting - len(known)

        def keep(sample: Sample) -> None:
            nonlocal running
            if sample.finish == "clock":  # no sample's length
                samples.append(sample)
                return
            # The rows of the batch when this one ended, itself included: those that ended before it have left.
            speed.learn(tokens=sample.tokens, seconds=sample.seconds, rows=max(1, running))
            running -= 1
            samples.append(sample)
            on_sample(sample)

        def keep_harvest(sample: Sample) -> None:
            samples.append(sample)
            on_harvest(sample)

        solution = solve(
            problem,
            sampler=sampler,
            clock=clock,
            policy=replace(policy, n=fitting),
            recorded=known,
            on_sample=keep,
            on_harvest=keep_harvest,
            on_refused=on_refused,
            timeout_s=allowed,
            thinking=thinking,
            reserve=shared.reserve,
        )
        # What was refused may be asked again: no time of its own is over.
        if over is None and solution.ended != "refused":
            log.append(problem.id, solution.seconds)
        solutions.append(solution if over is None else replace(solution, seconds=over))
        on_solution(solutions[-1])
    return solutions
