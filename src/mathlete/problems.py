"""Problem: one question with its gold answer, and the JSONL files of many."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from mathlete.errors import UserError
from mathlete.jsonl import read_json_lines
from mathlete.runs import sha256_json, write_atomically


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One question. Every field is a string: a real AIMO-3 id is `424e18`, which CSV readers turn into a float."""

    id: str
    statement: str
    gold: str
    """The right answer as the source writes it."""
    source: str = ""
    """Hub id or generator that the problem came from."""
    subset: str = ""
    """Level, subject or family; results are also given per subset."""
    licence: str = ""
    answers: str = ""
    """Conventions of its answers where they are not the default, such as `percent=points` (docs/answers.md)."""

    def to_json(self) -> dict[str, str]:
        """Return the problem as a JSON object; without a convention of its own it has no key for one."""
        return {name: value for name, value in vars(self).items() if value or name != "answers"}

    @property
    def fingerprint(self) -> str:
        """What stands in for the statement in a recording without texts: equal for equal statements."""
        if self.statement.startswith("sha256:"):
            return self.statement
        return f"sha256:{hashlib.sha256(self.statement.encode()).hexdigest()[:16]}"

    def name_difference(self, other: "Problem") -> str | None:
        """Return in what two recordings asked, or judge, otherwise; None where they are of the same problem.

        Where each had it from, and whether it kept texts, may differ.

        >>> one = Problem(id="a", statement="What percentage?", gold="2", answers="percent=points")
        >>> one.name_difference(Problem(id="a", statement="What percentage?", gold="2"))
        "the convention of its answers ('percent=points' and '')"
        >>> one.name_difference(Problem(**{**one.to_json(), "statement": one.fingerprint, "source": "here"}))
        """
        for name, words in _SAME.items():
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                return f"{words} ({ours!r:.40} and {theirs!r:.40})"
        return None


_SAME = {"id": "the id", "fingerprint": "the statement", "gold": "the gold answer",
         "answers": "the convention of its answers"}  # fmt: skip
"""{what two recordings of a problem have in common: its name}."""
_FIELDS = tuple(field.name for field in fields(Problem))
_REQUIRED = ("id", "statement", "gold")


def parse_problem(row: object, *, where: str) -> Problem:
    """Return the problem in a parsed JSON row.

    Raises:
        UserError: the row is not a problem; the message names `where` (file:line).
    """
    if not isinstance(row, dict):
        raise UserError(f"{where}: a problem must be a JSON object", value=type(row).__name__, cure=_CURE)
    if missing := [name for name in _REQUIRED if not row.get(name)]:
        raise UserError(f"{where}: a problem needs {', '.join(missing)}", value=sorted(row), cure=_CURE)
    if unknown := sorted(set(row) - set(_FIELDS)):
        raise UserError(f"{where}: a problem has only the fields {', '.join(_FIELDS)}", value=unknown, cure=_CURE)
    if wrong := {name: value for name, value in row.items() if not isinstance(value, str)}:
        raise UserError(f"{where}: a problem's fields are strings", value=wrong, cure='write "answer": "7", not 7')
    return Problem(**row)


_CURE = 'write one {"id": "…", "statement": "…", "gold": "…"} a line (source, subset, licence may follow)'


def read_problems(path: Path) -> list[Problem]:
    """Read the problems of a JSONL file, in file order.

    Raises:
        UserError: a line that is not a problem, a repeated id, or no problem at all.
    """
    rows = ((where, parse_problem(row, where=where)) for where, row in read_json_lines(path))
    return collect_problems(rows, path=path, cure=_CURE)


def collect_problems(rows: Iterable[tuple[str, Problem]], *, path: Path, cure: str) -> list[Problem]:
    """Return the problems of a file's (place, problem).

    Raises:
        UserError: a repeated id, or no problem at all, for which `cure` says what to do.
    """
    problems: dict[str, tuple[str, Problem]] = {}
    for where, problem in rows:
        if problem.id in problems:
            value = f"{problem.id!r}, first at {problems[problem.id][0]}"
            raise UserError(f"{where}: ids must be unique", value=value, cure="rename one")
        problems[problem.id] = where, problem
    if not problems:
        raise UserError("a problem file needs at least one problem", value=str(path), cure=cure)
    return [problem for _, problem in problems.values()]


def write_problems(path: Path, problems: Iterable[Problem]) -> None:
    """Write one problem per line, atomically."""
    write_atomically(path, "".join(json.dumps(p.to_json(), ensure_ascii=False) + "\n" for p in problems))


def hash_problems(problems: Iterable[Problem]) -> str:
    """Return the SHA-256 of the problems' content and order, which identifies a suite wherever it was read from."""
    return sha256_json([problem.to_json() for problem in problems])
