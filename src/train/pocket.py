"""`python -m train pocket-base`, `pocket-problems`: the pocket model from nothing, and problems of its generator."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from mathlete.command import Command, busy, console
from mathlete.errors import UserError, require
from mathlete.folders import require_result_file
from mathlete.mistakes import require_address_space
from mathlete.pocket import PocketBaseConfig, Split, build_pocket_base, generate_items, write_items
from mathlete.runs import Leftovers, run_step, sha256_file


@dataclass(frozen=True, kw_only=True)
class PocketBaseSettings:
    """How the pocket model is pretrained."""

    base: Annotated[PocketBaseConfig, tyro.conf.arg(name="")] = field(default_factory=PocketBaseConfig)
    run: Path = Path("runs/pocket-base")
    """The run's folder; the model is in its folder `model`."""
    overwrite: bool = False
    """Delete what was made with other settings in the folder."""
    json: bool = False
    """End with one line of JSON on stdout."""


def pocket_base(settings: PocketBaseSettings) -> dict[str, object]:
    """Pretrain the pocket model, or go on with a run that was stopped; return where it is and its figures."""
    from train.lines import describe_step
    from train.shown import bar
    from train.steps import WRITTEN

    settings.base.check()
    require_address_space()
    out = console(json=settings.json)

    def build(folder: Path) -> dict[str, object]:
        with bar("pretraining") as advance:
            return build_pocket_base(folder, settings.base, advance=advance)

    step = run_step(
        "pocket-base",
        folder=settings.run / "model",
        inputs={},
        settings=asdict(settings.base),
        build=build,
        leftovers=Leftovers(overwrite=settings.overwrite, writes=("*", ".checkpoint*"), deletes=WRITTEN),
    )
    out.print(f"{step.folder}: {'nothing changed, skipped' if step.skipped else describe_step(step)}")
    return {"run": str(settings.run), "model": str(step.folder), **step.figures, "skipped": step.skipped}


@dataclass(frozen=True, kw_only=True)
class PocketProblemsSettings:
    """Which problems to generate."""

    file: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="FILE")] = None
    """JSONL file to write: the same as --out."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSONL file to write."""
    families: tuple[str, ...] = ("hard",)
    """easy, hard, or families such as hard/power; they take turns."""
    count: int = 1000
    """Problems in all."""
    seed: int = 0
    """Another seed gives other problems, the same one the same bytes."""
    split: Split = "train"
    """Side of the split: no problem of one side has the numbers of any problem of the other."""
    unique: bool = False
    """No two problems of a family with the same numbers."""
    traces: bool = True
    """Add the trace that solves each problem, as `python -m train math --source FILE` reads it."""
    json: bool = False
    """End with one line of JSON on stdout."""


def pocket_problems(settings: PocketProblemsSettings) -> dict[str, object]:
    """Write generated problems into a file; return their count and the file's hash."""
    require(("count", settings.count, settings.count >= 1, "at least 1", "use --count 1000"))
    file = settings.out or settings.file
    if file is None or None not in (settings.out, settings.file):
        given = "both FILE and --out" if file else "none"
        raise UserError("pocket-problems writes one file", value=given, cure="use --out problems.jsonl")
    require_result_file(file)
    with busy("problems"):
        items = generate_items(
            families=settings.families,
            count=settings.count,
            seed=settings.seed,
            split=settings.split,
            unique=settings.unique,
        )
        write_items(file, items, traces=settings.traces)
    digest = sha256_file(file)
    console(json=settings.json).print(f"{len(items)} problems: {file}, sha256 {digest}")
    return {"file": str(file), "problems": len(items), "sha256": digest}


POCKET_BASE_COMMAND = Command(
    settings=PocketBaseSettings,
    run=pocket_base,
    help="Pretrains the pocket model from nothing; the defaults rebuild the shipped one.\n\n"
    "Examples:\n\npython -m train pocket-base\n\npython -m train pocket-base --steps 300 --run runs/small-base",
)
POCKET_PROBLEMS_COMMAND = Command(
    settings=PocketProblemsSettings,
    run=pocket_problems,
    help="Writes problems of the pocket generator, any number of them, byte-identical for the same arguments.\n\n"
    "Examples:\n\npython -m train pocket-problems --out hard.jsonl --count 5000 --seed 7\n\n"
    "python -m train pocket-problems --out suite.jsonl --families hard/power easy/gcd --split test --no-traces",
)
