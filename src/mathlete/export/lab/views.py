"""The lab's figures for a person: files, two plots, a table."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, fields
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mathlete.export.lab.figures import LAB, LabFigures, SchemeCost
from mathlete.runs import write_atomically, write_json

if TYPE_CHECKING:
    from rich.table import Table

TABLE, PLOT = "lab.csv", "lab.png"
_COLUMNS = [field.name for field in fields(SchemeCost)]


def write_lab(folder: Path, figures: LabFigures) -> None:
    """Write the figures as JSON and CSV, and two plots: error and KL against bits."""
    write_json(folder / LAB, figures.to_json())
    lines = StringIO()
    table = csv.DictWriter(lines, _COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(cost) for cost in figures.schemes)
    write_atomically(folder / TABLE, lines.getvalue())
    _draw(figures.schemes, folder / PLOT)


def _draw(costs: Sequence[SchemeCost], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels: tuple[tuple[Literal["error", "kl"], str], ...] = (
        ("error", "relative weight error"),
        ("kl", "KL, nats a token"),
    )
    for axes, (key, title) in zip(figure.subplots(1, 2), panels, strict=True):
        for per, mark in (("tensor", "o"), ("channel", "s"), ("group", "^"), ("nf4", "*"), ("export", "x")):
            named = [cost for cost in costs if f"/{per}" in cost.scheme or cost.scheme.startswith(per)]
            # A logarithmic axis can't show 0, and some have no error.
            some = [cost for cost in named if getattr(cost, key)]
            sizes, heights = [cost.bits for cost in some], [getattr(cost, key) for cost in some]
            axes.plot(sizes, heights, mark, label=per if per in ("nf4", "export") else f"per {per}")
        axes.set(xlabel="bits a weight", ylabel=title, yscale="log")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(file, dpi=110, metadata={"Software": None})


def build_lab_table(figures: LabFigures) -> "Table":
    """Return the figures as a table, 8 bits before 4, least KL first; what was not run stands last, with its cure."""
    from mathlete.tables import FittingTable

    title = f"{figures.model}: {figures.layers} layers, KL over {figures.tokens} tokens"
    why = "\n".join(f"{scheme}: {reason}" for scheme, reason in figures.not_run.items())
    table = FittingTable(title, columns=_COLUMNS, left=("scheme",), caption=why or None)
    for cost in sorted(figures.schemes, key=lambda cost: (-round(cost.bits), cost.kl)):
        error = "" if cost.error is None else f"{cost.error:.2e}"
        table.add_row(cost.scheme, f"{cost.bits:.2f}", error, f"{cost.kl:.2e}", f"{cost.top1:.1%}", f"{cost.mib:.2f}")
    for scheme in figures.not_run:
        table.add_row(scheme, "not run", *[""] * (len(_COLUMNS) - 2))
    return table
