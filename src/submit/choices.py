"""The choices of a build as a file, from which it can be made again: here, elsewhere, or with one of them changed."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from mathlete.errors import UserError
from mathlete.runs import read_record, write_json

CHOICES = "choices.json"
"""The file's name in a build's folder."""
Settings = TypeVar("Settings")


def write_choices(file: Path, settings: object, *, leave_out: Collection[str]) -> None:
    """Write a dataclass of settings as JSON, without the fields that are no choices."""
    content = {name: value for name, value in asdict(cast("Any", settings)).items() if name not in leave_out}
    write_json(file, cast("dict[str, object]", _plain(content)))


def read_choices(file: Path, settings: type[Settings]) -> Settings:
    """Read the settings that `write_choices` wrote; what it left out has its default.

    Raises:
        UserError: no such file, or one of other settings.
    """
    if not file.is_file():
        raise UserError("--choices must be a file that a build kept", value=str(file), cure="check the path")
    return read_record(file, lambda content: _make(settings, content))


def _plain(value: object) -> object:
    """Return the value as JSON has it: paths as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _make(kind: type[Settings], content: Mapping[str, Any]) -> Settings:
    """Return the dataclass of this content; TypeError where a key is not one of its fields."""
    hints = get_type_hints(kind)
    unknown = [name for name in content if name not in {one.name for one in fields(cast("Any", kind))}]
    if unknown:
        raise TypeError(f"{unknown[0]} is no setting of a build")
    return kind(**{name: _read(hints[name], value) for name, value in content.items()})


def _read(hint: Any, value: Any) -> Any:
    """Return a JSON value as a field of this type holds it."""
    if value is None:
        return None
    kinds = [kind for kind in _list_kinds(hint) if kind is not type(None)]
    for kind in kinds:
        if is_dataclass(kind) and isinstance(value, Mapping):
            return _make(cast("type[Any]", kind), value)
        if get_origin(kind) is tuple and isinstance(value, list):
            (inner, *_) = get_args(kind)
            return tuple(_read(inner, one) for one in value)
        if kind is Path and isinstance(value, str):
            return Path(value)
    return value


def _list_kinds(hint: Any) -> list[Any]:
    origin = get_origin(hint)
    if origin is Annotated:
        return _list_kinds(get_args(hint)[0])
    return [*get_args(hint)] if origin in (Union, UnionType) else [hint]
