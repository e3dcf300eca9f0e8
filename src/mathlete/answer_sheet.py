r"""An answer sheet: a line for each question that is answered, and of all lines the table that is handed in.

Which answer a question gets is decided once, when it is solved: the answer with most votes that the competition takes.
Where there is none, its cell gets the competition's fallback, or stays empty, and the line says why.

>>> from tempfile import mkdtemp
>>> file = Path(mkdtemp()) / "submission.csv"
>>> line = SheetLine(id='say "a", b', answer="7", fallback=False)
>>> write_sheet(file, [line], columns=("id", "answer"))
>>> file.read_text()
'id,answer\n"say ""a"", b",7\n'
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from mathlete.competitions import Competition
from mathlete.errors import UserError
from mathlete.files import write_atomically
from mathlete.jsonl import JsonLines
from mathlete.organiser import choose_answer, fallback_of
from mathlete.solve import Ended, Solution

_SHOWN_VOTES = 8
"""Answers with most votes that stand in a line."""
_SHOWN_IDS = 5
"""Questions without an answer that are named."""
_QUOTED = re.compile(r'[",;\t\r\n]|^\s|\s$')
"""What a cell is quoted for: RFC 4180 names commas, quotes and line ends; some readers strip or split at the others."""


@dataclass(frozen=True, kw_only=True)
class SheetLine:
    """How one question was answered."""

    id: str
    answer: str
    """What is handed in; "" where the cell stays empty."""
    fallback: bool
    """Whether the model has given no answer that may be handed in."""
    why: str = ""
    """Why it has none; empty where it has one."""
    ended: Ended = "all"
    votes: tuple[tuple[str, int], ...] = ()
    """(answer, samples that gave it), most votes first."""
    samples: int = 0
    tokens: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, solution: Solution, *, rules: Competition | None) -> Self:
        """Return the line of a problem that was solved, by the rules of a competition if there is one."""
        answers = [vote.answer for vote in solution.votes]
        # The model's own judgements, where the policy asks for them, go before the vote.
        chosen = [solution.answer, *answers] if solution.answer is not None else answers
        sent = choose_answer(chosen, rules=rules)
        return cls(
            id=solution.problem_id,
            answer=fallback_of(rules) if sent is None else sent,
            fallback=sent is None,
            why=_explain(solution) if sent is None else "",
            ended=solution.ended,
            votes=tuple((vote.answer, vote.count) for vote in solution.votes[:_SHOWN_VOTES]),
            samples=len(solution.samples),
            tokens=sum(sample.tokens for sample in solution.voting),
            seconds=round(solution.seconds, 3),
        )

    @classmethod
    def without_answer(cls, name: str, *, why: str, rules: Competition | None) -> Self:
        """Return the line of a question that the model cannot be asked."""
        return cls(id=name, answer=fallback_of(rules), fallback=True, why=why)

    @classmethod
    def from_json(cls, row: object, *, where: str) -> Self:
        """Return the line in a parsed JSON row, which `dataclasses.asdict` made.

        Raises:
            UserError: it is none.
        """
        try:
            if not isinstance(row, dict):
                raise TypeError(f"{type(row).__name__} in place of an object")
            return cls(**{**row, "votes": tuple((str(answer), int(count)) for answer, count in row["votes"])})
        except (KeyError, TypeError, ValueError) as error:
            cure = "put back what was there, or begin anew with --overwrite"
            raise UserError(f"{where}: must be as it was written ({error})", cure=cure) from error


def _explain(solution: Solution) -> str:
    """Say why a solved problem has no answer that may be handed in."""
    if solution.votes:
        return "no answer that the rules take"
    if not solution.samples:
        return "the clock: no sample was finished"
    empty = all(not sample.text.strip() for sample in solution.samples)
    return "only empty completions" if empty else "no sample has an answer"


class SheetLog:
    """The lines of a sheet, on file as the questions are answered, and read again when a killed run goes on."""

    def __init__(self, path: Path, *, ids: Sequence[str]) -> None:
        """Read the lines that are there; `ids` are those of all questions.

        Raises:
            UserError: a line that is none, or of no question.
        """
        self._lines = JsonLines(path)
        self._lines.cut_half_line()
        self._ids = dict.fromkeys(ids)
        self.lines = {line.id: line for where, row in self._lines.read() for line in (self._parse(row, where),)}
        """{id: its line}."""
        self.lost = {line.id for line in self.lines.values() if line.fallback}
        """Ids of those without an answer of the model."""

    def _parse(self, row: object, where: str) -> SheetLine:
        line = SheetLine.from_json(row, where=where)
        if line.id not in self._ids:
            cure = "choose another --run, or begin anew with --overwrite"
            raise UserError(f"{where}: must be of one of the file's questions", value=repr(line.id), cure=cure)
        return line

    def append(self, line: SheetLine) -> None:
        """Add a line, on the disk when this returns; may be called from any thread."""
        self._lines.append(asdict(line))
        self.lines[line.id] = line
        if line.fallback:
            self.lost.add(line.id)

    @property
    def sheet(self) -> "Sheet":
        """The lines in the order of the questions, as far as they are there."""
        return Sheet(lines=[self.lines[name] for name in self._ids if name in self.lines], questions=len(self._ids))


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """The lines of all questions that are answered."""

    lines: list[SheetLine]
    questions: int

    @property
    def fallbacks(self) -> list[SheetLine]:
        """Lines without an answer of the model."""
        return [line for line in self.lines if line.fallback]

    def to_json(self) -> dict[str, object]:
        """Return counts and times as JSON."""
        return {
            "questions": self.questions,
            "answered": len(self.lines) - len(self.fallbacks),
            "fallbacks": len(self.fallbacks),
            "without_answer": {line.id: line.why for line in self.fallbacks},
            "ended": dict(sorted(Counter(line.ended for line in self.lines).items())),
            "samples": sum(line.samples for line in self.lines),
            "tokens": sum(line.tokens for line in self.lines),
            "longest_s": max((line.seconds for line in self.lines), default=0.0),
        }

    def describe(self, *, rules: Competition | None) -> list[str]:
        """Say what was answered, and what not, in lines."""
        lost, cell = self.fallbacks, fallback_of(rules)
        counted = f"{len(self.lines) - len(lost)} of {self.questions} questions answered by the model"
        counted += f" · {sum(line.samples for line in self.lines):,} samples"
        counted += f" · {sum(line.tokens for line in self.lines):,} tokens"
        counted += f" · the longest took {max((line.seconds for line in self.lines), default=0.0):,.1f} s"
        if not lost:
            return [counted]
        what = f"the fallback {cell}, which is no answer" if cell else "an empty cell"
        named = [f"{line.id} ({line.why})" for line in lost[:_SHOWN_IDS]]
        more = f" and {len(lost) - _SHOWN_IDS} more" if len(lost) > _SHOWN_IDS else ""
        return [counted, f"{len(lost)} got {what}: {', '.join(named)}{more}"]


def write_sheet(file: Path, lines: Iterable[SheetLine], *, columns: tuple[str, str]) -> None:
    """Write the table that is handed in, whole or not at all: CSV in UTF-8 with commas, a line feed behind each row."""
    rows = [columns, *((line.id, line.answer) for line in lines)]
    write_atomically(file, "".join(map(write_row, rows)))


def write_row(cells: tuple[str, str]) -> str:
    r"""Return a row as the table has it.

    >>> write_row(("no, name", "answer"))
    '"no, name",answer\n'
    """
    return f"{','.join(map(_quote, cells))}\n"


def _quote(cell: str) -> str:
    return f'"{cell.replace(chr(34), chr(34) * 2)}"' if _QUOTED.search(cell) else cell
