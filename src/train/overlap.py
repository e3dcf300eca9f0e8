"""`python -m train data overlap`: lists the rows of a file that are problems of a suite."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from mathlete.command import Command, console, progress
from mathlete.corpus import load_suite, read_statements
from mathlete.folders import require_result_file
from mathlete.overlap import RepeatedProblem, SuiteIndex
from mathlete.runs import write_atomically

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class OverlapSettings:
    """Which problems to compare with which suites."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """Problems in any columns: .jsonl, .json, .csv or .parquet."""
    suite: tuple[str, ...]
    """Names of suites, or files of problems."""
    mirror: Path | None = None
    """Folder that stands in for the hub's data sets."""
    out: Path | None = None
    """JSONL file to write all pairs into, side by side."""
    json: bool = False
    """End with one line of JSON on stdout."""


def overlap(settings: OverlapSettings) -> dict[str, object]:
    """Print the pairs of a row and a suite's problem that are the same problem; return their counts."""
    out = console(json=settings.json)
    if settings.out:
        require_result_file(settings.out, inputs=[settings.file, *map(Path, settings.suite)])
    suites = [load_suite(name, mirror=settings.mirror) for name in settings.suite]
    index = SuiteIndex([problem for suite in suites for problem in suite.problems])
    with progress("overlap") as shown:
        # Rows stream through the index: a file may be larger than memory, the pairs are few.
        rows = shown.track(read_statements(settings.file), total=None)
        pairs = list(index.pairs(rows))
    for pair in pairs[:_SHOWN]:
        _print(out, pair)
    if len(pairs) > _SHOWN:
        out.print(f"… and {len(pairs) - _SHOWN} more pairs; --out FILE writes them all")
    if settings.out:
        lines = (json.dumps(pair.to_json(), ensure_ascii=False) + "\n" for pair in pairs)
        write_atomically(settings.out, "".join(lines))
    # Kinds that do not occur are counted too, so that every line of JSON has the same keys.
    kinds = Counter(pair.kind for pair in pairs)
    counts: dict[str, object] = {
        "pairs": len(pairs),
        "rows_hit": len({pair.row.id for pair in pairs}),
        "suite_hit": len({pair.suite.id for pair in pairs}),
        "by_kind": {kind: kinds[kind] for kind in ("exact", "ngram", "near")},
    }
    out.print(f"{settings.file} and {', '.join(settings.suite)}: " + ", ".join(f"{k} {v}" for k, v in counts.items()))
    return counts


def _print(out: "Console", pair: RepeatedProblem) -> None:
    out.print(f"{pair.kind} {pair.similarity:.2f} · row {pair.row.id} is {pair.suite.id}")
    for problem in (pair.row, pair.suite):
        out.print("  " + " ".join(problem.statement.split())[:180])


OVERLAP_COMMAND = Command(
    settings=OverlapSettings,
    run=overlap,
    help="Finds the problems of evaluation suites in a file: word for word, contained, or reworded.\n\n"
    "Examples:\n\npython -m train data overlap problems.jsonl --suite aimo_val math500\n\n"
    "python -m train data overlap train.parquet --suite pocket_val --out pairs.jsonl --json",
)
