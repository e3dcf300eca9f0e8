"""Integers that may be submitted: within a competition's range, reduced only where its rules say so."""

from __future__ import annotations

from mathlete.answers.answer import parse
from mathlete.answers.exact import as_integer
from mathlete.competitions import Competition


def read_integer(text: str | None, *, competition: Competition) -> int | None:
    """Return the integer to submit for an answer as written, or None where there is none.

    A value outside the range is reduced by the competition's modulus. Where the rules have no modulus it is rejected,
    never clamped; a fraction is rejected, never rounded.

    >>> from mathlete.competitions import competition as rules
    >>> [read_integer("12\\\\,345", competition=rules(name)) for name in ("aimo-1", "aimo-3")]
    [345, 12345]
    >>> read_integer("3.7", competition=rules("aimo-1"))
    """
    value = as_integer(parse(text or "").value)
    if value is None:
        return None
    if not competition.answer_min <= value <= competition.answer_max and competition.modulus is not None:
        value %= competition.modulus
    return value if competition.answer_min <= value <= competition.answer_max else None
