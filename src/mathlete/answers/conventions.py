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


_WORD = r"\\(?:text|mathrm|mbox|textrm|rm|operatorname)\s*\{[^{}]*\}|\{\s*\\rm\s[^{}]*\}"
_SIGNS = (
    r"\^\s*(?:\{\s*)?\\circ\s*\}?|\\degree|°|\\Omega|\^\s*\{?\s*-?\d\s*\}?|[²³]|[/·*]|\\(?:cdot|times|mu)(?![a-zA-Z])"
)
_BEHIND = re.compile(
    rf"(?:(?<=[\d}}).!])|(?<=[a-z])(?=(?:\s|\\[ ,;:!]|~)*(?:{_WORD})))\s*"
    rf"((?:{_WORD}|\\frac\s*\{{\s*(?:{_WORD})[^{{}}]*\}}\s*\{{\s*(?:{_WORD})[^{{}}]*\}}|{_SIGNS}|\\[ ,;:!]|~|\s"
    r"|(?<=[\s/·*}°])(?:[A-Za-zµΩÅ]{2,}|[mgshLlJWNVAKCFΩΩ](?![A-Za-z])))+)\.?\$?\s*\Z"
)
_BEFORE = re.compile(r"\A[\s$]*(\\?\$(?=\s*\d)|[€£¥])")
_FONT = re.compile(r"\\(?:text|mathrm|mbox|textrm|rm|operatorname|frac)\b|[{}$~\s.]|\\[ ,;:!]")
_SPELLINGS = {
    "metre": "m", "meter": "m", "centimeter": "cm", "centimetre": "cm", "kilometer": "km", "kilometre": "km",
    "millimeter": "mm", "millimetre": "mm", "foot": "ft", "feet": "ft", "inch": "in", "inche": "in", "yard": "yd",
    "mile": "mi", "second": "s", "sec": "s", "minute": "min", "hour": "h", "hr": "h", "gram": "g", "kilogram": "kg",
    "pound": "lb", "lb": "lb", "ounce": "oz", "liter": "L", "litre": "L", "dollar": "$", "usd": "$", "euro": "€",
    "degree": "°", "deg": "°", "newton": "N", "joule": "J", "watt": "W", "volt": "V", "mph": "mi/h", "kph": "km/h",
    "kmh": "km/h", "radian": "rad",
}  # fmt: skip
"""Units in words, in the singular, and as they are written otherwise."""


def split_unit(text: str) -> tuple[str, str]:
    r"""Return an answer's value as written, and its unit in one spelling; "" where it has none.

    >>> split_unit(r"10\text{ cm}^2"), split_unit(r"\$10"), split_unit(r"10\ \mathrm{km}/\mathrm{h}")
    (('10', 'cm^2'), ('10', '$'), ('10', 'km/h'))
    """
    if money := _BEFORE.match(text):
        return text[money.end() :], money[1].removeprefix("\\")
    behind = _BEHIND.search(text[-_MAX_UNIT:])
    if behind is None or not re.search(r"[A-Za-zµΩÅ°Ω]", _FONT.sub("", behind[1])):
        return text, ""
    value = text[: len(text) - len(text[-_MAX_UNIT:]) + behind.start(1)]
    # "no solution" is no unit of anything.
    return (value, _spell_unit(behind[1])) if re.search(r"\d|\\pi|[a-z]\s*\Z", value) else (text, "")


_MAX_UNIT = 120
"""Characters at the end of an answer in which its unit stands."""


def _spell_unit(written: str) -> str:
    written = re.sub(r"\A(?:\\[ ,;:!]|[~\s])+", "", written)
    fraction = re.match(r"\s*\\frac\s*\{((?:[^{}]|\{[^{}]*\})*)\}\s*\{((?:[^{}]|\{[^{}]*\})*)\}", written)
    written = f"{fraction[1]}/{fraction[2]}" if fraction else written
    written = re.sub(r"\bsq(?:uare|\.)?\s+([a-z]+)", r"\1^2", re.sub(r"\bcubic\s+([a-z]+)", r"\1^3", written))
    written = written.replace(r"\Omega", "Ω").replace("Ω", "Ω")
    written = re.sub(r"\s*\bper\b\s*", "/", written).replace("²", "^2").replace("³", "^3").replace(r"\degree", "°")
    written = re.sub(r"\^\s*\{?\s*\\circ\s*\}?", "°", re.sub(r"\\cdot|\\times|·", "*", written))
    bare = re.sub(r"\^(-?\d)", r"^\1", _FONT.sub("", written))
    return re.sub(r"[A-Za-zµΩÅ]+", lambda word: _spell_word(word[0]), bare)


def _spell_word(word: str) -> str:
    single = word.lower().removesuffix("s") if len(word) > 2 else word
    return _SPELLINGS.get(word.lower()) or _SPELLINGS.get(single) or (single if len(word) > 3 else word)


assert [field.name for field in fields(Conventions)] == [*CHOICES]
