"""One evaluation run: the model on the suite into a folder of samples and scores, resumable after a kill."""

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path

from mathlete.command import busy, noting, progress
from mathlete.corpus import Suite
from mathlete.engines import EngineSettings, OpenEngine, open_engine
from mathlete.errors import UserError
from mathlete.models import ModelSource
from mathlete.problems import Problem, write_problems
from mathlete.runs import REPORT, Step, code_state, run_step, sha256_json, sha256_tree, write_json
from mathlete.sampling import Sample, SampleLog
from mathlete.solve import BudgetSettings, Policy, RealClock, Solution, solve_all, solve_in_turn

SAMPLES, PROBLEMS, RESULTS, SPENT = "samples.jsonl", "problems.jsonl", "results.json", "spent.jsonl"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is run on what; the engine's threads, servers and workers change no score, nor does the folder."""

    suite: Suite
    engine: EngineSettings
    policy: Policy
    budget: BudgetSettings | None = None
    """One clock for all problems, which then come one after another; None is none."""
    folder: Path | None
    """None: a name made of the settings, so that the same command goes on where it stopped."""

    @property
    def settings(self) -> dict[str, object]:
        """What the scores depend on, as JSON values."""
        return {
            "suite": self.suite.name,
            "suite_sha": self.suite.sha256,
            "problems": len(self.suite.problems),
            "precision": self.engine.precision,
            "policy": self.policy.to_json(),
            **({"budget": asdict(self.budget)} if self.budget else {}),
            **({"tools": asdict(self.engine.tools)} if self.engine.tools.turns else {}),
            "engine": self.engine.name,
            "model_sha": model_sha(self.engine.source),
        }

    def carry_out(self, *, say: Callable[[str], None]) -> Step:
        """Runs it, goes on with it, or skips it where it is done; returns the finished step.

        Raises:
            UserError: the model cannot be asked these problems, or the folder holds something else.
        """
        _check_askable(self)
        settings, source = self.settings, self.engine.source
        name = f"eval-{self.suite.name}-{Path(source.name).name}-{sha256_json(settings)[:8]}"
        step = run_step(
            "eval",
            folder=self.folder or Path("runs") / name,
            inputs={"model": source.folder} if source.folder else {},
            settings=settings,
            build=lambda folder: _build(folder, self, settings, say=say),
        )
        _report(step, say=say)
        return step


def _report(step: Step, *, say: Callable[[str], None]) -> None:
    # After the manifest, whose facts it shows; the run is done without it.
    file = step.folder / REPORT
    if not step.skipped or not file.exists():
        from mathlete.report import write_report

        with busy("report"):
            say(f"report: {write_report([step.folder], out=file)}")


def model_sha(source: ModelSource) -> str:
    """Hash of a folder's files, or the hub's id and commit."""
    return sha256_json(sha256_tree(source.folder)) if source.folder else f"{source.location}@{source.hub_commit()}"


def _check_askable(evaluation: Evaluation) -> None:
    # Before the folder is made: a model without tokenizer or a prompt too long must leave nothing half-written.
    prompts, context = evaluation.engine.prompts, evaluation.engine.source.context_tokens()
    for problem in evaluation.suite.problems:
        prompts.fitting_ids(problem, context=context)


def _build(
    folder: Path, evaluation: Evaluation, settings: dict[str, object], *, say: Callable[[str], None]
) -> dict[str, object]:
    from mathlete.scoring.grading import grade
    from mathlete.scoring.harness import LM_EVAL, harness_results
    from mathlete.scoring.results import results

    problems, date = evaluation.suite.problems, time.time()
    write_problems(folder / PROBLEMS, problems)
    with SampleLog(folder / SAMPLES) as samples, ExitStack() as opened:
        _check_recorded(samples, evaluation)
        engine = open_engine(evaluation.engine)
        opened.enter_context(closing(engine.sampler))
        total = len(problems) * evaluation.policy.n
        _tell_resumed(samples, total=total, say=say)
        started = time.monotonic()
        with noting(lambda: [f"{folder / SAMPLES}, {_lines(folder / SAMPLES)} of {total} samples"]):
            solutions, tokens = _draw(evaluation, engine, samples, spent=folder / SPENT)
        seconds = time.monotonic() - started
        figures: dict[str, object] = {
            "seconds": round(seconds, 3),
            "tokens_per_s": round(tokens / seconds, 1) if tokens else None,
            "resumed_samples": len(samples.recorded),
        }
        facts = {
            **settings,
            "n": evaluation.policy.n,
            "model": evaluation.engine.source.name,
            **engine.facts,
            "prompt_sha": evaluation.engine.prompts.sha256,
            **{key: value for key, value in code_state().items() if key in ("commit", "dirty")},
            **figures,
        }
    found = results(grade(problems, solutions), facts)
    write_json(folder / RESULTS, found)
    write_json(folder / LM_EVAL, harness_results(found, date=date))
    return figures


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n")


def _check_recorded(samples: SampleLog, evaluation: Evaluation) -> None:
    ids, policy = {problem.id for problem in evaluation.suite.problems}, evaluation.policy
    for sample in samples.recorded:
        seed = policy.sample_seed(problem_id=sample.problem_id, index=sample.index)
        if sample.problem_id not in ids or not 0 <= sample.index < policy.n or sample.seed != seed:
            raise UserError(
                "samples.jsonl must hold this run's samples only",
                value=f"problem {sample.problem_id}, index {sample.index}, seed {sample.seed}",
                cure="delete the run's folder, or choose another with --run",
            )


def _tell_resumed(samples: SampleLog, *, total: int, say: Callable[[str], None]) -> None:
    if samples.dropped_bytes:
        say(f"dropped a half-written last line of {SAMPLES} ({samples.dropped_bytes} bytes)")
    if samples.recorded:
        say(f"going on: {len(samples.recorded)} of {total} samples are there")


def _draw(evaluation: Evaluation, engine: OpenEngine, samples: SampleLog, *, spent: Path) -> tuple[list[Solution], int]:
    """The solutions, and the tokens that were drawn for them now."""
    problems, policy = evaluation.suite.problems, evaluation.policy
    score = _RunningScore(problems, samples.recorded)
    with progress("eval") as bar:
        task = bar.add_task(score.words, total=len(problems) * policy.n, completed=score.samples)

        def on_sample(sample: Sample) -> None:
            score.add(sample)
            bar.update(task, advance=1, description=score.words)

        if evaluation.budget is not None:
            solutions = solve_in_turn(
                problems,
                sampler=engine.sampler,
                clock=RealClock(),
                policy=policy,
                samples=samples,
                spent=spent,
                budget=evaluation.budget,
                on_sample=on_sample,
            )
        else:
            solutions = solve_all(
                problems,
                sampler=engine.sampler,
                clock=RealClock(),
                policy=policy,
                samples=samples,
                on_sample=on_sample,
                # Two batches' worth, so that rows that leave find others waiting.
                at_once=min(len(problems), 2 * engine.rows // policy.fewest_samples + 2),
            )
    return solutions, score.new_tokens


class _RunningScore:
    """Right samples so far, for the progress bar."""

    def __init__(self, problems: Iterable[Problem], recorded: Iterable[Sample]) -> None:
        self._golds = {problem.id: problem.gold for problem in problems}
        self._lock = threading.Lock()
        self.samples = self._right = self.new_tokens = 0
        for sample in recorded:
            self.add(sample)
        self.new_tokens = 0

    def add(self, sample: Sample) -> None:
        """Counts one sample; called from the solver threads."""
        from mathlete.scoring.grading import judge

        right = judge(sample.answer, gold=self._golds[sample.problem_id]) == "equal"
        with self._lock:
            self.samples += 1
            self._right += right
            self.new_tokens += sample.tokens

    @property
    def words(self) -> str:
        """Samples right so far."""
        return f"right {self._right / self.samples:.1%}" if self.samples else "right –"
