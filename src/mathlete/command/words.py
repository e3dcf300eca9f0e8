"""The words of a command line as flags and what stands behind each, before it is known what flags there are."""

import re
import shlex
from collections.abc import Collection, Iterator, Sequence

from mathlete.errors import UserError

_NUMBER = re.compile(r"-(inf|infinity|nan)", re.IGNORECASE)
"""A number with a sign, though a letter stands behind the sign."""


def split_flags(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each flag, with hyphens, and the words up to the next one; the one behind `=` is its first.

    What is a flag is what tyro takes for one: argparse takes `--stop=a word` for none.

    >>> [*split_flags(["FILE", "--n", "-3", "--stop=So the", "--- END"])]
    [('--n', ['-3']), ('--stop', ['So the', '--- END'])]
    """
    flag, values = "", list[str]()
    for word in words:
        if word == "--":  # all behind it are no flags
            break
        if not _is_flag(word):
            values.append(word)
            continue
        if flag:
            yield flag, values
        name, equals, value = word.partition("=")
        flag, values = name.replace("_", "-"), [value] if equals else []
    if flag:
        yield flag, values


def _is_flag(word: str) -> bool:
    return word.startswith("-") and word.lstrip("-")[:1].isalpha() and not _NUMBER.fullmatch(word)


def require_lists_once(words: Sequence[str], lists: Collection[str]) -> None:
    """Check that no flag of several values stands twice: the parser would leave out the first ones.

    Args:
        words: the command's.
        lists: names of such flags, without their hyphens.

    Raises:
        UserError: one does; with all its values behind one flag as the cure.
    """
    given: dict[str, list[str]] = {}
    twice = dict[str, list[str]]()
    for flag, values in split_flags(words):
        if flag in given and flag.removeprefix("--") in lists:
            twice[flag] = given[flag] + values
        given[flag] = given.get(flag, []) + values
    for flag, values in twice.items():
        between = "=" if values and _is_flag(values[0]) else " "
        raise UserError(
            "a flag of several values must stand once",
            value=f"{flag} more than once",
            cure=f"name all behind one: {flag}{between}{shlex.join(values)}",
        )
