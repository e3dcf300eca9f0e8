"""What a relation between two trees says: a label of a value, an equation, an inequality, nothing at all."""

from __future__ import annotations

from mathlete.answers.labels import names_by_capitals, names_formula, names_number
from mathlete.answers.laws import is_law_of
from mathlete.answers.regions import INFINITY, MINUS_INFINITY
from mathlete.answers.tree import Node, Unreadable, symbols, walk
from mathlete.answers.vocabulary import GREEK

SIGNS = {
    "=": "=", "==": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", r"\le": "<=", r"\leq": "<=", r"\leqslant": "<=",
    r"\ge": ">=", r"\geq": ">=", r"\geqslant": ">=", r"\lt": "<", r"\gt": ">", "!=": "!=", "<>": "!=", r"\ne": "!=",
    r"\neq": "!=", r"\approx": "~", r"\simeq": "~", r"\doteq": "~", r"\in": "in", r"\equiv": "mod=", r"\to": "to",
    r"\cong": "mod=", ":=": "=", r"\Rightarrow": "then", r"\implies": "then", r"\iff": "iff",
    r"\Longleftrightarrow": "iff",
    r"\Leftrightarrow": "iff", "->": "to", r"\rightarrow": "to", r"\coloneqq": "=", r"\subseteq": "sub",
    r"\subset": "sub", r"\Longrightarrow": "then", r"\longrightarrow": "to", r"\ll": "<<", r"\gg": ">>",
}  # fmt: skip
"""The relation that each sign means."""
ORDER_SIGNS = frozenset({"<", ">", "<=", ">=", "!="})


def equate(left: Node, right: Node, *, names: tuple[str, str]) -> Node:
    """Return what `left = right` says: `x = 3` is 3 with a name, `m+n = 33` is 33, `y = 2x+1` stays an equation.

    Args:
        left: the left side.
        right: the right side.
        names: both sides as written, for the name of a label.

    Raises:
        Unreadable: brackets around letters that are set equal to another kind of thing, as a commutator [x, p] is.
    """
    if _is_value(left) and not _is_value(right) and not symbols(left):
        left, right, names = right, left, names[::-1]
    if left.op == right.op == "tuple" and len(left.args) == len(right.args) and all(map(_is_name, left.args)):
        # (AB, BC) = (3, 5) keeps its names, as AB = 3, BC = 5 does.
        return make_point([_name_of(name) for name in left.args], list(right.args))
    if _is_value(left) and symbols(left):
        if not _names_collection(left, right, name=names[0]):
            raise Unreadable("brackets around letters that name no value")
        return right
    if _is_value(left) and _is_value(right):
        return right
    # A number behind = is named by nearly anything; a formula only by a name or a call.
    if _is_value(right):
        is_zero = right.op == "num" and not right.value
        is_label = _is_label(left) or (_is_sum_of_names(left) and not is_zero) or names_number(left, right)
        is_label = is_label or _names_set(left, right)
    else:
        is_label = (
            (left.op == "sym" and names_formula(str(left.value), right))
            or _is_function_label(left, right)
            or (left.op in ("mul", "abs") and names_by_capitals(left, right))
        )
    return Node("named", (right,), names[0]) if is_label else Node("eq", (left, right))


def _names_collection(left: Node, right: Node, *, name: str) -> bool:
    r"""Return whether brackets around letters are a label: each part of the part behind =, `\langle u, v\rangle`, {x}.

    (x, y) = 5 may be a divisor, [x, p] = 0 a commutator and {f, g} = 1 a bracket: none says what the number is.
    """
    if _is_value(right) and left.op in ("tuple", "interval", "set", "matrix") and len(left.args) == len(right.args) > 0:
        pairs = list(zip(_parts_of(left), _parts_of(right), strict=False))
        if len(_parts_of(left)) == len(_parts_of(right)) and all(_is_named(*pair) for pair in pairs):
            return True
    if left.op in _SET_OPERATIONS:
        return _names_set(left, right)
    is_number = _is_value(right) and right.op not in COLLECTIONS
    if left.op == "set" and len(left.args) == 1 and "_" in str(left.args[0].value):
        return _is_value(right)  # the members of a sequence
    # A fractional part, a product of vectors, and a commutator of matrices that comes to a matrix.
    return (is_number and (len(left.args) == 1 or name.startswith(r"\langle"))) or (
        left.op == "interval" and right.op == "matrix" and not symbols(right)
    )


def _parts_of(node: Node) -> tuple[Node, ...]:
    return tuple(cell for row in node.args for cell in row.args) if node.op == "matrix" else node.args


def _is_named(left: Node, right: Node) -> bool:
    return equate(left, right, names=("", "")).op == "named" if symbols(left) else left == right


def _names_set(left: Node, right: Node) -> bool:
    r"""Return whether a left side of sets names the set behind =: `A \cap B`, `A \setminus B`."""
    parts = [n for n in walk(left) if n.op not in _SET_OPERATIONS]
    is_of_names = all(n.op == "sym" and str(n.value)[0].isupper() for n in parts)
    return left.op in _SET_OPERATIONS and is_of_names and right.op in ("set", "interval", "union", "field")


COLLECTIONS = frozenset({"set", "interval", "union", "tuple", "matrix"})
_SET_OPERATIONS = frozenset({"union", "inter", "minus"})


def _is_name(node: Node) -> bool:
    """Return whether the tree is a letter, capitals side by side, as of a segment, or a value such as f(1)."""
    if node.op == "apply":
        return all(arg.op == "num" for arg in node.args[1:])
    return node.op == "sym" or (node.op == "mul" and all(a.op == "sym" and str(a.value).isupper() for a in node.args))


def _name_of(node: Node) -> str:
    if node.op == "apply":
        return f"{node.args[0].value}({','.join(str(arg.value) for arg in node.args[1:])})"
    return str(node.value) if node.op == "sym" else "".join(str(arg.value) for arg in node.args)


def make_point(names: list[str], values: list[Node]) -> Node:
    r"""Return named values in the order of their names; letters are dropped, as in (x, y) = (1, 2), longer names stay.

    AB = 3, BC = 5 is not AB = 5, BC = 3, and may be written as the bare list 3, 5.
    """
    ordered = sorted(zip(names, values, strict=True), key=lambda pair: pair[0])
    args = tuple(value for _, value in ordered)
    is_letters = all(len(name) == 1 or name.removeprefix("\\") in GREEK for name in names)
    return Node("tuple", args) if is_letters else Node("point", args, " ".join(name for name, _ in ordered))


def _is_value(node: Node) -> bool:
    return not symbols(node) or node.op in COLLECTIONS


def _is_label(node: Node) -> bool:
    """Return whether the tree is a name for a value: x, a_3, AB, f(2), (x, y), S_{ABC} : S."""
    if node.op in ("sym", "letter"):
        return True
    if node.op in ("tuple", "ratio"):
        return all(_is_label(a) for a in node.args)
    if node.op == "apply":
        return True
    # Capitals side by side name a segment or a triangle: AB = 5; but xy = 5 is an equation.
    return node.op == "mul" and all(n.op in ("mul", "sym") and str(n.value or "A")[0].isupper() for n in walk(node))


def _is_sum_of_names(node: Node) -> bool:
    """Return whether the tree is `m+n` or `a+b+c`: what AIME problems ask for."""
    # x, y and z stay coordinates, so x+y=1 stays a line.
    names = [n for n in walk(node) if n.op != "add"]
    plain = all(n.op == "sym" and str(n.value) not in "xyz" for n in names)
    is_law = is_law_of({str(n.value) for n in names})
    return node.op == "add" and plain and not is_law and len({n.value for n in names}) == len(names)


def _is_function_label(left: Node, right: Node) -> bool:
    """Return whether the right side is the answer: of `f(x) = ...`, `S_n = ...`, `A = ...`."""
    if left.op in ("sum", "prod", "integral", "limit"):
        return not any(n.op == left.op for n in walk(right))
    if left.op == "apply":
        # f(x) = f(x-1) + 1 is an equation for f, not its value.
        return not any(n.op == "apply" and n.args[0] == left.args[0] for n in walk(right))
    return False


def chain_inequalities(nodes: list[Node], signs: list[str]) -> Node:
    """Return a chain such as `1 < x < 2` as the conjunction of its links."""
    links = [Node("rel", (a, b), s) for a, b, s in zip(nodes, nodes[1:], signs, strict=False)]
    links = [link for link in links if not _is_always_true(link)]
    if not links:
        return Node("field", value="reals")
    return links[0] if len(links) == 1 else Node("inter", tuple(links))


def _is_always_true(link: Node) -> bool:
    r"""Return whether a link only says that a real number lies between the infinities: `-\infty < x`."""
    low, high = link.args if str(link.value).startswith("<") else link.args[::-1]
    return link.value != "!=" and link.value != "=" and (low == MINUS_INFINITY or high == INFINITY)
