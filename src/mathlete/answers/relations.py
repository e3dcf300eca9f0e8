"""Relations between expressions: which are labels, which are chains, which are equations or regions."""

from __future__ import annotations

from mathlete.answers.lexer import Token
from mathlete.answers.regions import INFINITY, MINUS_INFINITY
from mathlete.answers.tree import Node, Unreadable, symbols, walk

_ORDER = frozenset({"<", ">", "<=", ">=", "!="})


def relation(parts: list[list[Token]], signs: list[str]) -> Node:
    """The node of one item split at its relation signs.

    Raises:
        Unreadable: a part that decides the value cannot be read.
    """
    from mathlete.answers.forms import read_expression

    if "then" in signs:
        last = len(signs) - 1 - signs[::-1].index("then")
        return relation(parts[last + 1 :], signs[last + 1 :])
    if not signs:
        return read_expression(parts[0])
    if "~" in signs:
        return _approximate(parts, signs)
    if set(signs) <= {"="}:
        return _equalities(parts)
    if signs == ["mod="]:
        return read_expression(parts[1])
    if signs == ["in"] or (signs == ["to"] and len(parts[0]) == 1):
        return read_expression(parts[1])
    if set(signs) <= _ORDER | {"="}:
        return _order(parts, signs)
    raise Unreadable(f"the relation {' '.join(signs)}")


def _approximate(parts: list[list[Token]], signs: list[str]) -> Node:
    """An exact value before ≈ wins; a bare label or nothing before it leaves the approximation."""
    from mathlete.answers.forms import read_expression

    at = signs.index("~")
    if not parts[at]:
        return read_expression(parts[at + 1])
    before = relation(parts[: at + 1], signs[:at])
    if before.op == "sym" or before.op == "apply":
        return read_expression(parts[at + 1])
    return before


def _equalities(parts: list[list[Token]]) -> Node:
    from mathlete.answers.forms import read_expression

    parts = [p for p in parts if p] if len(parts) > 2 or not parts[0] else parts
    if not parts:
        raise Unreadable("nothing but signs")
    if len(parts) == 1:
        return read_expression(parts[0])
    last = read_expression(parts[-1])
    try:
        first = read_expression(parts[0])
    except Unreadable:
        return last
    if len(parts) > 2:
        return Node("named", (last,), first.value) if first.op == "sym" and _is_plain_name(first) else last
    return equation(first, last)


def equation(left: Node, right: Node) -> Node:
    """`x = 3` is 3 with a name; `m+n = 33` is 33; `y = 2x+1` stays an equation."""
    if _is_value(left) and _is_label(right):
        left, right = right, left
    if _is_value(left) and _is_value(right):
        return right
    if left.op == "sym" and _is_plain_name(left) and _is_value(right):
        return Node("named", (right,), left.value)
    if _is_value(right) and (_is_label(left) or _is_sum_of_names(left)):
        return right
    if _is_function_label(left, right):
        return right
    return Node("eq", (left, right))


def _is_plain_name(node: Node) -> bool:
    return len(str(node.value)) == 1


def _is_value(node: Node) -> bool:
    return not symbols(node) or node.op in ("set", "interval", "union", "tuple", "matrix")


def _is_label(node: Node) -> bool:
    """A name for a value: x, a_3, AB, f(2), (x, y), S_{ABC} : S."""
    if node.op in ("sym", "letter"):
        return True
    if node.op in ("tuple", "ratio"):
        return all(_is_label(a) for a in node.args)
    if node.op == "apply":
        return True
    if node.op == "abs":
        return node.args[0].op != "sym" and _is_label(node.args[0])
    return node.op == "mul" and all(n.op in ("mul", "sym") and str(n.value or "A")[0].isupper() for n in walk(node))


def _is_sum_of_names(node: Node) -> bool:
    """`m+n`, `a+b+c`: what AIME answers ask for; x, y, z stay coordinates, so x+y=1 stays a line."""
    names = [n for n in walk(node) if n.op != "add"]
    plain = all(n.op == "sym" and str(n.value) not in "xyz" for n in names)
    return node.op == "add" and plain and len({n.value for n in names}) == len(names)


def _is_function_label(left: Node, right: Node) -> bool:
    """`f(x) = ...`, `S_n = ...`, `A = ...`: the right side is the answer."""
    if left.op == "apply":
        return not any(n.op == "apply" and n.args[0] == left.args[0] for n in walk(right))
    name = str(left.value)
    return left.op == "sym" and (name[0].isupper() or len(name) > 1) and name not in symbols(right)


def _is_always_true(link: Node) -> bool:
    r"""Whether it says of a real number that it lies between the infinities: `-\infty < x`."""
    low, high = link.args if str(link.value).startswith("<") else link.args[::-1]
    return link.value != "!=" and link.value != "=" and (low == MINUS_INFINITY or high == INFINITY)


def _order(parts: list[list[Token]], signs: list[str]) -> Node:
    """A chain of inequalities as the conjunction of its links."""
    from mathlete.answers.forms import read_expression

    nodes = [read_expression(p) for p in parts]
    links = [Node("rel", (a, b), s) for a, b, s in zip(nodes, nodes[1:], signs, strict=False)]
    links = [link for link in links if not _is_always_true(link)]
    if not links:
        return Node("field", value="reals")
    return links[0] if len(links) == 1 else Node("inter", tuple(links))
