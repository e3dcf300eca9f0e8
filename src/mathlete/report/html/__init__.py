"""report.html: one file that shows a run, or several side by side, to a browser without a network."""

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.errors import UserError
from mathlete.report.charts import build_charts
from mathlete.report.html.entries import list_entries
from mathlete.report.html.headline import make_cards, make_matrix
from mathlete.report.html.tables import (
    PageTable,
    bases_table,
    drops_table,
    effect_table,
    facts_table,
    losses_table,
    score_table,
    subset_table,
    survival_table,
)
from mathlete.report.plots import write_plots
from mathlete.report.training import TrainRun, is_train_run, read_train_run
from mathlete.runs import PLOTS, REPORT, write_atomically
from mathlete.scoring import EvalRun
from mathlete.text import strict_json

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["REPORT", "read_run", "write_report"]

TRACE_BYTES = 15_000_000
"""Packed traces in a report, bytes; with libraries and figures the file then stays below 20 MB."""
_SCRIPTS = ("chart-4.6.1.umd.min.js", "katex-0.19.1.min.js")
_OWN = ("page.js", "charts.js", "texts.js", "reader.js")
_STYLES = ("katex-0.19.1.min.css",)


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
    if len({folder.resolve() for folder in folders}) < len(folders) or not folders:
        value = ", ".join(map(str, folders)) or "no run"
        raise UserError("a report is of different runs", value=value, cure="name each once")
    runs = [read_run(folder) for folder in folders]
    charts = build_charts(runs)
    write_atomically(out, page(runs, charts=[chart.to_json() for chart in charts]))
    write_plots(out.parent / PLOTS, charts)
    return out


def page(runs: Sequence[EvalRun | TrainRun], *, charts: Sequence[dict[str, Any]]) -> str:
    """Return the page's text. Nothing of a run is read as markup: Jinja escapes the tables, the script only sets text.

    Should markup slip through all the same, the page's content security policy runs only the scripts whose hashes it
    names and loads nothing from anywhere.
    """
    from markupsafe import Markup

    # What is long, the samples' texts, comes packed in blocks, which the script unpacks where they are looked at.
    problems, blocks = list_entries(runs, trace_bytes=TRACE_BYTES)
    evaluated = [run for run in runs if isinstance(run, EvalRun)]
    # Scripts and styles are the project's own files, which no run reaches: only they, and JSON that cannot end its
    # element, are marked as markup.
    scripts = [*(_asset("assets", name) for name in _SCRIPTS), _join_scripts(_OWN)]
    styles = [_asset("assets", name) for name in _STYLES] + [_asset("html", "report.css")]
    content = {
        "runs": [{"name": run.name, "kind": "eval" if isinstance(run, EvalRun) else "train"} for run in runs],
        "charts": charts,
        "problems": problems,
    }
    return _template().render(
        title=" · ".join(run.name for run in runs),
        policy=Markup(_policy(scripts)),
        scripts=[Markup(script) for script in scripts],
        styles=[Markup(style) for style in styles],
        data=Markup(_island(content)),
        blocks=blocks,
        scores=score_table(evaluated) if evaluated else None,
        subsets=subset_table(evaluated) if evaluated else None,
        cards=make_cards(runs),
        matrix=make_matrix(runs),
        losses=losses_table(evaluated) if evaluated else None,
        lost=[f"{run.name}: {run.losses.describe()}" for run in evaluated],
        trained=[(run.name, _grids(run)) for run in runs if isinstance(run, TrainRun)],
        facts=[(run.name, facts_table(run)) for run in runs],
        charts=[(chart["key"], chart["title"], chart["note"]) for chart in charts],
    )


@cache
def _template() -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # StrictUndefined: a name that the template has and the code has not is an error, not an empty cell.
    environment = Environment(
        loader=PackageLoader("mathlete.report.html", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def _grids(run: TrainRun) -> list[tuple[str, PageTable]]:
    """Return (title, table) of a training run, those that it has got to."""
    tables = (
        ("What the training changed", effect_table(run)),
        ("What it was merged into", bases_table(run)),
        ("What each hop cost, against the trained model", survival_table(run)),
        ("Traces taken and left out", drops_table(run)),
    )
    return [(title, table) for title, table in tables if table]


def _asset(folder: str, name: str) -> str:
    text = files("mathlete.report").joinpath(folder, name).read_text(encoding="utf-8")
    return text if text.endswith("\n") else text + "\n"


def _join_scripts(names: Sequence[str]) -> str:
    """Return our own scripts as one, none of whose names are the page's."""
    return '"use strict";\n(() => {\n' + "".join(_asset("html", name) for name in names) + "})();\n"


def _policy(scripts: Sequence[str]) -> str:
    hashes = (b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; font-src data:; img-src data:"


def _island(value: object) -> str:
    """Return JSON that cannot end the element it stands in."""
    return strict_json(value).replace("<", "\\u003c")
