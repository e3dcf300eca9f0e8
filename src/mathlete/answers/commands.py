"""What LaTeX commands and plain names mean inside an expression."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mathlete.answers.lexer import Token
from mathlete.answers.operators import FUNCTION_LETTERS, UPRIGHT, read_accent, read_conjugate, require_single
from mathlete.answers.suffixes import read_script
from mathlete.answers.tree import Node, Unreadable, constant, number, symbol
from mathlete.answers.vocabulary import (
    FUNCTIONS,
    GREEK,
    HYPERBOLIC,
    INVERSE_TRIG,
    MANY_ARGUMENTS,
    PLAIN_FUNCTIONS,
    RECIPROCALS,
    TRIG,
)

if TYPE_CHECKING:
    from mathlete.answers.grammar import Grammar

_FIELDS = {"R": "reals", "Reals": "reals", "reals": "reals", "Z": "integers", "N": "naturals", "Q": "rationals"}
_MATRICES = frozenset({"matrix", "pmatrix", "bmatrix", "Bmatrix", "vmatrix", "Vmatrix", "smallmatrix", "array"})
_CASES = frozenset({"cases", "dcases", "rcases"})
_ACCENTS = frozenset({"vec", "overrightarrow", "hat", "bar", "tilde", "dot", "ddot", "widehat"})
_BIG = frozenset({"sum", "prod"})
_DOTS = frozenset({"ldots", "cdots", "dots"})


def read_command(g: Grammar, text: str) -> Node:
    """Read a LaTeX command whose token was just taken.

    Raises:
        Unreadable: a command outside the grammar.
    """
    name = text[1:].rstrip("*")
    if name in _READERS:
        return _READERS[name](g)
    if name in UPRIGHT and g.peek().text in ("(", "{", r"\begin"):
        return UPRIGHT[name](g)
    if name in FUNCTIONS:
        return _read_function(g, name)
    if name in MANY_ARGUMENTS:
        return _read_list_function(g, name)
    if name in GREEK:
        return symbol(name)
    if name in PLAIN_FUNCTIONS - {"det"}:
        return _read_plain_call(g, name)
    if name in _FIELDS:
        return _read_field(g, _FIELDS[name])
    # Before the accents: over a complex number the bar is an operation, over letters part of a name.
    if name in ("overline", "bar", "conj") and (conjugate := read_conjugate(g)):
        return conjugate
    if name in _ACCENTS:
        return read_accent(g, name)
    # Without its bracket, as in \\det A, it can only be a label.
    if name == "det" and g.peek().text in ("(", "{", r"\begin"):
        return Node("det", (g.argument() if g.peek().text != r"\begin" else g.atom(),))
    if name in _BIG:
        return _read_big_operator(g, name)
    if name in _DOTS:
        return symbol("...")
    raise Unreadable(f"the command {text} is not in the grammar")


def _read_field(g: Grammar, name: str) -> Node:
    r"""Read a set of numbers; `\R^+` and `\Z^+` are its positive ones."""
    after = [g.peek(k).text for k in range(4)]
    if after[0] == "_":
        g.take()
        return Node("field", value=f"{name} {read_script(g)}")
    if after[:2] != ["^", "+"] and after != ["^", "{", "+", "}"]:
        return Node("field", value=name)
    g.at += 2 if after[1] == "+" else 4
    if name == "reals":
        return Node("interval", (number(0), constant("oo")), "()")
    return Node("field", value=f"positive {name}")


def read_name(g: Grammar, token: Token) -> Node:
    """Read a plain name: a function, a variable, or a run of letters multiplied."""
    word = token.text
    if word in PLAIN_FUNCTIONS:
        return _read_plain_call(g, word)
    if word in FUNCTIONS:
        return _read_function(g, word)
    if word in MANY_ARGUMENTS:
        return _read_list_function(g, word)
    if len(word) > 1:
        return _split_letters(g, token)
    if word in FUNCTION_LETTERS and g.peek().text == "(" and not g.peek().spaced:
        return Node("apply", (symbol(word), g.group()))
    return symbol(word)


def _split_letters(g: Grammar, token: Token) -> Node:
    """Read the first letter of a product of letters; words of five letters and more are no products."""
    word = token.text
    if len(word) > 4 or not word.isalpha():
        raise Unreadable(f"the word {word!r}")
    # The word is replaced by its letters, so that an exponent after it belongs to the last one only.
    g.at -= 1
    g.tokens = [*g.tokens[: g.at], *(Token("name", letter) for letter in word), *g.tokens[g.at + 1 :]]
    return g.atom()


def _read_fraction(g: Grammar) -> Node:
    """Read \\frac by TeX's rule: `\\frac12` takes one digit each."""
    top = g.argument()
    return Node("div", (top, g.argument()))


def _read_root(g: Grammar) -> Node:
    """Read \\sqrt[n]{x}, \\sqrt4, \\sqrt x, or \\sqrt(2) with its bracket."""
    degree = number(2)
    if g.peek().text == "[":
        degree = g.group()
    return Node("root", (_root_argument(g), degree))


def _root_argument(g: Grammar) -> Node:
    token = g.peek()
    if token.kind == "num":
        # `√12` and `\sqrt12` mean the root of twelve in the answers models write.
        return g.bare()
    return g.argument()


def _read_binomial(g: Grammar) -> Node:
    """Read \\binom{n}{k}, or \\operatorname{binomial}(n, k)."""
    if g.peek().text == "(":
        return _read_plain_call(g, "binom")
    top = g.argument()
    return Node("binom", (top, g.argument()))


def _read_function(g: Grammar, name: str) -> Node:
    """Read sin, log, exp and their kind, with power and base; the argument needs no bracket."""
    power, base = None, None
    while g.peek().text in ("^", "_"):
        if g.take().text == "^":
            power = g.exponent()
        else:
            base = g.group() if g.peek().text == "{" else g.argument()
    return _apply_function(name, base, _read_argument(g), power)


def _apply_function(name: str, base: Node | None, inner: Node, power: Node | None) -> Node:
    minus_one = Node("neg", (number(1),))
    name = INVERSE_TRIG.get(name, name)
    if name == "cis":
        return Node("add", (Node("fn:cos", (inner,)), Node("mul", (constant("i"), Node("fn:sin", (inner,))))))
    if name in RECIPROCALS:
        node = Node("div", (number(1), Node(f"fn:{RECIPROCALS[name]}", (inner,))))
        if power == minus_one:
            raise Unreadable(f"an inverse or a power of {name}")
        return Node("pow", (node, power)) if power else node
    if power == minus_one and name in TRIG | HYPERBOLIC:
        # By convention sin^{-1} is the inverse function, sin^2 a square.
        return Node(f"fn:arc{name}", (inner,))
    if name == "exp":
        node = Node("pow", (constant("e"), inner))
    elif name in ("log", "ln", "lg"):
        node = Node("log", (inner, base or (number(10) if name == "lg" else constant("e"))))
    else:
        node = Node(f"fn:{name}", (inner,))
    return Node("pow", (node, power)) if power else node


def _read_argument(g: Grammar) -> Node:
    """Read a function's argument: a bracket, or juxtaposed factors up to the next sign or function."""
    if g.peek().text in ("(", "{", "["):
        return require_single(g.group())
    if g.peek().text == "-":
        g.take()
        return Node("neg", (_read_argument(g),))
    node = g.power()
    while g.starts_factor() and not _is_function(g.peek()):
        node = Node("mul", (node, g.power()))
    if g.peek().text == "/" and g.peek(1).kind in ("num",):
        g.take()
        node = Node("div", (node, g.power()))
    return node


def _is_function(token: Token) -> bool:
    name = token.text.lstrip("\\")
    return name in FUNCTIONS or name in MANY_ARGUMENTS


def _read_list_function(g: Grammar, name: str) -> Node:
    """Read gcd, lcm, min or max of a bracketed list."""
    inner = g.group()
    items = inner.args if inner.op in ("tuple", "set", "list") else (inner,)
    return Node(name, items)


def _read_plain_call(g: Grammar, name: str) -> Node:
    """Read a plain-text call: sqrt(x), cbrt(x), abs(x), binom(n, k)."""
    if g.peek().text not in ("(", "{", "["):
        if name != "sqrt":
            raise Unreadable(f"{name} without its argument")
        return Node("root", (g.power(), number(2)))
    inner = g.group()
    if name == "binom" and inner.op == "tuple":
        return Node("binom", inner.args)
    if name in ("sqrt", "cbrt"):
        return Node("root", (require_single(inner), number(2 if name == "sqrt" else 3)))
    if name == "det":
        return Node("det", (inner,))
    return Node(name, (require_single(inner),))


def _read_big_operator(g: Grammar, name: str) -> Node:
    """Read \\sum or \\prod with an index and two limits."""
    low, high = None, None
    while g.peek().text in ("_", "^"):
        if g.take().text == "_":
            low = _read_index(g)
        else:
            high = g.group() if g.peek().text == "{" else g.argument()
    if low is None or high is None:
        raise Unreadable(f"\\{name} without its limits")
    return Node(name, (*low, high, g.product()))


def _read_integral(g: Grammar) -> Node:
    r"""Read `\int_a^b f(x) dx`; an integral without limits has no value."""
    low, high = None, None
    while g.peek().text in ("_", "^"):
        sign = g.take().text
        limit = g.exponent() if g.peek().text in ("+", "-") else g.argument()
        low, high = (limit, high) if sign == "_" else (low, limit)
    if low is None or high is None:
        raise Unreadable("an integral without its limits")
    body, variable = _read_integrand(g)
    inner = g.read_group(body, "{", "}") if body else number(1)
    return Node("integral", (inner, symbol(variable), low, high))


def _read_integrand(g: Grammar) -> tuple[list[Token], str]:
    """Take the tokens up to the differential; return them and its variable."""
    body: list[Token] = []
    while (token := g.take()).kind != "end":
        # `xdx` is one word: its end is the differential, the letters before it are factors.
        glued = re.fullmatch(r"([a-z]*)d([a-z])", token.text) if token.kind == "word" else None
        if glued:
            body.extend(Token("name", letter) for letter in glued[1])
            return body, glued[2]
        if token.text.strip() == "d" and g.peek().kind == "name":
            return body, g.take().text
        body.append(token)
    raise Unreadable("an integral without its differential")


def _read_limit(g: Grammar) -> Node:
    r"""Read `\lim_{x \to a} f(x)`."""
    g.expect("_")
    g.expect("{")
    variable = g.atom()
    if g.take().text not in (r"\to", r"\rightarrow", "->") or variable.op != "sym":
        raise Unreadable("a limit without its variable")
    to = g.expression()
    g.expect("}")
    return Node("limit", (g.product(), variable, to))


def _read_index(g: Grammar) -> tuple[Node, Node]:
    g.expect("{")
    variable = g.atom()
    g.expect("=")
    low = g.expression()
    g.expect("}")
    if variable == constant("i"):
        raise Unreadable("i as an index")
    return variable, low


def _read_environment(g: Grammar) -> Node:
    """Read a matrix environment, row by row."""
    name = _read_environment_name(g)
    if name not in _MATRICES and name not in _CASES:
        raise Unreadable(f"the environment {name!r}")
    # \begin{array}{cc}: how its columns are aligned means nothing.
    if name == "array" and g.peek().text == "{":
        read_script(g)
    rows: list[list[list[Token]]] = [[[]]]
    depth = 0
    while not (g.peek().text == r"\end" and depth == 0):
        token = g.take()
        if token.kind == "end":
            raise Unreadable("an environment that never ends")
        depth += (token.text in ("{", "(")) - (token.text in ("}", ")"))
        # Only outside brackets do & and \\ end a cell and a row; inside they belong to what the cell holds.
        if depth == 0 and token.text == "&":
            rows[-1].append([])
        elif depth == 0 and token.text == "\\\\":
            rows.append([[]])
        else:
            rows[-1][-1].append(token)
    g.take()
    _read_environment_name(g)
    if name in _CASES:
        return _make_cases(g, [row for row in rows if any(row)])
    return _make_matrix(g, [row for row in rows if any(row)], determinant=name in ("vmatrix", "Vmatrix"))


def _make_cases(g: Grammar, rows: list[list[list[Token]]]) -> Node:
    """Return a formula by cases: each value with its condition, which is an inequality or holds always."""
    parts: list[Node] = []
    for row in rows:
        if len(row) != 2 or not row[0]:
            raise Unreadable("cases without a value and a condition each")
        value = [token for at, token in enumerate(row[0]) if token.text != "," or at < len(row[0]) - 1]
        parts += [g.read_group(value, "{", "}"), _read_case_condition(g, row[1])]
    return Node("cases", tuple(parts))


def _read_case_condition(g: Grammar, tokens: list[Token]) -> Node:
    # The list grammar has marked some of these words as joiners before.
    may_be_word = ("text", "word", "name", "join")
    words = [token for token in tokens if token.kind in may_be_word and token.text.strip(" ,.") in _IF]
    rest = [token for token in tokens if token not in words and token.text not in (",", ".")]
    if words and not rest and any(token.text.strip(" ,.") in ("otherwise", "else") for token in words):
        return Node("field", value="reals")
    if parity := _read_parity(tokens):
        return parity
    # x = 0 is a condition here, not the value 0.
    if len(rest) > 2 and rest[0].kind == "name" and rest[1].text == "=":
        return Node("rel", (symbol(rest[0].text), g.read_group(rest[2:], "{", "}")), "=")
    condition = g.read_group(rest, "{", "}") if rest else Node("num")
    if condition.op not in ("rel", "inter") or any(n.op not in ("rel", "inter") for n in _links(condition)):
        raise Unreadable("a case whose condition is no inequality")
    return condition


def _read_parity(tokens: list[Token]) -> Node | None:
    r"""Return the condition in `n \text{ is odd}`, or None."""
    names = [token.text for token in tokens if token.kind == "name" and token.text not in _IF]
    said = {
        word.strip(".,") for t in tokens if t.kind in ("text", "word", "join") for word in t.text.casefold().split()
    }
    parity = said & {"odd", "even"}
    if len(names) != 1 or len(parity) != 1 or not said <= _IF | _PARITY_WORDS:
        return None
    return Node("rel", (Node("mod", (symbol(names[0]), number(2))), number(int("odd" in parity))), "=")


_PARITY_WORDS = frozenset({"odd", "even", "is", "an", "integer", "number", "positive"})


def _links(condition: Node) -> tuple[Node, ...]:
    return condition.args if condition.op == "inter" else (condition,)


_IF = frozenset({"if", "for", "when", "where", "otherwise", "else", "if and only if"})


def _read_environment_name(g: Grammar) -> str:
    g.expect("{")
    name = g.take().text
    g.expect("}")
    return name


def _make_matrix(g: Grammar, rows: list[list[list[Token]]], *, determinant: bool) -> Node:
    """Return the matrix node: "row" nodes of entries."""
    cells = tuple(Node("row", tuple(g.read_group(cell, "{", "}") for cell in row)) for row in rows)
    if not cells or len({len(row.args) for row in cells}) != 1:
        raise Unreadable("a matrix with rows of different lengths")
    node = Node("matrix", cells)
    return Node("det", (node,)) if determinant else node


_READERS = {
    "frac": _read_fraction,
    "sqrt": _read_root,
    "binom": _read_binomial,
    "dbinom": _read_binomial,
    "tbinom": _read_binomial,
    "begin": _read_environment,
    "int": _read_integral,
    "lim": _read_limit,
}
"""Commands with a reader of their own."""
