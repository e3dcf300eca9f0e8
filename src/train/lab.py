"""`python -m train quantize-lab`: what every quantisation scheme of 8 and 4 bits, and every export, costs one model."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mathlete.command import Command, console
from mathlete.errors import require
from mathlete.mistakes import require_address_space


@dataclass(frozen=True, kw_only=True)
class LabSettings:
    """Which model and schemes, and the text that they are measured on."""

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """pocket, a folder or a hub id; its weights must not be quantised."""
    source: str = "pocket"
    """Traced problems on which the distributions are compared, as of `train math --source`."""
    rows: int = 48
    """Number of those problems."""
    only: str = ""
    """Measure only schemes whose name contains this: int4/, /group/, /mse, fp8, nf4, export/, w8a16."""
    parts: bool = False
    """Measure instead what each part of the model costs in 8 bits: layers, activations, embeddings and output layer."""
    seed: int = 1
    """Seed of the pocket generator's problems."""
    run: Path | None = None
    """Folder for lab.json, lab.csv and lab.png; default: runs/lab-MODEL."""
    overwrite: bool = False
    """Delete what was made with other settings in the folder."""
    json: bool = False
    """End with one line of JSON on stdout."""


def quantize_lab(settings: LabSettings) -> dict[str, object]:
    """Measure the schemes, or read what was measured before; return the figures."""
    from mathlete.command import progress
    from mathlete.export.lab import (
        LabFigures,
        build_lab_table,
        find_lacking,
        find_schemes,
        measure_schemes,
        write_lab,
    )
    from mathlete.models import find_model
    from mathlete.runs import Leftovers, run_step

    require_address_space()
    chosen = find_schemes(settings.only, parts=settings.parts)
    require(("rows", settings.rows, settings.rows >= 1, "at least 1"), cure="leave it out")
    source, out = find_model(settings.model).pin()[0], console(json=settings.json)

    def build(folder: Path) -> dict[str, object]:
        with progress("quantize-lab") as bar:
            task = bar.add_task("", total=len(chosen))
            figures = measure_schemes(
                source,
                chosen,
                rows=settings.source,
                count=settings.rows,
                seed=settings.seed,
                scratch=folder / ".exports",
                on_scheme=lambda name: bar.update(task, advance=1, description=name),
                watch=lambda words: bar.update(task, description=words),
            )
        write_lab(folder, figures)
        return figures.summary

    measured = {key: value for key, value in asdict(settings).items() if key not in ("run", "overwrite", "json")}
    if lacking := find_lacking(chosen, source):  # another lab once the packages are there
        measured["not_run"] = sorted(lacking)
    folder = settings.run or Path("runs") / f"lab-{Path(source.name).name}"
    inputs = {"model": source.folder} if source.folder else {}
    step = run_step(
        "quantize-lab",
        folder=folder,
        inputs=inputs,
        settings=measured,
        build=build,
        step_version=2,
        leftovers=Leftovers(overwrite=settings.overwrite, writes=("lab.json", "lab.csv", "lab.png")),
    )
    figures = LabFigures.read(folder)
    out.print(build_lab_table(figures))
    out.print(f"{'nothing changed, skipped: ' if step.skipped else ''}{folder}")
    return {"run": str(folder), **figures.to_json()}


LAB_COMMAND = Command(
    settings=LabSettings,
    run=quantize_lab,
    help="Measures int8, int4, fp8, NF4 and each export on one model: weight error, KL, size; a table, two plots.\n\n"
    "Examples:\n\npython -m train quantize-lab pocket\n\n"
    "python -m train quantize-lab runs/train/merged --source traces.jsonl --only int8/ --json\n\n"
    "python -m train quantize-lab pocket --only export/\n\n"
    "python -m train quantize-lab runs/train/merged --source traces.jsonl --parts",
)
