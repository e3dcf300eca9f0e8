"""The choices of a build as a file, from which it can be made again: here, elsewhere, or with one of them changed."""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import TypeVar, get_args, get_origin, get_type_hints

from mathlete.errors import UserError
from mathlete.runs import read_record, write_json
from mathlete.settings import flatten, list_kinds, list_names, nest

CHOICES = "choices.json"
"""The file's name in a build's folder."""
Settings = TypeVar("Settings")


def write_choices(file: Path, settings: object, *, leave_out: Collection[str]) -> None:
    """Write a dataclass of settings as JSON, without the fields that are no choices."""
    write_json(file, {name: value for name, value in _plain(settings).items() if name not in leave_out})


def read_choices(file: Path, settings: type[Settings]) -> Settings:
    """Read the settings that `write_choices` wrote; what it left out has its default.

    Raises:
        UserError: no such file, or one of other settings.
    """
    if not file.is_file():
        raise UserError("--choices must be a file that a build kept", value=str(file), cure="check the path")
    return read_record(file, lambda content: _make(settings, content))


def name_kept(error: UserError, settings: object, *, kept: object, usual: object, file: Path) -> str:
    """Return where a word that is refused comes from, and the flag that takes it back; "" where it was not kept.

    Args:
        error: the refusal, whose rule names a flag.
        settings: what was to be built.
        kept: the settings that the file holds.
        usual: the defaults.
        file: of choices.
    """
    flag = flag_of_rule[0] if (flag_of_rule := re.search(r"--[a-z0-9][a-z0-9.-]*", error.rule)) else ""
    own, before, plain = (_look_up(one, flag) for one in (settings, kept, usual))
    if own is None or own != before or own == plain:
        return ""
    # A switch has a word of its own, and a list of words none is no flag.
    back = "--choices none" if isinstance(plain, bool | list) else f"{flag} {'' if plain == {} else plain}".strip()
    return f"it was kept in {file}, and `{back}` takes it back"


def _look_up(settings: object, flag: str) -> object:
    value: object = _plain(settings)
    for name in flag.removeprefix("--").replace("-", "_").split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _plain(settings: object) -> dict[str, object]:
    """Return a dataclass as JSON has it: paths are text, tuples are lists."""
    values: dict[str, object] = json.loads(json.dumps(flatten(settings), default=str))
    return values


def _make(kind: type[Settings], content: Mapping[str, object]) -> Settings:
    """Return the dataclass of this content; TypeError where a key is not one of its settings."""
    hints, names = get_type_hints(kind), list_names(kind)
    if unknown := [name for name in content if name not in names]:
        raise TypeError(f"{unknown[0]} is no setting of a build")
    return kind(**{name: _read(hints[name], value) for name, value in nest(kind, content).items()})


def _read(hint: object, value: object) -> object:
    """Return a JSON value as a field of this type holds it."""
    for kind in list_kinds(hint):
        # A dataclass inside the settings is an object, a tuple a list, a path text.
        if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, Mapping):
            return _make(kind, value)
        if get_origin(kind) is tuple and isinstance(value, list):
            return tuple(_read(get_args(kind)[0], one) for one in value)
        if kind is Path and isinstance(value, str):
            return Path(value)
    return value


def is_same_model(word: str | None, kept: str) -> bool:
    """Return whether a word names the kept model: none does, and a folder does however its path is spelled.

    >>> is_same_model("runs/a/export/", "./runs/a/export"), is_same_model("pocket", "runs/a/export")
    (True, False)
    """
    return word is None or word == kept or Path(word).expanduser().resolve() == Path(kept).expanduser().resolve()
