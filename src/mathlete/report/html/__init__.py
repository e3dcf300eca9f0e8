"""report.html: one file that shows a run, or several side by side, to a browser without a network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mathlete.errors import UserError
from mathlete.jsonl import pause_collection
from mathlete.report.charts import build_charts
from mathlete.report.html.entries import list_entries
from mathlete.report.html.headline import make_cards, make_matrix
from mathlete.report.html.pages import render
from mathlete.report.html.tables import (
    PageTable,
    bases_table,
    drops_table,
    effect_table,
    facts_table,
    losses_table,
    score_table,
    scorer_table,
    subset_table,
    survival_table,
)
from mathlete.report.plots import write_plots
from mathlete.report.training import TrainRun, is_train_run, read_train_run
from mathlete.runs import PLOTS, REPORT, write_atomically
from mathlete.scoring import EvalRun

__all__ = ["REPORT", "read_run", "write_report"]

TRACE_BYTES = 15_000_000
"""Packed traces in a report, bytes; with libraries and figures the file then stays below 20 MB."""
_SCRIPTS = ("page.js", "charts.js", "texts.js", "reader.js")


def read_run(folder: Path) -> EvalRun | TrainRun:
    """Return the evaluation or training run in a folder.

    Raises:
        UserError: the folder holds neither.
    """
    if not folder.is_dir():
        raise UserError("a run that is reported must be a folder", value=str(folder), cure="check the path")
    return read_train_run(folder) if is_train_run(folder) else EvalRun.read(folder)


def write_report(folders: Sequence[Path], *, out: Path) -> Path:
    """Write the report of these runs, and its charts as PNG into `plots/` beside it; returns the report.

    Raises:
        UserError: a folder is no run, or is named twice.
    """
    if not folders:
        raise UserError("a report is of one run or more", value="none", cure="name the runs' folders")
    if len({folder.resolve() for folder in folders}) < len(folders):
        value = ", ".join(map(str, folders))
        raise UserError("a report is of different runs", value=value, cure="name each once")
    runs = [read_run(folder) for folder in folders]
    charts = build_charts(runs)
    write_atomically(out, page(runs, charts=[chart.to_json() for chart in charts]))
    write_plots(out.parent / PLOTS, charts)
    return out


@pause_collection()
def page(runs: Sequence[EvalRun | TrainRun], *, charts: Sequence[dict[str, Any]]) -> str:
    """Return the text of the page of these runs."""
    # What is long, the samples' texts, comes packed in blocks, which the script unpacks where they are looked at.
    problems, blocks = list_entries(runs, trace_bytes=TRACE_BYTES)
    evaluated = [run for run in runs if isinstance(run, EvalRun)]
    return render(
        "report.html.j2",
        title=" · ".join(run.name for run in runs),
        scripts=_SCRIPTS,
        content={
            "runs": [{"name": run.name, "kind": "eval" if isinstance(run, EvalRun) else "train"} for run in runs],
            "charts": charts,
            "problems": problems,
        },
        blocks=blocks,
        cards=make_cards(runs),
        matrix=make_matrix(runs),
        scores=score_table(evaluated) if evaluated else None,
        subsets=subset_table(evaluated) if evaluated else None,
        losses=losses_table(evaluated) if evaluated else None,
        lost=[f"{run.name}: {words}" for run in evaluated for words in _describe_losses(run)],
        scorer=scorer_table(evaluated),
        scored=[f"{run.name}: {words}" for run in evaluated for words in _describe_scorer(run)],
        trained=[(run.name, _grids(run)) for run in runs if isinstance(run, TrainRun)],
        facts=[(run.name, facts_table(run)) for run in runs],
        charts=[(chart["key"], chart["title"], chart["note"]) for chart in charts],
    )


def _describe_losses(run: EvalRun) -> list[str]:
    forced = run.results.harvest
    return [run.losses.describe(), *([forced.describe()] if forced else [])]


def _describe_scorer(run: EvalRun) -> list[str]:
    return [*run.scorer.describe()] if run.scorer else []


def _grids(run: TrainRun) -> list[tuple[str, PageTable]]:
    """Return (title, table) of a training run, those that it has got to."""
    tables = (
        ("What the training changed", effect_table(run)),
        ("What it was merged into", bases_table(run)),
        ("What each hop cost, against the trained model", survival_table(run)),
        ("Traces taken and left out", drops_table(run)),
    )
    return [(title, table) for title, table in tables if table]
