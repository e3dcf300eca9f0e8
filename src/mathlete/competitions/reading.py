"""A table of TOML or JSON as a frozen dataclass: every key is a field, every value of its field's type."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import date
from functools import cache, reduce
from operator import or_
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mathlete.errors import UserError, nearest, require
from mathlete.shipped import data_folder

Said = dict[str, Any]
"""What a file says, by the names of a dataclass's fields, each value of its field's type."""
CURE = f"compare it with those in {data_folder() / 'competitions'}"
"""What helps with most mistakes in a competition's file."""


def read_fields(
    kind: type,
    value: Mapping[str, object],
    *,
    where: str,
    table: str = "",
    optional: Sequence[str] = (),
    unsaid: Sequence[str] = (),
) -> Said:
    """Return the fields of a dataclass that a table holds, each checked for its type.

    Args:
        kind: the dataclass; a field that is a dataclass itself is a table in the table.
        value: the table.
        where: the file, or what else holds it, for the errors.
        table: the keys that lead to the table, each with its dot.
        optional: fields without a default that may be missing, because their default follows from others.
        unsaid: fields that are no keys.

    Raises:
        UserError: a key that is missing, unknown or of another type.
    """
    hints = {name: hint for name, hint in _read_hints(kind).items() if name not in unsaid}
    said = {}
    for key, part in value.items():
        # A misspelt key would silently leave the rule at its default.
        if key not in hints:
            cure = f"{nearest(key, [*hints])}; or leave it out"
            raise UserError(f"{where} must have known keys only", value=f"{table}{key}", cure=cure)
        # A text may be empty where it is by itself: that is said of a suffix, and of no name.
        empty = part == "" and getattr(kind, key, None) == ""
        said[key] = part if empty else _read_value(hints[key], part, where=where, key=f"{table}{key}")
    for field in fields(kind):
        if field.name in hints and field.name not in {*value, *optional} and field.default is MISSING:
            raise UserError(f"{where} must say {table}{field.name}", value="nothing", cure=CURE)
    return said


_read_hints = cache(get_type_hints)


def without_nulls(value: Mapping[str, object]) -> dict[str, object]:
    """Return JSON values as TOML would hold them, where what is not said has no key."""
    said = {key: part for key, part in value.items() if part is not None and part != [] and part != {}}
    return {key: without_nulls(part) if isinstance(part, Mapping) else part for key, part in said.items()}


def with_lists(value: object) -> object:
    """Return a record's values as JSON has them: a tuple as a list, a day as text, in tables too."""
    if isinstance(value, Mapping):
        return {key: with_lists(part) for key, part in value.items()}
    if isinstance(value, date):
        return value.isoformat()
    return [*value] if isinstance(value, tuple) else value


def _read_value(hint: Any, value: Any, *, where: str, key: str) -> Any:
    """Return a value as its field holds it: a list as a tuple, a table as a dataclass."""
    if get_origin(hint) is UnionType and NoneType in get_args(hint):
        hint = reduce(or_, (option for option in get_args(hint) if option is not NoneType))
    if isinstance(hint, type) and is_dataclass(hint) and isinstance(value, Mapping):
        return hint(**read_fields(hint, value, where=where, table=f"{key}."))
    words, good = _describe_type(hint, value)
    require((key, repr(value), good, words), prefix=f"{where}: ", cure=CURE)
    if hint is float or hint == tuple[float, ...]:
        return float(value) if hint is float else tuple(map(float, value))
    return tuple(value) if isinstance(value, list) else value


def _describe_type(hint: object, value: object) -> tuple[str, bool]:
    """Return what a value of this type must be, in words, and whether it is."""
    if get_origin(hint) is Literal:
        return " or ".join(get_args(hint)), value in get_args(hint)
    if get_origin(hint) is Mapping:
        words, holds = _TABLES[get_args(hint)[1]]
        return words, isinstance(value, Mapping) and bool(value) and all(map(holds, value.values())) and all(value)
    if get_origin(hint) is tuple:
        return _describe_list(get_args(hint), value if isinstance(value, list | tuple) else ())
    # The very type: bool is an int in Python, but `runs = true` is no number of runs.
    words, types = _TYPES.get(hint, ("a table", ()))
    return words, type(value) in types and value != "" and (float not in types or _is_number(value))


def _describe_list(parts: Sequence[object], items: Sequence[object]) -> tuple[str, bool]:
    once = len({*map(repr, items)}) == len(items)
    if Ellipsis not in parts:
        return "two names in a list", once and len(items) == 2 and all(map(_is_name, items))
    if parts[0] is float:
        return "a list of numbers", bool(items) and all(map(_is_number, items))
    if words := get_args(parts[0]):
        return f"a list of {', '.join(words)}, each once", once and bool(items) and all(item in words for item in items)
    return "a list of names, each once", once and bool(items) and all(map(_is_name, items))


def _is_name(item: object) -> bool:
    return isinstance(item, str) and bool(item.strip())


def _is_number(item: object) -> bool:
    # TOML knows nan and inf, which no rule means.
    return isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item)


def _is_plain(item: object) -> bool:
    return isinstance(item, bool | str) or _is_number(item)


_TYPES: dict[object, tuple[str, tuple[type, ...]]] = {
    bool: ("true or false", (bool,)),
    int: ("an integer", (int,)),
    float: ("a number", (int, float)),
    int | float: ("a number", (int, float)),
    str: ("a string", (str,)),
    date: ("a date", (date,)),
}
_TABLES: dict[object, tuple[str, Callable[[object], bool]]] = {
    str: ("a table of texts by their ids", _is_name),
    bool | int | float | str: ("a table of plain values by their names", _is_plain),
}
