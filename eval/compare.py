"""`python -m eval compare`: two finished runs on the same problems, tested pair by pair."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from eval.replay import repair
from mathlete.command import Command, console


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """Two folders with problems.jsonl and samples.jsonl."""

    a: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="A")]
    """Run folder of the one."""
    b: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="B")]
    """Run folder of the other, of which is asked whether it is better."""
    repair: bool = False
    """Cut half-written last lines off samples.jsonl first."""
    json: bool = False
    """End with one line of JSON on stdout."""


def compare(settings: CompareSettings) -> dict[str, object]:
    """Prints both scores of both runs with the paired test, and returns them."""
    from mathlete.scoring import Pool, compare_runs

    out = console(json=settings.json)
    if settings.repair:
        repair((settings.a, settings.b), say=out.print)
    found = compare_runs(Pool.read([settings.a]), Pool.read([settings.b]))
    out.print(found.table)
    words = [row.in_words for row in found.scores]
    if found.left_out:
        words.append(f"{found.left_out} problems that only one of the runs has are left out")
    if found.stopped_early:
        words.append(f"a run stopped early: its pass@1 is over the samples that were in, and votes are over {found.k}")
    for line in words:
        out.print(line)
    return {"a": str(settings.a), "b": str(settings.b), **asdict(found), "words": words}


COMPARE_COMMAND = Command(
    settings=CompareSettings,
    run=compare,
    help="Tests whether run B is better than run A on the same problems, or says how many more would tell.\n\n"
    "Examples:\n\npython -m eval compare runs/base runs/tuned\n\n"
    "python -m eval compare runs/base runs/tuned --json",
)
