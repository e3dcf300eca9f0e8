"""Suites: the fixed problem sets that a model is measured on, identified by a hash of their content."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mathlete.corpus.problem_files import read_problem_file
from mathlete.corpus.sources import Source, find_commit, find_source, load_hub_problems
from mathlete.corpus.stream import is_local, open_source
from mathlete.corpus.tables import format_of
from mathlete.errors import UserError, nearest
from mathlete.problems import Problem, hash_problems, read_problems
from mathlete.shipped import data_folder
from mathlete.text import agree, counted

_HUB_SUITES = {
    "aimo_val": ("aimo-validation-aime", "aimo-validation-amc"),
    "math500": ("math500",),
    "aime24": ("aime24",),
    "aime25": ("aime25",),
    "aime26": ("aime26",),
    "hmmt_feb25": ("hmmt-feb25",),
    "hmmt_nov25": ("hmmt-nov25",),
    "hmmt_feb26": ("hmmt-feb26",),
    "brumo25": ("brumo25",),
    "beyond_aime": ("beyond-aime",),
    "apex25": ("apex25",),
    "apex_shortlist": ("apex-shortlist",),
    "aimo3_reference": ("aimo3-reference",),
    "gsm8k": ("gsm8k-test",),
    "math_l4": ("aimo-validation-math-level-4",),
    "math_l5": ("aimo-validation-math-level-5",),
}
SUITE_NAMES = ("pocket_val", *_HUB_SUITES)
_SOURCE = "source:"
"""Before a source or a file of traces: the problems that a model is trained on, to sample other traces of them."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Problems in a fixed order."""

    name: str
    sha256: str
    """Hash of the problems' content: the results of two runs are comparable only where it is equal."""
    problems: list[Problem]
    origin: str = ""
    """Where a hub suite's problems came from, and their licence; "" for a file or the shipped suite."""

    @staticmethod
    def find_conventions(task: str) -> tuple[str, str]:
        """Return the suite of the hub that a tool's task asks, and its answers' conventions; "" for each without one.

        >>> [Suite.find_conventions(task) for task in ("lighteval|math_500|0", "mgsm")]
        [('math500', 'percent=points'), ('', '')]
        """
        words = re.findall(r"[a-z0-9]+", task.lower())
        # What tools add to a set's name says how it is asked.
        runs = {"".join(words[first:last]) for first in range(len(words)) for last in range(first + 1, len(words) + 1)}
        for name, parts in _HUB_SUITES.items():
            if name.replace("_", "") in runs:
                conventions = {find_source(part).golds.answers for part in parts}
                return name, conventions.pop() if len(conventions) == 1 else ""
        return "", ""


def load_suite(name: str, *, mirror: Path | None = None, limit: int | None = None) -> Suite:
    """Load the suite of that name, the problems of `source:NAME` or of a file; a limit does not shorten it.

    Hub sets come from `mirror` where it is given. Rows of a hub suite behind the limit that are no problems are left
    out; its hash is then that of the others, and its origin says so.

    Raises:
        UserError: an unknown name, an unreachable hub, a mirror without the set, a shipped suite that was changed, or a
            convention of answers that is none.
    """
    if name == "pocket_val":
        return _load_pocket_val()
    origin = ""
    if name in _HUB_SUITES:
        problems, behind = _load_hub_suite(_HUB_SUITES[name], mirror, limit)
        origin = "; ".join([*(_describe(find_source(part), mirror) for part in _HUB_SUITES[name]), *behind])
    elif name.startswith(_SOURCE):
        source = name.removeprefix(_SOURCE)
        if is_local(source) or not find_source(source).statement:
            problems, behind = _load_source(source, mirror), []
        else:
            problems, behind = _load_hub_suite((source,), mirror, limit)
        origin = "; ".join([source if is_local(source) else _describe(find_source(source), mirror), *behind])
    elif format_of(name):
        read = read_problem_file(Path(name))
        problems, origin = read.problems, read.note
    else:
        cure = (
            f"{nearest(name, SUITE_NAMES)}, {_SOURCE}NAME for a source's, or a file of problems (.jsonl, .csv, .json, "
        )
        cure += ".parquet)"
        raise UserError("the suite must be a known one", value=repr(name), cure=cure)
    _check_conventions(problems)
    return Suite(
        name=Path(name).stem.replace(":", "-"), sha256=hash_problems(problems), problems=problems, origin=origin
    )


def _load_hub_suite(parts: Sequence[str], mirror: Path | None, limit: int | None) -> tuple[list[Problem], list[str]]:
    """Return the problems of a suite's sources, and a sentence where rows behind the limit are none."""
    problems: list[Problem] = []
    behind: list[UserError] = []
    for part in parts:
        left = None if limit is None else max(0, limit - len(problems))
        problems += load_hub_problems(part, mirror=mirror, first=len(problems), limit=left, on_behind=behind.append)
    words = f"{counted(len(behind), 'row')} behind the limit {agree(len(behind), 'is', 'are')} no problem and left out"
    return problems, [f"{words}, first {behind[0].rule}"] if behind else []


def _load_source(name: str, mirror: Path | None) -> list[Problem]:
    # A problem has a row for each of its traces, and stands once in the suite. An id with two statements is refused.
    problems = {traced.problem.id: traced.problem for row in open_source(name, mirror=mirror) for traced in row}
    if without := [problem.id for problem in problems.values() if not problem.gold]:
        rule = "problems that are sampled need a gold answer"
        raise UserError(rule, value=f"{without[0]!r} of {name} has none", cure="give each its gold, or leave it out")
    return list(problems.values())


def _describe(entry: Source, mirror: Path | None) -> str:
    where = f"in {mirror}" if mirror else f"at commit {find_commit(entry) or 'unknown, as the cache has it'}"
    return f"{entry.hub} {where}, licence {entry.licence}"


def _check_conventions(problems: list[Problem]) -> None:
    from mathlete.answers import parse

    for settings in {problem.answers for problem in problems}:
        # Reading anything under unknown conventions raises the error that names them.
        parse("1", settings)


def find_default_suites(*, mirror: Path | None, hub: bool) -> list[str]:
    """Return the suites that training keeps clear of by default: the shipped one and those that can be read.

    Args:
        mirror: folder that stands in for the hub; a suite counts if the mirror holds all of it.
        hub: whether the hub is read from at all; its suites can then be read too.
    """

    def can_be_read(name: str) -> bool:
        parts = [find_source(part) for part in _HUB_SUITES[name]]
        if mirror is None:
            return hub and not any(entry.part.file for entry in parts)
        return all(entry.files(mirror, part) for entry in parts for part in entry.parts)

    return ["pocket_val", *(name for name in _HUB_SUITES if can_be_read(name))]


def _load_pocket_val() -> Suite:
    file = data_folder() / "pocket" / "pocket_val.jsonl"
    problems = read_problems(file)
    frozen = (file.parent / "pocket_val.sha256").read_text(encoding="utf-8").strip()
    if (actual := hash_problems(problems)) != frozen:
        raise UserError("pocket_val is frozen by its hash", value=actual, cure=f"restore {file} from the release")
    return Suite(name="pocket_val", sha256=frozen, problems=problems)
