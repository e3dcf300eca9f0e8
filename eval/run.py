"""One evaluation run: the model on the suite into a folder of samples and scores, resumable after a kill."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from mathlete.command import busy, note_on_stop, progress
from mathlete.corpus import Suite
from mathlete.engines import EngineSettings, OpenEngine, open_engine
from mathlete.environment import code_state
from mathlete.errors import UserError
from mathlete.gates import GateOutcome
from mathlete.jsonl import JsonLines
from mathlete.lost import LostLog
from mathlete.models import ModelSource
from mathlete.problems import read_problems, write_problems
from mathlete.reasoning import closes_unopened, has_marks
from mathlete.runs import MANIFEST, REPORT, Leftovers, Step, run_step, sha256_json, sha256_tree, verify_if_made
from mathlete.sampling import Sample, SampleLog
from mathlete.sampling.served import ServerSettings
from mathlete.scoring import Results, RunFacts, RunningScore, RunSettings, grade
from mathlete.solve import BudgetSettings, Policy, RealClock, Solution, solve_all, solve_in_turn
from mathlete.templates import Rendering, try_template

SAMPLES, PROBLEMS, SPENT, LOST = "samples.jsonl", "problems.jsonl", "spent.jsonl", "lost.jsonl"
SCORES = ("results.json", "lm_eval.json")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is run on what. Neither the folder nor the engine's threads, servers and workers change a score."""

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

    @property
    def samples(self) -> int:
        """Samples of all problems, where no rule stops early."""
        return len(self.suite.problems) * self.policy.n

    @property
    def settings(self) -> RunSettings:
        """What the scores depend on."""
        return RunSettings(
            suite=self.suite.name,
            suite_sha=self.suite.sha256,
            problems=len(self.suite.problems),
            precision=self.engine.precision,
            dtype=self.engine.computing[0],
            policy=self.policy,
            budget=self.budget,
            tools=asdict(self.engine.tools) if self.engine.tools.turns else None,
            prompt=self.engine.source.prompt.to_json() or None,
            opens_thoughts=self.engine.of(ServerSettings).opens_thoughts if self.engine.name == "openai" else "auto",
            engine=self.engine.name,
            model_sha=model_sha(self.engine.source),
        )


def model_sha(source: ModelSource) -> str:
    """Return the hash of a folder's files, or the hub's id and commit.

    Raises:
        UserError: the folder was made by a step, and has changed since.
    """
    if source.folder:
        verify_if_made(source.folder)
    return sha256_json(sha256_tree(source.folder)) if source.folder else f"{source.location}@{source.hub_commit()}"


def run_evaluation(evaluation: Evaluation, *, say: Callable[[str], None]) -> Step:
    """Run an evaluation, continue it, or skip it where it is done; returns the finished step.

    Raises:
        UserError: a problem does not fit the model, or the folder holds something else.
    """
    # Before the folder is made: a model without tokenizer or a prompt too long must leave nothing half-written.
    if evaluation.engine.name != "openai":  # servers have weights of their own
        evaluation.engine.source.require_weights()
    check_prompts_fit(evaluation)
    for note in evaluation.engine.prompts.notes:
        say(note)
    dtype, reason = evaluation.engine.computing
    if dtype:
        say(f"compute in {dtype}: {reason}")
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
    # The report shows the manifest, so it comes after it; it is no part of what the manifest vouches for.
    if not step.skipped or not (step.folder / REPORT).exists():
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


def check_prompts_fit(evaluation: Evaluation) -> None:
    """Raise UserError where a problem's prompt can't be rendered, or leaves no room in the model's context."""
    prompts, context = evaluation.engine.prompts, evaluation.engine.source.context_tokens()
    try_template(
        [Rendering(partial(prompts.render, problem.statement)) for problem in evaluation.suite.problems],
        where=evaluation.engine.source.location,
    )
    for problem in evaluation.suite.problems:
        prompts.fit_prompt_ids(problem, context=context)


def write_run_report(folder: Path, *, say: Callable[[str], None]) -> None:
    """Write the report of a finished run into its folder."""
    from mathlete.report import write_report

    with busy("report"):
        say(f"report: {write_report([folder], out=folder / REPORT)}")


def draw_and_score(
    folder: Path, evaluation: Evaluation, settings: RunSettings, *, say: Callable[[str], None]
) -> dict[str, object]:
    """Fill the run's folder: its problems, samples and scores. Returns the step's figures."""
    began = time.time()
    drawn = draw_samples(folder, evaluation, say=say)
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
    Results.of(grade(evaluation.suite.problems, drawn.solutions), facts).write(folder, began=began)
    return {
        "seconds": facts.seconds,
        "tokens_per_s": facts.tokens_per_s,
        "resumed_samples": facts.resumed_samples,
    }


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """All problems solved."""

    solutions: list[Solution]
    engine_facts: dict[str, object]
    tokens: int
    """Of the samples drawn now, without those that were recorded before."""
    seconds: float
    resumed_samples: int


def draw_samples(folder: Path, evaluation: Evaluation, *, say: Callable[[str], None]) -> Drawn:
    """Draw the samples that the folder lacks, and solve all problems with them."""
    with SampleLog(folder / SAMPLES) as samples:
        check_recorded(samples, evaluation)
        lost = LostLog(folder / LOST)
        with busy("loading the model"):
            engine = open_engine(replace(evaluation.engine, on_lost=lost.append))
        with closing(engine.sampler):
            # Not before the engine is there: where it never is, a finished run that should have grown stays finished.
            for name in SCORES:  # of fewer samples
                (folder / name).unlink(missing_ok=True)
            write_problems(folder / PROBLEMS, evaluation.suite.problems)
            if samples.dropped_bytes:
                say(f"dropped a half-written last line of {SAMPLES} ({samples.dropped_bytes} bytes)")
            if samples.recorded:
                say(f"going on: {len(samples.recorded)} of {evaluation.samples} samples are there")
            if lost.earlier:
                say(f"{lost.earlier} tries were lost before ({LOST}); what they should have given is drawn now")
            if engine.opening is not None:
                say(f"thoughts {engine.opening.describe()}")
            score = RunningScore(evaluation.suite.problems, samples.recorded)
            started = time.monotonic()
            with note_on_stop(lambda: [f"{folder / SAMPLES}, {score.samples} of {evaluation.samples} samples"]):
                solutions = solve_problems(evaluation, engine, samples, score, spent=folder / SPENT)
            samples.join_harvest()
            if warning := doubt_opening(engine, solutions):
                say(warning)
            return Drawn(
                solutions=solutions,
                engine_facts={**engine.facts, **count_lost(lost, solutions, say=say)},
                tokens=score.new_tokens,
                seconds=time.monotonic() - started,
                resumed_samples=len(samples.recorded),
            )


def doubt_opening(engine: OpenEngine, solutions: Sequence[Solution]) -> str:
    """Return what speaks against prompts that open no reasoning, where it matters to a sample; "" for nothing."""
    samples = [sample for solution in solutions for sample in solution.samples]
    cut = [one for one in samples if one.was_cut and one.answer is not None and not has_marks(one.text)]
    closing = sum(closes_unopened(one.text) for one in samples) if cut and engine.opens_thoughts is False else 0
    if not closing:
        return ""
    return (
        f"{len(cut)} cut samples vote with what may be a thought: {closing} others end a reasoning that they have not "
        "opened. If the prompt opens it, evaluate again with --servers.opens-thoughts yes, in another folder"
    )


def count_lost(lost: LostLog, solutions: Sequence[Solution], *, say: Callable[[str], None]) -> dict[str, object]:
    """Return what results.json says of lost tries, and say which samples never came; nothing where none was lost."""
    if not lost.tries:
        return {}
    over = {one.problem_id: {sample.index for sample in one.samples} for one in solutions if one.ended == "time"}
    keys = {(one.problem_id, one.index) for one in lost.tries}
    never = sum(name in over and index not in over[name] for name, index in keys)
    if never:
        say(f"{never} samples stay lost: the time of their problems was over before another try ({LOST})")
    return {"lost_tries": len(lost.tries), "lost_samples": never}


def check_recorded(samples: SampleLog, evaluation: Evaluation) -> None:
    """Raise UserError where a recorded sample is not one that this run would draw."""
    ids, policy = {problem.id for problem in evaluation.suite.problems}, evaluation.policy
    for sample in samples.recorded:
        seed = policy.sample_seed(problem_id=sample.problem_id, index=sample.index)
        if sample.problem_id not in ids or not 0 <= sample.index < policy.n or sample.seed != seed:
            raise UserError(
                "samples.jsonl must hold this run's samples only",
                value=f"problem {sample.problem_id}, index {sample.index}, seed {sample.seed}",
                cure="choose another folder with --run, or delete what is there with --overwrite",
            )


def solve_problems(
    evaluation: Evaluation, engine: OpenEngine, samples: SampleLog, score: RunningScore, *, spent: Path
) -> list[Solution]:
    """Solve the problems, with a progress bar: one after another under a shared clock, else side by side."""
    problems, policy = evaluation.suite.problems, evaluation.policy
    with progress("eval") as bar:
        task = bar.add_task(score.describe(), total=evaluation.samples, completed=score.samples)

        began = time.monotonic()

        def on_sample(sample: Sample) -> None:
            score.add(sample)
            speed = score.new_tokens / max(1e-9, time.monotonic() - began)
            bar.update(task, advance=1, description=f"{score.describe()} · {speed:,.0f} tokens/s")
            if forced is not None and sample.needs_harvest:
                to_force.append(sample)
                bar.update(forced, total=len(to_force))

        to_force = [sample for sample in samples.recorded if sample.needs_harvest]
        forced = bar.add_task("forced answers", total=len(to_force)) if policy.harvest else None

        def on_harvest(sample: Sample) -> None:
            if forced is not None:
                if sample.finish == "clock":
                    to_force.append(sample)
                bar.update(forced, advance=1, total=len(to_force))

        if evaluation.budget is not None:
            return solve_in_turn(
                problems,
                sampler=engine.sampler,
                clock=RealClock(),
                policy=policy,
                samples=samples,
                spent=spent,
                budget=evaluation.budget,
                on_sample=on_sample,
                on_harvest=on_harvest,
                thinking=engine.opens_thoughts,
            )
        return solve_all(
            problems,
            sampler=engine.sampler,
            clock=RealClock(),
            policy=policy,
            samples=samples,
            on_sample=on_sample,
            on_harvest=on_harvest,
            # Samples for two batches: rows of the batch that become free are filled at once.
            at_once=min(len(problems), 2 * engine.rows // policy.fewest_samples + 2),
            thinking=engine.opens_thoughts,
        )
