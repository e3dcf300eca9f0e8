"""A competition's file: by its name, or by its path."""

import tomllib
from functools import cache
from pathlib import Path

from mathlete.competitions.reading import CURE
from mathlete.competitions.rules import Competition, read_rules
from mathlete.errors import UserError, nearest
from mathlete.shipped import data_folder


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
    if not file.is_file():
        cure = f"check the path, or name one of {', '.join(competition_names())}"
        raise UserError("a competition's file must be there", value=str(file), cure=cure)
    try:
        # Editors of Windows write a byte order mark, which TOML 1.0 has no word for.
        value = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"a competition's file must be readable TOML ({error})", value=str(file), cure=CURE) from error
    return read_rules(value, name=file.stem, where=str(file))
