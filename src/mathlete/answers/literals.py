"""Numbers as written: digits, decimals, digits in another base, mixed numbers."""

from __future__ import annotations

import re
from fractions import Fraction

from mathlete.answers.tree import Node, Unreadable, number
from mathlete.answers.vocabulary import NUMBER_WORDS


def read_literal(text: str) -> Node:
    """Return the leaf of a number as written: exact, with the digits of a decimal counted."""
    mantissa, _, exponent = text.partition("e")
    # Python's own conversion refuses more than 4300 digits, and an exponent writes as many with a few signs.
    if len(mantissa) > 4000 or len(exponent) > 5:
        raise Unreadable("a number of more than 4000 digits")
    if exponent and abs(int(exponent)) > 4000:
        raise Unreadable("an exponent beyond 4000")
    value = Fraction(text if not text.endswith(".") else text[:-1])
    if "." not in mantissa.rstrip("."):
        return Node("num", value=value)
    digits = len(mantissa.replace(".", "").lstrip("0"))
    # From ten digits on it is a print-out, which `equality` compares with the value printed.
    if digits < 10 and (repeating := _repeating_value(text)) is not None:
        return number(repeating)
    return Node("num", value=value, digits=digits)


_REPEATING = re.compile(r"(\d*)\.(\d*?)(?:([1-8])\3{7,})\Z")
_ROUNDED = re.compile(r"(\d*\.\d*?([5-8])\2{6,})(\d)\Z")


def _repeating_value(text: str) -> Fraction | None:
    """Return the repeating decimal that ends in eight equal digits or more, its last one rounded or not; else None."""
    rounded = _ROUNDED.match(text)
    if rounded and int(rounded[3]) == int(rounded[2]) + 1:
        text = rounded[1] + rounded[2]
    repeating = _REPEATING.match(text)
    if repeating is None:
        return None
    whole, fixed, digit = repeating.groups()
    scaled = int(f"0{whole}{fixed}") + Fraction(int(digit), 9)
    return scaled / Fraction(10) ** len(fixed)


def is_factorial(value: int) -> bool:
    """Return whether a number is a factorial.

    >>> is_factorial(120), is_factorial(5)
    (True, False)
    """
    factor = 1
    while value > 1 and value % factor == 0:
        value //= factor
        factor += 1
    return value == 1


def read_in_base(digits: str, base_name: str) -> Node:
    """Return the value of a digit string in a base named by a number or a word: `1010_2` is ten."""
    base = NUMBER_WORDS.get(base_name.lower()) or (int(base_name) if base_name.isdigit() else 0)
    if not 2 <= base <= 36:
        raise Unreadable(f"{base_name!r} is no base")
    try:
        whole, _, places = digits.partition(".")
        return number(int(whole + places, base) / Fraction(base) ** len(places))
    except ValueError as error:
        raise Unreadable(f"{digits!r} is no number in base {base}") from error


def is_base(node: Node, name: str) -> bool:
    """Return whether a name with a subscript is a number in a base: `A1_16`."""
    digits = str(node.value)
    return len(digits) > 1 and digits.isalnum() and any(c.isdigit() for c in digits) and name.isdigit()


def add_fraction(integer: Node, top: int, bottom: int) -> Node:
    """Return a mixed number: the sum of a whole number and a fraction."""
    if bottom == 0:
        raise Unreadable("a denominator of zero")
    return number(integer.fraction + Fraction(top, bottom))


def is_proper(top: Node, bottom: Node) -> bool:
    """Return whether top and bottom are whole numbers of a fraction between zero and one."""
    if not top.op == bottom.op == "num":
        return False
    are_whole = top.fraction.denominator == bottom.fraction.denominator == 1
    return are_whole and 0 < top.fraction < bottom.fraction
