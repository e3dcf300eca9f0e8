"""The journal: one JSON line a question, in a file beside the notebook and in the notebook's log.

Before the first question stand lines about the run itself: {"build", "machine"}, then {"engine"} once it has loaded.
Where vLLM is the engine, {"packages"} tells how long its packages took, and {"left"} which step of the ladder was left.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, get_args

from mathlete.errors import UserError
from mathlete.jsonl import JsonLines
from mathlete.losses import Cause
from mathlete.text import clean, parse_json, quote

JOURNAL = "journal.jsonl"
"""The file in the notebook's working folder."""
SUBMISSION = "submission.parquet"
"""The file that Kaggle scores; the gateway writes it, or the notebook's own loop."""
_START, _OWN = '{"id": ', '"fallback": '


@dataclass(frozen=True, kw_only=True)
class JournalLine:
    """How one question was answered."""

    VOTE_CHARACTERS: ClassVar[int] = 40
    """Longest answer in `votes`; of a longer one so many characters stand there."""
    id: str
    answer: int = 0
    fallback: bool
    """Whether the answer is the fallback, because no sample gave one."""
    why: str
    """Why there was no answer, or what went wrong on the way; empty where nothing did."""
    seconds: float = 0.0
    """From the question to its answer, loading included."""
    load_s: float = 0.0
    """Spent waiting for the model to load."""
    limit_s: float = 0.0
    """What the budget gave this question."""
    left_s: float = 0.0
    """Left of the notebook's wall clock afterwards."""
    samples: int = 0
    empty: int = 0
    """Samples without any text."""
    answered: int = 0
    """Samples with an answer."""
    tokens: int = 0
    drawn: tuple[tuple[int, float], ...] = ()
    """(tokens, seconds) of the samples that finished, the first of them; earlier versions wrote none."""
    votes: tuple[tuple[str, int], ...] = ()
    """(answer, samples that gave it), most votes first."""
    sends: tuple[int | None, ...] = ()
    """What each of `votes` sends, None where it is no integer of the competition's range; earlier versions: nothing."""
    lost: Mapping[Cause, int] | None = None
    """Samples that could not be right, drawn or not, by class (`mathlete.losses`); earlier versions did not count."""
    forced: int = 0
    """Samples that were made to answer after they were cut (`--harvest`); they are counted nowhere else."""
    forced_answers: int = 0
    """Those of them that did."""
    forced_s: float = 0.0
    """Until the last of them was there."""

    def to_json(self) -> dict[str, object]:
        """Return the line as JSON values in the order in which they are written; `from_json` reads them back.

        Of forced answers it says something only where there were any.
        """
        return {name: value for name, value in asdict(self).items() if self.forced or not name.startswith("forced")}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "JournalLine":
        """Return the line in a value that `to_json` made, perhaps of another version; unknown keys are ignored.

        Raises:
            ValueError, TypeError: it is none.
        """
        known = {one.name: value[one.name] for one in fields(cls) if one.name in value}
        for one in fields(cls):
            if one.name in known and one.type in _KINDS and not _KINDS[one.type](known[one.name]):
                raise ValueError(f"{one.name} is {known[one.name]!r}")
        if not {*(known.get("lost") or {})} <= {*get_args(Cause)}:
            raise ValueError(f"lost is {known['lost']!r}")
        votes = tuple((str(answer), int(count)) for answer, count in known.pop("votes", ()))
        sends = tuple(known.pop("sends", ()))
        drawn = tuple((int(tokens), float(seconds)) for tokens, seconds in known.pop("drawn", ()))
        if sends and len(sends) != len(votes):
            raise ValueError(f"{len(votes)} votes and {len(sends)} answers that they send")
        return cls(**known, votes=votes, sends=sends, drawn=drawn)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63


_KINDS: Mapping[object, Callable[[object], bool]] = {
    str: lambda value: isinstance(value, str),
    bool: lambda value: isinstance(value, bool),
    int: lambda value: _is_number(value) and isinstance(value, int),
    float: _is_number,
}
"""{a field's type: what its value in JSON must be}."""


@dataclass(frozen=True, kw_only=True)
class NotebookFacts:
    """What a notebook's run said of itself before the first question; earlier versions said nothing."""

    build: str = ""
    """The hash of the build that ran."""
    machine: Mapping[str, object] = field(default_factory=dict)
    """GPUs, cores, memory, disk, packages (`mathlete.kernel.machine.describe_machine`)."""
    engine: Mapping[str, object] = field(default_factory=dict)
    """The engine's torch, CUDA, device, dtype, and `load_s`, seconds to load the model; empty where it never loaded."""
    packages: Mapping[str, object] = field(default_factory=dict)
    """Seconds to install vLLM's packages and to read the weights ahead; empty where vLLM is not the engine."""
    left: tuple[Mapping[str, object], ...] = ()
    """The engines that did not come up or died, in turn, each with its cause and the one that came next."""

    def describe(self) -> str:
        """Return the machine in a line.

        >>> gpu = {"name": "Tesla T4", "memory_mib": 15360, "capability": 7.5}
        >>> engine = {"torch": "2.10.0+cu128", "cuda": "12.8", "dtype": "float16", "load_s": 41.5}
        >>> print(NotebookFacts(machine={"gpus": [gpu, gpu], "cores": 4, "memory_gib": 31.4}, engine=engine).describe())
        2 x Tesla T4 (15 GiB, 7.5) · 4 cores, 31.4 GiB · torch 2.10.0+cu128, CUDA 12.8, float16 · loaded in 41.5 s
        >>> NotebookFacts(machine={"gpus": []}).describe()
        'no GPU'
        """
        listed = self.machine.get("gpus")
        gpus = Counter(map(_describe_gpu, listed if isinstance(listed, list) else ()))
        parts = [" + ".join(f"{count} x {gpu}" if count > 1 else gpu for gpu, count in gpus.items()) or "no GPU"]
        if "cores" in self.machine:
            parts.append(f"{self.machine['cores']} cores, {self.machine.get('memory_gib')} GiB")
        if self.engine:
            words = (("vllm", "vLLM "), ("torch", "torch "), ("cuda", "CUDA "), ("dtype", ""))
            parts.append(", ".join(f"{word}{self.engine[name]}" for name, word in words if self.engine.get(name)))
            parts.append(f"loaded in {self.engine.get('load_s')} s")
        return " · ".join(parts)


def _describe_gpu(gpu: Mapping[str, object]) -> str:
    return f"{gpu.get('name')} ({float(str(gpu.get('memory_mib') or 0)) / 1024:.0f} GiB, {gpu.get('capability')})"


def note(file: Path, value: Mapping[str, object]) -> None:
    """Add a line that is no question's to a journal and to the log; a full disk costs the line in the file alone."""
    with suppress(OSError):
        JsonLines(file, sync_s=None).append(value)
    print(json.dumps(value, ensure_ascii=False), file=sys.stderr, flush=True)


def read_facts(file: Path) -> NotebookFacts:
    r"""Read what a run said of itself, in a journal or in a notebook's log; nothing where there is none.

    >>> from tempfile import mkdtemp
    >>> log = Path(mkdtemp()) / "log"
    >>> _ = log.write_text('x\n{"build": "0123456789ab", "machine": {"cores": 4}}\n{"engine": {"load_s": 2.5}}\n')
    >>> read_facts(log).build, read_facts(log).engine["load_s"]
    ('0123456789ab', 2.5)
    """
    names = [one.name for one in fields(NotebookFacts)]
    facts, left = dict[str, Any](), list[Mapping[str, object]]()
    for where, line in _read_lines(file):
        if line.startswith(tuple(f'{{"{name}": ' for name in names)):
            said = {name: part for name, part in _parse(line, where).items() if name in names}
            left += [said.pop("left")] if "left" in said else []
            facts = {**said, **facts}
    return NotebookFacts(**facts, left=tuple(left))


def read_journal(file: Path) -> list[JournalLine]:
    r"""Read the lines of a journal, or those in a notebook's log, as far as they are written; [] if there is none.

    >>> from tempfile import TemporaryDirectory
    >>> line = JournalLine(id="a", answer=7, fallback=False, why="")
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "log").write_text(f"loading\n{json.dumps(line.to_json())}\n" + '{"id": "b", "ans')
    ...     read_journal(Path(folder, "log")) == [line]
    True
    """
    lines = list[JournalLine]()
    for where, text in _read_lines(file):
        # A log holds other text too: other programs' lines with ids have no word of a fallback.
        if file.suffix == ".jsonl" or (_START in text and _OWN in text):
            value = _parse(text[max(0, text.find(_START)) :], where)
            if "id" in value:
                lines.append(_parse_line(value, where))
            elif value.keys().isdisjoint(one.name for one in fields(NotebookFacts)):
                raise _explain("no line of a journal", text, where)
    return lines


def _read_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yield (`file:line`, text) of each line, without the half of one that a killed notebook leaves at the end."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    try:
        *lines, last = _text_of_log(text).split("\n")  # an answer may hold what `splitlines` takes for an end
    except ValueError as error:
        raise _explain(str(error), text, str(file)) from error
    for number, line in enumerate([*lines, last] if _is_whole(last) else lines, start=1):
        if line.strip():
            yield f"{file}:{number}", line.strip()


def _is_whole(line: str) -> bool:
    try:
        return isinstance(parse_json(line[max(0, line.find(_START)) :]), dict)
    except ValueError:
        return False


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        value = parse_json(text)
    except ValueError as error:
        raise _explain(str(error), text, where) from error
    if not isinstance(value, dict):
        raise _explain("no object", text, where)
    return value


def _parse_line(value: Mapping[str, Any], where: str) -> JournalLine:
    try:
        return JournalLine.from_json(value)
    except (ValueError, TypeError, AttributeError) as error:
        raise _explain(str(error), json.dumps(value), where) from error


def _explain(reason: str, text: str, where: str) -> UserError:
    rule = f"{where}: a journal's line must be as it was written ({reason})"
    return UserError(rule, value=quote(text, most=80), cure="copy the file again, or delete the line")


def _text_of_log(text: str) -> str:
    r"""Return what a notebook printed, out of a log as Kaggle gives it; any other text as it is.

    >>> _text_of_log('[{"stream_name":"stderr","time":1.5,"data":"{\\"id\\": \\"a\\"}\\n"}\n]')
    '{"id": "a"}\n'
    """
    # Any program's log may begin with a bracket, as in [INFO].
    if not re.match(r'\s*\[\s*{\s*"', text):
        return text
    # Piece by piece, not as one value: a long log may come cut off.
    return clean("".join(str(parse_json(piece, halves=True)) for piece in _PRINTED.findall(text)))


_PRINTED = re.compile(r'"data"\s*:\s*("(?:[^"\\]|\\.)*")')
"""What a notebook printed at a time, in a log of Kaggle's."""
