"""What stands after a value: powers of degrees, factorials, percent signs, units, scale words, subscripts, bases."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from mathlete.answers.literals import is_base, read_in_base
from mathlete.answers.tree import Node, Unreadable, number, symbol
from mathlete.answers.vocabulary import CURRENCY, LETTER_UNITS, PERCENT, SCALES, UNITS

if TYPE_CHECKING:
    from mathlete.answers.grammar import Grammar


def read_suffixes(g: Grammar, node: Node) -> Node:
    """Return the value with all that stands after it."""
    while True:
        token = g.peek()
        # Before exponents: in 90^\circ the sign is no power.
        if token.text == "^" and _take_degree(g):
            node = Node("deg", (node,))
        elif token.text == "!" and token.kind == "op":
            g.take()
            node = Node("factorial", (node,))
        elif token.text in ("%", r"\%"):
            g.take()
            node = Node("div", (node, number(100)))
        # f' is a name of its own; a derivative is never computed.
        elif token.text == "'" and node.op == "sym":
            g.take()
            node = symbol(f"{node.value}'")
        elif token.text == "_" and node.op in ("num", "sym"):
            node = _read_subscript(g, node)
        elif token.text == r"\degree":
            g.take()
            node = Node("deg", (node,))
        elif _may_be_unit(g) and (annotated := _read_annotation(g, node)):
            node = annotated
        else:
            return node


def _may_be_unit(g: Grammar) -> bool:
    """Return whether the next token is a word; min is one where no bracket makes it the smallest of a list."""
    token = g.peek()
    return token.kind in ("text", "word") or (token.text == "min" and g.peek(1).text not in ("(", "{", r"\{"))


def _take_degree(g: Grammar) -> bool:
    """Take a degree sign if it comes next; return whether it did."""
    # The sign is the TeX for a raised circle: ^\circ or ^{\circ}.
    after = [g.peek(k).text for k in (1, 2, 3)]
    steps = 2 if after[0] in (r"\circ", r"\degree") else 4 if after == ["{", r"\circ", "}"] else 0
    g.at += steps
    return steps > 0


def _read_annotation(g: Grammar, node: Node) -> Node | None:
    """Return the value with the unit, currency, percentage or scale word after it; None leaves the word alone."""
    token = g.peek()
    word = token.text.strip().lower().rstrip(".")
    # One letter is a unit only in \text{...}: `2t` and `5m` hold a variable.
    known = UNITS | CURRENCY if token.kind == "word" else UNITS | CURRENCY | LETTER_UNITS
    if word in PERCENT or word in SCALES:
        g.take()
        over = SCALES.get(word, (1, 100))
        return Node("mul", (node, number(Fraction(*over))))
    # All parts of a compound such as km/h must be units, or the word stays and the expression is unreadable.
    parts = word.replace("/", " ").replace("^", " ").split()
    if parts and all(p in known or p.isdigit() or token.text.strip() in known for p in parts):
        g.take()
        _skip_unit_power(g)
        return Node("deg", (node,)) if word in ("degree", "degrees", "deg") else node
    return None


def _skip_unit_power(g: Grammar) -> None:
    """Take the power of a unit: `cm^2`."""
    if g.peek().text == "^":
        g.take()
        g.exponent()


def _read_subscript(g: Grammar, node: Node) -> Node:
    """Return a variable with an index, or a number in a base."""
    g.take()
    name = read_script(g)
    if node.op == "num" or (len(name) > 0 and is_base(node, name)):
        return read_in_base(str(node.value) if node.op == "sym" else _digit_string(node), name)
    return symbol(f"{node.value}_{name}")


def _digit_string(node: Node) -> str:
    """Return the digits of a number that has a base."""
    if not isinstance(node.value, Fraction) or node.value.denominator != 1 or node.digits is not None:
        raise Unreadable("a subscript after a number that is no digit string")
    return str(node.value.numerator)


def read_script(g: Grammar) -> str:
    """Return the text of a subscript."""
    if g.peek().text != "{":
        return g.take().text.strip().lstrip("\\")
    depth = 0
    parts: list[str] = []
    while True:
        token = g.take()
        if token.kind == "end":
            raise Unreadable("unclosed subscript")
        depth += (token.text == "{") - (token.text == "}")
        if depth == 0:
            return "".join(parts)
        parts.append(token.text.strip().lstrip("\\") if token.text != "{" else "")
