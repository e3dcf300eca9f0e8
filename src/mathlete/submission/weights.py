"""How a model's weights are stored, and what a notebook needs to load them: from the tables of formats."""

from pathlib import Path

from mathlete.export.formats import EXPORT_FORMATS, MOUNTED_FORMATS, find_formats, read_storage
from mathlete.runs import read_json


def stored_as(model: Path) -> str:
    """Return the word for how a model's weights are stored."""
    return read_storage(read_json(model / "config.json"))


def wheels_for(model: Path) -> tuple[str, ...]:
    """Return the requirements beyond Kaggle's image of a model's weights."""
    formats = find_formats(stored_as(model))
    return tuple(dict.fromkeys(wheel for one in formats for wheel in one.wheels))


def list_storage() -> list[str]:
    """Return the words for all that a notebook can load."""
    words = (one.stored_as for one in (*EXPORT_FORMATS.values(), *MOUNTED_FORMATS))
    return [*dict.fromkeys(word for word in words if word)]
