"""`python -m train data show`: shows a run's rows in a terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import tyro

from mathlete.command import Command, busy, console
from mathlete.errors import UserError
from mathlete.overlap import RepeatedProblem
from mathlete.problems import Problem
from mathlete.rows import DroppedTrace, FormatFigures, RowFiles, RowText, explain_reason, find_cure
from mathlete.runs import verify_if_made

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_BINS, _WIDTH, _SHOWN = 12, 24, 15


@dataclass(frozen=True, kw_only=True)
class ShowSettings:
    """Which run to show, and how much of it."""

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(name="run", metavar="RUN")]
    """Folder of a training run, or its folder `data`."""
    rows: int = 2
    """Rows to print, with the trained tokens in colour; 0 to 20."""
    pairs: int = 3
    """Pairs of a problem and a suite's problem to print side by side."""
    dropped: int = 3
    """Dropped traces to print, where the run kept them (--keep-dropped)."""
    json: bool = False
    """End with one line of JSON on stdout."""


def show(settings: ShowSettings) -> dict[str, object]:
    """Print the run's histograms, drops, pairs and first rows; return the numbers.

    Raises:
        UserError: not the folder of a run whose rows are made, or they have changed since.
    """
    folder = settings.run_folder
    data = folder / "data" if (folder / "data").is_dir() else folder
    manifest = verify_if_made(data)
    if manifest.get("step") != "format":
        if not folder.is_dir():
            raise UserError("RUN must be a run's folder", value=f"{folder}, which is not there", cure="check the path")
        value = f"no finished format step in {data}"
        raise UserError("RUN must be a run's folder", value=value, cure="run python -m train math --until format first")
    figures = FormatFigures.from_json(cast(Mapping[str, Any], manifest["figures"]))
    with busy("rows read"):
        files, columns = RowFiles(data), _read_columns(RowFiles(data))
    out = console(json=settings.json)
    out.print(_histogram("prompt tokens a row", columns.prompt_tokens))
    out.print(_histogram("trained tokens a row", columns.trained_tokens))
    out.print(_counts("source", columns.sources))
    out.print(_counts("level", columns.levels))
    _print_drops(out, figures)
    _print_pairs(out, files.read_overlap(settings.pairs))
    _print_dropped(out, files.read_dropped(settings.dropped))
    for row in files.read_head(settings.rows):
        _print_row(out, row)
    return {
        **{key: figures.to_json()[key] for key in ("rows", "heldout", "kept", "drops", "parity", "packing", "suites")},
        "trained_tokens": _summary(columns.trained_tokens),
        "sources": columns.sources,
        "levels": columns.levels,
    }


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """The columns of the rows that are summed up."""

    prompt_tokens: "NDArray[np.int64]"
    trained_tokens: "NDArray[np.int64]"
    sources: dict[str, int]
    """{source: rows}."""
    levels: dict[str, int]
    """{level, subject or family: rows}."""


def _read_columns(files: RowFiles) -> _Columns:
    import datasets
    import numpy as np

    table = datasets.load_from_disk(files.train).data

    def count(name: str) -> dict[str, int]:
        values, counts = np.unique(table.column(name).to_numpy().astype(str), return_counts=True)
        return {value or "unnamed": int(count) for value, count in zip(values, counts, strict=True)}

    return _Columns(
        prompt_tokens=table.column("prompt_tokens").to_numpy(),
        trained_tokens=table.column("trained_tokens").to_numpy(),
        sources=count("source"),
        levels=count("subset"),
    )


def _summary(values: "NDArray[np.int64]") -> dict[str, int]:
    import numpy as np

    points = {"least": 0, "p10": 10, "median": 50, "p90": 90, "most": 100}
    return {name: int(np.percentile(values, point)) for name, point in points.items()}


def _table(title: str, *columns: str, extra: Sequence[str] = ()) -> "Table":
    from mathlete.tables import FittingTable

    table = FittingTable(title, columns=columns, extra=extra, left=[*columns[:1], *columns[2:], *extra])
    table.title_justify, table.show_edge = "left", False
    return table


def _histogram(title: str, values: "NDArray[np.int64]") -> "Table":
    import numpy as np

    # Lengths of reasoning are spread over powers of ten: equal bins would put nearly all into the first.
    low, high = max(1, int(values.min())), int(values.max()) + 1
    edges = np.unique(np.geomspace(low, high, _BINS + 1).round().astype(int)) if high > low + 1 else [low, high]
    counts, edges = np.histogram(values, bins=edges)
    table = _table(
        f"{title}: " + ", ".join(f"{k} {v}" for k, v in _summary(values).items()), "tokens", "rows", extra=("",)
    )
    for start, end, count in zip(edges, edges[1:], counts, strict=False):
        table.add_row(f"{start}–{end - 1 if end < high else int(values.max())}", str(count), _bar(count, max(counts)))
    return table


def _counts(title: str, counts: Mapping[str, int]) -> "Table":
    table = _table(title, title, "rows", extra=("",))
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    for name, count in most[:_SHOWN]:
        table.add_row(name, str(count), _bar(count, most[0][1]))
    if len(most) > _SHOWN:
        table.add_row(f"{len(most) - _SHOWN} more", str(sum(count for _, count in most[_SHOWN:])), "")
    return table


def _bar(count: int, most: int) -> str:
    return "█" * max(1, round(_WIDTH * count / most)) if count else ""


def _print_drops(out: "Console", figures: FormatFigures) -> None:
    table = _table(f"left out of {figures.traces} traces", "reason", "traces", "which means", "cure")
    for reason, count in sorted(figures.drops.items(), key=lambda item: -item[1]):
        table.add_row(reason, str(count), explain_reason(reason), find_cure(reason))
    out.print(table if figures.drops else f"left out of {figures.traces} traces: none")
    parity, packing = figures.parity, figures.packing
    if parity.first:
        out.print(_text(("the first that is not as served, ", "bold red"), (parity.first, "")))
    out.print(
        f"bad rows {figures.bad_rows.rows} · parity {parity.rows} rows, {parity.mismatches} mismatches · "
        f"packed into {packing.budget} tokens: {packing.efficiency:.1%} full · "
        f"kept clear of {', '.join(figures.suites) or 'no suite'}"
    )


def _print_pairs(out: "Console", pairs: Sequence[RepeatedProblem]) -> None:
    if not pairs:
        return
    table = _table("problems of suites, left out", "row", "", "suite's problem")
    table.show_lines = True
    for pair in pairs:
        table.add_row(
            _problem(f"{pair.kind} {pair.similarity:.2f} · {pair.row.id}", pair.row),
            "",
            _problem(f"{pair.suite_name} · {pair.suite.id}", pair.suite),
        )
    out.print(table)


def _problem(title: str, problem: Problem) -> "Text":
    return _text((f"{title}\n", "bold"), (" ".join(problem.statement.split())[:300], ""))


def _print_dropped(out: "Console", dropped: Sequence[DroppedTrace]) -> None:
    for one in dropped:
        end = " ".join((one.trace or "").split())[-160:]
        what = one.error or one.difference or f"{one.id} {one.where or ''} · gold {one.gold} · … {end}"
        out.print(_text((f"left out: {one.reason} · ", "bold red"), (what, "")))


def _print_row(out: "Console", row: RowText) -> None:
    head = f"row {row.problem_id} · {row.prompt_tokens} tokens of prompt, {row.trained_tokens} with loss"
    out.print(_text((head, "bold")))
    out.print(_text(*((_shorten_middle(text), "green" if trained else "dim") for text, trained in row.spans)))


def _shorten_middle(text: str) -> str:
    return text if len(text) <= 1500 else f"{text[:900]}\n…\n{text[-500:]}"


def _text(*parts: tuple[str, str]) -> "Text":
    """Join (text, style) pairs; the texts are not markup, because problems are full of brackets."""
    from rich.text import Text

    return Text.assemble(*parts)


SHOW_COMMAND = Command(
    settings=ShowSettings,
    run=show,
    help="Shows what a run trains on: histograms of lengths, levels and sources, what was left out and why, first rows."
    "\n\nExamples:\n\npython -m train data show runs/demo-train\n\npython -m train data show RUN --rows 5 --json",
)
