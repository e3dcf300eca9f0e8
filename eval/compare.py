"""`python -m eval compare`: two finished runs on the same problems, tested pair by pair."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from eval.repair import repair_samples
from mathlete.command import Command, busy, console
from mathlete.folders import require_result_file
from mathlete.runs import write_json
from mathlete.shipped import find_recording


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """Two folders with problems.jsonl and samples.jsonl, and what was trained between them."""

    a: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="A")]
    """Run folder of the first model, or of the base model."""
    b: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="B")]
    """Run folder of the second model, which may be better, or of the tuned model."""
    train: Path | None = None
    """Run folder of the tuning that made B of A. Adds both models' scores on hard problems, maj@8, speed, and what the
    exports lost; both runs must be finished, and of the same suite and n."""
    out: Path | None = None
    """JSON file to write the comparison to."""
    repair: bool = False
    """Cut half-written last lines off samples.jsonl first."""
    json: bool = False
    """End with one line of JSON on stdout."""


def compare(settings: CompareSettings) -> dict[str, object]:
    """Print both scores of both runs with the paired test, write and return them."""
    from mathlete.scoring import Pool, compare_runs, compare_tuned

    out = console(json=settings.json)
    if settings.out:
        require_result_file(settings.out)
    a, b = find_recording(settings.a), find_recording(settings.b)
    if settings.repair:
        repair_samples((settings.a, settings.b), say=out.print)
    with busy("samples read and compared"):
        tuning = compare_tuned(base=settings.a, tuned=settings.b, train=settings.train) if settings.train else None
        comparison = compare_runs(Pool.read([a]), Pool.read([b]))
    sentences = comparison.describe()
    content = {"a": str(settings.a), "b": str(settings.b), **comparison.to_json(), "words": sentences}

    out.print(comparison.to_table())
    for sentence in sentences:
        out.print(sentence)
    if tuning:
        out.print(tuning.to_table())
        out.print(tuning.describe())
        out.print(f"training run: {tuning.train_run}")
        content |= tuning.to_json()
    if settings.out:
        write_json(settings.out, content)
        out.print(f"comparison: {settings.out}")
    return {"run": str(settings.b), **content} if tuning else content


COMPARE_COMMAND = Command(
    settings=CompareSettings,
    run=compare,
    help="Tests whether run B is better than run A on the same problems, or how many more problems would show it.\n\n"
    "Examples:\n\npython -m eval compare runs/base runs/tuned --json\n\n"
    "python -m eval compare runs/base runs/tuned --train runs/train --out runs/compared.json",
)
TABLE_COMMAND = Command(
    settings=CompareSettings,
    run=compare,
    help="The old name of `compare`, which takes the same words and does the same.\n\n"
    "Examples:\n\npython -m eval compare runs/base runs/tuned --train runs/train --out runs/compared.json\n\n"
    "python -m eval compare runs/base runs/tuned --train runs/train --out runs/compared.json --json",
)
