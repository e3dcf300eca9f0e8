"""What stands after a value: powers of degrees, factorials, percent signs, units, scale words, subscripts, bases."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING

from mathlete.answers.literals import is_base, read_in_base
from mathlete.answers.tree import Node, Unreadable, number, symbol
from mathlete.answers.vocabulary import CURRENCY, LETTER_UNITS, PERCENT, SCALES, UNITS

if TYPE_CHECKING:
    from mathlete.answers.grammar import Grammar
    from mathlete.answers.lexer import Token


def read_suffixes(g: Grammar, node: Node) -> Node:
    """Return the value with all that stands after it."""
    while True:
        token = g.peek()
        # Before exponents: in 90^\circ the sign is no power.
        if token.text == "^" and _take_degree(g):
            node = Node("deg", (node,))
        elif token.text == "!" and token.kind == "op":
            g.take()
            is_double = g.peek().text == "!" and not g.peek().spaced
            g.at += is_double
            node = Node("factorial2" if is_double else "factorial", (node,))
        elif token.text in ("%", r"\%"):
            g.take()
            node = Node("div", (node, number(100)))
        # f' is a name of its own; a derivative is never computed.
        elif token.text == "'" and node.op == "sym":
            g.take()
            node = symbol(f"{node.value}'")
        # 5'' behind a bare number is a unit, of length or of arc.
        elif token.text == "'" and node.op == "num":
            g.take()
        elif token.text == "_" and node.op in ("num", "sym"):
            node = _read_subscript(g, node)
        elif token.text == r"\degree":
            g.take()
            node = Node("deg", (node,))
        elif node.op == "deg" and (minutes := _take_minutes(g)):
            node = Node("deg", (Node("add", (node.args[0], minutes)),))
        elif token.text in _UNIT_STARTS and _take_unit(g):
            continue
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
    if node.op == "deg" and token.text.strip() in ("N", "S", "E", "W"):
        return None  # a latitude
    word = token.text.strip().lower().rstrip(".")
    # One letter is a unit only in \text{...}: `2t` and `5m` hold a variable.
    known = _LONG_UNITS if token.kind == "word" else _ALL_UNITS
    scale, _, noun = word.partition(" ")
    if word in PERCENT or (scale in SCALES and (not noun or noun.replace(" ", "").isalpha())):
        g.take()
        over = SCALES.get(scale, (1, 100))
        return Node("mul", (node, number(Fraction(*over))))
    # All parts of a compound such as km/h must be units, or the word stays and the expression is unreadable.
    if _is_unit(token.text, known):
        g.take()
        _skip_unit_power(g)
        _skip_compound(g)
        return Node("deg", (node,)) if word in ("degree", "degrees", "deg") else node
    return None


_LONG_UNITS = UNITS | CURRENCY
_ALL_UNITS = _LONG_UNITS | LETTER_UNITS


def _is_unit(text: str, known: frozenset[str] = _ALL_UNITS) -> bool:
    """Return whether a word or all parts of a compound are units: km, `m s^{-1}`, kg/m^3."""
    parts = _UNIT_SIGNS.split(text.strip().rstrip("."))
    parts = [part for part in parts if part and part not in ("cdot", "times", "per", "~")]
    units = [part for part in parts if not part.lstrip("-").isdigit() and part not in "$€£¥"]
    return bool(units) and all(part in known or part.lower() in known for part in units)


_UNIT_SIGNS = re.compile(r"[\s/^{}()*.,·~\\]+")
_UNIT_STARTS = frozenset({"/", "(", r"\frac", "C", "F", "K"})
"""What a unit may start with that is no word: per hour, a bracket, a fraction of units, degrees Celsius."""


def _skip_unit_power(g: Grammar) -> None:
    """Take the power of a unit: `cm^2`."""
    if g.peek().text == "^":
        g.take()
        g.exponent()


def _skip_compound(g: Grammar) -> None:
    r"""Take the units joined to the one before: `/ \mathrm{h}`, `\cdot \mathrm{m}`, `per second`."""
    while g.peek().text.strip() in ("/", r"\cdot", r"\times", "*", "per"):
        if _is_unit_token(g.peek(1)):
            g.at += 2
            _skip_unit_power(g)
        elif steps := _count_bracket_of_units(g):
            g.at += steps
        else:
            return


def _count_bracket_of_units(g: Grammar) -> int:
    r"""Return how many tokens a sign and a bracket of units take, `/(\text{kg} \cdot \text{K})`; 0 for another."""
    ends = [at for at in range(2, 12) if g.peek(at).text == ")"]
    if g.peek(1).text != "(" or not ends:
        return 0
    inside = [g.peek(at) for at in range(2, ends[0])]
    return ends[0] + 1 if all(_is_unit_token(t) or t.text in ("*", "/", r"\cdot", r"\times") for t in inside) else 0


def _is_unit_token(token: Token) -> bool:
    return token.kind in ("text", "word", "name") and _is_unit(token.text)


def _take_unit(g: Grammar) -> bool:
    r"""Take a unit that starts with a sign: `/\text{hr}`, `(\text{units})`, `\frac{\text{km}}{\text{h}}`, °C."""
    texts = [g.peek(k) for k in range(7)]
    steps = 0
    # Words in upright letters only: 48/t is a quotient.
    if texts[0].text == "/" and texts[1].kind == "text" and _is_unit(texts[1].text):
        steps = 2
    elif texts[0].text == "(" and texts[1].kind == "text" and texts[2].text == ")" and _is_unit(texts[1].text):
        steps = 3
    elif fraction := count_fraction_of_units(g):
        steps = fraction
    elif texts[0].kind == "name" and g.tokens[g.at - 1].text in (r"\circ", "}", r"\degree"):
        # The letter of 20 °C; a C anywhere else is a variable.
        is_degree = g.tokens[g.at - 1].text != "}" or g.tokens[g.at - 2].text == r"\circ"
        steps = int(is_degree and texts[1].text not in ("(", "^", "_"))
    g.at += steps
    if steps == 2:
        _skip_unit_power(g)
        _skip_compound(g)
    return steps > 0


_FRACTION_OF_UNITS = re.compile(r"\\frac(?:\{(?:U(?:\^-?N|\^\{-?N\})?(?:\\cdot|\\times)?)+\}){2}")


def count_fraction_of_units(g: Grammar) -> int:
    r"""Return how many tokens a fraction of units takes, `\frac{\text{m}}{\text{s}^2}`; 0 where it is no such."""
    if g.peek().text != r"\frac" or g.peek(2).kind != "text":
        return 0
    pieces = []
    for token in (g.peek(k) for k in range(40)):
        is_unit = token.kind == "text" and _is_unit(token.text)
        pieces.append("U" if is_unit else "N" if token.kind == "num" else token.text)
    fraction = _FRACTION_OF_UNITS.match("".join(pieces))
    return next(k for k in range(40) if len("".join(pieces[:k])) >= fraction.end()) if fraction else 0


def _take_minutes(g: Grammar) -> Node | None:
    r"""Take the minutes and seconds of arc after degrees: `15^\circ 20' 30''`; return them as degrees."""
    parts = []
    for size, signs in ((60, ["'"]), (3600, ["'", "'"])):
        after = [g.peek(k).text for k in range(1, len(signs) + 1)]
        if g.peek().kind == "num" and (after == signs or (len(signs) == 2 and after[0] == '"')):
            parts.append(number(Fraction(g.take().text) / size))
            g.at += 1 if after[0] == '"' else len(signs)
    return Node("add", tuple(parts)) if parts else None


def _read_subscript(g: Grammar, node: Node) -> Node:
    """Return a variable with an index, or a number in a base."""
    g.take()
    name = read_script(g)
    if node.op == "num" or (len(name) > 0 and is_base(node, name)):
        return read_in_base(str(node.value) if node.op == "sym" else _digit_string(node), name)
    return symbol(f"{node.value}_{name}")


def _digit_string(node: Node) -> str:
    """Return the digits of a number that has a base."""
    places = next((k for k in range(_MAX_PLACES) if 10**k % node.fraction.denominator == 0), None)
    if places is None or (places == 0 and node.digits is not None):
        raise Unreadable("a subscript after a number that is no digit string")
    digits = str(node.fraction.numerator * 10**places // node.fraction.denominator).zfill(places + 1)
    return f"{digits[:-places]}.{digits[-places:]}" if places else digits


_MAX_PLACES = 40
"""Places behind the point of a number in a base."""


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
            # 1010_{(2)} writes the base in brackets.
            return re.sub(r"\A\((\w+)\)\Z", r"\1", "".join(parts))
        parts.append(token.text.strip().lstrip("\\") if token.text != "{" else "")
