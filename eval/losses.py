"""`python -m eval losses`: why problems and samples did not end in a right answer, of runs and of journals."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from eval.repair import repair_samples
from mathlete.command import Command, busy, console
from mathlete.errors import UserError
from mathlete.folders import require_result_file
from mathlete.runs import write_json
from mathlete.shipped import find_recording

if TYPE_CHECKING:
    from rich.table import Table

    from mathlete.losses import ProblemLosses
    from mathlete.report import LostRun

_SIDE_BY_SIDE = 3
"""Runs that a table of 80 columns holds."""


@dataclass(frozen=True, kw_only=True)
class LossesSettings:
    """Runs to explain."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN…")]
    """Run folders of `python -m eval`, or names of shipped recordings; or a submission's journal.jsonl, its notebook's
    log, or a folder that holds a journal, as a rehearsal and `python -m submit push` leave it. Several stand side by
    side."""
    golds: Path | None = None
    """File of problems with the golds of a journal's questions; default: the pocket suite's, where the ids are its
    own."""
    competition: str | None = None
    """Whose range answers must keep to, and whose scorer judges them beside mathlete's checker: a competition's name,
    or a file of rules, NAME.toml. Default: none; what was in range a journal says by itself."""
    each: bool = False
    """Also list every problem that is not right."""
    out: Path | None = None
    """JSON file to write the counts to, with each problem's."""
    repair: bool = False
    """Cut half-written last lines off samples.jsonl first."""
    json: bool = False
    """End with one line of JSON on stdout."""


def losses(settings: LossesSettings) -> dict[str, object]:
    """Print the counts of each class and what to do about the largest; write and return them."""
    from mathlete.competitions import competition
    from mathlete.report import read_losses

    out = console(json=settings.json)
    if settings.out:
        require_result_file(settings.out)
    if not settings.runs:
        raise UserError("losses are those of a run", value="no run", cure="name a run's folder or a journal")
    if settings.repair:
        repair_samples([path for path in settings.runs if (path / "samples.jsonl").is_file()], say=out.print)
    rules = competition(settings.competition) if settings.competition else None
    golds = read_golds(settings.golds)
    with busy("samples read and judged"):
        lost = [read_losses(find_recording(path), golds=golds, rules=rules) for path in settings.runs]

    for first in range(0, len(lost), _SIDE_BY_SIDE):
        out.print(losses_table(lost[first : first + _SIDE_BY_SIDE], first=first))
    for line in describe_runs(lost, each=settings.each):
        out.print(line, markup=False)
    content: dict[str, object] = {"runs": [_to_json(run) for run in lost]}
    if settings.out:
        write_json(settings.out, content)
        out.print(f"losses: {settings.out}")
    return content


def describe_runs(runs: "Sequence[LostRun]", *, each: bool) -> Iterator[str]:
    """Yield what to do about each run's largest class, what its counts leave out, and with `each` its lost problems."""
    for position, run in enumerate(runs):
        name = f"{_letter(position)}, {run.path}: " if len(runs) > 1 else ""
        yield f"{name}{run.losses.describe()}"
        yield from run.notes
        yield from (f"{name}{line}" for line in (run.scorer.describe() if run.scorer else ()))
        if each:
            yield from (f"  {describe_problem(row)}" for row in run.rows if row.cause != "won")


def read_golds(file: Path | None) -> dict[str, str]:
    """Return {problem id: gold} of a file of problems, or of the shipped suite, whose ids no other questions have."""
    from mathlete.corpus import load_suite

    return {one.id: one.gold for one in load_suite(str(file) if file else "pocket_val").problems}


def losses_table(runs: "Sequence[LostRun]", *, first: int = 0) -> "Table":
    """Return problems and samples of each class, runs side by side in 80 columns; the first is named by its letter.

    A run that stands alone has shares as well.
    """
    from mathlete.losses import CAUSES
    from mathlete.tables import FittingTable

    alone = len(runs) == 1 and not first
    names = ["problems", "%", "samples", "%"]
    if not alone:
        # A head of two lines: three runs with their letters beside the words would take 100 columns.
        letters = [_letter(position) for position, _ in enumerate(runs, start=first)]
        names = [name for letter in letters for name in (f"{letter}\nproblems", "\nsamples")]
    table = FittingTable("why problems and samples were lost", columns=("", *names))
    # One column of counts after the other: problems and samples of each run.
    columns = [part for run in runs for part in (run.losses.problems, run.losses.samples)]
    totals = [sum(column.values()) for column in columns]
    for cause, words in CAUSES.items():
        counts = [column[cause] for column in columns]
        table.add_row(words.label, *_cells(counts, totals, share=alone))
    table.add_section()
    table.add_row("all", *_cells(totals, totals, share=alone))
    return table


def describe_problem(row: "ProblemLosses") -> str:
    """Return a problem's class and those of its samples, in words."""
    from mathlete.losses import CAUSES

    counts = ", ".join(f"{count} {CAUSES[cause].label}" for cause, count in row.samples.items())
    return f"{row.id}: {CAUSES[row.cause].label} ({counts or 'no samples'})"


def _cells(counts: Sequence[int], totals: Sequence[int], *, share: bool) -> list[str]:
    if not share:
        return [f"{count:,}" for count in counts]
    pairs = zip(counts, totals, strict=True)
    return [cell for count, total in pairs for cell in (f"{count:,}", f"{100 * count / total:.1f}" if total else "–")]


def _letter(position: int) -> str:
    """Return A, B, …, Z, A1, B1, …"""
    return f"{chr(ord('A') + position % 26)}{position // 26 or ''}"


def _to_json(run: "LostRun") -> dict[str, object]:
    rows = [{"id": row.id, "cause": row.cause, "causes": row.samples} for row in run.rows]
    scorer = {"scorer": run.scorer.to_json()} if run.scorer else {}
    return {"run": str(run.path), **run.losses.to_json(), "notes": [*run.notes], **scorer, "per_problem": rows}


LOSSES_COMMAND = Command(
    settings=LossesSettings,
    run=losses,
    help="Says why problems and samples were lost: outvoted, wrong, out of range, no integer, no box, cut, unknown.\n\n"
    "Examples:\n\npython -m eval losses runs/base runs/tuned\n\n"
    "python -m eval losses runs/submit/output/journal.jsonl --golds problems.jsonl --json",
)
