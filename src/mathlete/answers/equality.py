"""When two canonical trees are the same answer."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from decimal import Decimal
from fractions import Fraction
from typing import Any

from mathlete.answers import identity
from mathlete.answers.bounds import is_zero
from mathlete.answers.canonical import COLLECTIONS, RELATIONS, WORDS, is_constant
from mathlete.answers.numeric import FILTER_BITS, constant_value, context
from mathlete.answers.regions import is_infinite
from mathlete.answers.tree import Node, TooHard, symbols

FLOAT_DIGITS = 10
"""A decimal of at least so many significant digits stands for the exact value that rounds to its first ten."""


def same(a: Node, b: Node, *, patient: bool = False) -> bool:
    """Whether two canonical trees are equal.

    Raises:
        TooHard: it cannot be told here.
        TooBig: a value that cannot be written down.
    """
    if a == b:
        return True
    if a.op == b.op == "num":
        return _same_rationals(a, b)
    kinds = (_kind(a), _kind(b))
    if _may_be_one_region(a, b, kinds):
        raise TooHard("an inequality that is not linear")
    if kinds[0] != kinds[1]:
        if set(kinds) != {"number", "formula"}:
            return False
        return identity.same(identity.values(a), identity.values(b))
    return _SAME[kinds[0]](a, b, patient)


def _may_be_one_region(a: Node, b: Node, kinds: tuple[str, str]) -> bool:
    """Whether an inequality that is not solved yet may have the other answer as its solutions."""
    if "order" not in kinds or len(symbols(a) | symbols(b)) != 1:
        return False
    others = {"order", "symbol"} | ({"collection", "set"} if {a.op, b.op} & _REGIONS else set())
    return set(kinds) <= others and not _same_orders(a, b, patient=False)


_REGIONS = frozenset({"interval", "tuple", "union", "set"})


def _kind(node: Node) -> str:
    if node.op in WORDS:
        return "words"
    if node.op in ("rel", "chain"):
        return "order"
    if node.op in RELATIONS or node.op == "set":
        return node.op
    if node.op in COLLECTIONS:
        return "collection"
    if is_infinite(node) or node.op in ("field", "minus"):
        return "symbol"
    return "number" if is_constant(node) else "formula"


def is_long_decimal(node: Node) -> bool:
    """Whether a number was written as a fraction's or a root's print-out: a decimal of ten digits and more."""
    return node.op == "num" and node.digits is not None and node.digits >= FLOAT_DIGITS and not _is_short(node.value)


def _is_short(value: Fraction | str | None) -> bool:
    """Whether a rational number is whole or has a decimal form of less than ten digits: it is met exactly or not."""
    assert isinstance(value, Fraction)
    if value.denominator == 1:
        return True
    scaled = value * 10 ** (FLOAT_DIGITS + value.denominator.bit_length())
    return scaled.denominator == 1 and len(str(abs(scaled.numerator)).rstrip("0")) < FLOAT_DIGITS


def _rounded(value: Fraction) -> tuple[int, int]:
    """Ten significant digits and the exponent of ten."""
    if not value:
        return 0, 0
    exponent = (Decimal(abs(value.numerator)) / Decimal(value.denominator)).adjusted() - FLOAT_DIGITS + 1
    digits = round(value / Fraction(10) ** exponent)
    return (digits, exponent) if abs(digits) < 10**FLOAT_DIGITS else (digits // 10, exponent + 1)


def _same_rationals(a: Node, b: Node) -> bool:
    """Equal, or alike in ten digits where one is a long decimal and no number is short: 1.0000000001 is not 1."""
    if a.value == b.value:
        return True
    if not (is_long_decimal(a) or is_long_decimal(b)) or _is_short(a.value) or _is_short(b.value):
        return False
    assert isinstance(a.value, Fraction)
    assert isinstance(b.value, Fraction)
    return _rounded(a.value) == _rounded(b.value)


def _same_numbers(a: Node, b: Node, patient: bool) -> bool:
    for decimal, exact in ((a, b), (b, a)):
        if is_long_decimal(decimal):
            assert isinstance(decimal.value, Fraction)
            value, ctx = constant_value(exact), context(FILTER_BITS)
            if ctx.im(value) or not value:
                return False
            shift = FILTER_BITS - ctx.mag(value)
            near = Fraction(int(ctx.nint(ctx.ldexp(value, shift)))) / Fraction(2) ** shift
            return _rounded(near) == _rounded(decimal.value)
    return is_zero(Node("add", (a, Node("neg", (b,)))), patient=patient)


def _same_formulas(a: Node, b: Node, patient: bool) -> bool:
    return identity.same(identity.values(a), identity.values(b))


def _same_collections(a: Node, b: Node, patient: bool) -> bool:
    if (a.op, a.value, len(a.args)) != (b.op, b.value, len(b.args)):
        return False
    return _all([(x, y) for x, y in zip(a.args, b.args, strict=True)], patient)


def _all(pairs: list[tuple[Node, Node]], patient: bool) -> bool:
    """Whether all pairs are equal; one that differs decides, however hard the others are."""
    hard: TooHard | None = None
    for x, y in pairs:
        try:
            if not same(x, y, patient=patient):
                return False
        except TooHard as error:
            hard = error
    if hard is not None:
        raise hard
    return True


def _same_sets(a: Node, b: Node, patient: bool) -> bool:
    if len(a.args) != len(b.args):
        return False
    left, others = list(a.args), list(b.args)
    common = set(left) & set(others)
    left, others = [x for x in left if x not in common], [x for x in others if x not in common]
    for x in left:
        match = next((y for y in others if same(x, y, patient=patient)), None)
        if match is None:
            return False
        others.remove(match)
    return True


def _difference(node: Node) -> identity.Values:
    return identity.values(Node("add", (node.args[0], Node("neg", (node.args[1],)))))


def _same_equations(a: Node, b: Node, patient: bool) -> bool:
    return identity.proportional(_difference(a), _difference(b))


def _same_orders(a: Node, b: Node, patient: bool) -> bool:
    if a.op != b.op or a.value != b.value or len(a.args) != len(b.args):
        return False
    if a.op == "rel":
        return identity.proportional(_difference(a), _difference(b), positive=a.value != "!=")
    return _same_sets(a, b, patient)


_SAME: dict[str, Callable[[Node, Node, bool], bool]] = {
    "words": lambda a, b, patient: a.value == b.value,
    "symbol": lambda a, b, patient: a == b,
    "number": _same_numbers,
    "formula": _same_formulas,
    "collection": _same_collections,
    "set": _same_sets,
    "eq": _same_equations,
    "order": _same_orders,
}


def key(node: Node) -> Hashable:
    """A hashable stand-in: equal answers have equal keys, long decimals aside; different ones nearly never.

    Raises:
        TooHard: it has none.
    """
    kind = _kind(node)
    if node.op == "num":
        return ("Q", node.value)
    if kind in ("words", "symbol"):
        return (node.op, node.value, node.args)
    if kind == "number":
        return ("N", _constant_digits(node))
    if kind == "formula":
        return ("F", tuple(pair and _point_digits(*pair) for pair in identity.values(node).pairs))
    if kind == "eq":
        return ("eq", _scaled_digits(_difference(node)))
    if kind == "order" and len(symbols(node)) == 1:
        raise TooHard("an inequality that is not linear")
    keys = [key(arg) for arg in node.args]
    return (node.op, node.value, frozenset(keys) if kind in ("set", "order") else tuple(keys))


def _digits(value: Any) -> str:
    """Twenty significant digits; a part below 1e-40 of the whole counts as zero."""
    ctx = context(180)
    small = abs(value) * ctx.mpf(10) ** -40
    parts = (part if abs(part) > small else ctx.zero for part in (ctx.re(value), ctx.im(value)))
    return "|".join(ctx.nstr(part, 20) for part in parts)


def _constant_digits(node: Node) -> str:
    value = constant_value(node)
    if not value or context(180).mag(value) < -120:
        raise TooHard("zero or nearly")
    return _digits(value)


def _point_digits(rough: Any, fine: Any) -> str:
    return "0" if abs(fine) <= 2**20 * abs(rough - fine) else _digits(fine)


def _scaled_digits(values: identity.Values) -> tuple[str | None, ...]:
    ctx = context(identity.BITS)
    found = [pair and pair[1] for pair in values.pairs]
    pivot = next((value for value in found if value and abs(value) > ctx.mpf(10) ** -40), None)
    return tuple(None if value is None or pivot is None else _digits(value / pivot) for value in found)
