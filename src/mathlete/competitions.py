"""A competition's rules: what an answer may be, the clock it is given under, how the notebook is asked.

Each competition is one file of data, `data/competitions/NAME.toml`; a new one needs no line of Python.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from mathlete.errors import UserError, nearest
from mathlete.shipped import data_folder

GatewayApi = Literal["inference-server", "iterator"]
"""The notebook serves `predict` and the gateway asks it · the notebook iterates over the questions (AIMO-1)."""


@dataclass(frozen=True, kw_only=True)
class GatewayRules:
    """How the questions reach the notebook."""

    api: GatewayApi
    module: str
    """The competition's module: inside `kaggle_evaluation` for a server, at the top of its data for an iterator."""
    server: str | None = None
    """The module's class that serves; None for an iterator."""
    behaviour: str | None = None
    """The measured gateway that a rehearsal imitates (`mathlete.rehearsal`); None for an iterator."""


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
    problems: int
    """Problems served in one rerun."""
    wall_s: int
    """Notebook wall clock of a rerun, seconds."""
    columns: tuple[str, str]
    """Names of the two columns `predict` receives: the id's and the statement's."""
    predict_deadline_s: int
    """Deadline of every `predict` call after the first, seconds."""
    runs: int = 1
    """Runs of the private set; the score is the mean over them."""
    machine: str
    """Kaggle's machine shape for the notebook."""
    released_before: date | None = None
    """Models must have been released before this day; None where the rules name no day."""
    gateway: GatewayRules

    def to_json(self) -> dict[str, Any]:
        """Return the rules as JSON values; `from_json` reads them back."""
        day = self.released_before
        return {**asdict(self), "columns": list(self.columns), "released_before": day.isoformat() if day else None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Competition":
        """Return the rules in a value that `to_json` made."""
        day = value["released_before"]
        read = {"columns": tuple(value["columns"]), "released_before": date.fromisoformat(day) if day else None}
        return cls(**{**value, **read, "gateway": GatewayRules(**value["gateway"])})


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
    """Return the rules in a file.

    Raises:
        UserError: no such file, not TOML, or a key that is missing, unknown or wrong.
    """
    try:
        value = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"a competition's file must be readable TOML ({error})", value=str(file), cure=_CURE) from error
    gateway = value.pop("gateway", {})
    if not isinstance(gateway, dict):
        raise UserError(f"{file}: gateway must be a table", value=gateway, cure=_CURE)
    _check_keys(file, value, Competition, filled_in=("name", "gateway"))
    _check_keys(file, gateway, GatewayRules, table="gateway.")
    columns = tuple(value.pop("columns"))
    rules = Competition(name=file.stem, columns=columns, gateway=GatewayRules(**gateway), **value)
    _check_values(file, rules)
    return rules


_CURE = "compare it with data/competitions/aimo-3.toml"
_TYPES: dict[str, type] = {
    **dict.fromkeys(("slug", "machine", "api", "module", "server", "behaviour"), str),
    **dict.fromkeys(("answer_min", "answer_max", "modulus", "problems", "wall_s", "predict_deadline_s", "runs"), int),
    "columns": list,
    "released_before": date,
}


def _check_keys(
    file: Path, value: Mapping[str, Any], kind: type, *, table: str = "", filled_in: tuple[str, ...] = ()
) -> None:
    known = {field.name: field.default is MISSING for field in fields(kind) if field.name not in filled_in}
    for key in value:
        # A misspelt key would silently leave the rule at its default.
        if key not in known:
            cure = f"{nearest(key, [*known])}; or leave it out"
            raise UserError(f"{file} must have known keys only", value=f"{table}{key}", cure=cure)
        # bool is an int in Python, but `runs = true` is no number of runs.
        if not isinstance(value[key], _TYPES[key]) or isinstance(value[key], bool):
            kind_name = {"int": "an integer", "str": "a string", "list": "a list", "date": "a date"}
            rule = f"{file}: {table}{key} must be {kind_name[_TYPES[key].__name__]}"
            raise UserError(rule, value=repr(value[key]), cure=_CURE)
    for key, required in known.items():
        if required and key not in value:
            raise UserError(f"{file} must say {table}{key}", value="nothing", cure=_CURE)


def _check_values(file: Path, rules: Competition) -> None:
    api, server, behaviour = rules.gateway.api, rules.gateway.server, rules.gateway.behaviour
    for key, value, good, rule in (
        ("answer_max", rules.answer_max, rules.answer_max >= rules.answer_min, "at least answer_min"),
        ("modulus", rules.modulus, rules.modulus is None or rules.modulus >= 1, "at least 1"),
        ("problems", rules.problems, rules.problems >= 1, "at least 1"),
        ("runs", rules.runs, rules.runs >= 1, "at least 1"),
        ("wall_s", rules.wall_s, rules.wall_s >= 1, "at least 1"),
        ("predict_deadline_s", rules.predict_deadline_s, rules.predict_deadline_s >= 1, "at least 1"),
        ("columns", rules.columns, len(rules.columns) == 2, "two names: the id's and the statement's"),
        ("gateway.api", api, api in get_args(GatewayApi), " or ".join(get_args(GatewayApi))),
        (
            "gateway.server and gateway.behaviour",
            f"{server} and {behaviour}",
            [server is not None, behaviour is not None] == [api == "inference-server"] * 2,
            "there for an inference-server, and left out for an iterator",
        ),
    ):
        if not good:
            raise UserError(f"{file}: {key} must be {rule}", value=value, cure=_CURE)
