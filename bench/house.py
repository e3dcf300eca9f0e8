"""The figures of this house beside others: how the source reads, how its rooms are shut, which functions are hardest.

`python bench/house.py [NAME=PATH …] [--coverage FILE] [--json]`: a PATH is a checkout of this project, of which `src`
and `eval` are measured, or the folder of a package; folders with the same NAME are one tree. Comment and docstring
lines are counted in 100 lines that are not blank. `found` is bound by an assignment, a loop, `with`, `as` or an
argument, and written wherever it stands as a word. What else is counted, and how, is said in bench/source.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from bench.source.classes import count_settings, find_repeated_names
from bench.source.functions import Function, functions_in
from bench.source.modules import Module, package_folders, read_modules
from bench.source.names import bound_names, docstring_lines, loose_types
from bench.source.rooms import Room, rooms_of

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """What is measured."""

    trees: tyro.conf.Positional[tuple[str, ...]] = (f"mathlete={ROOT}",)
    """NAME=PATH, each a checkout of this project or a package's folder."""
    coverage: Path | None = None
    """What `coverage json` wrote: its totals and the ten weakest files."""
    hardest: int = 40
    """Functions listed."""
    json: bool = False
    """End with one line of JSON."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Lengths in lines."""

    median: float
    p90: int
    max: int

    def __str__(self) -> str:
        return f"{self.median:g} / {self.p90} / {self.max}"


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A tree's figures."""

    name: str
    files: int
    lines: int
    comment_lines_in_100: float
    docstring_lines_in_100: float
    found_bound: int
    found_bound_in_1000_lines: float
    found_written: int
    names_any: int
    loose_dicts: int
    """`dict[str, Any]` and `dict[str, object]`."""
    loose_mappings: int
    """The same of Mapping and MutableMapping."""
    functions: int
    typed_functions_in_100: float
    lines_of_functions: Spread
    lines_of_files: Spread
    circles: int
    hardest_with_2_comments: int
    """How many of the hardest functions have two comments or more."""
    classes_named_twice: int
    """Public names of classes that stand in several modules."""
    most_settings_in_a_class: int
    """Own fields of the largest class of settings; a group of settings is one field."""
    rooms: tuple[Room, ...]
    hardest: tuple[Function, ...]


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What the tests reach, in percent."""

    lines: float
    branches: float
    weakest: tuple[tuple[str, float], ...]
    """The ten files with the lowest share of their lines."""


def measure(name: str, modules: Sequence[Module], *, hardest: int) -> Figures:
    """Return all figures of a tree."""
    lines = [line for module in modules for line in module.lines]
    written = sum(bool(line.strip()) for line in lines)
    bound = sum(one == "found" for module in modules for one in bound_names(module))
    loose = Counter(one for module in modules for one in loose_types(module))
    functions = sorted(
        (one for module in modules for one in functions_in(module)), key=lambda one: (-one.hardness, one.name)
    )
    rooms = rooms_of(modules)
    return Figures(
        name=name,
        files=len(modules),
        lines=len(lines),
        comment_lines_in_100=_share(sum(sum(module.comments.values()) for module in modules), written),
        docstring_lines_in_100=_share(sum(map(docstring_lines, modules)), written),
        found_bound=bound,
        found_bound_in_1000_lines=_share(bound, len(lines), of=1000),
        found_written=sum(len(re.findall(r"\bfound\b", line)) for line in lines),
        names_any=loose["any"],
        loose_dicts=loose["dict"],
        loose_mappings=loose["mapping"],
        functions=len(functions),
        typed_functions_in_100=_share(sum(one.is_typed for one in functions), len(functions)),
        lines_of_functions=_spread([one.lines for one in functions]),
        lines_of_files=_spread([len(module.lines) for module in modules]),
        circles=sum(len(room.circles) for room in rooms),
        hardest_with_2_comments=sum(one.comments >= 2 for one in functions[:hardest]),
        classes_named_twice=len(find_repeated_names(modules)),
        most_settings_in_a_class=max(count_settings(modules).values(), default=0),
        rooms=tuple(rooms),
        hardest=tuple(functions[:hardest]),
    )


def read_coverage(file: Path) -> Coverage:
    """Figures of a report that `coverage json` wrote with branches measured."""
    report = json.loads(file.read_text())
    totals = report["totals"]
    shares = {
        name: _share(one["summary"]["covered_lines"], one["summary"]["num_statements"])
        for name, one in report["files"].items()
        if one["summary"]["num_statements"]
    }
    return Coverage(
        lines=_share(totals["covered_lines"], totals["num_statements"]),
        branches=_share(totals["covered_branches"], totals["num_branches"]),
        weakest=tuple(sorted(shares.items(), key=lambda named: named[::-1])[:10]),
    )


def _share(some: int, every: int, *, of: int = 100) -> float:
    return round(of * some / every, 2) if every else 0.0


def _spread(lengths: Sequence[int]) -> Spread:
    """Return median, nearest-rank 90th percentile and maximum."""
    ordered = sorted(lengths) or [0]
    return Spread(median=median(ordered), p90=ordered[-(-9 * len(ordered) // 10) - 1], max=ordered[-1])


def show_figures(trees: Sequence[Figures]) -> None:
    """Print a column for each tree, then its rooms and its hardest functions."""
    keys = [field.name for field in fields(Figures) if field.name not in ("name", "rooms", "hardest")]
    rows = [[key.replace("_", " "), *(getattr(tree, key) for tree in trees)] for key in keys]
    _show(["", *(tree.name for tree in trees)], rows)
    for tree in trees:
        _show(
            [f"rooms of {tree.name}", "files", "doors", "only face", "__all__", "circles"], map(_room_row, tree.rooms)
        )
        hardest = [(one.name, one.hardness, one.lines, one.comments) for one in tree.hardest]
        _show([f"hardest of {tree.name}", "hardness", "lines", "comments"], hardest)


def _room_row(room: Room) -> tuple[object, ...]:
    circles = ["–".join(name.rpartition(".")[2] for name in circle) for circle in room.circles]
    names = "none" if room.face_names is None else room.face_names
    return room.name, room.files, len(room.doors), "yes" if room.only_face else "no", names, ", ".join(circles)


def show_coverage(coverage: Coverage) -> None:
    """Print the totals, then the weakest files."""
    totals = [("all lines", coverage.lines), ("all branches", coverage.branches)]
    _show(["covered", "%"], [*totals, *coverage.weakest])


def _show(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    table = Table(*(Column(name, overflow="fold") for name in columns), box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*map(str, row))
    Console().print(table)


def named_folders(trees: Iterable[str]) -> Mapping[str, list[Path]]:
    """Return the packages' folders of each tree."""
    folders: dict[str, list[Path]] = {}
    for tree in trees:
        name, _, path = tree.partition("=")
        if not path or not any(Path(path).rglob("*.py")):
            raise SystemExit(f"a tree must be NAME=PATH of a folder with Python files, got {tree}")
        folders.setdefault(name, []).extend(package_folders(Path(path).resolve()))
    return folders


def main(settings: BenchSettings) -> dict[str, object]:
    """Measure and print."""
    folders = named_folders(settings.trees)
    trees = [measure(name, read_modules(some), hardest=settings.hardest) for name, some in folders.items()]
    show_figures(trees)
    coverage = read_coverage(settings.coverage) if settings.coverage else None
    if coverage:
        show_coverage(coverage)
    return {"trees": [asdict(tree) for tree in trees], "coverage": coverage and asdict(coverage)}


if __name__ == "__main__":
    chosen = tyro.cli(BenchSettings, description=__doc__)
    line = main(chosen)
    if chosen.json:
        print(json.dumps(line))
