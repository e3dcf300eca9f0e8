"""A recorded evaluation run, read back whole: its problems, samples, votes and verdicts, finished or not."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mathlete.problems import Problem
from mathlete.runs import MANIFEST, read_json
from mathlete.sampling import Sample, SamplingConfig
from mathlete.scoring.grading import Graded, grade
from mathlete.scoring.pool import Pool, Recorded, read_recording
from mathlete.scoring.results import results
from mathlete.solve import BudgetSettings, Policy, Solution

RESULTS = "results.json"


@dataclass(frozen=True, kw_only=True)
class EvalRun:
    """One evaluation run."""

    name: str
    folder: Path
    graded: list[Graded]
    """By the suite's order."""
    found: dict[str, Any]
    """The content of results.json, made here where the run never came to it."""
    manifest: dict[str, Any]
    """Empty where the run is unfinished."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The run in a folder with problems.jsonl and samples.jsonl, and results.json where it came to its end.

        Raises:
            UserError: no such folder, or files that are not those of a run.
        """
        problems, samples = read_recording(folder)
        told: dict[str, Any] = read_json(folder / RESULTS) if (folder / RESULTS).is_file() else {}
        drawn: defaultdict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            drawn[sample.problem_id].append(sample)
        rows = {row["id"]: row for row in told.get("per_problem", ())}
        policy = _policy(told)
        solutions = [_solution(one, drawn[one.id], rows.get(one.id, {}), policy) for one in problems]
        graded = grade(problems, solutions)
        manifest = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
        return cls(
            name=folder.resolve().name,
            folder=folder,
            graded=graded,
            found=told or results(graded, {"suite": folder.resolve().name, "unfinished": True}),
            manifest=manifest,
        )

    @property
    def pool(self) -> Pool:
        """Its problems that have samples, as the paired comparison takes them."""
        recorded = [_recorded(item) for item in self.graded if item.solution.samples]
        return Pool(name=self.name, problems=recorded, stopped_early=len({len(one.samples) for one in recorded}) > 1)

    @property
    def allowances_s(self) -> list[float] | None:
        """What the shared clock gave each question, seconds; None for a run without one."""
        budget = self.found.get("budget")
        if not budget:
            return None
        asked = budget["questions"]
        questions = asked if isinstance(asked, int) else {int(count): share for count, share in asked.items()}
        shape = BudgetSettings(**{**budget, "questions": questions})
        given, left = [], shape.wall_s - shape.reserve_s
        for served, item in enumerate(self.graded):
            to_come = shape.to_come(served=served)
            given.append(shape.allowance_s(max(0.0, left), to_come=to_come))
            left -= item.solution.seconds
        return given


def _policy(told: dict[str, Any]) -> Policy:
    """The part of a run's policy that its vote needs."""
    policy = told.get("policy") or {"vote": "majority", "sampling": {"max_tokens": 1}}
    return Policy(vote=policy["vote"], sampling=SamplingConfig(max_tokens=policy["sampling"]["max_tokens"]))


def _solution(problem: Problem, samples: Sequence[Sample], row: dict[str, Any], policy: Policy) -> Solution:
    votes = policy.count_votes(samples)
    voted = votes[0].answer if votes else None
    return Solution(
        problem_id=problem.id,
        # The model's own judgements may have chosen another than the vote.
        answer=row.get("answer", voted),
        votes=votes,
        samples=sorted(samples, key=lambda sample: sample.index),
        seconds=row.get("seconds", max((sample.seconds for sample in samples), default=0.0)),
    )


def _recorded(item: Graded) -> Recorded:
    labels = [-1 if label is None else label for label in item.labels]
    return Recorded(problem=item.problem, samples=item.solution.samples, labels=labels, verdicts=list(item.verdicts))
