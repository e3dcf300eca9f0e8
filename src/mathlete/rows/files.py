"""The files of the format step, their records, and the paths of both."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Self

from mathlete.overlap import RepeatedProblem
from mathlete.prompts import PromptFormat
from mathlete.rows.programs import to_served_form


@dataclass(frozen=True, kw_only=True)
class DroppedTrace:
    """A line of `dropped.jsonl`: a trace that was left out and why, or the error of a row that could not be read.

    Fields that are None are not written. With problem, trace and answer, the line is one that `--source FILE` reads.
    """

    reason: str
    where: str | None = None
    id: str | None = None
    statement: str | None = None
    gold: str | None = None
    source: str | None = None
    subset: str | None = None
    licence: str | None = None
    answers: str | None = None
    trace: str | None = None
    answer: str | None = None
    error: str | None = None
    difference: str | None = None
    """Where the row is not what is served."""

    def to_json(self) -> dict[str, str]:
        """Return the line's JSON object."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, line: Mapping[str, str]) -> Self:
        """Return the record of a line's JSON object."""
        return cls(**line)


@dataclass(frozen=True, kw_only=True)
class RowText:
    """A line of `head.jsonl`: a row as text."""

    problem_id: str
    gold: str
    prompt: str
    trained: str
    prompt_tokens: int
    trained_tokens: int
    spans: list[tuple[str, bool]]
    """The row's text in pieces, each with whether it has loss."""

    def to_json(self) -> dict[str, object]:
        """Return the line's JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Self:
        """Return the record of a line's JSON object."""
        return cls(**{**line, "spans": [(str(text), bool(trained)) for text, trained in line["spans"]]})


@dataclass(frozen=True)
class RowFiles:
    """The paths of the format step's files in its folder.

    >>> RowFiles(Path("runs/mine/data")).train.as_posix()
    'runs/mine/data/train'
    """

    folder: Path
    hidden: ClassVar[tuple[str, ...]] = (".parts", ".train-*")
    """Hidden names that an unfinished run leaves in the folder."""
    names: ClassVar[tuple[str, ...]] = ("train", "heldout", "head.jsonl", "dropped.jsonl", "overlap.jsonl", "README.md")
    """The other names in it, of which each has its property below."""

    def list_made(self) -> list[Path]:
        """Return what is there of all that the step writes."""
        return [path for name in (*self.names, *self.hidden) for path in self.folder.glob(name)]

    @property
    def train(self) -> Path:
        """Rows to train on, a datasets folder."""
        return self.folder / "train"

    @property
    def heldout(self) -> Path:
        """Held-out rows, a datasets folder."""
        return self.folder / "heldout"

    @property
    def head(self) -> Path:
        """The first rows as text (`RowText`)."""
        return self.folder / "head.jsonl"

    @property
    def dropped(self) -> Path:
        """The traces that were left out (`DroppedTrace`), where the run keeps them."""
        return self.folder / "dropped.jsonl"

    @property
    def overlap(self) -> Path:
        """The pairs of a problem and a suite's problem (`RepeatedProblem`)."""
        return self.folder / "overlap.jsonl"

    @property
    def card(self) -> Path:
        """The dataset card."""
        return self.folder / "README.md"

    @property
    def parts(self) -> Path:
        """The parts of an unfinished run."""
        return self.folder / ".parts"

    def describe_parts(self) -> str:
        """Return in words what a stopped run leaves in its folder."""
        return f"{self.parts}, {sum(path.name.isdigit() for path in self.parts.glob('*'))} finished parts"

    def read_head(self, count: int | None = None) -> list[RowText]:
        """Read the first rows as text; None: all of the file."""
        return [RowText.from_json(line) for line in islice(_read_lines(self.head), count)]

    def read_dropped(self, count: int | None = None) -> list[DroppedTrace]:
        """Read the first traces that were left out; None: all."""
        return [DroppedTrace.from_json(line) for line in islice(_read_lines(self.dropped), count)]

    def read_overlap(self, count: int) -> list[RepeatedProblem]:
        """Read the first pairs of a problem and a suite's problem."""
        return [RepeatedProblem.from_json(line) for line in islice(_read_lines(self.overlap), count)]

    def wrong_completions(self, prompts: PromptFormat) -> Iterator[tuple[str, list[int]]]:
        """Yield (statement, token ids of the completion) of each trace that the answer checker refused."""
        for line in _read_lines(self.dropped):
            if line["reason"] == "wrong":
                trace = to_served_form(line["trace"])
                yield line["statement"], prompts.completion_ids(trace=trace, answer=line["answer"])


def _read_lines(file: Path) -> Iterator[dict[str, Any]]:
    if file.is_file():
        with file.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)
