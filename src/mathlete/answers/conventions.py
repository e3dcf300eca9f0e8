r"""Conventions that data sets settle differently, as settings of a suite: `log=10 percent=points`.

Each is carried out on the tokens or on the tree of an answer before anything is compared, so that under one setting
"the same" stays a relation, and a vote may use it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import pairwise

from mathlete.answers.exact import as_integer, exact_value
from mathlete.answers.lexer import Token
from mathlete.answers.tree import Node, TooBig, Undefined, constant, number, replace, symbols
from mathlete.answers.vocabulary import PERCENT
from mathlete.errors import UserError, nearest


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """What a suite's answers mean where others mean something else; the first choice of each is the default."""

    log: str = "e"
    r"""The base of `\log` without one: `e`, or `10` as in school."""
    percent: str = "hundredth"
    """50% is a `hundredth` of 50, or 50 `points`: GSM8K asks "what percentage" and has the gold 50."""
    residue: str = "value"
    r"""`5 \pmod 7` is the `value` 5, or the `class` of all numbers 7k+5 ("find all n")."""
    unit: str = "dropped"
    """Units are `dropped`, or `compared` by name: then 10 cm, 10 m and 10 are three answers."""
    degree: str = "number"
    """90° is the `number` 90, or the `angle` pi/2."""
    column: str = "vector"
    """Two whole numbers in a column are a `vector`, or a `binomial` coefficient as in old texts."""


CHOICES = {
    "log": ("e", "10"),
    "percent": ("hundredth", "points"),
    "residue": ("value", "class"),
    "unit": ("dropped", "compared"),
    "degree": ("number", "angle"),
    "column": ("vector", "binomial"),
}


@lru_cache(maxsize=64)
def read_conventions(words: str) -> Conventions:
    """Return the conventions that words such as `log=10 percent=points` set.

    >>> read_conventions("log=10").log, read_conventions("").log
    ('10', 'e')

    Raises:
        UserError: an unknown convention or choice.
    """
    chosen: dict[str, str] = {}
    for word in words.split():
        name, _, choice = word.partition("=")
        if name not in CHOICES:
            raise UserError(
                "a suite's setting of answers must be a known one", value=word, cure=nearest(name, [*CHOICES])
            )
        if choice not in CHOICES[name]:
            raise UserError(f"the setting {name} must be a known one", value=word, cure=" or ".join(CHOICES[name]))
        chosen[name] = choice
    return Conventions(**chosen)


def adapt_tokens(tokens: list[Token], conventions: Conventions) -> list[Token]:
    """Return the tokens as the conventions read them: a logarithm with its base, per cent as points."""
    adapted = []
    for at, token in enumerate(tokens):
        follows = tokens[at + 1].text if at + 1 < len(tokens) else ""
        if conventions.log == "10" and token.text in ("log", r"\log") and follows != "_":
            token = Token(token.kind, token.text.replace("log", "lg"), token.spaced)
        is_percent = token.text in ("%", r"\%") or token.text.strip().casefold() in PERCENT
        if not (is_percent and conventions.percent == "points"):
            adapted.append(token)
    return adapted


def adapt_tree(node: Node, conventions: Conventions, *, unit: str) -> Node:
    """Return the tree of an answer as the conventions read it.

    Args:
        node: as the grammar read it, under the defaults.
        conventions: the suite's.
        unit: the answer's unit, "" without one.
    """
    node = _adapt_parts(node, conventions)
    if conventions.residue == "class":
        node = _adapt_residues(node)
    return Node("tuple", (node,), f"in {unit}") if conventions.unit == "compared" and unit else node


def _adapt_parts(node: Node, conventions: Conventions) -> Node:
    args = tuple(_adapt_parts(arg, conventions) for arg in node.args)
    if node.op == "deg" and conventions.degree == "angle":
        return Node("mul", (*args, Node("div", (constant("pi"), number(180)))))
    if node.op == "matrix" and conventions.column == "binomial" and [len(row.args) for row in args] == [1, 1]:
        cells = tuple(row.args[0] for row in args)
        if all(cell.op == "num" and cell.fraction.denominator == 1 for cell in cells):
            return Node("binom", cells)
    return Node(node.op, args, node.value, node.digits)


def _adapt_residues(node: Node) -> Node:
    """Return residues and families such as 7k+5 as classes: the smallest number and the modulus."""
    if node.op in ("list", "set", "named"):
        return Node(node.op, tuple(_adapt_residues(arg) for arg in node.args), node.value)
    # What has no value or cannot be written down is no residue.
    try:
        if node.op == "mod":
            return _class_of(as_integer(exact_value(node.args[0])), as_integer(exact_value(node.args[1]))) or node
        # Only letters that stand for integers by custom: 7x + 5 is an expression, not a family.
        names = symbols(node)
        if len(names) != 1 or not names <= frozenset("jkmnt") or node.op not in ("add", "mul"):
            return node
        # Four whole values at equal distances make a family of one letter: 7k+5.
        letter = Node("sym", value=names.pop())
        # Four values show equal steps, as a class has; k^2 + 5 has others.
        values = [as_integer(exact_value(replace(node, letter, number(k)))) for k in range(4)]
    except (TooBig, Undefined):
        return node
    if any(value is None for value in values):
        return node
    whole = [value for value in values if value is not None]
    steps = {b - a for a, b in pairwise(whole)}
    return (_class_of(whole[0], steps.pop()) if len(steps) == 1 else None) or node


def _class_of(value: int | None, modulus: int | None) -> Node | None:
    if value is None or not modulus:
        return None
    return Node("tuple", (number(value % abs(modulus)), number(abs(modulus))), "class")


_UNIT = re.compile(
    r"(?<=[\d})])\s*(?:\\[ ,;:!~]\s*)*((?:\\(?:text|mathrm|mbox|textrm|rm)\s*\{[^{}]*\}|(?<=\s)[A-Za-z]{2,}|\^\\circ|°"
    r"|\^\{?-?\d\}?|[/·*]|\\cdot|\s)+)\.?\$?\s*\Z"
)
_FONT = re.compile(r"\\(?:text|mathrm|mbox|textrm|rm|cdot)\b|[{}$~\\\s.]|\bper\b")


def unit_of(text: str) -> str:
    r"""Return the unit behind an answer's value as plain letters, "" without one; plurals are their singular.

    >>> unit_of(r"10\text{ cm}^2"), unit_of("10 meters"), unit_of("10")
    ('cm^2', 'meter', '')
    """
    behind = _UNIT.search(text)
    unit = _FONT.sub("", behind[1]) if behind else ""
    return unit.removesuffix("s") if len(unit) > 3 else unit


assert [field.name for field in fields(Conventions)] == [*CHOICES]
