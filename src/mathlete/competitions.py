"""A competition's rules: what an answer may be, the clock it is given under, how the notebook is asked and scored.

Each competition is one file of data, `data/competitions/NAME.toml`; a new one needs no line of Python. Every field of
`Competition` is a key of that file, and a field that is a dataclass is a table in it.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from datetime import date
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mathlete.errors import UserError, nearest, require
from mathlete.shipped import data_folder

GatewayApi = Literal["inference-server", "iterator"]
"""The notebook serves `predict` and the gateway asks it · the notebook iterates over the questions (AIMO-1)."""
_RESERVE_S = 600.0
"""Seconds left unused at the end of the wall where a file names none; of a short wall a tenth."""


@dataclass(frozen=True, kw_only=True)
class GatewayRules:
    """How the questions reach the notebook."""

    api: GatewayApi
    module: str
    """The competition's module: inside `kaggle_evaluation` for a server, at the top of its data for an iterator."""
    server: str | None = None
    """The module's class that serves; None for an iterator."""
    package: str | None = None
    """Version of its kaggle_evaluation, which a rehearsal imitates as it was measured; None for an iterator."""
    real: str | None = None
    """MODULE:CLASS of Kaggle's own gateway inside kaggle_evaluation, for `submit rehearse --real-package`."""
    names_columns: bool = False
    """Whether the gateway names the submission's columns, so that a bare integer may be an answer."""


@dataclass(frozen=True, kw_only=True)
class Competition:
    """One competition's rules, as its file says them; the sources stand in the file."""

    name: str
    """The file's name without its ending."""
    slug: str
    """Kaggle's competition slug."""
    answer_min: int
    """Smallest answer that may be submitted."""
    answer_max: int
    """Largest answer that may be submitted."""
    modulus: int | None = None
    """What an integer outside the range is reduced by; None where the rules reduce nothing."""
    fallback: int
    """The answer that is sent where the model has none; left out: 0, or the end of the range that is nearest to it."""
    problems: int
    """Problems served in one rerun."""
    wall_s: int
    """Notebook wall clock of a rerun, seconds."""
    reserve_s: float
    """Left unused at the end, seconds; left out: 600, of a short wall a tenth."""
    question_min_s: float | None = None
    """Floor of a question, seconds; None: five sixths of an even share of the wall."""
    question_max_s: float | None = None
    """Ceiling of a question, seconds; None: two and a half even shares."""
    columns: tuple[str, str]
    """Names of the two columns `predict` receives: the id's and the statement's."""
    submission_columns: tuple[str, str]
    """Names of the submission's columns: the id's and the answer's; left out: the id's of `columns`, and answer."""
    predict_deadline_s: int
    """Deadline of every `predict` call after the first, seconds."""
    runs: int
    """Runs of the private set; left out: 1."""
    points: tuple[float, ...]
    """Points of a problem that was right in none, one, two … of the runs; left out: the share of the runs."""
    submissions_a_day: int | None = None
    """Submissions that a team may make a day; None where it is not known."""
    machine: str
    """Kaggle's machine shape for the notebook."""
    released_before: date | None = None
    """Models must have been released before this day; None where the rules name no day."""
    placeholders: Mapping[str, str]
    """{id: statement} of the test.csv that a notebook sees outside its rerun; left out: three easy sums."""
    gateway: GatewayRules

    def score(self, right: int, *, runs: int) -> float:
        """Return the points of a problem that was right in so many of the runs.

        With another number of runs than the competition's, what lies between two of its points is a straight line.

        >>> [competition("aimo-3").score(right, runs=2) for right in (0, 1, 2)]
        [0.0, 0.5, 1.0]
        """
        place = right * self.runs / runs
        below = min(int(place), self.runs - 1)
        low, high = self.points[below : below + 2]
        return low + (high - low) * (place - below)

    def to_json(self) -> dict[str, object]:
        """Return the rules as JSON values; `from_json` reads them back."""
        day, said = self.released_before, asdict(self)
        lists = {key: list(value) for key, value in said.items() if isinstance(value, tuple)}
        return {**said, **lists, "released_before": day.isoformat() if day else None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Competition":
        """Return the rules in a value that `to_json` made.

        Raises:
            UserError: they are another version's.
        """
        said = _without_nulls(value)
        if day := said.get("released_before"):
            said["released_before"] = date.fromisoformat(day)
        try:
            return _read_rules(said, where="a notebook's rules")
        except UserError as error:
            raise UserError(error.rule, value=error.value, cure="build the notebook again") from error


def competition_names() -> list[str]:
    """Return the competitions that ship with the project."""
    return sorted(file.stem for file in (data_folder() / "competitions").glob("*.toml"))


def competition(name: str) -> Competition:
    """Return the competition of that name, or the one in a file NAME.toml.

    >>> competition("aimo-3").answer_max
    99999

    Raises:
        UserError: an unknown name, with the nearest known ones; a file with a key that is missing, unknown or wrong.
    """
    if name.endswith(".toml"):
        return read_competition(Path(name))
    names = competition_names()
    if name not in names:
        cure = f"{nearest(name, names)}; or name a file of rules, NAME.toml"
        raise UserError("the competition must be a known one", value=repr(name), cure=cure)
    return _shipped_competition(name)


@cache
def _shipped_competition(name: str) -> Competition:
    return read_competition(data_folder() / "competitions" / f"{name}.toml")


def read_competition(file: Path) -> Competition:
    """Read the rules in a file.

    Raises:
        UserError: no such file, not TOML, or a key that is missing, unknown, wrong or contradicts another.
    """
    try:
        value = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"a competition's file must be readable TOML ({error})", value=str(file), cure=_CURE) from error
    if "name" in value:
        cure = "leave it out: the file's name is the competition's"
        raise UserError(f"{file} must have known keys only", value="name", cure=cure)
    return _read_rules({"name": file.stem, **value}, where=str(file))


_CURE = "compare it with data/competitions/aimo-3.toml"
_OPTIONAL = ("fallback", "reserve_s", "submission_columns", "runs", "points", "placeholders")
"""Keys whose default follows from other keys."""


def _read_rules(value: Mapping[str, object], *, where: str) -> Competition:
    # Types first: the defaults are computed from what the file says.
    said = _read_table(Competition, value, where=where)
    rules = Competition(**{**_make_defaults(said), **said})
    _check_values(rules, where=where)
    return rules


def _make_defaults(said: Mapping[str, Any]) -> dict[str, Any]:
    runs = max(1, said.get("runs", 1))
    nearest_to_0 = min(max(said["answer_min"], 0), said["answer_max"])
    number = said.get("fallback", nearest_to_0)
    return {
        "fallback": nearest_to_0,
        "reserve_s": min(_RESERVE_S, said["wall_s"] / 10),
        "submission_columns": (said["columns"][0], "answer"),
        "runs": runs,
        "points": tuple(right / runs for right in range(runs + 1)),
        # Their answers are in the range, so that a commit run shows what a rerun would.
        "placeholders": {
            "000aaa": f"What is ${number + 1}-1$?",
            "111bbb": f"What is ${number}\\times1$?",
            "222ccc": f"Solve $4+x={number + 4}$ for $x$.",
        },
    }


def _read_table(kind: type, value: Mapping[str, object], *, where: str, table: str = "") -> dict[str, Any]:
    """Return the fields of a dataclass that a table holds, each checked for its type."""
    hints, said = get_type_hints(kind), {}
    for key, part in value.items():
        # A misspelt key would silently leave the rule at its default.
        if key not in hints:
            cure = f"{nearest(key, [*hints])}; or leave it out"
            raise UserError(f"{where} must have known keys only", value=f"{table}{key}", cure=cure)
        said[key] = _read_value(hints[key], part, where=where, key=f"{table}{key}")
    for field in fields(kind):
        if field.name not in value and field.name not in _OPTIONAL and field.default is MISSING:
            raise UserError(f"{where} must say {table}{field.name}", value="nothing", cure=_CURE)
    return said


def _read_value(hint: Any, value: Any, *, where: str, key: str) -> Any:
    """Return a value as its field holds it: a list as a tuple, a table as a dataclass."""
    if get_origin(hint) is UnionType:
        (hint,) = (option for option in get_args(hint) if option is not NoneType)
    if isinstance(hint, type) and is_dataclass(hint) and isinstance(value, Mapping):
        return hint(**_read_table(hint, value, where=where, table=f"{key}."))
    words, good = _describe_type(hint, value)
    require((key, repr(value), good, words), prefix=f"{where}: ", cure=_CURE)
    if hint is float or hint == tuple[float, ...]:
        return float(value) if hint is float else tuple(map(float, value))
    return tuple(value) if isinstance(value, list) else value


def _describe_type(hint: object, value: object) -> tuple[str, bool]:
    """Return what a value of this type must be, in words, and whether it is."""
    if get_origin(hint) is Literal:
        return " or ".join(get_args(hint)), value in get_args(hint)
    if get_origin(hint) is Mapping:
        return "a table of texts by their ids", isinstance(value, Mapping) and _are_names([*value, *value.values()])
    if get_origin(hint) is tuple:
        items = value if isinstance(value, list | tuple) else ()
        if Ellipsis in get_args(hint):
            return "a list of numbers", bool(items) and all(type(item) in (int, float) for item in items)
        return "two names in a list", len({*items}) == len(items) == 2 and _are_names(items)
    # The very type: bool is an int in Python, but `runs = true` is no number of runs.
    words, types = _TYPES.get(hint, ("a table", ()))
    return words, type(value) in types and value != ""


_TYPES: dict[object, tuple[str, tuple[type, ...]]] = {
    bool: ("true or false", (bool,)),
    int: ("an integer", (int,)),
    float: ("a number", (int, float)),
    str: ("a string", (str,)),
    date: ("a date", (date,)),
}


def _are_names(items: Sequence[object]) -> bool:
    return bool(items) and all(isinstance(item, str) and item.strip() for item in items)


def _without_nulls(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON values as TOML would hold them, where what is not said has no key."""
    said = {key: part for key, part in value.items() if part is not None}
    return {key: _without_nulls(part) if isinstance(part, Mapping) else part for key, part in said.items()}


def _check_values(rules: Competition, *, where: str) -> None:
    """Raise UserError where a value is out of its range or contradicts another."""
    daily = rules.submissions_a_day
    low, high, wall_s, modulus = rules.answer_min, rules.answer_max, rules.wall_s, rules.modulus
    floor_s, ceiling_s = rules.question_min_s, rules.question_max_s
    spare_s, points = wall_s - rules.reserve_s, list(rules.points)
    require(
        ("slug", rules.slug, bool(re.fullmatch("[a-z0-9-]+", rules.slug)), "of small letters, digits and hyphens"),
        ("answer_max", high, high >= low, "at least answer_min"),
        ("modulus", modulus, modulus is None or modulus >= 1, "at least 1"),
        ("modulus", modulus, modulus is None or modulus > low, "above answer_min: what it leaves is below it"),
        ("fallback", rules.fallback, low <= rules.fallback <= high, f"{low} to {high}", "leave it out"),
        ("problems", rules.problems, rules.problems >= 1, "at least 1"),
        ("wall_s", wall_s, wall_s >= 1, "at least 1"),
        ("reserve_s", rules.reserve_s, 0 <= rules.reserve_s < wall_s, "0 to less than wall_s", "leave it out"),
        ("question_min_s", floor_s, (floor_s or 0) >= 0, "0 or more"),
        ("question_max_s", ceiling_s, ceiling_s is None or ceiling_s > (floor_s or 0), "above question_min_s"),
        (
            "question_min_s",
            floor_s,
            (floor_s or 0) * rules.problems <= spare_s,
            f"at most {spare_s / max(1, rules.problems):g}, an even share of wall_s less reserve_s",
            "leave it out",
        ),
        ("predict_deadline_s", rules.predict_deadline_s, rules.predict_deadline_s >= 1, "at least 1"),
        ("runs", rules.runs, rules.runs >= 1, "at least 1"),
        (
            "points",
            points,
            len(points) == rules.runs + 1,
            f"{rules.runs + 1} numbers: of none to all of the runs right",
        ),
        ("points", points, points == sorted(points) and 0 <= points[0] < points[-1] <= 1, "from 0 to 1, ascending"),
        ("submissions_a_day", daily, daily is None or daily >= 1, "at least 1"),
        prefix=f"{where}: ",
        cure=_CURE,
    )
    _check_gateway(rules.gateway, where=where)


def _check_gateway(gateway: GatewayRules, *, where: str) -> None:
    server, package, serves = gateway.server, gateway.package, gateway.api == "inference-server"
    names = [*gateway.module.split("."), *([server] if server else [])]
    require(
        (
            "gateway.server and gateway.package",
            f"{server} and {package}",
            [server is not None, package is not None] == [serves] * 2,
            "there for an inference-server, and left out for an iterator",
        ),
        # They are written into Python: what is no name there would end the notebook.
        ("gateway.module and gateway.server", names, all(map(str.isidentifier, names)), "names in Python"),
        ("gateway.package", package, bool(re.fullmatch(r"\d+\.\d+\.\d+", package or "0.0.0")), "a version, as 0.9.0"),
        (
            "gateway.real",
            gateway.real,
            gateway.real is None or (serves and bool(re.fullmatch(r"[\w.]+:\w+", gateway.real))),
            "MODULE:CLASS for an inference-server, and left out for an iterator",
        ),
        prefix=f"{where}: ",
        cure=_CURE,
    )
