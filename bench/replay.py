"""How long 10,000 simulated submissions of 50 questions take: python bench/replay.py.

A synthetic recording of 50 problems with 64 samples; one policy, and the default grid of rules with and without a
clock. `ratio` is the time of the plain way (the solve loop over a replay sampler, one question after another, measured
on some and scaled up) over the replay's, in the same process.
"""

import json
import random
import sys
import time
from dataclasses import dataclass, replace

import tyro

from mathlete.competitions import competition
from mathlete.problems import Problem
from mathlete.replay import Grid, Submissions, Wall, replay_pool
from mathlete.replay.sampler import ReplaySampler
from mathlete.sampling.samples import Sample
from mathlete.scoring import Pool
from mathlete.solve.clock import VirtualClock
from mathlete.solve.policy import Policy
from mathlete.solve.solver import solve

AIMO_3 = competition("aimo-3")

RULES = ("none", "exact", "beta95+exact", "beta99+exact", "esc8", "votes4", "aimo2")


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """Sizes."""

    simulations: int = 10_000
    """Submissions a policy."""
    problems: int = 50
    """Recorded problems."""
    recorded: int = 64
    """Samples of each."""
    n: int = 16
    """Samples a problem in the replay."""
    json: bool = False
    """End with one line of JSON."""


def recording(settings: BenchSettings) -> Pool:
    source = random.Random(0)
    problems = [Problem(id=str(i), statement="?", gold="7") for i in range(settings.problems)]
    samples = {
        problem.id: [
            Sample(
                problem_id=problem.id,
                index=index,
                seed=index,
                text=f"</think>\\boxed{{{answer}}}",
                answer=answer,
                tokens=1000,
                finish="boxed",
                seconds=source.lognormvariate(4, 0.6),
            )
            for index in range(settings.recorded)
            for answer in source.choices(["7", "8", "9", "10"], [settings.problems - number, number, 3, 3])
        ]
        for number, problem in enumerate(problems)
    }
    return Pool.of(problems, samples)


def seconds_of(pool: Pool, settings: BenchSettings, stops: tuple[str, ...], walls: tuple[Wall | None, ...]) -> float:
    grid = Grid(n=(settings.n,), max_tokens=(1000,), stop=stops, vote=("majority",), walls=walls)
    submissions = Submissions(
        simulations=settings.simulations, questions=AIMO_3.problems, rules=AIMO_3, slots=None, seed=0
    )
    started = time.perf_counter()
    replay_pool(pool, grid, submissions)
    return time.perf_counter() - started


def plain_seconds(pool: Pool, settings: BenchSettings, *, questions: int = 200) -> float:
    """Return the solve loop's seconds for as many questions as one policy's simulation asks, from some of them."""
    source = random.Random(1)
    policy = Policy(n=settings.n, stop="beta95+exact")
    started = time.perf_counter()
    for _ in range(questions):
        item = source.choice(pool.problems)
        drawn = source.sample(item.samples, settings.n)
        clock = VirtualClock()
        again = [replace(sample, index=index) for index, sample in enumerate(drawn)]
        sampler = ReplaySampler(again, advance_to=clock.advance_to, now=clock.now)
        solve(item.problem, sampler=sampler, clock=clock, policy=policy)
    return (time.perf_counter() - started) / questions * settings.simulations * 50


def main(settings: BenchSettings) -> dict[str, object]:
    pool = recording(settings)
    clock = Wall(wall_s=18_000, floor_s=300, ceiling_s=900)
    one = seconds_of(pool, settings, ("beta95+exact",), (None,))
    clocked = seconds_of(pool, settings, ("beta95+exact",), (clock,))
    grid = seconds_of(pool, settings, RULES, (None, clock))
    plain = plain_seconds(pool, settings)
    figures: dict[str, object] = {
        "simulations": settings.simulations,
        "seconds_one_policy": round(one, 2),
        "seconds_one_policy_with_clock": round(clocked, 2),
        "seconds_grid_of_14": round(grid, 2),
        "seconds_plain_loop": round(plain, 1),
        "ratio": round(plain / one, 1),
    }
    print(figures)
    return figures


if __name__ == "__main__":
    chosen = tyro.cli(BenchSettings, description=__doc__)
    line = main(chosen)
    if chosen.json:
        print(json.dumps(line))
    sys.exit(0)
