"""When two canonical trees are the same answer."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from decimal import Decimal
from fractions import Fraction
from typing import Any

from mathlete.answers import identity
from mathlete.answers.bounds import is_zero
from mathlete.answers.canonical import COLLECTIONS, RELATIONS, WORDS, is_constant
from mathlete.answers.numeric import constant_value, context
from mathlete.answers.regions import is_infinite
from mathlete.answers.tree import Node, TooHard

FLOAT_DIGITS = 10
"""A decimal of at least so many significant digits stands for an exact value that it is a print-out of."""


def same(a: Node, b: Node, *, patient: bool = False) -> bool:
    """Whether two canonical trees are equal.

    Raises:
        TooHard: it cannot be told here.
        TooBig: a value that cannot be written down.
    """
    if a == b:
        return True
    if a.op == b.op == "num":
        return a.value == b.value or _is_print_out(a, b) or _is_print_out(b, a)
    kinds = (_kind(a), _kind(b))
    if "region" in kinds and "rel" in (a.op, b.op):
        raise TooHard("an inequality that is not linear")
    if kinds[0] != kinds[1]:
        if set(kinds) != {"number", "formula"}:
            return False
        return identity.same(identity.values(a), identity.values(b))
    return _SAME[kinds[0]](a, b, patient)


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


def _is_print_out(decimal: Node, exact: Node) -> bool:
    """Whether a long decimal is what a computer or a calculator prints for an exact value.

    A value that the decimal's digits could write down exactly must be met exactly: 1.0000000001 is not 1.
    """
    if decimal.digits is None or decimal.digits < FLOAT_DIGITS or exact.digits is not None:
        return False
    assert isinstance(decimal.value, Fraction)
    assert isinstance(exact.value, Fraction)
    unit = _unit(decimal)
    return (exact.value / unit).denominator != 1 and abs(decimal.value - exact.value) < _tolerance(decimal)


def _unit(decimal: Node) -> Fraction:
    """One in the last place that was written."""
    assert isinstance(decimal.value, Fraction)
    assert decimal.digits is not None
    magnitude = (Decimal(decimal.value.numerator) / Decimal(decimal.value.denominator)).adjusted()
    return Fraction(10) ** (magnitude - decimal.digits + 1)


def _tolerance(decimal: Node) -> Fraction:
    assert isinstance(decimal.value, Fraction)
    return max(_unit(decimal), abs(decimal.value) / 10**15)


def _same_numbers(a: Node, b: Node, patient: bool) -> bool:
    for decimal, exact in ((a, b), (b, a)):
        if decimal.op == "num" and (decimal.digits or 0) >= FLOAT_DIGITS:
            tolerance = _tolerance(decimal)
            difference = constant_value(Node("add", (exact, Node("neg", (decimal,)))))
            ctx = context(180)
            return bool(abs(difference) < ctx.mpf(tolerance.numerator) / tolerance.denominator)
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
