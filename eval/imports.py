"""`python -m eval import`: other tools' logs, or slices of one's own runs, as one run."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from eval.judged import require_finished, require_runs
from eval.run import SCORES, write_run_report
from mathlete.command import Command, busy, console
from mathlete.errors import UserError, require
from mathlete.folders import STARTED
from mathlete.gates import GateOutcome
from mathlete.runs import MANIFEST, REPORT, Leftovers, run_step
from mathlete.text import counted

_SUMMARY = ("suite", "model", "n", "problems", "samples", "right", "pass_at_1", "pass_at_1_se", "k", "maj_at_k",
            "maj_at_k_interval", "unanswered", "unknown", "tokens", "fallbacks")  # fmt: skip
"""Keys of results.json that the line of JSON repeats."""
FILES = ("problems.jsonl", "samples.jsonl", "slices.json", *SCORES)


@dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """Files of one run, and what they do not say."""

    files: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILE…")]
    """Logs, or run folders of `python -m eval`; several are slices of one run: other problems or other seeds."""
    run: Path
    """Folder of the run to make."""
    columns: tuple[str, ...] = ()
    """NAME=COLUMN where the layout does not say it: problem_id, statement, gold, subset, text, answer, tokens,
    seconds, finish, logprob_mean, seed, index, and model, temperature, top_p, max_tokens of the run. A column may be
    a path, as in doc.id or outputs.text; a cell that is a list, or the text of one, is a sample for each member."""
    problems: str | None = None
    """Suite, or file of problems, for logs without statements or golds: samples are matched by statement, or by
    an id, with a number behind it too, that the log's statement and gold do not contradict."""
    mirror: Path | None = None
    """Folder that stands in for the hub's data sets."""
    model: str | None = None
    """A name for the model, or its folder, in place of the logs'."""
    pace: float | None = None
    """Tokens a second of one sample, to make seconds of tokens where the logs have none."""
    opens_thoughts: Literal["auto", "yes", "no"] = "auto"
    """Whether the prompts ended in `<think>` or the like: then a text without its end is unfinished, and one that was
    cut has no answer. auto: as the logs' prompts, the template in the model's folder, or the logs' other texts show."""
    texts: bool = True
    """Keep texts and statements. Without them a recording is small and may be passed on."""
    accept_refused: str = ""
    """Why to take in a run that is not finished, or whose model the gates of its training refused: for manifest and
    results.json."""
    overwrite: bool = False
    """Delete what an import with other settings or files left in the folder."""
    json: bool = False
    """End with one line of JSON on stdout."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        of_files = not self.columns or any(not file.is_dir() for file in self.files)
        require(
            ("pace", self.pace, self.pace is None or 0.001 <= self.pace <= 1e6, "from 0.001 to 1,000,000"),
            ("columns", " ".join(self.columns), of_files, "of a file: a run's folder has columns of its own"),
            cure="leave it out",
        )


def import_run(settings: ImportSettings) -> dict[str, object]:
    """Import the logs; print and return the scores."""
    from mathlete.logs import find_results
    from mathlete.scoring import Results

    settings.check()
    if missing := [str(file) for file in settings.files if not file.exists()] or ([] if settings.files else ["none"]):
        raise UserError("files to import must be there", value=missing[0], cure="check the path")
    out = console(json=settings.json)
    say = partial(out.print, markup=False)  # what a log holds is no markup
    gates = require_runs(_runs_of(settings.files), reason=settings.accept_refused, say=say)
    # The run depends on the problems' file, too, where that is no suite of a known hash.
    inputs = {str(file): file for file in settings.files}
    # So does what its tool wrote beside a log.
    inputs |= {str(beside): beside for file in settings.files if (beside := find_results(file))}
    if settings.problems and Path(settings.problems).is_file():
        inputs["problems"] = Path(settings.problems)
    logs = [file for file in settings.files if not file.is_dir()]
    gates = GateOutcome.join([gates, require_finished(logs, reason=settings.accept_refused, say=say)])
    step = run_step(
        "import",
        folder=settings.run,
        inputs=inputs,
        settings={
            "columns": [*settings.columns],
            "problems": settings.problems,
            "model": settings.model,
            "pace": settings.pace,
            "texts": settings.texts,
            # A word only where it says something: an import of before is known by its settings.
            **({} if settings.opens_thoughts == "auto" else {"opens_thoughts": settings.opens_thoughts}),
            **gates.to_json(),
        },
        build=lambda folder: write_imported(folder, settings, gates=gates, say=say),
        leftovers=Leftovers(overwrite=settings.overwrite, writes=(*FILES,)),
    )
    # A page without a text to read would be twice as large as the recording.
    if settings.texts and not (step.skipped and (step.folder / REPORT).exists()):
        write_run_report(step.folder, say=out.print)
    results = Results.read(step.folder)
    out.print(results.to_table())
    out.print(results.describe())
    out.print(f"{'nothing changed, skipped: ' if step.skipped else ''}{step.folder}")
    content = results.to_json()
    return {
        "run": str(step.folder),
        **{key: content[key] for key in _SUMMARY},
        **({"tokens": None} if "tokens" in content.get("missing", []) else {}),
        "missing": content.get("missing", []),
        "skipped": step.skipped,
    }


def _runs_of(files: Iterable[Path]) -> list[Path]:
    """Return the folders of runs among the files. A file of samples in such a folder is judged as that run."""
    own = {file for file in files if any((file.parent / mark).is_file() for mark in (MANIFEST, STARTED))}
    folders = [file.parent if file in own and file.name == "samples.jsonl" else file for file in files]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def write_imported(
    folder: Path, settings: ImportSettings, *, gates: GateOutcome | None = None, say: Callable[[str], None]
) -> dict[str, object]:
    """Read and join the logs into a folder; returns the step's figures."""
    from mathlete.corpus import load_suite
    from mathlete.logs import Writing, join_logs, parse_columns, read_log, read_own_run, write_joined
    from mathlete.scoring import EvalRun

    began, checker = time.time(), EvalRun.name_checker()
    columns = parse_columns(settings.columns)
    suite = load_suite(settings.problems, mirror=settings.mirror) if settings.problems else None
    with busy("logs read"):
        logs = [read_own_run(file) if file.is_dir() else read_log(file, columns) for file in settings.files]
    for log in logs:
        say(f"{log.path}: {log.layout}, {counted(len(log.entries), 'sample')}")
    joined = join_logs(
        logs,
        suite=suite,
        pace=settings.pace,
        own_answers="answer" in columns,
        opens_thoughts=settings.opens_thoughts,
        model=settings.model,
    )
    tasks = {log.facts.task for log in logs if log.facts.task}
    name = suite.name if suite else tasks.pop() if len(tasks) == 1 else settings.run.resolve().name
    writing = Writing(suite=name, model=settings.model, texts=settings.texts, gates=gates or GateOutcome())
    for sentence in write_joined(folder, joined, writing, began=began):
        say(sentence)
    if not settings.texts:
        size = sum(file.stat().st_size for file in folder.iterdir() if file.name in FILES)
        say(f"without texts: {size / 1e6:.2f} MB")
    return {
        "samples": len(joined.samples),
        "layouts": sorted({log.layout for log in logs}),
        "missing": joined.missing,
        **checker,
    }


IMPORT_COMMAND = Command(
    settings=ImportSettings,
    run=import_run,
    help="Makes a run of other tools' logs: responses of OpenAI's API (vLLM's too), lm-evaluation-harness samples, "
    "Inspect logs, lighteval details, NeMo-Skills generations, or a table whose columns are named.\n\n"
    "Examples:\n\npython -m eval import samples_gsm8k_2026-11-29.jsonl --run runs/gsm8k\n\n"
    "python -m eval import batch.jsonl --problems aime25 --run runs/aime\n\n"
    "python -m eval import table.csv --columns problem_id=id gold=answer text=output --run runs/table",
)
