"""Integers that may be submitted: within a competition's range, reduced only where its rules say so."""

from __future__ import annotations

import re

from mathlete.answers.answer import parse
from mathlete.answers.exact import as_integer
from mathlete.answers.glyphs import SIDE_BY_SIDE
from mathlete.answers.literals import is_factorial
from mathlete.competitions import Competition


def read_integer(text: str | None, *, competition: Competition | None) -> int | None:
    """Return the integer to submit for an answer as written, or None where there is none; without rules any integer.

    A value outside the range is reduced by the competition's modulus. Where the rules have no modulus it is rejected,
    never clamped; a fraction is rejected, never rounded.

    >>> from mathlete.competitions import competition as rules
    >>> [read_integer("12\\\\,345", competition=rules(name)) for name in ("aimo-1", "aimo-3")]
    [345, 12345]
    >>> read_integer("3.7", competition=rules("aimo-1"))

    What stands before = names the integer, whatever it is; nobody asks here for the solution of an equation.

    >>> read_integer(r"\\lfloor 100x \\rfloor = 42", competition=rules("aimo-3"))
    42
    """
    value = _any_integer(text or "")
    if value is None or competition is None or (answers := competition.integers) is None:
        return value
    # Only outside the range: where it starts above 0, the remainder of a good answer could lie below it.
    if value not in answers and competition.modulus is not None:
        value %= competition.modulus
    return value if value in answers else None


def _any_integer(text: str) -> int | None:
    # Most answers are plain digits, and a run has hundreds of thousands of them.
    if len(text) <= _PLAIN and text.isascii() and text.isdigit():
        return int(text)
    named = _named_integer(text)
    if named is not None:
        return named
    value = as_integer(parse(text).value)
    if value is None and len(text) <= _MAX_NAMED and (counted := _COUNTS.sub(_spell_count, text)) != text:
        return as_integer(parse(counted).value)
    return value


_COUNTS = re.compile(
    r"(?<![a-zA-Z\\])(?:\\(?:mathrm|text)\s*)?\{?([CPA])\}?"
    r"(?:\s*\(\s*(\d{1,4})\s*,\s*(\d{1,4})\s*\)|_\{?(\d{1,4})\}?\^\{?(\d{1,4})\}?)"
)
"""Choices and arrangements, C(10, 3) and C_{10}^3: elsewhere C(1, 2) is a point, but no integer is one."""


def _spell_count(match: re.Match[str]) -> str:
    n, k = int(match[2] or match[4]), int(match[3] or match[5])
    if k > n:
        return match[0]
    return rf"\binom{{{n}}}{{{k}}}" if match[1] == "C" else rf"(\binom{{{n}}}{{{k}}}\cdot {k}!)"


_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|\\[,!; ]|,\\!)(?=\d{3}(?!\d))")
"""How TeX writes the comma, or the thin space, between groups of three digits."""
_PLAIN = 18
"""Longest integer that is read without the reader of answers, digits."""
_MAX_NAMED = 500
"""Longest labelled integer, characters."""
_OTHER = re.compile(
    r"[,;<>≤≥~]|[!:\\]\Z|\\&|=[^|]*\|[^|]*\Z|\\(?:lor|vee|Leftarrow|Longleftarrow|impliedby|leftarrow|gets|land|wedge|mid|in|forall|le|ge|leq|geq|neq?|equiv|approx)\b"
)
_LINKS = re.compile(
    r"\b(?:and|or|for|where|if)\b|\d.*\b(?:at|when|whenever|as|with|iff|given|provided|since|because|by)\b"
    r"|\d\s*\\(?:text|mbox|textrm|mathrm)\s*\{[^{}]*[a-z]{3,}[^{}]*\}\s*[a-zA-Z]\s*\Z",
    re.S,
)
"""What makes `... = integer` another thing than a labelled integer: a list, a condition, another relation."""
_BREAKS = re.compile(r"\\\\|\n|\\q?quad(?![a-zA-Z])")
_GOES_ON = re.compile(r"(?:[-+*/&=^})\]\s]|\\(?:cdot|times|right|,|;|:|!| ))*\Z")
"""What may stand between a line break and the sign of a chain that goes on in the next line."""
_UNFINISHED = re.compile(r"(?:[-+*/=&(]|\\cdot|\\times)\s*\Z")
_BRACKETED = re.compile(r"\([^()]*\)|\\?\{[^{}]*\}|\[[^\[\]]*\]")
_FACTORIAL = re.compile(r"[\dnmkpN)]!\Z")
_DIGITS = re.compile(r"\D")
_IMPLIES = re.compile(
    r"\\(?:implies|Rightarrow|Longrightarrow|therefore)(?![a-zA-Z])|[⇒⟹∴]|=>|\\text\s*\{\s*,?\s*(?:so|hence|thus|therefore)\s*,?\s*\}"
)
"""What a conclusion stands behind: `m = 10, n = 32 \\implies m+n = 42`."""


def _named_integer(text: str) -> int | None:
    """Return the integer in `... = integer`, or None: where nothing is named, or more than one value."""
    if len(text) > _MAX_NAMED:
        return None
    *before, text = _IMPLIES.split(text)
    if before and (concluded := as_integer(parse(text).value)) is not None:
        return concluded
    left, sign, right = text.rpartition("=")
    right = _THOUSANDS.sub(",", right.strip(" .$\n"))
    if not sign or not left.strip(" $&") or not re.fullmatch(r"[-+−]?\d[\d,]*", right):
        return None
    # Commas in brackets are arguments, as in gcd(a, b) = 6; any other makes a list.
    is_factorial_sign = left.endswith("!") and _FACTORIAL.search(left) and is_factorial(int(_DIGITS.sub("", right)))
    bare = left[:-1] if is_factorial_sign else left
    *lines, last = _BREAKS.split(bare)
    # "a = 5" and "b = 6" in two lines are two values; a chain goes on with its sign.
    if lines and not _GOES_ON.match(last) and not _UNFINISHED.search(lines[-1]) and any("=" in line for line in lines):
        return None
    if SIDE_BY_SIDE.search(text):
        return None
    if _OTHER.search(_BRACKETED.sub("", bare)) or _LINKS.search(left):
        return None
    return as_integer(parse(right).value)
