"""`python -m eval`: a model on a suite of problems, with honest intervals; and what is made of finished runs."""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from eval.compare import COMPARE_COMMAND
from eval.replay import REPLAY_COMMAND
from eval.report import INSPECT_COMMAND, REPORT_COMMAND
from eval.run import RESULTS, Evaluation
from mathlete.command import Command, console, run_command_line
from mathlete.corpus import SUITE_NAMES, Suite, load_suite
from mathlete.engines import EngineSettings
from mathlete.errors import UserError
from mathlete.models import Precision, default_model, model_source
from mathlete.runs import read_json, write_json
from mathlete.sampling import SamplingConfig
from mathlete.sampling.served import RaySettings, ServerSettings, VllmSettings
from mathlete.solve import BudgetSettings, Policy
from mathlete.tir import ToolSettings


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """What to run on what."""

    suite: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SUITE")]
    """A suite's name, or a JSONL file of problems."""
    model: str | None = None
    """pocket, a preset, a folder or a hub id; default: what this machine can run."""
    precision: Precision = "auto"
    """How weights are held; auto: as the model's folder says."""
    mirror: Path | None = None
    """Folder that stands in for the hub's data sets."""
    limit: int | None = None
    """Only the first so many problems."""
    n: int = 8
    """Samples a problem."""
    policy: str = "all"
    """When a problem ends, how votes count, and how often the model judges between the answers:
    STOP[/VOTE][/selectN], as in beta95+exact/logprob/select4. all: all n samples; clock: beta95+exact."""
    engine: str = "transformers"
    """What draws the samples: transformers, vllm, openai or ray."""
    vllm: VllmSettings = field(default_factory=VllmSettings)
    servers: ServerSettings = field(default_factory=ServerSettings)
    ray: RaySettings = field(default_factory=RaySettings)
    tools: ToolSettings = field(default_factory=ToolSettings)
    time_budget: float | None = None
    """Seconds for all problems together, which then come one after another with an allowance each; default: none."""
    seed: int = 0
    """Another seed gives other samples."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    run: Path | None = None
    """The run's folder; default: runs/eval-SUITE-MODEL-HASH, so that the same command goes on where it stopped."""
    threads: int | None = None
    """CPU threads; default: 1 for a small model, else all cores."""
    json: bool = False
    """End with one line of JSON on stdout."""


def evaluate(settings: EvalSettings) -> dict[str, object]:
    """Runs the model on the suite, or goes on with a run that was stopped; prints and returns the scores."""
    from mathlete.metrics import Interval, describe_finish_order
    from mathlete.scoring.tables import in_words, score_table

    policy = Policy(n=settings.n, seed=settings.seed, sampling=settings.sampling).with_words(settings.policy)
    if settings.limit is not None and settings.limit < 1:
        raise UserError("--limit must be at least 1", value=settings.limit, cure="use --limit 1, or leave it out")
    name, reason = (settings.model, "named by --model") if settings.model else default_model()
    engine = EngineSettings(
        name=settings.engine,
        source=model_source(name),
        precision=settings.precision,
        threads=settings.threads,
        tools=settings.tools,
        own=(settings.vllm, settings.servers, settings.ray),
    )
    engine.check()
    out = console(json=settings.json)
    suite = _first(load_suite(settings.suite, mirror=settings.mirror), settings.limit)
    out.print(f"model {name}: {reason}")
    step = Evaluation(
        suite=suite,
        engine=engine,
        policy=policy,
        budget=_budget(settings.time_budget, questions=len(suite.problems)),
        folder=settings.run,
    ).carry_out(say=out.print)
    found = read_json(step.folder / RESULTS)
    out.print(score_table(found))
    out.print(in_words(found))
    if isinstance(bias := found["finish_order"], dict):
        out.print(describe_finish_order(Interval(**bias)))
    out.print(f"{'nothing changed, skipped: ' if step.skipped else ''}{step.folder}")
    return {"run": str(step.folder), **{key: found[key] for key in _LINE}, "skipped": step.skipped}


_LINE = (
    *("suite", "model", "n", "problems", "samples", "right", "pass_at_1", "pass_at_1_se", "k", "maj_at_k"),
    *("maj_at_k_interval", "unanswered", "unknown", "tokens", "seconds", "tokens_per_s", "fallbacks"),
)


def _budget(wall_s: float | None, *, questions: int) -> BudgetSettings | None:
    if wall_s is None:
        return None
    if not wall_s > 0:
        raise UserError("--time-budget must be above 0", value=wall_s, cure="give the seconds of all problems together")
    return BudgetSettings.even(wall_s=wall_s, questions=questions)


def _first(suite: Suite, limit: int | None) -> Suite:
    return suite if limit is None else replace(suite, problems=suite.problems[:limit])


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """A file of answers and golds to judge."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """JSONL of {"id", "kind": "equiv" or "extract", "gold", "pred" or "text", "expected", "source"}."""
    against: Literal["math-verify"] | None = None
    """Another checker to judge the same cases in the same run."""
    out: Path | None = None
    """Where the verdicts are written, a line each."""
    json: bool = False
    """End with one line of JSON on stdout."""


def check(settings: CheckSettings) -> dict[str, object]:
    """Judges the answers of a file; prints the report and returns it."""
    from mathlete.answers import check_file

    report = check_file(settings.file, against=settings.against, out=settings.out)
    console(json=settings.json).print(report.table())
    return report.as_json()


@dataclass(frozen=True, kw_only=True)
class TableSettings:
    """Two evaluation runs and the training run between them."""

    base: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="BASE")]
    """Run folder of the model before tuning."""
    tuned: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="TUNED")]
    """Run folder of the model after tuning."""
    train: Path
    """Run folder of the tuning."""
    out: Path
    """JSON file to write."""
    json: bool = False
    """End with one line of JSON on stdout."""


def table(settings: TableSettings) -> dict[str, object]:
    """Prints base against tuned with the paired difference, and writes it."""
    from mathlete.scoring.comparison import base_and_tuned, comparison_table, difference_in_words

    found = base_and_tuned(base=settings.base, tuned=settings.tuned, train=settings.train)
    write_json(settings.out, found)
    out = console(json=settings.json)
    out.print(comparison_table(found))
    out.print(difference_in_words(found))
    out.print(f"training run: {settings.train} · this table: {settings.out}")
    return {"run": str(settings.tuned), **found}


EVALUATE = Command(
    settings=EvalSettings,
    run=evaluate,
    help="Runs a model on a suite: n samples a problem, majority vote, pass@1 and maj@k with intervals.\n\n"
    f"Suites: {', '.join(SUITE_NAMES)}, or FILE.jsonl.\n\n"
    "Examples:\n\npython -m eval pocket_val\n\npython -m eval aimo_val --model r1-qwen-7b --n 16 --limit 20",
)
COMMANDS = {
    "check": Command(
        settings=CheckSettings,
        run=check,
        help="Judges a file of answers against their golds, beside another checker if you like.\n\n"
        "Examples:\n\npython -m eval check cases.jsonl --out verdicts.jsonl\n\n"
        "python -m eval check cases.jsonl --against math-verify --json",
    ),
    "compare": COMPARE_COMMAND,
    "inspect": INSPECT_COMMAND,
    "replay": REPLAY_COMMAND,
    "report": REPORT_COMMAND,
    "table": Command(
        settings=TableSettings,
        run=table,
        help="Puts a base run and a tuned run side by side, with the paired difference of hard pass@1.\n\n"
        "Examples:\n\npython -m eval table runs/base runs/tuned --train runs/train --out runs/table.json\n\n"
        "python -m eval table runs/base runs/tuned --train runs/train --out runs/table.json --json",
    ),
}

if __name__ == "__main__":
    sys.exit(run_command_line(sys.argv[1:], prog="python -m eval", commands=COMMANDS, otherwise=EVALUATE))
