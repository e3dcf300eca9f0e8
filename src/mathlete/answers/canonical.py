"""The canonical form of an answer's tree: what equal answers have in common, before anything is compared.

Rational constants become one number, labels and units are gone, lists are sets without repetition, regions are sorted
unions of intervals, an open interval is a pair, a residue is the smallest one, a column is a tuple.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from mathlete.answers.bounds import is_zero
from mathlete.answers.exact import rational
from mathlete.answers.numeric import constant_value, context
from mathlete.answers.regions import Segment, is_infinite, linear, order, region
from mathlete.answers.tree import Node, TooBig, TooHard, Undefined, number, symbols, walk

COLLECTIONS = frozenset({"set", "tuple", "interval", "union", "matrix", "row", "ratio"})
"""Canonical nodes that hold other answers."""
_SETS = frozenset({"field", "interval", "union"})
WORDS = frozenset({"text", "letter"})
RELATIONS = frozenset({"eq", "rel", "chain"})
_MAX_ITEMS = 400


def canonical(node: Node) -> Node:
    """The canonical tree.

    Raises:
        Undefined: it has no value: a division by zero.
    """
    rule = _RULES.get(node.op)
    return rule(node) if rule else expression(node)


def is_constant(node: Node) -> bool:
    """Whether the tree is a number, real or complex."""
    if node.op in COLLECTIONS | WORDS | RELATIONS:
        return False
    return not symbols(node) and not any(n.op in ("apply", "field") for n in walk(node))


def expression(node: Node) -> Node:
    """A formula; an exact number where it is a rational constant."""
    if node.op == "num" or is_infinite(node):
        return node
    if node.op == "sym" and len(str(node.value)) == 1:
        return Node("letter", value=str(node.value).casefold())
    if node.op == "neg" and node.args[0].op == "num":
        inner = node.args[0]
        return Node("num", value=-inner.value, digits=inner.digits)  # type: ignore[operator]
    try:
        value = rational(node)
    except TooBig:
        return node
    if value is not None:
        return number(value)
    return _hidden_rational(node) if is_constant(node) else node


def _hidden_rational(node: Node) -> Node:
    r"""A constant that radicals and functions hide: `\sqrt2\cdot\sqrt2` is 2; Undefined for 1/(sqrt2 - sqrt2)."""
    try:
        value = constant_value(node)
        if context(180).im(value) or not -60 < context(180).mag(value) < 100:
            return node
        near = _near_rational(value)
        if near is None or not is_zero(Node("add", (node, number(-near))), patient=False):
            return node
    except (TooHard, TooBig):
        return node
    return number(near)


def _near_rational(value: object) -> Fraction | None:
    """The fraction with a denominator of up to ten digits that agrees to 35 digits, if there is one."""
    ctx = context(180)
    scaled = Fraction(int(ctx.nint(ctx.ldexp(value, 160))), 1 << 160)
    near = scaled.limit_denominator(10**10)
    return near if abs(near - scaled) < Fraction(1, 10**35) else None


def _set(node: Node) -> Node:
    if any(item.op in ("interval", "union", "field", "rel") for item in node.args):
        return _region(Node("union", node.args))
    if len(node.args) > _MAX_ITEMS:
        raise TooBig(f"a list of more than {_MAX_ITEMS} items")
    items: list[Node] = []
    for arg in node.args:
        item = canonical(arg)
        items.extend(item.args if item.op == "set" and node.op == "list" and item.args else (item,))
    return _as_set(items)


def _as_set(items: list[Node]) -> Node:
    """The set of the items without repetition; one item is that item."""
    from mathlete.answers.equality import same

    found: list[Node] = []
    distinct = {item.value if item.op == "num" else item: item for item in items}
    for item in distinct.values():
        if item.op == "num" or not any(_is_surely_same(same, item, other) for other in found):
            found.append(item)
    return found[0] if len(found) == 1 else Node("set", tuple(found))


def _is_surely_same(same: object, a: Node, b: Node) -> bool:
    try:
        return same(a, b)  # type: ignore[operator, no-any-return]
    except (TooHard, TooBig):
        return False


def _tuple(node: Node) -> Node:
    return Node("tuple", tuple(canonical(arg) for arg in node.args))


def _interval(node: Node) -> Node:
    low, high = (canonical(arg) for arg in node.args)
    if not (is_constant(low) and is_constant(high)):
        return Node("interval", (low, high), node.value)
    return segment_node(Segment(low, high, str(node.value)))


def segment_node(segment: Segment) -> Node:
    """A segment as a tree: a point, an open interval as a pair, or an interval."""
    if segment.low == segment.high or (segment.brackets == "[]" and order(segment.low, segment.high) == 0):
        return segment.low
    brackets = ("(" if is_infinite(segment.low) else segment.brackets[0]) + (
        ")" if is_infinite(segment.high) else segment.brackets[1]
    )
    ends = (segment.low, segment.high)
    return Node("tuple", ends) if brackets == "()" else Node("interval", ends, brackets)


def _region(node: Node) -> Node:
    try:
        segments = region(_with_canonical_ends(node))
    except TooHard:
        return _chain(node)
    nodes = [segment_node(Segment(expression(s.low), expression(s.high), s.brackets)) for s in segments]
    if all(is_constant(n) for n in nodes):
        return _as_set(nodes)
    return nodes[0] if len(nodes) == 1 else Node("union", tuple(nodes))


def _with_canonical_ends(node: Node) -> Node:
    if node.op in ("interval", "tuple", "set", "list", "union", "inter", "minus"):
        return Node(node.op, tuple(_with_canonical_ends(arg) for arg in node.args), node.value)
    return node if node.op in ("rel", "eq", "named", "field") else canonical(node)


def _chain(node: Node) -> Node:
    """Inequalities that are no set of numbers: their links, all pointing up."""
    if node.op == "rel":
        a, b = (canonical(arg) for arg in node.args)
        sign = str(node.value)
        return Node("rel", (b, a), sign.replace(">", "<")) if sign.startswith(">") else Node("rel", (a, b), sign)
    if node.op in ("inter", "union"):
        return Node("chain", tuple(_chain(arg) for arg in node.args), node.op)
    return node if node.op == "minus" else canonical(node)


def _equation(node: Node) -> Node:
    try:
        return canonical(linear(node).low)
    except (TooHard, TooBig):
        return Node("eq", node.args)


def _matrix(node: Node) -> Node:
    rows = [tuple(canonical(cell) for cell in row.args) for row in node.args]
    if len(rows) == 1 and len(rows[0]) == 1:
        return rows[0][0]
    if len(rows[0]) == 1:
        return Node("tuple", tuple(row[0] for row in rows))
    return Node("matrix", tuple(Node("row", row) for row in rows))


def _ratio(node: Node) -> Node:
    parts = tuple(canonical(arg) for arg in node.args)
    try:
        if len(parts) == 2:
            return canonical(Node("div", parts))
        return Node("ratio", tuple(canonical(Node("div", (part, parts[0]))) for part in parts))
    except Undefined:
        return Node("ratio", parts)


def _product(node: Node) -> Node:
    """A product; of matrices where there is one."""
    if node.op == "mul" and [arg.op for arg in node.args] == ["sym", "tuple"] and str(node.args[0].value).isupper():
        return canonical(node.args[1])  # A(1, 2) is the point (1, 2)
    if node.op == "add" and node.args[0].op in _SETS and all(arg.op == "neg" for arg in node.args[1:]):
        return _region(Node("minus", (node.args[0], Node("union", tuple(arg.args[0] for arg in node.args[1:])))))
    if not any(n.op == "matrix" for n in walk(node)):
        return expression(node)
    from mathlete.answers.matrices import matrix_value

    return _matrix(matrix_value(node))


def _determinant(node: Node) -> Node:
    from mathlete.answers.matrices import determinant

    return canonical(determinant(node.args[0]))


_RULES: dict[str, Callable[[Node], Node]] = {
    "named": lambda node: canonical(node.args[0]),
    "set": _set,
    "list": _set,
    "tuple": _tuple,
    "interval": _interval,
    "union": _region,
    "inter": _region,
    "minus": _region,
    "rel": _region,
    "field": lambda node: _region(node) if node.value == "reals" else node,
    "eq": _equation,
    "matrix": _matrix,
    "ratio": _ratio,
    "mul": _product,
    "add": _product,
    "neg": _product,
    "pow": _product,
    "det": _determinant,
    "text": lambda node: node,
    "letter": lambda node: node,
}
