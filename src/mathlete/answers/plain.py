r"""Plain answers, read in one pass: `\frac{3+\sqrt{5}}{2}`, `x^2-3x+1`, `(-\infty, 2]\cup[5, 7)`, `1, 2, 3`, matrices.

Most answers are such, and for them the passes of `forms.read` over spellings, words and units change nothing. What is
read here has the same tree and spends the same steps as there (tests/test_answers_plain.py); anything else is left to
it, and so is what would need a rule of its own: `2\frac13`, `x2`, `f(x)`, a date.
"""

from __future__ import annotations

import re
from fractions import Fraction

from mathlete.answers.effort import STEPS, spend, steps_spent
from mathlete.answers.tree import Node, constant, number, symbol

MAX_PLAIN = 200
"""Longest text that is read here, characters."""
_LETTERS = "abcijknqrtuvwxyz"
"""Variables and i: of others some are functions, units behind digits or parts of short words."""
_FORMULA = re.compile(
    # Each alternative says what may follow it: two letters may be a word, digits behind a letter an index.
    r"(?!\d{4}-\d\d-\d\d\Z)-?(?:\d{1,15}(?![\d\\])|\d{1,15}(?=\\(?:sqrt|pi))"
    rf"|[{_LETTERS}](?![a-zA-Z\d({{])|\\(?:frac|sqrt)(?=\{{)|\\pi(?![a-zA-Z\d{{])"
    r"|[+-](?![-+^)}])|\^(?=[\w{])|\{(?![}^+])|\((?![)^+])|[)}](?!\d))+",
    re.ASCII,
)
_TOKEN = re.compile(r"\d+|[a-z]|\\[a-z]+|[-+^{}()]")
_END = r"-?(?:\d{1,15}|\\infty)"
_REGION = re.compile(rf"[(\[]{_END}, ?{_END}[)\]](?: ?\\cup ?[(\[]{_END}, ?{_END}[)\]])*", re.ASCII)
_INTERVAL = re.compile(r"([(\[])([^,]+), ?([^\])]+)([)\]])")
_ITEMS = re.compile(r"-?\d{1,15}(?:,(?!\d{3}(?!\d)) ?-?\d{1,15})+", re.ASCII)
_MATRIX = re.compile(r"\\begin\{([pb]matrix)\} ?(-?\d{1,15}(?: ?(?:&|\\\\) ?-?\d{1,15})*) ?\\end\{\1\}", re.ASCII)
_CELL = re.compile(r"\d+|-|&|\\\\")
_NO_PAIR = frozenset({"(]", "[)", "[]"})
_TWO = number(2)


class _NotPlain(Exception):
    """The text needs a rule that is not here."""


def read_plain(text: str) -> Node | None:
    """Return the tree of a plain answer; None where `forms.read` must read it."""
    if len(text) > MAX_PLAIN:
        return None
    if _FORMULA.fullmatch(text):
        reader = _Reader(_TOKEN.findall(text))
        try:
            node = reader.read_all()
        except _NotPlain:
            return None
        steps = 3 * len(reader.tokens) + reader.steps
    elif text[:1] in "([" and _REGION.fullmatch(text):
        node, steps = _read_region(text)
    elif _ITEMS.fullmatch(text):
        items = text.split(",")
        node, steps = Node("list", tuple(map(_read_end, items))), 3 * (2 * len(items) - 1 + text.count("-"))
    elif (matrix := _MATRIX.fullmatch(text)) and (rows := _read_rows(matrix[2])):
        node, steps = Node("matrix", rows), 3 * (8 + len(_CELL.findall(text)))
    else:
        return None
    steps += len(text) // 3 + text.count(" ")
    if steps_spent() + steps > STEPS:
        return None
    spend(steps)
    return node


def _read_region(text: str) -> tuple[Node, int]:
    """Return the tree of intervals and of their union, and its steps."""
    region: Node | None = None
    steps = 0
    for opener, low, high, closer in _INTERVAL.findall(text):
        ends = (_read_end(low), _read_end(high))
        brackets = opener + closer
        one = Node("interval", ends, brackets) if brackets in _NO_PAIR else Node("tuple", ends)
        region = one if region is None else Node("union", (region, one))
        inside = 3 + low.count("-") + high.count("-")
        steps += 3 * (inside + 2) + 1 + (inside + 1) // 5
    assert region is not None  # the expression has matched one at least
    return region, steps + 3 * text.count(r"\cup")


def _read_rows(text: str) -> tuple[Node, ...] | None:
    """Return the rows of a matrix of integers; None where they have different lengths."""
    rows = tuple(Node("row", tuple(map(_read_end, row.split("&")))) for row in text.split("\\\\"))
    return rows if len({len(row.args) for row in rows}) == 1 else None


def _read_end(text: str) -> Node:
    text = text.strip()
    value = constant("oo") if text.endswith("y") else Node("num", value=Fraction(int(text.lstrip("-"))))
    return Node("neg", (value,)) if text.startswith("-") else value


class _Reader:
    """One reading of a formula's tokens; each method is a rule of `grammar.Grammar`, for plain operands."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.at, self.steps = tokens, 0, 0

    def read_all(self) -> Node:
        """Return the tree of all tokens.

        Raises:
            _NotPlain: it is no formula, or a lone letter, which is a choice.
        """
        if not any(token[0] == "\\" or token.isdigit() for token in self.tokens):
            raise _NotPlain
        self.tokens.append("")
        node = self._read_sum("")
        self.tokens.pop()
        return node

    def _read_sum(self, closer: str) -> Node:
        terms = [self._read_product()]
        while (sign := self.tokens[self.at]) in ("+", "-"):
            self.at += 1
            term = self._read_product()
            terms.append(term if sign == "+" else Node("neg", (term,)))
        if self.tokens[self.at] != closer:
            raise _NotPlain
        return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def _read_product(self) -> Node:
        is_negative = self.tokens[self.at] == "-"
        self.at += is_negative
        first = self._read_power()
        factors = [Node("neg", (first,)) if is_negative else first]
        while self.tokens[self.at] not in _NO_FACTORS:
            factors.append(self._read_power())
        return factors[0] if len(factors) == 1 else Node("mul", tuple(factors))

    def _read_power(self) -> Node:
        base = self._read_atom()
        if self.tokens[self.at] != "^":
            return base
        self.at += 1
        exponent = self._read_group("}") if self.tokens[self.at] == "{" else self._read_atom()
        if self.tokens[self.at] == "^":
            raise _NotPlain
        return Node("pow", (base, exponent))

    def _read_atom(self) -> Node:
        token = self.tokens[self.at]
        if token == "(":
            return self._read_group(")")
        self.at += 1
        if token.isdigit():
            return Node("num", value=Fraction(int(token)))
        if token in _LETTERS and token:
            return constant("i") if token == "i" else symbol(token)
        if token == r"\pi":
            return constant("pi")
        if token == r"\sqrt":
            return Node("root", (self._read_group("}"), _TWO))
        if token == r"\frac":
            top = self._read_group("}")
            return Node("div", (top, self._read_group("}")))
        raise _NotPlain

    def _read_group(self, closer: str) -> Node:
        if self.tokens[self.at] != ("{" if closer == "}" else "("):
            raise _NotPlain
        self.at += 1
        start = self.at
        node = self._read_sum(closer)
        self.at += 1
        self.steps += 1 + (self.at - start) // 5
        return node


_NO_FACTORS = frozenset({"+", "-", "}", ")", "^", "{", ""})
