"""How a model's weights are stored, and what a notebook needs to load them: from the tables of formats."""

from pathlib import Path

from mathlete.errors import UserError
from mathlete.export.formats import EXPORT_FORMATS, MOUNTED_FORMATS, find_formats, read_storage
from mathlete.runs import read_json


def stored_as(model: Path) -> str:
    """Return the word for how a model's weights are stored."""
    return read_storage(read_json(model / "config.json"))


def needed_for(model: Path) -> tuple[str, ...]:
    """Return the requirements beyond Kaggle's image of a model's weights.

    Raises:
        UserError: nothing is known to serve weights that are stored so.
    """
    stored = stored_as(model)
    formats = find_formats(stored)
    if not formats:
        raise UserError(
            "the notebook must know how to serve the weights: with which wheels, and by a rehearsal that answered",
            value=f"{stored} weights in {model}",
            cure=f"export them as one of {', '.join(list_storage())}",
        )
    return tuple(dict.fromkeys(wheel for one in formats for wheel in one.wheels))


def list_storage() -> list[str]:
    """Return the words for all that a notebook can load."""
    words = (one.stored_as for one in (*EXPORT_FORMATS.values(), *MOUNTED_FORMATS))
    return [*dict.fromkeys(word for word in words if word)]
