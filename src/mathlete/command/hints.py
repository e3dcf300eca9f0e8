"""What an error can add that only the command line knows: other tools' names of a flag, a path nearly typed, --run."""

import re
import shlex
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from mathlete.command.folding import name_commands
from mathlete.errors import UserError, spell_switch

_PLACES = ("--run", "--folder")
_SAME_FOLDER = re.compile(
    r"`(?:(?:python -m|mathlete) )?submit (?:build|rehearse|preflight|push|submit|ledger)\b[^`]*`"
)
"""Commands that go on with the folder of a build; others have one of their own."""


def require_own_flags(argv: Sequence[str], foreign: Mapping[str, str], *, prog: str) -> None:
    """Raise UserError where a word is another tool's name of what this command has, too, by another name.

    Args:
        argv: the command's words.
        foreign: {name, with underscores: what to use instead}; `{}` stands for the value, `{switch}` for true or false.
        prog: the command, for the message.

    Raises:
        UserError: there is such a word; with what to use instead, and its value.
    """
    for at, word in enumerate(argv):
        name, _, value = word.partition("=")
        ours = foreign.get(name.lstrip("-").replace("-", "_").lower()) if name.startswith("-") else None
        if ours is None:
            continue
        following = argv[at + 1 : at + 2] if not value else [value]
        given = next((one for one in following if not re.match(r"-\D", one)), "")
        cure = ours.replace("{}", given.lower() if given in ("True", "False") else given or "VALUE")
        raise UserError(
            f"{prog} has a name of its own for what other tools call so",
            value=f"{name} {given}".rstrip(),
            cure=cure.replace("{switch}", spell_switch(given or "true") or "false"),
        )


def add_hints(error: UserError, argv: Sequence[str], *, program: str) -> UserError:
    """Return the error with what the command line adds to its cure: the nearest path, and the folder in use."""
    cure = _repeat_place(error.cure, argv, program=program.replace("mathlete ", "python -m "))
    told = str(error.rule if error.value is None else error.value)
    near = [hint for word in argv if _stands_in(word, told) and (hint := _find_near_path(word))]
    cure = "; ".join([*near, cure])
    cure = name_commands(cure)
    return error if cure == error.cure else UserError(error.rule, value=error.value, cure=cure)


def _stands_in(word: str, text: str) -> bool:
    """Return whether a word of the command line stands in a text, and not in a longer path.

    >>> _stands_in("submit", "no runs/submit/build.json"), _stands_in("--run=runs/a", "runs/a (finished)")
    (False, True)
    """
    path = word.partition("=")[2] if word.startswith("-") else word
    return bool(path) and re.search(rf"(?<![\w./-]){re.escape(path)}(?![\w/-]|\.\w)", text) is not None


def _repeat_place(cure: str, argv: Sequence[str], *, program: str) -> str:
    """Return the cure with --run or --folder as it was given, in each command that goes on with the same folder."""
    if not program.endswith(" submit"):
        return cure
    for flag in _PLACES:
        given = next((one for at, word in enumerate(argv) if (one := _value_of(flag, word, argv[at + 1 :]))), None)
        if given is not None:
            # One that names a folder already is left as it is.
            for named in {
                one[0] for one in _SAME_FOLDER.finditer(cure) if not {*_PLACES} & {*one[0].strip("`").split()}
            }:
                cure = cure.replace(named, f"{named[:-1]} {flag} {shlex.quote(given)}`")
    return cure


def _value_of(flag: str, word: str, following: Sequence[str]) -> str | None:
    if word == flag:
        return following[0] if following else None
    return word.removeprefix(f"{flag}=") if word.startswith(f"{flag}=") else None


def _find_near_path(word: str) -> str | None:
    r"""Return a question after the entry of the same folder whose name is nearest; None where there is none like it.

    >>> [_find_near_path(word) for word in ("src/no/such/folder", "n" * 300, "a/" + "n" * 300, "\0")]
    [None, None, None, None]
    """
    path = Path(word.partition("=")[2] if word.startswith("-") else word)
    try:
        # What can be no path is an error here: a word of 300 letters, or with a zero byte in it.
        if not path.name or path.exists() or not path.parent.is_dir():
            return None
        names = [entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")]
    except (OSError, ValueError):
        return None
    close = get_close_matches(path.name, names, n=1, cutoff=0.75)
    return f"did you mean {path.parent / close[0]}?" if close else None
