r"""Labels: what stands before a sign of equality and only names the value behind it.

One notion for all readers: `f(x) =`, `\frac{dy}{dx} =`, `|S| =`, `100m+n =`, `\text{number of ways} =`. A label may
hold words and calls that the grammar cannot read; an equation whose side cannot be read is no label, and unreadable.
"""

from __future__ import annotations

import re
from itertools import pairwise

from mathlete.answers.laws import COORDINATES, is_law_of, is_other_member, is_quadrilateral, is_zero
from mathlete.answers.lexer import Token
from mathlete.answers.tree import Node, constant, symbols, walk
from mathlete.answers.vocabulary import FUNCTIONS, GREEK, OPERATORS

_DERIVATIVE = re.compile(
    r"\\frac\{(?:d|\\partial)(?:\^\{?\d\}?)?[a-zA-Z]?\}\{(?:d|\\partial)[a-zA-Z](?:\^\{?\d\}?)?\}"
    r"(?:\(.*\)|\[.*\]|[a-zA-Z](?:\([a-z]\))?)?"
    r"|d[a-z]/d[a-z]"
    r"|(?:\\frac\{d(?:\^\{?\d\}?)?[a-zA-Z]\}\{d[a-zA-Z](?:\^\{?\d\}?)?\}|[a-zA-Z]'*)\|_\{[^{}]*\}"
)
_NAME_TAIL = r"(?:\^?'|\^\{(?:\\prime|'|-1|\*|\(\w\))+\}|\^\\prime|\^\*|_\w|_\{[^{}]*\}|\\circ[a-zA-Z])*"
_CALL = re.compile(_NAME_TAIL + r"\((.*)\)")
_EXPECTATION = re.compile(r"\[.*\]")
_OF_FUNCTIONS = re.compile(r"\([fghpqFGHPQ](?:(?:[-+*/]|\\cdot|\\times|\\circ)?[fghpqFGHPQ])+\)\([^()]*\)")
"""A sum, product or composition of functions, called: `(f+g)(x)`."""
_ACCENTS = frozenset({"hat", "tilde", "bar", "vec", "overline", "widehat", "widetilde", "dot", "ddot"})
_SEGMENT = re.compile(r"(?:\\overline|\\bar|\|)([A-Z]{2,3})\|?")
"""The length AB with its bars."""
_STARRED = re.compile(r"[a-zA-Z](?:_\w|_\{[^{}]*\})?\^(?:\*|\\ast|\{(?:\*+|\\ast|\\star)\}|\\star)")
_NOUN_COMMANDS = frozenset(
    {
        "triangle",
        "angle",
        "measuredangle",
        "overline",
        "widehat",
        "overarc",
        "odot",
        "#",
        "Pr",
        "mathbb",
        "vert",
        "quad",
    }
    | {"sum", "prod"}
)
_OPERATOR_SIGNS = frozenset({"+", "-", "*", "/", "^", "!", "%", r"\cdot", r"\times", r"\div", r"\pm", r"\mp"})
_EQUATION_NOUNS = frozenset(
    {"plane", "line", "circle", "equation", "curve", "ellipse", "parabola", "sphere", "hyperbola", "locus", "surface"}
)
_POLAR = frozenset({"theta", "varphi", "phi", "rho"})
_ALGEBRA = frozenset({"add", "neg", "mul", "div", "pow", "root", "num", "sym"})
_NAMED_OPERATIONS = frozenset(
    {"apply", "mod", "floor", "ceil", "gcd", "lcm", "min", "max", "limit", "sum", "prod", "integral", "det", "log"}
    | {"factorial", "factorial2", "binom"}
)
"""Operations whose equation with a number says what the operation comes to, and asks nobody to solve it."""


def name_of(tokens: list[Token]) -> str:
    """Return a label's name: what two spellings of one label have in common."""
    name = "".join(token.text.strip() for token in tokens if token.text not in ("{", "}"))
    segment = _SEGMENT.fullmatch(name)
    return segment[1] if segment else name


def is_call(tokens: list[Token], right: list[Token]) -> bool:
    r"""Return whether the tokens are `f(x)`, `S(n)`, `f^{-1}(x)` or `\frac{dy}{dx}`, and the right side holds no such.

    f(x) = f(x-1) + 1 is an equation for f, not its value.
    """
    if not tokens:
        return False
    head, text = tokens[0], "".join(token.text.strip() for token in tokens)
    if _DERIVATIVE.fullmatch(text) or _STARRED.fullmatch(text) or _OF_FUNCTIONS.fullmatch(text):
        return True
    accented = [token.text for token in tokens[1:4:2]] == ["{", "}"] and head.text[1:] in _ACCENTS
    if head.text[1:] in _ACCENTS and len(tokens) > 1 and tokens[1].kind == "name":
        return is_call(tokens[1:], right)
    if accented and len(tokens) > 4 and _is_head(tokens[2]):
        # \hat{f}(x) is the call of a function, whatever its accent.
        return is_call([tokens[2], *tokens[4:]], right)
    if not _is_head(head):
        return False
    rest = text[len(head.text.strip()) :]
    if head.kind == "text" and re.fullmatch(r"\\\{.*\\\}(?:\((?:[a-z]|\\[a-z]+)\))?", rest):
        return True
    # E[X]: square brackets call what has a capital, as in \mathbb{E}[X].
    if head.text.strip()[:1].isupper() and _EXPECTATION.fullmatch(rest):
        return True
    # sympy prints f{\left(x \right)}.
    if rest.startswith("{(") and rest.endswith(")}"):
        rest = rest[1:-1]
    call = _CALL.fullmatch(rest)
    if call is None or not _is_one_bracket(tokens):
        return False
    # x(x+1) = 6 is a product: a small letter that names no function takes bare names and numbers only.
    plain = head.kind == "name" and head.text.islower() and head.text not in "fgh"
    if plain and not re.fullmatch(r"[a-zA-Z0-9,_.\\]*", call[1]):
        return False
    if _is_product(tokens):
        return False
    return not any(a.text == head.text and b.text in ("(", "'", "{") for a, b in pairwise(right))


def _is_product(tokens: list[Token]) -> bool:
    r"""Return whether a letter times a bracket with a sum looks like a call: `N(N-1)`, `\lambda(\lambda-1)`."""
    head, *rest = tokens
    if not any(token.text in ("+", "-") for token in rest):
        return False
    is_letter = head.kind == "cmd" and head.text[1:] in GREEK and head.text[1:].islower()
    repeated = any(a.text == head.text and b.text != "(" for a, b in pairwise([*rest, Token("end", "")]))
    return repeated or (is_letter and head.text[1:] not in _FUNCTION_LETTERS)


_FUNCTION_LETTERS = frozenset({"phi", "varphi", "psi", "sigma", "tau", "pi", "zeta", "chi"})
"""Greek letters that name functions."""


def _is_head(token: Token) -> bool:
    if token.kind == "name":
        return len(token.text) == 1 and token.text not in "ei"
    if token.kind == "cmd":
        # A name that LaTeX doesn't know was written with \operatorname: `\operatorname{Area}(ABC)`.
        name = token.text[1:]
        return name in GREEK or name in OPERATORS - FUNCTIONS or name[:1].isupper()
    return token.kind == "text" and token.text.strip().isalpha()


def _is_one_bracket(tokens: list[Token]) -> bool:
    """Return whether the bracket that closes last opened only once: f(1)(2) is no call."""
    depth, opened = 0, 0
    for at, token in enumerate(tokens):
        depth += (token.text == "(") - (token.text == ")")
        # The bracket of f^{(2)}(x) belongs to the name.
        in_power = [one.text for one in tokens[max(0, at - 2) : at]] == ["^", "{"]
        opened += token.text == "(" and depth == 1 and not in_power
    return opened == 1


def is_plain(tokens: list[Token]) -> bool:
    """Return whether the tokens are a name, several or a tuple of them: x, a_1, (x, y), and no power of one."""
    if any(a.text == "^" and b.kind == "num" for a, b in pairwise(t for t in tokens if t.text != "{")):
        return False
    return all(
        token.kind in ("name", "num", "word", "text", "cmd") or token.text in "(){},_'^" for token in tokens
    ) and (not tokens or tokens[0].kind != "num")


def split_words(tokens: list[Token]) -> tuple[list[Token], list[Token]]:
    """Return the words in front of an expression, and the expression: `the plane 2x+y=0`."""
    at = 0
    while at < len(tokens) and _is_word(tokens[at]):
        at += 1
    return tokens[:at], tokens[at:]


def _is_word(token: Token) -> bool:
    word = token.text.strip()
    if token.kind == "text":
        return len(word) > 1 and word not in OPERATORS
    return token.kind == "word" and word.isalpha() and (len(word) > 2 or word.lower() in ("is", "of", "it", "an"))


def is_value_beside_name(part: list[Token]) -> bool:
    r"""Return whether a part of a chain is a value and the next one's name: the `6 | b` of `a = 6 | b = 7`."""
    if any(token.text in _BACKWARDS for token in part):
        return True
    if len(part) < 2 or part[0].kind != "num" or part[-1].kind not in ("name", "cmd"):
        return False
    return any(t.text in _APART or (t.kind == "text" and len(t.text.strip()) > 2) for t in part[1:-1])


_APART = frozenset({"|", r"\mid", r"\&", "&"})
_BACKWARDS = frozenset({r"\Leftarrow", r"\Longleftarrow", r"\impliedby", r"\leftarrow", r"\gets"})
"""What stands behind these is no conclusion: `N = 52 \\Leftarrow x = 7`."""


def is_title(tokens: list[Token]) -> bool:
    """Return whether the tokens are nothing but words, as the label in `\\text{Final answer}: 42` is."""
    return bool(tokens) and split_words(tokens) == (tokens, [])


def names_equation(words: list[Token]) -> bool:
    """Return whether the words announce an equation, as "the plane" does, and not a value."""
    return any(word in _EQUATION_NOUNS for token in words for word in token.text.casefold().split())


def is_in_words(tokens: list[Token]) -> bool:
    r"""Return whether what cannot be read is a label all the same: nouns, `\triangle ABC`, `[ABC]`, no operation."""
    words, rest = split_words(tokens)
    # Words in front say what the value is: they are the label, whatever stands behind them.
    if words and not names_equation(words):
        return True
    # A name that LaTeX doesn't know was written with \operatorname.
    if (len(rest) == 1 and rest[0].kind == "cmd") or (rest and is_quadrilateral(rest)):
        return True
    depth = 0
    for at, token in enumerate(rest):
        depth += (token.text in ("(", "[", "{")) - (token.text in (")", "]", "}"))
        if depth or token.text in ("(", ")", "[", "]", "{", "}", "_", "|", "'", ",", r"\|"):
            continue
        # An operation makes it the side of an equation, of which nothing may be dropped.
        if token.text in _OPERATOR_SIGNS or (token.kind == "cmd" and not _is_noun_command(token.text[1:])):
            return False
        # \triangle ABC is a noun, A \triangle B an operation, and so is x \# y.
        if at and token.text in _LEADING and rest[at - 1].text not in ("(", "[", "{", "|", ","):
            return False
        if token.kind == "num" and at == 0:
            return False
    return bool(rest)


def _is_noun_command(name: str) -> bool:
    return name in _NOUN_COMMANDS or name in OPERATORS or name in GREEK


_LEADING = frozenset({r"\triangle", r"\#", "#", r"\odot"})
"""Nouns that stand in front of a name; between two names they are operations."""


def names_number(node: Node, value: Node) -> bool:
    """Return whether a left side with unknowns, and a number behind =, is a label: `100m+n`, `AB/CD`, `|S|`, `ab`.

    What has coordinates in it stays an equation, and so does what is set to zero or has a single unknown.
    """
    names = symbols(node)
    if not names:
        return False
    at_zero = is_zero(value)
    if node.op == "log" or node.op.startswith("fn:"):
        # sin x = 0 is solved for x, sin A = 3/5 names a number.
        return not at_zero or all(name[0].isupper() for name in names)
    if node.op in _NAMED_OPERATIONS:
        return True
    if node.op == "abs":
        # |A - \lambda I| = 0 is an equation for \lambda.
        if at_zero and node.args[0].op == "add":
            return False
        # |AB| is a length, |S| a size, |v| a norm; |x| = 3 is an equation with two solutions.
        return all(name[0].isupper() or len(name) > 1 or name in "uv" for name in names)
    if node.op == "pow" and names == {"sigma"}:
        return True  # the variance
    if node.op == "pow" and (node.args[0].op == "abs" or re.match(r"[ACP]_\d+\Z", str(node.args[0].value))):
        # |v|^2 is named as |v| is, and C_{10}^3 is a number of choices.
        return node.args[0].op != "abs" or names_number(node.args[0], value)
    if value == constant("i") and all(name[0].isupper() for name in names):
        return False  # A^T A = I, with the unit matrix
    if value.op == "matrix" and all(name[0].isupper() for name in names):
        return True
    if node.op == "matrix" or not all(n.op in _ALGEBRA or n.op in _NAMED_OPERATIONS for n in walk(node)):
        return False
    # \hat a \hat b is a product of operators, as a m\ddot x is one of motion.
    if is_law_of(names) or (node.op == "mul" and all(name.startswith("hat ") for name in names)):
        return False
    if any(n.op in _NAMED_OPERATIONS and (symbols(n) or n.op not in ("floor", "ceil")) for n in walk(node)):
        return not at_zero
    # A single unknown is solved for, and coordinates make a curve.
    if len(names) < 2 or names & (COORDINATES | _POLAR):
        return False
    return all(name[0].isupper() for name in names) or not at_zero


def names_formula(name: str, right: Node) -> bool:
    """Return whether `name = formula` gives a name to the formula; y = 2x+1 is an equation between coordinates."""
    free = symbols(right)
    # A = B and f = g say that two things are the same, and z = \bar z that a number is real.
    if right.op == "sym" and _are_akin(name, str(right.value)):
        return False
    if name in {other.rpartition(" ")[2] for other in free}:
        return False
    # y' = y is an equation for y.
    base = name.rstrip("'").rpartition(" ")[2]
    is_recurrence = any(is_other_member(name, other) or is_other_member(other, name) for other in free)
    return not {name, base} & free and not is_recurrence and not (name in COORDINATES and free & COORDINATES)


def _are_akin(one: str, other: str) -> bool:
    """Return whether two letters name things of one kind, as A and B, f and g, u and v do: x = a is a value of x."""
    if len(one) != 1 or len(other) != 1 or one.isupper() != other.isupper():
        return False
    return one.isupper() or abs(ord(one) - ord(other)) <= _NEXT_LETTERS


_NEXT_LETTERS = 2
"""How far letters of one kind are apart in the alphabet."""


def _is_capitals(node: Node) -> bool:
    return all(n.op in ("mul", "sym") and str(n.value or "A")[0].isupper() for n in walk(node))


def names_by_capitals(left: Node, right: Node) -> bool:
    """Return whether a left side of capitals names the formula behind =: `AB`, `[ABC]`, `|AB|`, `|f(x)|`, `|v|`."""
    inside = left.args[0] if left.op == "abs" else left
    if left.op == "abs" and inside.op == "apply":
        return not any(n.op == "apply" for n in walk(right))
    names = symbols(left)
    # AB = CD says that two lengths are the same, and names neither.
    if not names or names & symbols(right) or (right.op in ("mul", "sym") and _is_capitals(right)):
        return False
    is_named = all(name[0].isupper() for name in names) and inside.op in ("mul", "sym")
    return is_named or (left.op == "abs" and names <= frozenset("uv"))
