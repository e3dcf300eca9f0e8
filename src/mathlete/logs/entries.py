"""Entries: one sample as another tool logged it, and what a layout must tell of a file."""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from statistics import fmean
from typing import Any

from mathlete.errors import UserError
from mathlete.logs.finishes import Finish, as_finish
from mathlete.lost import Lost, finite_logprob
from mathlete.problems import Problem
from mathlete.sampling import Sample
from mathlete.scoring import EvalRun, RunFacts, RunSettings

LogRow = Mapping[str, Any]
"""A row of a log: its cells by column."""
IMPORTED = RunSettings.IMPORTED
"""The engine of a run that is made of other tools' logs."""
NO_STATEMENT = "(not in the log)"
"""Stands for a problem's statement where a log has none."""
WHOLE = "ask without `stream`, or join the pieces of each response and write it as one"
"""What mends a log of streamed pieces."""
STATEMENTS = ("statement", "problem", "question", "query", "Question", "Problem", "prompt")
"""Columns that hold a problem's statement, in the order in which they are tried."""
LIMITS: dict[str, Callable[[float], bool]] = {
    "temperature": lambda number: number <= 5,
    "top_p": lambda number: 0 < number <= 1,
    "max_tokens": lambda number: number >= 1 and number.is_integer(),
}
"""{a setting: whether a number of 0 or more can be it, as `SamplingConfig.check` has it}."""
_SEEDS, _LONGEST = 2**63, 20
"""Seeds are below the first, and have fewer digits than the second."""
_RIGHT = re.compile(
    r"exact_match|acc|accuracy|math_verify|extractive_match|(?:is_)?correct|exact|match|[qp]?em|(?:pass|avg|maj)@.*"
)
_NUMBERED = re.compile(r"(.+)[-_:/#.]\d+")
_NO_LOGPROB = -9999.0
"""What vLLM's server writes for minus infinity, which JSON has no word for: `max(logprob, -9999.0)`."""
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("problem_id", "statement", "gold", "text", "answer", "uid", "ended"), (str, type(None))),
    **dict.fromkeys(("tokens", "seed", "index"), (int, type(None))),
    "subset": (str,),
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One sample of a log; None is what the log does not say."""

    where: str
    """`file:line`, `file[row]` or `file:entry`, for messages."""
    problem_id: str | None = None
    statement: str | None = None
    gold: str | None = None
    subset: str = ""
    text: str | None = None
    answer: str | None = None
    """As the tool read it; only looked at where there is no text, or where a column is named for it."""
    tokens: int | None = None
    seconds: float | None = None
    finish: Finish | None = None
    ended: str | None = None
    """The tool's own word for why it ended, where the layout has one."""
    logprob_mean: float | None = None
    logprob_tail: float | None = None
    seed: int | None = None
    index: int | None = None
    """Its number among the samples of its problem."""
    uid: str | None = None
    """The name by which the tool itself knows this very sample, in whatever file it stands."""
    may_be_piece: bool = False
    """Whether it is a response that may be a piece of one that was streamed: nothing in its row tells."""
    other_golds: bool = False
    """Whether the log has several gold answers, of which the first is taken."""
    verdicts: Mapping[str, bool] = field(default_factory=dict)
    """What the tool's own scorers said: whether it is right, by the scorer's name."""
    thinking: bool | None = None
    """Whether its prompt had opened the thoughts, as far as the log says; None where it does not."""
    sample: Sample | None = None
    """The sample itself, where the log is a run of this project: it has more than other logs say."""

    def __post_init__(self) -> None:
        """Raise TypeError where a log has something else in a field."""
        values = vars(self)
        for name, types in _KINDS.items():
            # The type itself and not a kind of it: a bool is an int in Python, and none of these fields.
            if type(values[name]) not in types:
                raise TypeError(f"{name} is {values[name]!r:.40}")
        if self.index is not None and not 0 <= self.index <= Sample.MOST:
            raise ValueError(f"index is {self.index:.3g}")

    @property
    def content(self) -> tuple[object, ...]:
        """What two entries share that are the same sample."""
        return (self.text, self.answer, self.tokens, self.seconds, self.finish, self.logprob_mean, self.seed)

    def agrees_with(self, other: "Entry") -> bool:
        """Return whether both have the same text, or none, and nothing that both say contradicts."""
        pairs = zip(self.content, other.content, strict=True)
        return self.text == other.text and all(None in pair or pair[0] == pair[1] for pair in pairs)

    def filled_from(self, other: "Entry") -> "Entry":
        """Return the entry with what the other one says and this one does not."""
        return replace(self, **{name: vars(other)[name] for name, value in vars(self).items() if value is None})


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a log says of its model and of how the samples were drawn."""

    model: str | None = None
    task: str | None = None
    """The tool's name for the problems."""
    sampling: dict[str, float] = field(default_factory=dict)
    """Of temperature, top_p and max_tokens those that are known."""
    doubted: tuple[str, ...] = ()
    """Settings that rows name, though another one was in force, or may have been."""
    guessed: tuple[str, ...] = ()
    """Settings under names that are not their own: where rows differ in them, they are not known."""
    left_out: str = ""
    """By which setting the tool left the reasoning out of its texts; empty where none is known."""


@dataclass(frozen=True, kw_only=True)
class Log:
    """One file."""

    path: Path
    layout: str
    facts: Facts
    entries: list[Entry]
    failed: list[str] = field(default_factory=list)
    """Where requests stand that ended in an error, and so have no sample."""
    words: list[str] = field(default_factory=list)
    """Sentences: what its named columns do not hold."""
    run: EvalRun | None = None
    """The run, where the log is one of this project; other logs say in each entry what they know."""

    @property
    def run_facts(self) -> RunFacts | None:
        """What a finished run of this project says of itself."""
        return self.run.results.facts if self.run else None

    @property
    def problems(self) -> dict[str, Problem]:
        """The problems of a run of this project, by id."""
        return {item.problem.id: item.problem for item in self.run.graded} if self.run else {}

    @property
    def missing(self) -> tuple[str, ...]:
        """What such a run did not find in the log that it was made of itself."""
        return self.run_facts.missing if self.run_facts else ()


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a row stands."""

    path: Path
    where: str
    facts: Facts


RowReader = Callable[[LogRow, Place], Iterable[Entry]]
"""Reads the samples in a row; none where the request failed."""


def dig(row: object, path: str) -> Any:
    """Return the value at a dotted path of keys and positions, or None.

    >>> dig({"doc": {"id": 7}, "resps": [["a"]]}, "doc.id"), dig({"resps": [["a"]]}, "resps.0.0"), dig({}, "x.y")
    (7, 'a', None)
    """
    # A column may have dots in its own name. A plain dict is asked first: looks at an abstract type are slow, and a log
    # has cells by the million.
    if (type(row) is dict or isinstance(row, Mapping)) and path in row:
        return row[path]
    for key in path.split("."):
        if isinstance(row, Mapping):
            row = row.get(key)
        elif isinstance(row, Sequence) and not isinstance(row, str) and key.isdigit() and int(key) < len(row):
            row = row[int(key)]
        else:
            return None
    return row


def as_text(value: object) -> str | None:
    """Return a cell as text, or None for an empty one; a whole float loses its point, a list of one is its member.

    >>> as_text(142.0), as_text(["7"]), as_text(" "), as_text(float("nan"))
    ('142', '7', None, None)
    """
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, Sequence):
        value = value[0] if len(value) == 1 else None
    if value is None or isinstance(value, bool | Mapping) or (isinstance(value, float | Decimal) and math.isnan(value)):
        return None
    text = str(value)
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        text = str(int(value))
    return text if text.strip() else None


def as_number(value: object) -> float | None:
    """Return a cell as a number from 0 to what a sample's may be, or None.

    >>> as_number("1.5"), as_number(None), as_number("soon"), as_number(-1.0)
    (1.5, None, None, None)
    """
    # A column of parquet may hold decimals, and times as such.
    value = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number <= Sample.MOST else None


def as_count(value: object) -> int | None:
    """Return a cell as a whole number of 0 or more, or None.

    >>> as_count("20.0"), as_count(2.5), as_count(-1)
    (20, None, None)
    """
    number = None if isinstance(value, timedelta) else as_number(value)
    return int(number) if number is not None and number.is_integer() else None


def as_seed(value: object) -> int | None:
    """Return a cell as a seed, which may be larger than a float is exact, or None; -1 asks for one that is not told.

    >>> as_seed("9007199254740993"), as_seed(7.0), as_seed(-1)
    (9007199254740993, 7, None)
    """
    value = str(value) if isinstance(value, Decimal) else value
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < _LONGEST:
        value = int(value)
    # The type itself: a bool is an int in Python.
    return as_count(value) if type(value) is not int else value if 0 <= value < _SEEDS else None


def as_logprob(value: object) -> float | None:
    """Return a cell as a log-probability, or None where it is none: not finite, above 0, or vLLM's -9999 for minus
    infinity.

    >>> as_logprob("-1.5"), as_logprob(-1), as_logprob(float("nan")), as_logprob(2.0), as_logprob(-9999.0)
    (-1.5, -1.0, None, None, None)
    """
    try:
        number = finite_logprob(float(value) if isinstance(value, str | Decimal) else value)
    except (ValueError, Lost):
        return None
    return number if number > _NO_LOGPROB else None


def describe_golds_left_out(path: Path, entries: Sequence[Entry]) -> list[str]:
    """Return a sentence on samples of several gold answers; none where there are none."""
    several = [one.where for one in entries if one.other_golds]
    if not several:
        return []
    return [f"{path}: samples with several gold answers, of which the first counts: {len(several)}, first {several[0]}"]


def describe_unread_ends(path: Path, entries: Sequence[Entry]) -> list[str]:
    """Return a sentence on the tool's words for why a sample ended that are not known; none where all are."""
    # A column that is named for it may be empty beside a word that is known.
    unknown = [one for one in entries if one.finish is None and as_finish(one.ended) is None]
    unread = [one for one in unknown if (one.ended or "unknown").strip() != "unknown"]
    if not unread:
        return []
    first = f"{unread[0].ended!r:.40} in {unread[0].where}"
    return [
        f"{path}: words for why a sample ended that are not known, and count as missing: {len(unread)}, first {first}"
    ]


def list_golds(value: object) -> list[str]:
    """Return the gold answers in a cell, of which the first counts."""
    cells = value if isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 1 else (value,)
    return [text for one in cells if (text := as_text(one)) is not None]


def as_gold(value: object) -> str | None:
    r"""Return a gold answer: what follows #### of GSM8K, what stands in the last box of a solution, else the text as it
    is.

    >>> as_gold("3 + 4 = 7\n#### 1,007"), as_gold("so \\boxed{7}."), as_gold([" 7 ", "8"])
    ('1007', '7', '7')
    """
    from mathlete.answers import last_box

    text = next(iter(list_golds(value)), "").strip()
    if "####" in text:
        return text.rpartition("####")[2].strip().replace(",", "") or None
    if "\\boxed" in text and (box := last_box(text)):
        return box.content
    return text or None


def find_statement(row: LogRow) -> str | None:
    """Return the statement in the first of the usual columns that has a text."""
    return next((text for name in STATEMENTS if isinstance(text := row.get(name), str) and text.strip()), None)


def name_problem(statement: str) -> str:
    """Return an id made of a statement, for a log that numbers nothing: the same in every slice.

    >>> name_problem("What is 1 + 1?")
    'p-72f8917549'
    """
    return f"p-{hashlib.sha256(' '.join(statement.split()).encode()).hexdigest()[:10]}"


def find_numbered(name: str) -> str | None:
    """Return an id without the number behind it, or None where it has none.

    Requests of a batch need names of their own, so the samples of a problem are numbered.

    >>> find_numbered("aime-3_0"), find_numbered("a")
    ('aime-3', None)
    """
    numbered = _NUMBERED.fullmatch(name)
    return numbered[1] if numbered else None


def says_right(scorer: str) -> bool:
    """Return whether a scorer of that name says of one text whether it is right: others give 0 and 1 too.

    >>> says_right("exact_match"), says_right("brevity_ok")
    (True, False)
    """
    return _RIGHT.fullmatch(scorer) is not None


def mean_logprob(values: Sequence[object], *, last: int = 0) -> float | None:
    """Return the mean log-probability of all tokens, or of so many last ones; None where none has any, or one has what
    is none.

    >>> mean_logprob([None, -1.0, -3.0]), mean_logprob([-1.0, -3.0], last=1), mean_logprob([-1.0, -9999.0])
    (-2.0, -3.0, None)
    """
    # The first token of an echoed prompt has none.
    told = [as_logprob(value) for value in values[-last:] if value is not None]
    known = [number for number in told if number is not None]
    return round(fmean(known), 6) if known and len(known) == len(told) else None


def sampling_of(settings: object, **names: str) -> dict[str, float]:
    """Of temperature, top_p and max_tokens those that a mapping of settings has, under the tool's names for them.

    >>> sampling_of({"temperature": 0.6, "top_p": 7, "max_gen_toks": 256}, max_tokens="max_gen_toks")
    {'temperature': 0.6, 'max_tokens': 256.0}
    """
    if not isinstance(settings, Mapping):
        return {}
    pairs = [(name, as_number(settings.get(names.get(name, name)))) for name in LIMITS]
    return {name: number for name, number in pairs if number is not None and LIMITS[name](number)}


def fail(place: Place, rule: str, *, value: object, cure: str) -> UserError:
    """Return the error of a row."""
    return UserError(f"{place.where}: {rule}", value=value, cure=cure)
