"""`python -m train data show`: what a run's rows are, in a terminal."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from mathlete.command import Command, console
from mathlete.errors import UserError
from mathlete.runs import read_json

if TYPE_CHECKING:
    from numpy import ndarray
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_BINS, _WIDTH, _SHOWN = 12, 40, 15


@dataclass(frozen=True, kw_only=True)
class ShowSettings:
    """Which run, and how much of it."""

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(name="run", metavar="RUN")]
    """Folder of a training run, or its folder `data`."""
    rows: int = 2
    """Rows to print, what is trained on in colour; 0 to 20."""
    pairs: int = 3
    """Pairs with suites' problems to print side by side."""
    dropped: int = 3
    """Traces that were left out to print, where the run kept them (--keep-dropped)."""
    json: bool = False
    """End with one line of JSON on stdout."""


def show(settings: ShowSettings) -> dict[str, object]:
    """Prints the run's histograms, drops, pairs and first rows; returns the numbers.

    Raises:
        UserError: not the folder of a run whose rows are made.
    """
    folder = settings.run_folder
    data = folder / "data" if (folder / "data").is_dir() else folder
    manifest = read_json(data / "manifest.json") if (data / "manifest.json").is_file() else {}
    if manifest.get("step") != "format":
        value = f"no finished format step in {data}"
        raise UserError("RUN must be a run's folder", value=value, cure="run python -m train math --until format first")
    figures: Any = manifest["figures"]
    columns = _columns(data)
    out = console(json=settings.json)
    for title in ("prompt", "trained"):
        out.print(_histogram(f"{title} tokens a row", columns[title]))
    for title in ("source", "level"):
        out.print(_counts(title, columns[title]))
    _print_drops(out, figures)
    _print_pairs(out, _lines(data / "overlap.jsonl", settings.pairs))
    _print_dropped(out, _lines(data / "dropped.jsonl", settings.dropped))
    for row in _lines(data / "head.jsonl", settings.rows):
        _print_row(out, row)
    trained = columns["trained"]
    return {
        **{key: figures[key] for key in ("rows", "heldout", "kept", "drops", "parity", "packing", "suites")},
        "trained_tokens": _summary(trained),
        "sources": columns["source"],
        "levels": columns["level"],
    }


def _columns(data: Path) -> dict[str, Any]:
    import datasets
    import numpy as np

    table = datasets.load_from_disk(data / "train").data
    columns = {"prompt": "prompt_tokens", "trained": "trained_tokens"}
    groups: dict[str, Any] = {title: table.column(name).to_numpy() for title, name in columns.items()}
    for title, name in (("source", "source"), ("level", "subset")):
        values, counts = np.unique(table.column(name).to_numpy().astype(str), return_counts=True)
        groups[title] = {value or "unnamed": int(count) for value, count in zip(values, counts, strict=True)}
    return groups


def _summary(values: "ndarray[Any, Any]") -> dict[str, int]:
    import numpy as np

    points = {"least": 0, "p10": 10, "median": 50, "p90": 90, "most": 100}
    return {name: int(np.percentile(values, point)) for name, point in points.items()}


def _table(title: str, *columns: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number in (0, 2) else "right")
    return table


def _histogram(title: str, values: "ndarray[Any, Any]") -> "Table":
    import numpy as np

    # Lengths of reasoning are spread over powers of ten: equal bins would put nearly all into the first.
    low, high = max(1, int(values.min())), int(values.max()) + 1
    edges = np.unique(np.geomspace(low, high, _BINS + 1).round().astype(int)) if high > low + 1 else [low, high]
    counts, edges = np.histogram(values, bins=edges)
    table = _table(f"{title}: " + ", ".join(f"{k} {v}" for k, v in _summary(values).items()), "tokens", "rows", "")
    for start, end, count in zip(edges, edges[1:], counts, strict=False):
        table.add_row(f"{start}–{end - 1 if end < high else int(values.max())}", str(count), _bar(count, max(counts)))
    return table


def _counts(title: str, counts: Mapping[str, int]) -> "Table":
    from rich.markup import escape

    table = _table(title, title, "rows", "")
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    for name, count in most[:_SHOWN]:
        table.add_row(escape(name), str(count), _bar(count, most[0][1]))
    if len(most) > _SHOWN:
        table.add_row(f"{len(most) - _SHOWN} more", str(sum(count for _, count in most[_SHOWN:])), "")
    return table


def _bar(count: int, most: int) -> str:
    return "█" * max(1, round(_WIDTH * count / most)) if count else ""


def _print_drops(out: "Console", figures: Mapping[str, Any]) -> None:
    from mathlete.corpus.card import reason_in_words

    table = _table(f"left out of {figures['traces']} traces", "reason", "traces", "")
    for reason, count in sorted(figures["drops"].items(), key=lambda item: -item[1]):
        table.add_row(reason, str(count), reason_in_words(reason))
    out.print(table if figures["drops"] else f"left out of {figures['traces']} traces: none")
    parity, packing = figures["parity"], figures["packing"]
    out.print(
        f"bad rows {figures['bad_rows']['rows']} · parity {parity['rows']} rows, {parity['mismatches']} mismatches · "
        f"packed into {packing['budget']} tokens: {packing['efficiency']:.1%} full · "
        f"kept clear of {', '.join(figures['suites']) or 'no suite'}"
    )


def _lines(file: Path, count: int) -> Sequence[dict[str, Any]]:
    if not file.is_file():
        return []
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in islice(lines, count)]


def _print_pairs(out: "Console", pairs: Sequence[dict[str, Any]]) -> None:
    from rich.table import Table

    if not pairs:
        return
    table = Table("row", "suite's problem", title="problems of suites, left out", title_justify="left", show_lines=True)
    for pair in pairs:
        head = f"{pair['kind']} {pair['similarity']:.2f} · "
        ids = f"{head}{pair['row']['id']}\n", f"{pair['name']} · {pair['suite']['id']}\n"
        texts = (" ".join(pair[side]["statement"].split())[:300] for side in ("row", "suite"))
        table.add_row(*(_text((one, "bold"), (text, "")) for one, text in zip(ids, texts, strict=True)))
    out.print(table)


def _print_dropped(out: "Console", dropped: Sequence[dict[str, Any]]) -> None:
    for one in dropped:
        end = " ".join(str(one.get("trace", "")).split())[-160:]
        what = one.get("error") or f"{one['id']} {one.get('where', '')} · gold {one['gold']} · … {end}"
        out.print(_text((f"left out: {one['reason']} · ", "bold red"), (what, "")))


def _print_row(out: "Console", row: Mapping[str, Any]) -> None:
    head = f"row {row['problem_id']} · {row['prompt_tokens']} tokens of prompt, {row['trained_tokens']} with loss"
    out.print(_text((head, "bold")))
    out.print(_text(*((_middle_left_out(text), "green" if trained else "dim") for text, trained in row["spans"])))


def _middle_left_out(text: str) -> str:
    return text if len(text) <= 1500 else f"{text[:900]}\n…\n{text[-500:]}"


def _text(*parts: tuple[str, str]) -> "Text":
    """(text, style) pairs, never taken for markup: problems are full of brackets."""
    from rich.text import Text

    return Text.assemble(*parts)


SHOW_COMMAND = Command(
    settings=ShowSettings,
    run=show,
    help="Shows what a run trains on: histograms of lengths, levels and sources, what was left out and why, first rows."
    "\n\nExamples:\n\npython -m train data show runs/demo-train\n\npython -m train data show RUN --rows 5 --json",
)
