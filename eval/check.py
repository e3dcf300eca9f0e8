"""`python -m eval check`: the answer checker on a file of cases."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mathlete.command import Command, busy, console
from mathlete.folders import require_result_file


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """A file of answers and golds to judge."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """Table (JSONL, JSON, CSV, parquet) of {"id", "kind": "equiv" or "extract", "gold", "pred" or "text", "expected",
    "source"}."""
    against: Literal["math-verify"] | None = None
    """Another checker to judge the same cases in the same run."""
    out: Path | None = None
    """File to write the verdicts to, one line each."""
    answers: str = ""
    """Conventions of the cases that name none, as in "log=10 percent=points" (docs/answers.md)."""
    json: bool = False
    """End with one line of JSON on stdout."""


def check(settings: CheckSettings) -> dict[str, object]:
    """Judge the answers of a file; print the report and return it."""
    from mathlete.answers import check_file
    from mathlete.corpus import read_rows

    if settings.out:
        require_result_file(settings.out, inputs=[settings.file])
    # A line of JSONL that is broken is told in the checker's own words.
    rows = None if settings.file.suffix in ("", ".jsonl", ".txt") else read_rows(settings.file)
    with busy("answers judged"):
        report = check_file(
            settings.file, rows=rows, against=settings.against, out=settings.out, answers=settings.answers
        )
    console(json=settings.json).print(report.table())
    return report.as_json()


CHECK_COMMAND = Command(
    settings=CheckSettings,
    run=check,
    help="Judges a file of answers against their golds, beside another checker if you like.\n\n"
    "Examples:\n\npython -m eval check cases.jsonl --out verdicts.jsonl\n\n"
    "python -m eval check cases.jsonl --against math-verify --json",
)
