"""One evaluation run: the model on the suite into a folder of samples and scores, resumable after a kill."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mathlete.command import busy, note_on_stop
from mathlete.competitions import Competition
from mathlete.corpus import Suite
from mathlete.drawing import LOST, SAMPLES, SPENT, DrawingPlan, Watching, draw_samples
from mathlete.engines import EngineSettings
from mathlete.environment import code_state
from mathlete.folders import SCORER
from mathlete.gates import GateOutcome
from mathlete.jsonl import JsonLines
from mathlete.problems import read_problems, write_problems
from mathlete.runs import MANIFEST, REPORT, Leftovers, Step, run_step, sha256_json
from mathlete.sampling import Sample
from mathlete.scoring import EvalRun, Results, RunFacts, RunningScore, RunSettings, grade
from mathlete.solve import BudgetSettings, Policy

PROBLEMS = "problems.jsonl"
SCORES = ("results.json", "lm_eval.json")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is run on what. The folder does not change a score."""

    suite: Suite
    engine: EngineSettings
    policy: Policy
    budget: BudgetSettings | None = None
    """One clock for all problems, which then come one after another; None is none."""
    gates: GateOutcome = field(default_factory=GateOutcome)
    """What the gates of the model's training said."""
    folder: Path | None
    """None: a name made of the settings, so that the same command goes on where it stopped."""
    overwrite: bool = False
    """Whether a run of other settings in the folder is deleted."""
    rules: Competition | None = None
    """The competition whose scorer judges the answers as well; None is none."""

    @property
    def plan(self) -> DrawingPlan:
        """What is drawn."""
        return DrawingPlan(problems=self.suite.problems, engine=self.engine, policy=self.policy, budget=self.budget)

    @property
    def settings(self) -> RunSettings:
        """What the scores depend on."""
        return self.plan.settings(suite=self.suite.name, suite_sha=self.suite.sha256)


def run_evaluation(evaluation: Evaluation, *, say: Callable[[str], None]) -> Step:
    """Run an evaluation, continue it, or skip it where it is done; returns the finished step.

    Raises:
        UserError: a problem does not fit the model, or the folder holds something else.
    """
    for note in evaluation.plan.check_model():
        say(note)
    settings, source = evaluation.settings, evaluation.engine.source
    name = f"eval-{settings.suite}-{Path(source.name).name}-{sha256_json(settings.to_json())[:8]}"
    folder = evaluation.folder or Path("runs") / name
    step = run_step(
        "eval",
        folder=folder,
        inputs={"model": source.folder} if source.folder else {},
        settings={**settings.to_json(), **evaluation.gates.to_json()},
        build=lambda folder: draw_and_score(folder, evaluation, settings, say=say),
        leftovers=Leftovers(
            overwrite=evaluation.overwrite,
            extends=lambda old, new: (
                is_extended(old, new) and adds_only(folder, evaluation, begun_for=old["settings"]["policy"]["n"])
            ),
            writes=(PROBLEMS, SAMPLES, SPENT, LOST, *SCORES),
        ),
    )
    # The report shows the manifest, so it comes after it; it is no part of what the manifest vouches for. Nor is what a
    # scorer says: the same samples can be judged by any.
    rejudged = evaluation.rules is not None and EvalRun.read(step.folder).judge_by(evaluation.rules).write(step.folder)
    if not step.skipped or rejudged or not (step.folder / REPORT).exists():
        with note_on_stop(lambda: [f"{step.folder}, finished"]):
            write_run_report(step.folder, say=say)
    return step


def is_extended(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Return whether a run's record is that of another but for samples, problems and what forced answers weigh.

    A sample's seed is made of its problem and its index, so what is recorded stays as it is. On a shared clock it does
    not: what a problem may take depends on all problems.
    """
    if old["step"] != "eval" or "budget" in new["settings"]:
        return False
    return _without_counts(old) == _without_counts(new)


def _without_counts(record: dict[str, Any]) -> dict[str, Any]:
    settings, counts = record["settings"], ("suite", "suite_sha", "problems")
    rest = {name: value for name, value in settings.items() if name not in counts}
    policy = {name: value for name, value in settings["policy"].items() if not name.startswith("harvest")}
    return {**rest, "policy": {**policy, "n": 0}, "inputs": record["inputs"]}


def adds_only(folder: Path, evaluation: Evaluation, *, begun_for: int) -> bool:
    """Return whether all that is in a folder is what this run would draw too.

    Of a finished run that is every sample and every problem. Of one that was begun for more, and stopped, it is what it
    has drawn until then: so who asked for more than there is time for can go back. `begun_for` is its n.
    """
    problems, n, file = evaluation.suite.problems, evaluation.policy.n, folder / PROBLEMS
    if not has_same_tails(folder, evaluation.policy):
        return False
    there = read_problems(file) if file.is_file() else []
    if (folder / MANIFEST).is_file():
        return begun_for <= n and set(there) <= set(problems)
    samples = [Sample.from_json(row, where=where) for where, row in JsonLines(folder / SAMPLES).read()]
    drawn = {sample.problem_id for sample in samples}
    known = {problem for problem in there if problem.id in drawn}
    return known <= set(problems) and all(sample.index < n for sample in samples)


def has_same_tails(folder: Path, policy: Policy) -> bool:
    """Return whether the forced answers in a folder are those that the policy would ask for, if it asks for any."""
    if not policy.harvest:
        return True
    samples = (Sample.from_json(row, where=where) for where, row in JsonLines(folder / SAMPLES).read())
    return all(one.harvest.fits(policy.harvest_tokens) for one in samples if one.harvest)


def write_run_report(folder: Path, *, say: Callable[[str], None]) -> None:
    """Write the report of a finished run into its folder."""
    from mathlete.report import write_report

    with busy("report"):
        say(f"report: {write_report([folder], out=folder / REPORT)}")


def draw_and_score(
    folder: Path, evaluation: Evaluation, settings: RunSettings, *, say: Callable[[str], None]
) -> dict[str, object]:
    """Fill the run's folder: its problems, samples and scores. Returns the step's figures."""
    began, problems, checker = time.time(), evaluation.suite.problems, EvalRun.name_checker()

    def forget_scores() -> None:
        for name in (*SCORES, SCORER):  # of fewer samples
            (folder / name).unlink(missing_ok=True)
        write_problems(folder / PROBLEMS, problems)

    watching = Watching(title="eval", count=partial(RunningScore, problems), on_open=forget_scores, say=say)
    drawn = draw_samples(folder, evaluation.plan, watching)
    code = code_state()
    facts = RunFacts(
        settings=settings,
        n=evaluation.policy.n,
        model=evaluation.engine.source.name,
        engine_facts={**drawn.engine_facts, **evaluation.gates.to_json()},
        prompt_sha=evaluation.engine.prompts.sha256,
        commit=str(code["commit"]),
        dirty=bool(code["dirty"]),
        seconds=round(drawn.seconds, 3),
        tokens_per_s=round(drawn.tokens / drawn.seconds, 1) if drawn.tokens else None,
        resumed_samples=drawn.resumed_samples,
    )
    Results.of(grade(problems, drawn.solutions), facts).write(folder, began=began)
    return {
        "seconds": facts.seconds,
        "tokens_per_s": facts.tokens_per_s,
        "resumed_samples": facts.resumed_samples,
        **checker,
    }
