"""When two canonical trees are the same answer, and a key under which equal answers meet."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

from mathlete.answers.bounds import is_zero
from mathlete.answers.effort import spend
from mathlete.answers.identity import BITS, Samples, agree, are_proportional, sample, sample_both, sample_whole
from mathlete.answers.kinds import TreeKind, kind_of
from mathlete.answers.numeric import FILTER_BITS, constant_value, context
from mathlete.answers.tree import Node, TooHard, subtract, symbols, walk

if TYPE_CHECKING:
    from mathlete.answers.numeric import Value

FLOAT_DIGITS = 10
"""A decimal of at least so many significant digits stands for the exact value that rounds to its first ten."""


def are_equal(a: Node, b: Node, *, patient: bool = False) -> bool:
    """Return whether two canonical trees are equal.

    Raises:
        TooHard: it cannot be decided here.
        TooBig: a value that cannot be written down.
    """
    if a == b:
        return True
    if a.op == b.op == "num":
        return _equal_rationals(a, b)
    if "point" in (a.op, b.op) and (a.op, a.value) != (b.op, b.value):
        return _equal_points(a, b, patient)
    kinds = (kind_of(a), kind_of(b))
    if _may_be_one_region(a, b, kinds):
        raise TooHard("an inequality that is not linear")
    if kinds[0] != kinds[1]:
        # A formula such as x - x + 2 may be a number; any other two kinds differ.
        if set(kinds) != {"number", "formula"}:
            return False
        return _equal_formulas(a, b, patient)
    return _EQUALITIES[kinds[0]](a, b, patient)


def _may_be_one_region(a: Node, b: Node, kinds: tuple[TreeKind, TreeKind]) -> bool:
    """Return whether an inequality that is not solved yet may have the other answer as its solutions."""
    if "order" not in kinds or len(symbols(a) | symbols(b)) != 1:
        return False
    others = {"order", "symbol"} | ({"collection", "set"} if {a.op, b.op} & _REGIONS else set())
    return set(kinds) <= others and not _equal_orders(a, b, patient=False)


_REGIONS = frozenset({"interval", "tuple", "union", "set"})


def is_long_decimal(node: Node) -> bool:
    """Return whether a number was written as a fraction's or a root's print-out: a decimal of ten digits and more."""
    return node.op == "num" and node.digits is not None and node.digits >= FLOAT_DIGITS and not _is_short(node.fraction)


def _is_short(value: Fraction) -> bool:
    """Return whether a number is whole or a decimal of less than ten digits: it equals only exactly itself."""
    if value.denominator == 1:
        return True
    digits, exponent = _round_to_ten_digits(value)
    return digits % 10 == 0 and digits * Fraction(10) ** exponent == value


def _round_to_ten_digits(value: Fraction) -> tuple[int, int]:
    """Return ten significant digits and the exponent of ten."""
    if not value:
        return 0, 0
    exponent = (Decimal(abs(value.numerator)) / Decimal(value.denominator)).adjusted() - FLOAT_DIGITS + 1
    digits = round(value / Fraction(10) ** exponent)
    # Rounding up may carry into an eleventh digit: 9.9999999999 is 1.000000000 * 10.
    return (digits, exponent) if abs(digits) < 10**FLOAT_DIGITS else (digits // 10, exponent + 1)


def _equal_rationals(a: Node, b: Node) -> bool:
    """Return whether two numbers are equal, or alike in ten digits where one is a long decimal and none is short."""
    if a.value == b.value:
        return True
    # 1.0000000001 is not 1, nor is 0.3333333333 the same as 0.333333333: somebody wrote those digits on purpose.
    if not (is_long_decimal(a) or is_long_decimal(b)) or _is_short(a.fraction) or _is_short(b.fraction):
        return False
    return _round_to_ten_digits(a.fraction) == _round_to_ten_digits(b.fraction)


def _equal_numbers(a: Node, b: Node, patient: bool) -> bool:
    for decimal, exact in ((a, b), (b, a)):
        if is_long_decimal(decimal):
            value, ctx = constant_value(exact), context(FILTER_BITS)
            if ctx.im(value) or not value:
                return False
            # 54 digits of the exact value as a fraction, so that both are rounded by the same rule.
            shift = FILTER_BITS - ctx.mag(value)
            near = Fraction(int(ctx.nint(ctx.ldexp(value, shift)))) / Fraction(2) ** shift
            return _round_to_ten_digits(near) == _round_to_ten_digits(decimal.fraction)
    return not _are_apart(a, b) and is_zero(subtract(a, b), patient=patient)


def _are_apart(a: Node, b: Node) -> bool:
    """Return whether two constants surely differ, by their values alone: each is computed once for all its pairs."""
    (p, fine), (q, other) = ((constant_value(node), constant_value(node, 2 * FILTER_BITS)) for node in (a, b))
    return bool(abs(fine - other) > 2**20 * (abs(fine - p) + abs(other - q)))


def _equal_formulas(a: Node, b: Node, patient: bool) -> bool:
    if not agree(*sample_both(a, b)):
        return False
    # The drawn points miss the ends of cases: there x > 0 and x >= 0 differ.
    has_cases = any(n.op == "cases" for n in (*walk(a), *walk(b)))
    return not has_cases or agree(sample_whole(a), sample_whole(b))


def _equal_collections(a: Node, b: Node, patient: bool) -> bool:
    if (a.op, a.value, len(a.args)) != (b.op, b.value, len(b.args)):
        return False
    return _all_equal([(x, y) for x, y in zip(a.args, b.args, strict=True)], patient)


def _equal_points(a: Node, b: Node, patient: bool) -> bool:
    """Return whether named values are those of a tuple, or of a list, which has no names; other names differ."""
    if {a.op, b.op} == {"point", "set"}:
        return _equal_sets(a, b, patient)
    if {a.op, b.op} != {"point", "tuple"} or len(a.args) != len(b.args):
        return False
    return _all_equal(list(zip(a.args, b.args, strict=True)), patient)


def _all_equal(pairs: list[tuple[Node, Node]], patient: bool) -> bool:
    """Return whether all pairs are equal; one that differs decides, however hard the others are."""
    hard: TooHard | None = None
    for x, y in pairs:
        try:
            if not are_equal(x, y, patient=patient):
                return False
        except TooHard as error:
            hard = error
    if hard is not None:
        raise hard
    return True


def _equal_sets(a: Node, b: Node, patient: bool) -> bool:
    if len(a.args) != len(b.args):
        return False
    spend(len(a.args) // 4)
    left, others = list(a.args), list(b.args)
    # What is written alike is matched first: it makes a set of hundreds linear instead of quadratic.
    common = set(left) & set(others)
    left, others = [x for x in left if x not in common], [x for x in others if x not in common]
    for x in left:
        match = next((y for y in others if are_equal(x, y, patient=patient)), None)
        if match is None:
            return False
        others.remove(match)
    return True


def _sample_difference(node: Node) -> Samples:
    return sample(subtract(*node.args))


def _equal_equations(a: Node, b: Node, patient: bool) -> bool:
    return are_proportional(*sample_both(subtract(*a.args), subtract(*b.args)))


def _equal_orders(a: Node, b: Node, patient: bool) -> bool:
    if a.op != b.op or a.value != b.value or len(a.args) != len(b.args):
        return False
    if a.op == "rel":
        # A negative factor would turn the inequality round; x != y has no direction.
        differences = sample_both(subtract(*a.args), subtract(*b.args))
        return are_proportional(*differences, positive=a.value != "!=")
    return _equal_sets(a, b, patient)


_EQUALITIES: dict[TreeKind, Callable[[Node, Node, bool], bool]] = {
    "words": lambda a, b, patient: a.value == b.value,
    "symbol": lambda a, b, patient: a == b,
    "number": _equal_numbers,
    "formula": _equal_formulas,
    "collection": _equal_collections,
    "set": _equal_sets,
    "eq": _equal_equations,
    "order": _equal_orders,
}


def key_of(node: Node) -> Hashable:
    """Return a hashable stand-in: equal answers have equal keys, long decimals aside; different ones nearly never.

    Raises:
        TooHard: the answer has no such key.
    """
    kind = kind_of(node)
    if node.op == "num":
        return ("Q", node.value)
    if kind in ("words", "symbol"):
        return (node.op, node.value, node.args)
    if kind == "number":
        return ("N", _constant_digits(node))
    if kind == "formula":
        return ("F", tuple(pair and _point_digits(*pair) for pair in sample(node).pairs))
    if kind == "eq":
        return ("eq", _scaled_digits(_sample_difference(node)))
    if kind == "order" and len(symbols(node)) == 1:
        raise TooHard("an inequality that is not linear")
    keys = [key_of(arg) for arg in node.args]
    return (node.op, node.value, frozenset(keys) if kind in ("set", "order") else tuple(keys))


def _format_digits(value: Value) -> str:
    """Return twenty significant digits of each part; a part below 1e-40 of the whole counts as zero."""
    spend(10)  # what digits in base ten take
    ctx = context(180)
    if isinstance(value, ctx.mpf):
        return f"{ctx.nstr(value, 20)}|0.0"
    small = abs(value) * ctx.mpf(10) ** -40
    parts = (part if abs(part) > small else ctx.zero for part in (ctx.re(value), ctx.im(value)))
    return "|".join(ctx.nstr(part, 20) for part in parts)


def _constant_digits(node: Node) -> str:
    value = constant_value(node)
    # The digits of a value that should be zero are noise: such answers are compared one by one.
    if not value or context(180).mag(value) < -120:
        raise TooHard("zero or nearly")
    return _format_digits(value)


def _point_digits(rough: Value, fine: Value) -> str:
    return "0" if abs(fine) <= 2**20 * abs(rough - fine) else _format_digits(fine)


def _scaled_digits(samples: Samples) -> tuple[str | None, ...]:
    """Return the digits of an equation's difference with its first value scaled to 1: multiples have the same."""
    ctx = context(BITS)
    values = [pair and pair[1] for pair in samples.pairs]
    pivot = next((value for value in values if value and abs(value) > ctx.mpf(10) ** -40), None)
    return tuple(None if value is None or pivot is None else _format_digits(value / pivot) for value in values)
