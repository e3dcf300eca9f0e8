"""What each stopping rule costs and saves when wrong answers take longer, as long, or half as long: bench/stopping.py.

Three synthetic recordings of 60 problems with 64 samples, alike but for the pace of wrong answers; n = 16, all at once.
A rule that is safe only where right answers come first has a negative change in the last one. `ratio` is the wall of
all n samples over that of beta95+exact where length says nothing.
"""

import json
import random
import sys
from dataclasses import dataclass

import tyro

from mathlete.competitions import competition
from mathlete.problems import Problem
from mathlete.replay import Grid, Submissions, replay_pool
from mathlete.replay.outcomes import Outcome
from mathlete.sampling.samples import Sample
from mathlete.scoring import Pool

AIMO_3 = competition("aimo-3")

RULES = (
    *("none", "exact", "beta99", "beta95", "beta95+exact", "beta90+exact", "dirichlet95+exact", "esc8", "esc4+exact"),
    *("votes6", "aimo2", "votes4", "hopeless6of8"),
)
PACES = {"right first": 2.2, "no bias": 1.0, "wrong first": 0.5}


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """Sizes."""

    simulations: int = 2000
    """Submissions a rule."""
    n: int = 16
    """Samples a problem."""
    json: bool = False
    """End with one line of JSON."""


def recording(pace: float) -> Pool:
    """Return 60 problems whose right answer has a share of 0.1 to 0.95, beside a few wrong ones."""
    source = random.Random(0)
    problems = [Problem(id=str(i), statement="?", gold="7") for i in range(60)]
    samples: dict[str, list[Sample]] = {}
    for number, problem in enumerate(problems):
        right = 0.1 + 0.85 * number / 59
        shares = [right, (1 - right) * 0.5, (1 - right) * 0.25, (1 - right) * 0.15, (1 - right) * 0.05, 0.05]
        answers = source.choices(["7", "8", "9", "10", "11", None], shares, k=64)
        samples[problem.id] = [
            Sample(
                problem_id=problem.id,
                index=index,
                seed=index,
                text="",
                answer=answer,
                tokens=1,
                finish="stop",
                seconds=source.lognormvariate(5, 0.5) * (1 if answer == "7" else pace),
            )
            for index, answer in enumerate(answers)
        ]
    return Pool.of(problems, samples)


def try_rules(pool: Pool, settings: BenchSettings) -> list[Outcome]:
    grid = Grid(n=(settings.n,), max_tokens=(1,), stop=RULES, vote=("majority",), walls=(None,))
    submissions = Submissions(
        simulations=settings.simulations, questions=AIMO_3.problems, rules=AIMO_3, slots=None, seed=0
    )
    return replay_pool(pool, grid, submissions).outcomes


def main(settings: BenchSettings) -> dict[str, object]:
    rows: dict[str, list[str]] = {rule: [] for rule in RULES}
    figures: dict[str, object] = {}
    for name, pace in PACES.items():
        pool = recording(pace)
        bias = pool.finish_order
        print(f"{name}: a right answer came first in {bias.value if bias else 0:.3f} of the pairs")
        for outcome in try_rules(pool, settings):
            saved = outcome.saved
            rows[outcome.stop].append(
                f"{outcome.change.value:+6.2f} / {saved.arrivals:4.0%} / {saved.wall_s:4.0%} / {saved.generated_s:4.0%}"
            )
            figures[f"{name}: {outcome.stop}"] = [round(outcome.change.value, 3), round(saved.wall_s, 3)]
            if (name, outcome.stop) == ("no bias", "beta95+exact"):
                figures["ratio"] = round(1 / (1 - saved.wall_s), 2)
    print(f"change of 50 / arrivals / wall / generated seconds saved, n = {settings.n}")
    print(f"{'':18}" + "".join(f"{name:>32}" for name in PACES))
    for rule, cells in rows.items():
        print(f"{rule:18}" + "".join(f"{cell:>32}" for cell in cells))
    return figures


if __name__ == "__main__":
    chosen = tyro.cli(BenchSettings, description=__doc__)
    line = main(chosen)
    if chosen.json:
        print(json.dumps(line))
    sys.exit(0)
