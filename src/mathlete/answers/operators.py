"""Operators with a reader of their own: bars, and upright letters before brackets such as Re, sgn, tr and mod."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mathlete.answers.exact import exact_value
from mathlete.answers.tree import Node, Unreadable, constant, number, replace, symbol, symbols, walk

if TYPE_CHECKING:
    from collections.abc import Callable

    from mathlete.answers.grammar import Grammar

FUNCTION_LETTERS = frozenset("fghFGHPQ")
"""Names that call what stands in brackets behind them."""


def require_single(node: Node) -> Node:
    """Return the argument of a function.

    Raises:
        Unreadable: several values.
    """
    if node.op in ("tuple", "set", "list"):
        raise Unreadable("a function of several values")
    return node


def read_accent(g: Grammar, accent: str) -> Node:
    """Read what stands under an accent: a letter, its call, or a longer name in braces."""
    if g.peek().kind == "name" and len(g.peek().text) == 1:
        return _read_accented_letter(g, accent)
    return symbol(f"{accent} {_flatten_name(g.argument())}")


def _read_accented_letter(g: Grammar, accent: str) -> Node:
    r"""Read the letter under an accent without braces, and its call: TeX takes one letter, so `\hat f(x)` is a call."""
    name = symbol(f"{accent} {g.take().text}")
    is_call = g.peek().text == "(" and not g.peek().spaced and str(name.value)[-1] in FUNCTION_LETTERS
    return Node("apply", (name, g.group())) if is_call else name


def _flatten_name(node: Node) -> str:
    if node.op in ("sym", "const", "num"):
        return str(node.value)
    if node.op == "mul":
        return "".join(_flatten_name(a) for a in node.args)
    raise Unreadable("an accent over more than a name")


def read_conjugate(g: Grammar) -> Node | None:
    r"""Read `\overline{4+i}` as 4 - i; return None, and take nothing, where the bar is over anything but a number."""
    mark, tokens = g.at, g.tokens
    inner = g.argument()
    # A bar over digits only says that they are digits, and a base may follow.
    if inner.op == "num":
        return inner
    if constant("i") in walk(inner) and not symbols(inner):
        return replace(inner, constant("i"), Node("neg", (constant("i"),)))
    if inner.op == "mul" and (digits := _read_digits(inner)):
        return digits
    # A segment is named with its bar or without.
    if inner.op == "mul" and len(inner.args) == 2 and all(str(arg.value).isupper() for arg in inner.args):
        return inner
    g.at, g.tokens = mark, tokens
    return None


def _read_digits(product: Node) -> Node | None:
    r"""Return the number whose digits stand under a bar, `\overline{abc}` as 100a + 10b + c; None for capitals."""
    if not all(arg.op == "num" or (arg.op == "sym" and str(arg.value).islower()) for arg in product.args):
        return None
    highest = len(product.args) - 1
    return Node(
        "add", tuple(Node("mul", (number(10 ** (highest - at)), digit)) for at, digit in enumerate(product.args))
    )


def _read_gamma(g: Grammar) -> Node:
    return Node("factorial", (Node("add", (require_single(g.group()), number(-1))),))


def _read_sign(g: Grammar) -> Node:
    """Read the sign of a number or a formula: 1, 0 or -1."""
    inner = require_single(g.group())
    cases = ((number(1), Node("rel", (inner, number(0)), ">")), (number(-1), Node("rel", (inner, number(0)), "<")))
    value = exact_value(inner)
    if value is not None:
        return number((value > 0) - (value < 0))
    return Node("cases", (*cases[0], *cases[1], number(0), Node("field", value="reals")))


def _read_part(g: Grammar, *, imaginary: bool) -> Node:
    """Read the real or imaginary part of a number.

    Raises:
        Unreadable: the part of a letter, or of what may be complex without an i, as the root of a negative number.
    """
    inner = require_single(g.group())
    nodes = walk(inner)
    if symbols(inner) or any(n.op not in ("add", "mul", "neg", "div", "num", "const") for n in nodes):
        raise Unreadable("the real or imaginary part of a name")
    conjugate = replace(inner, constant("i"), Node("neg", (constant("i"),)))
    if imaginary:
        return Node("div", (Node("add", (inner, Node("neg", (conjugate,)))), Node("mul", (number(2), constant("i")))))
    return Node("div", (Node("add", (inner, conjugate)), number(2)))


def _read_remainder(g: Grammar) -> Node:
    """Read `mod(17, 5)`."""
    inner = g.group()
    if inner.op != "tuple" or len(inner.args) != 2:
        raise Unreadable("a remainder without its two numbers")
    return Node("mod", inner.args)


def _read_trace(g: Grammar) -> Node:
    """Read the trace of a matrix that is written out."""
    inner = g.group() if g.peek().text != r"\begin" else g.atom()
    if inner.op != "matrix" or len(inner.args) != len(inner.args[0].args):
        raise Unreadable("the trace of no square matrix")
    return Node("add", tuple(row.args[at] for at, row in enumerate(inner.args)))


UPRIGHT: dict[str, Callable[[Grammar], Node]] = {
    "Gamma": _read_gamma,
    "sgn": _read_sign,
    "sign": _read_sign,
    "Re": lambda g: _read_part(g, imaginary=False),
    "re": lambda g: _read_part(g, imaginary=False),
    "Im": lambda g: _read_part(g, imaginary=True),
    "im": lambda g: _read_part(g, imaginary=True),
    "mod": _read_remainder,
    "tr": _read_trace,
}
"""Operators that are read where their argument stands in brackets; before a name they may be part of a label."""
