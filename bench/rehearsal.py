"""What a rehearsal of 50 questions costs beside solving them: python bench/rehearsal.py.

Both run the pocket model with the same policy in one run: `rehearsal_s` is the whole rerun in two containers on the
virtual clock, from an empty folder to the scored file; `solve_s` is the same solve loop over the same problems with
the engine in this process, its loading included. `contention` is wall seconds per CPU second before the rehearsal.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import tyro

from mathlete.competitions import competition
from mathlete.kernel import KernelConfig
from mathlete.models import find_model
from mathlete.problems import Problem, read_problems
from mathlete.rehearsal import RehearsalSettings, choose_canaries, rehearse
from mathlete.sampling.embedded.transformers_engine import open_transformers
from mathlete.shipped import data_folder
from mathlete.solve.clock import RealClock
from mathlete.solve.policy import Policy
from mathlete.solve.solver import solve
from mathlete.submission import Names, build_submission


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """Size of the comparison."""

    questions: int = 50
    """Pocket problems."""
    json: bool = False
    """End with one line of JSON."""


def seconds_to_solve(problems: list[Problem], policy: Policy) -> float:
    began = time.perf_counter()
    sampler = open_transformers(find_model("pocket"), precision="auto", threads=1)
    for problem in problems:
        solve(problem, sampler=sampler, clock=RealClock(), policy=policy)
    sampler.close()
    return time.perf_counter() - began


def main(settings: BenchSettings) -> None:
    suite = read_problems(data_folder() / "pocket" / "pocket_val.jsonl")
    problems = choose_canaries(suite, count=settings.questions, rules=competition("aimo-3"))
    policy = Policy().with_words("clock")
    with TemporaryDirectory() as folder:
        here = Path(folder)
        names = replace(Names(owner="mathlete-demo"), model_version=1)
        model = Path(find_model("pocket").location)
        made = build_submission(
            model=model, config=KernelConfig(policy=policy), names=names, kaggle=here / "kaggle", wheels=here / "wheels"
        )
        run = rehearse(made, problems, RehearsalSettings(), folder=here / "rehearsal")
    solve_s = seconds_to_solve(problems, policy)
    figures = {
        **asdict(run.figures()),
        "rehearsal_s": round(run.seconds, 1),
        "solve_s": round(solve_s, 1),
        "ratio": round(run.seconds / solve_s, 2),
        "contention": round(run.contention, 1),
    }
    print(json.dumps(figures) if settings.json else "\n".join(f"{key:<14}{value}" for key, value in figures.items()))


if __name__ == "__main__":
    main(tyro.cli(BenchSettings, description=__doc__))
    sys.exit(0)
