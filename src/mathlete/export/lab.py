"""Quantisation lab: every scheme on every linear layer of one model, and what that costs its distributions."""

import csv
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.corpus import open_source
from mathlete.export.effect import rows_of_traces
from mathlete.export.quantizers import Scheme, requantized
from mathlete.export.survival import kl, log_probabilities, top1
from mathlete.models import ModelSource, load_model, load_prompt_format
from mathlete.runs import write_atomically, write_json

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor

LAB, TABLE, PLOT = "lab.json", "lab.csv", "lab.png"
_COLUMNS = ("scheme", "bits", "error", "kl", "top1", "mib")


def measure(
    source: ModelSource, chosen: Sequence[Scheme], *, rows: str, count: int, seed: int, on_scheme: Callable[[str], None]
) -> dict[str, Any]:
    """The schemes' figures.

    Args:
        source: a model whose weights are not quantised.
        chosen: what is tried, one after the other.
        rows: source of traced problems, as of `python -m train math --source`: the text of the KL.
        count: problems of it.
        seed: of the pocket generator's problems.
        on_scheme: called with each scheme's name when it is done.

    Returns:
        {"model", "tokens", "layers", "weights", "schemes": [{"scheme", "bits", "error", "kl", "top1", "mib"}]}: bits a
        weight; error, the Frobenius norm of what is lost over that of the weights; kl, KL(original || quantised) in
        nats a token; top1, the share of tokens with the same likeliest next token; MiB of these layers.

    Raises:
        UserError: the model or the rows can't be read, or the model is quantised already.
    """
    import torch

    model = load_model(source, precision="dense", dtype="float32")
    traced = [one for one, *_ in open_source(rows, limit=count, seed=seed)]
    text = rows_of_traces(traced, load_prompt_format(source))
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "head" not in name
    }
    weights = {name: module.weight.detach().cpu().float().clone() for name, module in layers.items()}
    reference = log_probabilities(model, text)
    found = []
    for scheme in chosen:
        lost = _put(layers, weights, scheme)
        other = log_probabilities(model, text)
        found.append(_figures(scheme, weights, lost=lost, reference=reference, other=other))
        on_scheme(scheme.name)
    total = sum(weight.numel() for weight in weights.values())
    facts = {"model": source.name, "tokens": len(reference), "layers": len(layers), "weights": total}
    return {**facts, "schemes": found}


def _put(layers: dict[str, Any], weights: "dict[str, Tensor]", scheme: Scheme) -> float:
    """Puts what the scheme makes of the weights into the layers; the relative error of all of them."""
    lost = whole = 0.0
    for name, weight in weights.items():
        back = requantized(weight, scheme)
        layers[name].weight.data.copy_(back)
        lost += float((weight - back).double().square().sum())
        whole += float(weight.double().square().sum())
    return float((lost / whole) ** 0.5)


def _figures(
    scheme: Scheme, weights: "dict[str, Tensor]", *, lost: float, reference: "Tensor", other: "Tensor"
) -> dict[str, Any]:
    total = sum(weight.numel() for weight in weights.values())
    bits = sum(scheme.bits_a_weight(*weight.shape) * weight.numel() for weight in weights.values()) / total
    return {
        "scheme": scheme.name,
        "bits": round(bits, 4),
        "error": float(f"{lost:.4g}"),
        "kl": float(f"{kl(reference, other):.4g}"),
        "top1": round(top1(reference, other), 4),
        "mib": round(bits * total / 8 / 2**20, 4),
    }


def write_lab(folder: Path, found: dict[str, Any]) -> None:
    """Writes the figures as JSON and CSV, and the two pictures: error and KL against bits."""
    write_json(folder / LAB, found)
    lines = StringIO()
    table = csv.DictWriter(lines, _COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(found["schemes"])
    write_atomically(folder / TABLE, lines.getvalue())
    _draw(found["schemes"], folder / PLOT)


def _draw(rows: Sequence[dict[str, Any]], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for axes, key, title in zip(
        figure.subplots(1, 2), ("error", "kl"), ("relative weight error", "KL, nats a token"), strict=True
    ):
        for per, mark in (("tensor", "o"), ("channel", "s"), ("group", "^"), ("nf4", "*")):
            some = [row for row in rows if f"/{per}/" in row["scheme"] or row["scheme"].startswith(per)]
            sizes = [row["bits"] for row in some]
            axes.plot(sizes, [max(row[key], 1e-12) for row in some], mark, label=f"per {per}" if per != "nf4" else per)
        axes.set(xlabel="bits a weight", ylabel=title, yscale="log")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(file, dpi=110, metadata={"Software": None})


def lab_table(found: dict[str, Any]) -> "Table":
    """The figures for a person, least KL first."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    title = f"{found['model']}: {found['layers']} layers, KL over {found['tokens']} tokens"
    table = Table(box=SIMPLE_HEAD, title=title)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == "scheme" else "right", no_wrap=True)
    for row in sorted(found["schemes"], key=lambda row: (-round(row["bits"]), row["kl"])):
        table.add_row(row["scheme"], f"{row['bits']:.2f}", f"{row['error']:.2e}", f"{row['kl']:.2e}",
                      f"{row['top1']:.1%}", f"{row['mib']:.2f}")  # fmt: skip
    return table
