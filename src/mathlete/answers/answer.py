"""An answer in canonical form: its tree, its exact value, and a key by which equal answers meet."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from math import isfinite

from mathlete.answers.canonical import canonicalize
from mathlete.answers.effort import start_count
from mathlete.answers.equality import key_of
from mathlete.answers.forms import read
from mathlete.answers.glyphs import clean
from mathlete.answers.lexer import MAX_WRITTEN
from mathlete.answers.numeric import constant_value
from mathlete.answers.plain import read_plain
from mathlete.answers.tree import Node, TooBig, TooHard, Undefined, Unreadable
from mathlete.errors import UserError


@dataclass(frozen=True)
class Answer:
    """An answer in canonical form."""

    string: str
    """The text as written."""
    node: Node | None
    """The canonical tree; None where the string cannot be read."""
    problem: str | None = None
    """Why there is no tree."""
    hard: bool = False
    """Whether a worker may build a tree where there is none."""
    spelling: str | None = None
    """How a text that cannot be read is written, without what changes nothing: fonts, dollar signs, blanks at signs."""

    @property
    def value(self) -> Fraction | None:
        """The exact rational value, if it is one."""
        return self.node.fraction if self.node and self.node.op == "num" else None

    @cached_property
    def decimal(self) -> str | None:
        r"""The real number that it is, in digits, for who reads numbers alone; None where it is none.

        What is written in digits stays as it is, 011 too; else all digits of an integer, or those of the nearest float.

        >>> [parse(text).decimal for text in (r"\frac{7}{8}", "007.50", r"2\pi", r"1{,}000", "x + 1", "(1, 2)")]
        ['0.875', '007.50', '6.283185307179586', '1000', None, None]
        """
        if _DIGITS.fullmatch(written := self.string.strip()):
            return written
        start_count()
        try:
            if (value := self.value) is not None:
                return str(value.numerator) if value.denominator == 1 else repr(float(value))
            number = complex(constant_value(self.node)) if self.node is not None else complex("nan")
        except (TooHard, TooBig, Undefined, OverflowError, RecursionError):
            return None
        return repr(number.real) if not number.imag and isfinite(number.real) else None

    @cached_property
    def key(self) -> Hashable:
        """A hashable form: equal answers have equal keys, and different ones nearly never (`compare` decides)."""
        if self.node is not None:
            start_count()
            try:
                return key_of(self.node)
            except (TooHard, TooBig, Undefined, RecursionError):
                return ("tree", self.node)
        # A text of megabytes is a class of its own, and not worth a pass over it.
        is_long = len(self.string) > MAX_WRITTEN
        return ("string", self.spelling or (self.string if is_long else " ".join(self.string.split())))


@lru_cache(maxsize=2**16)  # the answers of 5,000 problems: a run's end asks for them more than once
def parse(string: str, settings: str = "") -> Answer:
    r"""Return an answer in canonical form; one that cannot be read keeps its string and the reason.

    Args:
        string: the answer as written.
        settings: the suite's conventions where they are not the default, such as `log=10` (docs/answers.md).

    >>> parse(r"\frac{2}{4}").value
    Fraction(1, 2)
    >>> parse("((").problem
    "'(' is never closed"
    """
    start_count()
    try:
        return _parse(string, settings)
    except RecursionError:
        return Answer(string, None, "nested too deeply", hard=True)
    except Unreadable as error:
        return Answer(string, None, str(error), spelling=_spell(string))
    except (TooHard, TooBig, Undefined) as error:
        return Answer(string, None, str(error), hard=isinstance(error, TooHard))
    except UserError:
        raise
    except Exception as error:
        # The boundary to model text: no string may stop a run of hours. The tests read past it.
        return Answer(string, None, f"a fault of the reader, {type(error).__name__}: {error}")


def _spell(string: str) -> str | None:
    if len(string) > _LONGEST_SPELLED:
        return None
    spelling = _BLANKS.sub("", " ".join(clean(string).split()))
    return spelling if re.search(r"\w", spelling) else None


_DIGITS = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
"""A number as a table's column of numbers has it."""
_LONGEST_SPELLED = 1000
"""Longest answer, characters, that is spelled once more: what is longer and cannot be read is most often junk."""
_BLANKS = re.compile(r" (?=[^\w ])|(?<=[^\w ]) ")
"""A blank beside a sign; between two words or numbers it tells them apart."""


def _parse(string: str, settings: str) -> Answer:
    plain = None if settings else read_plain(string)
    return Answer(string, canonicalize(plain or read(string, settings)))
