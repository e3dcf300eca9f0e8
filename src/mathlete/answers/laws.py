r"""Left sides that are no label but part of what the answer says: laws of fields, equations of motion, recurrences.

`\square u = f`, `\det(A - \lambda I) = 0`, `\frac{dN}{dt} = rN` and `a_{n+1} = 2a_n` say more than their right sides:
none may be taken for its right side, nor for another law with the same one.
"""

from __future__ import annotations

import re

from mathlete.answers.lexer import Token
from mathlete.answers.tree import Node, constant, symbols, walk

COORDINATES = frozenset({"x", "y", "z"})
"""Letters whose equations are curves and surfaces, and no labels."""
_DIFFERENTIAL = frozenset({r"\nabla", r"\square", r"\Box", r"\partial", r"\grad", r"\curl", r"\oint"})
"""Operators of a field: what is set equal to them is most often a law of the field."""


def names_operation(tokens: list[Token], value: Node) -> bool:
    r"""Return whether the tokens are an integral without limits, whose result is no zero, or a gradient."""
    if tokens[0].text == r"\int":
        is_whole = (
            re.search(r"d[a-zA-Z]$|\\frac\{[^{}]*d[a-zA-Z]\}\{", "".join(token.text.strip() for token in tokens))
            is not None
        )
        return is_whole and tokens[1].text != "_" and not is_zero(value)
    return _names_gradient(tokens, value)


def states_equation(tokens: list[Token], value: Node) -> bool:
    r"""Return whether a left side that looks like a label is part of what the answer says.

    What asks for a value is a label: `\det A`, `\nabla f`. A law of a field (`\square u = f`, `\nabla\cdot E = \rho`)
    and an equation in an unknown (`\det(A - \lambda I) = 0`) are none.
    """
    if not tokens:
        return False
    if value.op == "sym" and _is_operator_on(tokens, str(value.value)):
        return True
    if any(token.text in _DIFFERENTIAL for token in tokens) and not _PARTIAL.match(_join_texts(tokens)):
        return not _names_gradient(tokens, value) and not is_quadrilateral(tokens)
    # A sum in the bracket may hold an unknown.
    if tokens[0].text not in _OF_MATRICES or all(token.text not in ("+", "-") for token in tokens):
        return False
    # A characteristic polynomial has the letter of its matrix; a number there is an equation for the letter.
    letters = {token.text.lstrip("\\") for token in tokens[1:] if token.kind in ("name", "cmd")}
    unknowns = {letter for letter in letters if letter[0].islower()}
    return is_zero(value) or (bool(unknowns) and not (symbols(value) and symbols(value) <= unknowns))


def _is_operator_on(tokens: list[Token], name: str) -> bool:
    r"""Return whether a bare name behind = makes a statement: `f(f(x)) = x`, `\overline{z} = z`, `L[y] = f`."""
    texts = [token.text for token in tokens]
    is_composed = texts.count("(") > 1 and texts[0].isalpha()
    is_conjugate = texts[0] in (r"\overline", r"\bar")
    if name in texts[1:] and (is_composed or is_conjugate):
        return True
    return len(texts) > 3 and texts[1] == "[" and texts[0] not in _EXPECTATIONS and name not in texts


_EXPECTATIONS = frozenset("EPVH")
"""Letters that call what stands in square brackets behind them, as of an expectation."""
_OF_MATRICES = frozenset({r"\det", r"\tr", r"\trace", r"\rank", r"\Re", r"\Im", r"\arg"})
"""Operators of a matrix or a complex number, which may hold the unknown of an equation."""


def _join_texts(tokens: list[Token]) -> str:
    return "".join(token.text.strip() for token in tokens)


_PARTIAL = re.compile(r"\\frac\{\\partial")
_DEPENDENT = re.compile(
    r"\\frac\{(?:d|\\partial)(?:\^\{?(?P<order>\d)\}?)?(?P<of>[a-zA-Z])\}\{(?:d|\\partial)(?P<by>[a-zA-Z])(?:\^\{?\d\}?)?\}|d(?P<of2>[a-z])/d(?P<by2>[a-z])"
)
"""A derivative with its letters: of which variable, and by which."""


def states_motion(tokens: list[Token], value: Node) -> bool:
    r"""Return whether a derivative is set equal to a formula of the variable that is derived: `\frac{dN}{dt} = rN`.

    `\frac{dy}{dx} = -\frac{x}{y}` is what implicit differentiation asks for, and so is a second derivative over y.
    """
    derivative = _DEPENDENT.fullmatch(_join_texts(tokens))
    if derivative is None:
        return False
    of, by = derivative["of"] or derivative["of2"], derivative["by"] or derivative["by2"]
    is_second = derivative["order"] not in (None, "1")
    # u_t = f and u_xx = f are equations of a field; of a function that is given, f or z, they ask for the derivative.
    if _PARTIAL.match(derivative[0]) and of in _FIELDS and (is_second or by == "t"):
        return True
    if of not in symbols(value):
        return False
    return not ({of, by} <= COORDINATES and (not is_second or _divides(of, value)))


_FIELDS = frozenset("uvwTcpE")
"""Letters of fields, whose partial derivatives stand in laws."""


def _divides(name: str, value: Node) -> bool:
    return any(n.op == "div" and name in symbols(n.args[1]) for n in walk(value))


def is_quadrilateral(tokens: list[Token]) -> bool:
    r"""Return whether the tokens are `\square ABCD`, the name of a figure."""
    return tokens[0].text == r"\square" and re.fullmatch("[A-Z]{3,6}", _join_texts(tokens[1:])) is not None


def _names_gradient(tokens: list[Token], value: Node) -> bool:
    r"""Return whether the tokens are a gradient or a curl with its components behind =, or one of them at a point."""
    head, *operand = tokens
    if head.text not in (r"\nabla", r"\grad", r"\curl") or not operand:
        return False
    at_point = re.search(r"\([-\d.,/]+\)\Z", _join_texts(operand)) is not None
    is_of_field = head.text == r"\nabla" and operand[0].text in (r"\cdot", "^", "*", "_")
    is_vector = value.op in ("tuple", "matrix") or (constant("i") in walk(value) and "j" in symbols(value))
    return (at_point and value.op in ("num", "tuple", "matrix")) or (is_vector and not is_of_field)


def is_zero(value: Node) -> bool:
    """Return whether the tree is the number zero."""
    return value.op == "num" and not value.value


def is_law_of(names: set[str]) -> bool:
    r"""Return whether names stand for a derivative, or for members of a sequence: `\dot x`, u_{xx}, a_{n+1} and a_n.

    A sum or a product of such names that comes to a number is an equation of motion, or a recurrence.
    """
    if any("dot " in name or name.endswith("'") or _SECOND_PARTIAL.search(name) for name in names):
        return True
    return any(is_other_member(a, b) for a in names for b in names)


_SECOND_PARTIAL = re.compile(r"_[txyz]{2,}\Z")


def is_other_member(one: str, other: str) -> bool:
    """Return whether two names are members of a sequence, as a_n+1 and a_n, or derivatives, as u_t and u_xx."""
    (stem, _, index), (stem_of_other, _, index_of_other) = one.partition("_"), other.partition("_")
    if stem != stem_of_other or index == index_of_other or not index or not index_of_other:
        return False
    if re.fullmatch("[txyz]+", index) and re.fullmatch("[txyz]+", index_of_other):
        return "t" in index + index_of_other or len(index + index_of_other) > 2
    letters = re.findall("[a-z]", index)
    return bool(letters) and letters == re.findall("[a-z]", index_of_other) and bool(re.search("[-+]", index))
