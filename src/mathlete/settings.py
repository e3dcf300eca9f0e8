"""Settings in groups: a class of many settings is made of smaller ones, and a group need not show outside.

A field `Annotated[Group, tyro.conf.arg(name="")]` is a group without a name: on the command line its flags stand beside
those of the class that holds it, and so do its values in records. Where no command line is, `NAMELESS` says the same.

>>> from dataclasses import dataclass
>>> from typing import Annotated
>>> import tyro
>>> @dataclass(frozen=True, kw_only=True)
... class Update:
...     clip: float = 1.0
>>> @dataclass(frozen=True, kw_only=True)
... class Training:
...     rate: float = 0.1
...     update: Annotated[Update, tyro.conf.arg(name="")] = Update()
>>> flatten(Training())
{'rate': 0.1, 'clip': 1.0}
>>> list_names(Training)
['rate', 'clip']
>>> nest(Training, {"rate": 0.2, "clip": 0.5})
{'rate': 0.2, 'update': {'clip': 0.5}}
"""

from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class _Mark:
    name: str = ""


NAMELESS = _Mark()
"""Marks a group without a name."""


def find_groups(kind: type) -> dict[str, type]:
    """Return {field: class} of the groups without a name in a class of settings."""
    return dict(_list_groups(kind))


def list_names(kind: type) -> list[str]:
    """Return the names of a class's settings, as the command line and records have them."""
    groups = find_groups(kind)
    names = [list_names(groups[field.name]) if field.name in groups else [field.name] for field in fields(kind)]
    return [name for some in names for name in some]


def flatten(settings: Any) -> dict[str, object]:
    """Return the values by their names, a group that has a name as a dictionary of its own."""
    values: dict[str, object] = {}
    groups = find_groups(type(settings))
    for field in fields(settings):
        value = getattr(settings, field.name)
        plain = flatten(value) if is_dataclass(value) else value
        values |= plain if field.name in groups else {field.name: plain}
    return values


def find_lists(kind: type) -> set[str]:
    """Return the settings that hold several values, by the names that their flags have: `sampling.stop`."""
    groups, lists = find_groups(kind), set[str]()
    for name, hint in get_type_hints(kind).items():
        for held in list_kinds(hint):
            flag = name.replace("_", "-")
            if get_origin(held) is dict or get_args(held)[1:] == (...,):
                lists.add(flag)
            elif isinstance(held, type) and is_dataclass(held):
                inside = find_lists(held)
                lists |= inside if name in groups else {f"{flag}.{one}" for one in inside}
    return lists


def list_kinds(hint: object) -> tuple[object, ...]:
    """Return the types that a setting's type leaves open, without their marks.

    >>> list_kinds(Annotated[int | None, "a mark"])
    (<class 'int'>, <class 'NoneType'>)
    """
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return list_kinds(inside[0])
    return inside if origin in (Union, UnionType) else (hint,)


def nest(kind: type, values: Mapping[str, object]) -> dict[str, Any]:
    """Return flat values with those of each group in a dictionary of its own; `flatten` undoes it."""
    groups = {name: list_names(group) for name, group in find_groups(kind).items()}
    inside = {name: {key: values[key] for key in names if key in values} for name, names in groups.items()}
    taken = {key for own in inside.values() for key in own}
    return {**{key: value for key, value in values.items() if key not in taken}, **inside}


def _list_groups(kind: type) -> Iterator[tuple[str, type]]:
    for field in fields(kind):
        if _has_no_name(field):
            yield field.name, get_args(field.type)[0]


def _has_no_name(field: "Field[Any]") -> bool:
    # Not by its class: tyro is not on Kaggle, where settings are read, too.
    return any(getattr(mark, "name", None) == "" for mark in getattr(field.type, "__metadata__", ()))
