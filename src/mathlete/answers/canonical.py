"""The canonical form of an answer's tree: what equal answers have in common, before anything is compared.

Rational constants become one number, labels and units are gone, lists are sets without repetition, regions are sorted
unions of intervals, an open interval is a pair, a residue is the smallest one, a column is a tuple.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from fractions import Fraction
from math import ceil, floor
from typing import TYPE_CHECKING

from mathlete.answers.bounds import is_zero
from mathlete.answers.effort import spend
from mathlete.answers.equality import are_equal, is_long_decimal, key_of
from mathlete.answers.exact import exact_value, find_fraction_near
from mathlete.answers.items import MAX_ITEMS
from mathlete.answers.kinds import is_constant
from mathlete.answers.matrices import determinant, matrix_value
from mathlete.answers.numeric import FILTER_BITS, TreeEvaluation, constant_value, context, value_at_point
from mathlete.answers.points import draw_point
from mathlete.answers.regions import Segment, compare_constants, is_infinite, solve_linear, to_segments
from mathlete.answers.tree import (
    Node,
    OutOfSteps,
    TooBig,
    TooHard,
    Undefined,
    constant,
    number,
    replace,
    symbol,
    symbols,
    walk,
)

if TYPE_CHECKING:
    from mathlete.answers.numeric import Value

_SETS = frozenset({"field", "interval", "union"})


def canonicalize(node: Node) -> Node:
    """Return the canonical tree.

    Raises:
        Undefined: the answer has no value: a division by zero.
    """
    rule = _RULES.get(node.op)
    return rule(node) if rule else canonicalize_formula(node)


def canonicalize_formula(node: Node) -> Node:
    """Return a formula as it is, or its exact number where it is a rational constant."""
    if node.op == "num" or is_infinite(node):
        return node
    if node.op == "sym" and len(str(node.value)) == 1:
        return Node("letter", value=str(node.value).casefold())
    if node.op == "neg" and node.args[0].op == "num":
        # Not by `number`: a negative decimal keeps its count of digits, which decides what it may stand for.
        inner = node.args[0]
        return Node("num", value=-inner.fraction, digits=inner.digits)
    try:
        value = exact_value(node)
    except TooBig:
        return node
    if value is not None:
        return number(value)
    return _reveal_rational(node) if is_constant(node) else _reveal_letter(_rename_parameter(node))


_PARAMETERS = frozenset("jkmn")
_FAMILY = frozenset({"add", "neg", "mul", "div", "num", "const", "sym", "deg"})


def _rename_parameter(node: Node) -> Node:
    r"""Return a formula such as `\frac{\pi}{6} + 2n\pi`, of pi and one letter for a whole number, with the letter k."""
    names = symbols(node)
    nodes = walk(node)
    if len(names) != 1 or not names <= _PARAMETERS or constant("pi") not in nodes:
        return node
    if any(n.op not in _FAMILY for n in nodes):
        return node
    return replace(node, symbol(names.pop()), symbol("k"))


def _reveal_rational(node: Node) -> Node:
    r"""Return the number that radicals and functions hide: `\sqrt2\cdot\sqrt2` is 2.

    Raises:
        Undefined: the constant has no value, as 1/(sqrt2 - sqrt2).
    """
    try:
        value = constant_value(node)
        if context(FILTER_BITS).im(value) or not -60 < context(FILTER_BITS).mag(value) < 100:
            return node
        near = _near_rational(value)
        # Digits only suggest the fraction: the separation bound proves it.
        if near is None or not is_zero(Node("add", (node, number(-near))), patient=False):
            return node
    except OutOfSteps:
        raise
    except (TooHard, TooBig):
        return node
    return number(near)


def _reveal_letter(node: Node) -> Node:
    r"""Return the letter that a formula comes to: `x^2/x` is x, and `\lfloor n/2\rfloor + \lceil n/2\rceil` is n."""
    names = sorted(name for name in symbols(node) if len(name) == 1)
    if node.op == "sym" or not 1 <= len(names) <= _MOST_LETTERS:
        return node
    env = {name: draw_point(name, 0) for name in symbols(node)}
    try:
        value = value_at_point(node, 0, bits=FILTER_BITS)
        if value is None:
            value = TreeEvaluation(FILTER_BITS, env).evaluate(node)
        for name in names:
            # One point says no to nearly all formulas, at a fraction of the cost of the others.
            near = context(FILTER_BITS).mpf(env[name].numerator) / env[name].denominator
            if abs(value - near) < context(FILTER_BITS).ldexp(1, -100) and are_equal(node, symbol(name)):
                return Node("letter", value=name.casefold())
    except OutOfSteps:
        raise
    except (TooHard, TooBig, Undefined):
        return node
    return node


_MOST_LETTERS = 4


def _near_rational(value: Value) -> Fraction | None:
    """Return the fraction with a denominator of up to ten digits that agrees to 35 digits, if there is one."""
    ctx = context(FILTER_BITS)
    return find_fraction_near(int(ctx.nint(ctx.ldexp(value, 160))), 1 << 160)


def _canonicalize_list(node: Node) -> Node:
    if any(item.op in ("interval", "union", "field", "rel") for item in node.args):
        return _canonicalize_regions(node)
    if len(node.args) > MAX_ITEMS:
        raise TooBig(f"a list of more than {MAX_ITEMS} items")
    items: list[Node] = []
    several = sum(arg.op == "set" for arg in node.args) > 1
    for arg in node.args:
        item = canonicalize(arg)
        # "x = ±1 or 3" lists three values: a set inside a list is part of it, a set inside a set is an element, and so
        # is each of several sets side by side.
        is_part = item.op == "set" and node.op == "list" and item.args and not several
        items.extend(item.args if is_part else (item,))
    if node.op == "set" and items == [Node("set")]:
        return Node("set", (Node("set"),))
    return _make_set(items)


def _make_set(items: list[Node]) -> Node:
    """Return the set of the items without repetition; one item is that item."""
    kept: list[Node] = []
    # Equal items have equal keys, so that only items of one key are compared: hundreds of roots take linear time.
    by_key: dict[Hashable, list[Node]] = {}
    distinct = {item.value if item.op == "num" else item: item for item in items}
    for item in distinct.values():
        key = _key_of(item)
        rivals = kept if key is None else [*by_key.get(key, ()), *by_key.get(None, ())]
        # Each comparison costs, or a list without keys would take quadratic time that nothing counts.
        if item.op != "num" and rivals:
            spend(len(rivals))
        if item.op == "num" or not any(_are_surely_equal(item, other) for other in rivals):
            kept.append(item)
            by_key.setdefault(key, []).append(item)
    return kept[0] if len(kept) == 1 else Node("set", tuple(kept))


def _key_of(item: Node) -> Hashable | None:
    """Return the key under which an item's equals are; None where they may have other keys."""
    if any(is_long_decimal(node) for node in walk(item)):
        return None
    try:
        return key_of(item)
    except OutOfSteps:
        raise
    except (TooHard, TooBig, Undefined):
        return None


def _are_surely_equal(a: Node, b: Node) -> bool:
    try:
        return are_equal(a, b)
    except OutOfSteps:
        raise
    except (TooHard, TooBig):
        return False


def _canonicalize_tuple(node: Node) -> Node:
    return Node(node.op, tuple(canonicalize(arg) for arg in node.args), node.value)


def _canonicalize_interval(node: Node) -> Node:
    low, high = (canonicalize(arg) for arg in node.args)
    if not (is_constant(low) and is_constant(high)):
        return Node("interval", (low, high), node.value)
    return segment_node(Segment(low, high, str(node.value)))


def segment_node(segment: Segment) -> Node:
    """Return a segment as a tree: a point, an open interval as a pair, or an interval."""
    if segment.low == segment.high or (segment.brackets == "[]" and compare_constants(segment.low, segment.high) == 0):
        return segment.low
    brackets = ("(" if is_infinite(segment.low) else segment.brackets[0]) + (
        ")" if is_infinite(segment.high) else segment.brackets[1]
    )
    ends = (segment.low, segment.high)
    # (1, 2) may mean the pair or the open interval; one node for both keeps equality transitive.
    return Node("tuple", ends) if brackets == "()" else Node("interval", ends, brackets)


def _canonicalize_regions(node: Node) -> Node:
    """Return a list of regions as their union; of two that overlap each is an answer by itself: x > 1, x > 2."""
    union = Node("union", node.args)
    if node.op == "list" and len(node.args) > 1:
        try:
            parts = sum(len(to_segments(_canonicalize_ends(arg))) for arg in node.args)
            is_one = parts == len(to_segments(_canonicalize_ends(union)))
        except OutOfSteps:
            raise
        except TooHard:
            is_one = True
        if not is_one:
            return _make_set([canonicalize(arg) for arg in node.args])
    return _canonicalize_region(union)


def _canonicalize_region(node: Node) -> Node:
    try:
        segments = to_segments(_canonicalize_ends(node))
    except OutOfSteps:
        raise  # it may be a region all the same: as a chain of inequalities it would differ from its equals
    except TooHard:
        return _canonicalize_chain(node)
    nodes = [
        segment_node(Segment(canonicalize_formula(s.low), canonicalize_formula(s.high), s.brackets)) for s in segments
    ]
    if all(is_constant(n) for n in nodes):
        return _make_set(nodes)
    return nodes[0] if len(nodes) == 1 else Node("union", tuple(nodes))


def _canonicalize_whole(node: Node) -> Node:
    """Return the whole numbers of a region: a set where it is bounded, and else the region marked as such."""
    region = node.args[0] if node.value == "Z" else Node("inter", (*node.args, _POSITIVE))
    segments = to_segments(_canonicalize_ends(region))
    if any(is_infinite(end) for segment in segments for end in (segment.low, segment.high)):
        return Node("tuple", (canonicalize(region),), "whole")
    ends = [_whole_ends(segment) for segment in segments]
    if sum(last - first for first, last in ends) > MAX_ITEMS:
        raise TooBig(f"a list of more than {MAX_ITEMS} items")
    values = [k for first, last in ends for k in range(first, last)]
    return _make_set([number(k) for k in values]) if values else Node("set")


_POSITIVE = Node("rel", (symbol("n"), number(0)), ">")


def _whole_ends(segment: Segment) -> tuple[int, int]:
    """Return the first whole number of a segment and the one behind its last."""
    low, high = exact_value(segment.low), exact_value(segment.high)
    if low is None or high is None:
        raise TooHard("whole numbers between irrational ends")
    first = floor(low) + 1 if segment.brackets[0] == "(" else ceil(low)
    return first, (ceil(high) if segment.brackets[1] == ")" else floor(high) + 1)


def _canonicalize_ends(node: Node) -> Node:
    if node.op in ("interval", "tuple", "set", "list", "union", "inter", "minus"):
        return Node(node.op, tuple(_canonicalize_ends(arg) for arg in node.args), node.value)
    return node if node.op in ("rel", "eq", "named", "field") else canonicalize(node)


def _canonicalize_chain(node: Node) -> Node:
    """Return inequalities that are no set of numbers as their links, all pointing up."""
    if node.op == "rel":
        a, b = (canonicalize(arg) for arg in node.args)
        sign = str(node.value)
        return Node("rel", (b, a), sign.replace(">", "<")) if sign.startswith(">") else Node("rel", (a, b), sign)
    if node.op in ("inter", "union"):
        return Node("chain", tuple(_canonicalize_chain(arg) for arg in node.args), node.op)
    return node if node.op == "minus" else canonicalize(node)


def _canonicalize_equation(node: Node) -> Node:
    if str(node.args[0].value).startswith("\\"):
        return node  # a law of a derivative, which is no unknown to solve for
    try:
        if solutions := _solve_absolute(*node.args):
            return canonicalize(solutions)
        return canonicalize(solve_linear(node).low)
    except OutOfSteps:
        raise
    except (TooHard, TooBig):
        return canonicalize(node.args[1]) if _is_identity(*node.args) else Node("eq", node.args)


def _is_identity(left: Node, right: Node) -> bool:
    """Return whether an equation holds everywhere, as `x^2-4 = (x-2)(x+2)` does: a chain, of which all say 0 = 0."""
    try:
        return are_equal(canonicalize(left), canonicalize(right))
    except OutOfSteps:
        raise
    except (TooHard, TooBig, Undefined):
        return False


def _solve_absolute(left: Node, right: Node) -> Node | None:
    """Return `|x - 20| = 5` as the two equations that it stands for; None for any other equation."""
    inside, names = left.args[:1], symbols(left)
    # |z| = 3 is a circle.
    if left.op != "abs" or len(names) != 1 or names <= _COMPLEX or not is_constant(right):
        return None
    if compare_constants(right, number(0)) < 0:
        return None
    signed = (right, Node("neg", (right,)))
    return Node("set", tuple(canonicalize(solve_linear(Node("eq", (*inside, value))).low) for value in signed))


_COMPLEX = frozenset({"z", "w"})


def _canonicalize_matrix(node: Node) -> Node:
    rows = [tuple(canonicalize(cell) for cell in row.args) for row in node.args]
    if len(rows) == 1 and len(rows[0]) == 1:
        return rows[0][0]
    if len(rows[0]) == 1:
        return Node("tuple", tuple(row[0] for row in rows))
    return Node("matrix", tuple(Node("row", row) for row in rows))


def _canonicalize_ratio(node: Node) -> Node:
    parts = tuple(canonicalize(arg) for arg in node.args)
    try:
        if len(parts) == 2:
            return canonicalize(Node("div", parts))
        return Node("ratio", tuple(canonicalize(Node("div", (part, parts[0]))) for part in parts))
    except Undefined:
        return Node("ratio", parts)


def _canonicalize_arithmetic(node: Node) -> Node:
    """Return the canonical form of a sum, product or power: of numbers, sets or matrices."""
    if node.op == "mul" and [arg.op for arg in node.args] == ["sym", "tuple"] and str(node.args[0].value).isupper():
        return canonicalize(node.args[1])  # A(1, 2) is the point (1, 2)
    if node.op == "add" and node.args[0].op in _SETS and all(arg.op == "neg" for arg in node.args[1:]):
        # R - {0} is a difference of sets: the grammar reads its sign like any other minus.
        taken_away = Node("union", tuple(arg.args[0] for arg in node.args[1:]))
        return _canonicalize_region(Node("minus", (node.args[0], taken_away)))
    if node.op == "neg" and node.args[0].op == "tuple":
        return canonicalize(Node("tuple", tuple(Node("neg", (arg,)) for arg in node.args[0].args)))
    if not any(n.op == "matrix" for n in walk(node)):
        return canonicalize_formula(node)
    return _canonicalize_matrix(matrix_value(node))


_RULES: dict[str, Callable[[Node], Node]] = {
    "named": lambda node: canonicalize(node.args[0]),
    "in": lambda node: canonicalize(node.args[0]),
    "set": _canonicalize_list,
    "list": _canonicalize_list,
    "tuple": _canonicalize_tuple,
    "point": _canonicalize_tuple,
    "interval": _canonicalize_interval,
    "union": _canonicalize_region,
    "inter": _canonicalize_region,
    "minus": _canonicalize_region,
    "rel": _canonicalize_region,
    "whole": _canonicalize_whole,
    "field": lambda node: _canonicalize_region(node) if node.value == "reals" else node,
    "eq": _canonicalize_equation,
    "matrix": _canonicalize_matrix,
    "ratio": _canonicalize_ratio,
    "mul": _canonicalize_arithmetic,
    "add": _canonicalize_arithmetic,
    "neg": _canonicalize_arithmetic,
    "pow": _canonicalize_arithmetic,
    "det": lambda node: canonicalize(determinant(node.args[0])),
    "text": lambda node: node,
    "letter": lambda node: node,
}
"""What each operation comes to; all others are formulas."""
