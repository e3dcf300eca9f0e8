"""A recursive-descent grammar of one mathematical expression: tokens in, tree out, everything or nothing.

Every token must be consumed. Peers that stop early compare only a prefix: `1-\\frac{1}{\\mathrm{e}}` becomes 1.
"""

import re
from collections.abc import Callable

from mathlete.answers.commands import read_command, read_name
from mathlete.answers.effort import spend
from mathlete.answers.lexer import Token, tokenize
from mathlete.answers.literals import add_fraction, is_proper, read_in_base, read_literal
from mathlete.answers.suffixes import count_fraction_of_units, read_script, read_suffixes
from mathlete.answers.tree import Node, Unreadable, constant, number, symbol
from mathlete.answers.vocabulary import FUNCTIONS, MANY_ARGUMENTS, NUMBER_WORDS

_END = Token("end", "")
_SETS = {r"\cup": "union", r"\bigcup": "union", r"\cap": "inter", r"\setminus": "minus", r"\backslash": "minus"}
_TIMES = frozenset({"*", r"\cdot", r"\times", r"\ast", r"\bullet"})
_OVER = frozenset({"/", r"\div"})
_MOD = frozenset({r"\bmod", r"\mod", r"\pmod", r"\pod"})
_BRACKETS = {"(": ")", "[": "]", r"\{": r"\}", "{": "}"}
_ENCLOSED = {"|": ("abs", "|"), "||": ("abs", "||"), r"\|": ("abs", r"\|"), r"\lvert": ("abs", r"\rvert"),
             r"\vert": ("abs", r"\vert"), r"\lfloor": ("floor", r"\rfloor"), r"\lceil": ("ceil", r"\rceil"),
             r"\langle": ("tuple", r"\rangle")}  # fmt: skip
_CONSTANTS = {r"\pi": "pi", "pi": "pi", r"\infty": "oo", "infinity": "oo", "inf": "oo", "oo": "oo", "e": "e",
              "i": "i", "I": "i", r"\imath": "i", r"\mathrm{e}": "e"}  # fmt: skip
_EMPTY = frozenset({r"\emptyset", r"\varnothing", r"\phi"})


class Grammar:
    """One reading of a token list; each method is a rule of the grammar and takes the tokens that it reads."""

    def __init__(self, tokens: list[Token], *, read_group: Callable[[list[Token], str, str], Node]) -> None:
        """Start before the first token.

        Args:
            tokens: the expression.
            read_group: reads what stands between brackets, given the tokens inside and both brackets: `forms` knows
                lists and relations, this grammar does not.
        """
        self.tokens, self.at = tokens, 0
        self.read_group = read_group
        self.closers: list[str] = []

    def read_all(self) -> Node:
        """Return the tree of all tokens.

        Raises:
            Unreadable: tokens are left over or missing.
        """
        node = self.expression()
        if self.at < len(self.tokens):
            raise Unreadable(f"cannot read on from {self.peek().text!r}")
        return node

    def peek(self, ahead: int = 0) -> Token:
        """Return the next token, or the one so many tokens after it."""
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else _END

    def take(self) -> Token:
        """Return the next token and go on behind it."""
        token = self.peek()
        self.at += 1
        return token

    def expect(self, text: str) -> None:
        """Take that token.

        Raises:
            Unreadable: another token comes.
        """
        token = self.take()
        if token.text != text:
            raise Unreadable(f"expected {text!r}, found {token.text!r}")

    def expression(self) -> Node:
        """Read sums joined by union, intersection and difference of sets."""
        node = self.sum()
        while self.peek().text in _SETS and self.peek().kind == "cmd":
            node = Node(_SETS[self.take().text], (node, self.sum()))
        return node

    def sum(self) -> Node:
        """Read terms between + - and ± signs."""
        terms = [self.residue()]
        while self.peek().text in ("+", "-", r"\pm", r"\mp") and self.peek().kind in ("op", "cmd"):
            sign, right = self.take().text, self.residue()
            if sign in ("+", "-"):
                terms.append(right if sign == "+" else Node("neg", (right,)))
            else:
                terms = [_apply_sign(sign, join("add", terms), right)]
        return join("add", terms)

    def residue(self) -> Node:
        """Read a term with its modulus: `5 \\pmod 7`."""
        node = self.product()
        while self.at_modulus():
            node = Node("mod", (node, self.modulus()))
        return node

    def at_modulus(self) -> bool:
        """Return whether a modulus comes next."""
        token = self.peek()
        if token.text == "(" and self.peek(1).text.strip() in ("mod", r"\mod", r"\bmod"):
            return True
        return token.text in _MOD or (
            token.text.strip() in ("mod", "modulo") and token.kind in ("name", "text", "word")
        )

    def modulus(self) -> Node:
        """Read the modulus, in brackets or without."""
        opened = self.take().text == "("
        if opened:
            self.take()
        node = self.product()
        if opened:
            self.expect(")")
        return node

    def product(self) -> Node:
        """Read factors, side by side or with a sign between them."""
        factors = [self.unary()]
        while True:
            token = self.peek()
            if token.text in _TIMES:
                self.take()
                factor = self.unary()
                # The cross product of two vectors is no product of numbers, as the one with a dot is.
                if token.text == r"\times" and _is_vector(factors[-1]) and _is_vector(factor):
                    factors[-1] = Node("apply", (symbol("cross"), factors[-1], factor))
                else:
                    factors.append(factor)
            elif token.text in _OVER:
                self.take()
                factors = [Node("div", (join("mul", factors), self.unary()))]
            elif self.starts_factor():
                factors.append(self.power())
            else:
                return join("mul", factors)

    def starts_factor(self) -> bool:
        """Return whether the next token continues a product without a sign."""
        token = self.peek()
        # The bar of |x| opens and closes alike: inside one, a second bar ends the product.
        if token.kind == "end" or token.text in self.closers[-1:] or self.at_modulus():
            return False
        # Two numbers side by side are no product: 12 34 is a misprint, not 408.
        # Behind a unit a number begins a second quantity: 10 hr 30 min is no product either.
        if token.kind == "num":
            # (7) 52 is the seventh of several answers.
            before = self.tokens[self.at - 1] if self.at else _END
            return (
                self.at > 0 and before.kind not in ("num", "text", "word") and not (before.text == ")" and token.spaced)
            )
        # Nor are {42}{43}, which TeX prints as 4243.
        if token.text == "{" and self.peek(1).kind == "num" and self.tokens[self.at - 1].text == "}":
            return self.tokens[self.at - 2].kind != "num"
        if token.kind in ("name", "cmd", "word"):
            return token.text not in _NOT_FACTORS
        return token.text in ("(", "{", "[", "|", "||", r"\|", r"\{") and token.kind == "op"

    def unary(self) -> Node:
        """Read a factor with its signs."""
        token = self.peek()
        if token.text in ("-", "+", r"\pm", r"\mp", r"\neg") and token.kind in ("op", "cmd"):
            self.take()
            return _apply_sign(token.text, None, self.unary())
        return self.power()

    def power(self) -> Node:
        """Read a value with what stands after it, and its exponent."""
        node = read_suffixes(self, self.atom())
        if self.peek().text == "^":
            self.take()
            return read_suffixes(self, Node("pow", (node, self.exponent())))
        return node

    def exponent(self) -> Node:
        """Read what stands after ^."""
        if self.peek().text in ("+", "-"):
            sign = self.take().text
            return _apply_sign(sign, None, self.exponent())
        if self.peek().text == "{":
            return self.group()
        # TeX takes one token after ^, but `2^10` is read as written in plain text: 2 to the 10.
        node = read_suffixes(self, self.bare())
        if self.peek().text == "^":
            self.take()
            return Node("pow", (node, self.exponent()))
        return node

    def bare(self) -> Node:
        r"""Read an argument without braces: a number takes no fraction there, as the 2 of `10^2\frac14` is no 2 1/4."""
        return read_literal(self.take().text) if self.peek().kind == "num" else self.atom()

    def atom(self) -> Node:
        """Read the smallest complete value."""
        token = self.take()
        if token.kind == "num":
            return self.mixed_number(read_literal(token.text), token)
        if token.text in _CONSTANTS:
            return constant(_CONSTANTS[token.text])
        if token.text in _EMPTY:
            return Node("set")
        if token.kind == "based":
            self.expect("_")
            return read_in_base(token.text, read_script(self))
        if token.text in _ENCLOSED:
            return self.read_enclosed(token.text)
        if token.kind == "cmd":
            return read_command(self, token.text)
        if token.kind in ("name", "word"):
            return read_name(self, token)
        if token.kind == "text":
            return self.text(token)
        if token.text in _BRACKETS or token.text == "]":
            self.at -= 1
            return self.group()
        raise Unreadable(f"unexpected {token.text!r}")

    def mixed_number(self, integer: Node, token: Token) -> Node:
        """Read the fraction after an integer: `1 1/2` and `1\\frac12` are mixed numbers, 3/2."""
        if not token.text.isdigit():
            return integer
        a, slash, b = (self.peek(k) for k in range(3))
        if a.kind == b.kind == "num" and a.spaced and slash.text == "/" and a.text.isdigit() and b.text.isdigit():
            self.at += 3
            return add_fraction(integer, int(a.text), int(b.text))
        if a.text == r"\frac" and not count_fraction_of_units(self):
            mark = self.at
            self.take()
            top, bottom = self.argument(), self.argument()
            if is_proper(top, bottom):
                return add_fraction(integer, int(top.fraction), int(bottom.fraction))
            # 2\frac{3}{2} and 2\frac{x}{3} are products: go back before the fraction.
            self.at = mark
        return integer

    def read_enclosed(self, opener: str) -> Node:
        """Read a value between bars, floor, ceiling or angle signs."""
        op, closer = _ENCLOSED[opener]
        inner = self.read_until(closer)
        self.expect(closer)
        # Bars around a matrix make its determinant.
        if op == "abs" and inner.op == "matrix":
            return Node("det", (inner,))
        return inner if op == "tuple" and inner.op == "tuple" else Node(op, (inner,))

    def read_until(self, closer: str) -> Node:
        """Read the expression up to a closer."""
        self.closers.append(closer)
        node = self.expression()
        if closer == r"\rangle":
            parts = [node]
            while self.peek().text == ",":
                self.take()
                parts.append(self.expression())
            node = Node("tuple", tuple(parts))
        self.closers.pop()
        return node

    def group(self) -> Node:
        """Read what stands between matching brackets, by the list grammar of `forms`."""
        opener = self.take().text
        start, depth = self.at, 1
        while depth:
            token = self.take()
            if token.kind == "end":
                raise Unreadable(f"{opener!r} is never closed")
            depth += -1 if self._ends_open_interval(opener) else _depth(token.text, opener)
        # What stands in brackets is looked through once more for each bracket around it.
        spend(1 + (self.at - start) // 5)
        return self.read_group(self.tokens[start : self.at - 1], opener, self.tokens[self.at - 1].text)

    def _ends_open_interval(self, opener: str) -> bool:
        """Return whether the token just taken is the [ that ends `[0, 1[`: behind a value, and no value comes next."""
        before, token, after = self.tokens[self.at - 2], self.tokens[self.at - 1], self.peek()
        if token.text != "[" or opener not in "([]" or before.text in ("(", "[", ",", ";"):
            return False
        return after.kind == "end" or after.text in (*_SETS, ",", ";", ")", r"\}")

    def argument(self) -> Node:
        """Read a TeX argument: a braced group, or the next single digit or atom."""
        token = self.peek()
        if token.text == "{":
            return self.group()
        if token.kind == "num" and len(token.text) > 1 and token.text.isdigit():
            # `\frac12` takes one digit each. The list is copied, because its owner may read it again.
            self.tokens = [*self.tokens]
            self.tokens[self.at] = Token("num", token.text[1:])
            return number(int(token.text[0]))
        return self.bare()

    def text(self, token: Token) -> Node:
        """Read a value inside a text or font command: \\mathrm{e}, \\mathbf{42}, \\text{five}."""
        word = token.text.strip()
        if word.lower() in NUMBER_WORDS:
            return number(NUMBER_WORDS[word.lower()])
        if word in FUNCTIONS or word in MANY_ARGUMENTS:
            return read_name(self, Token("name", word))
        if re.fullmatch("[A-Z]{2,4}", word):
            return join("mul", [symbol(letter) for letter in word])
        if len(word) > 1 and word.isalpha():
            return symbol(word)
        return Grammar(tokenize(word), read_group=self.read_group).read_all()


_NOT_FACTORS = frozenset(
    {*_SETS, *_TIMES, *_OVER, *_MOD, "and", "or", "mod", r"\pm", r"\mp", r"\rangle", r"\rfloor", r"\rceil", r"\rvert",
     r"\circ", r"\degree", r"\vert", r"\to", r"\ldots", r"\cdots", r"\dots"}
)  # fmt: skip


def _is_vector(node: Node) -> bool:
    return node.op == "sym" and str(node.value).startswith(("vec ", "overrightarrow "))


def join(op: str, nodes: list[Node]) -> Node:
    """Return the sum or product of the nodes; one node is itself."""
    return nodes[0] if len(nodes) == 1 else Node(op, tuple(nodes))


def _apply_sign(sign: str, left: Node | None, right: Node) -> Node:
    if sign in ("+", "-") and left is None:
        return right if sign == "+" else Node("neg", (right,))
    if sign in (r"\pm", r"\mp"):
        name = "pm" if sign == r"\pm" else "mp"
        return Node(name, (left, right) if left else (right,))
    assert left is not None
    return Node("add", (left, right if sign == "+" else Node("neg", (right,))))


def _depth(text: str, opener: str) -> int:
    if opener in ("{", r"\{"):
        pair = ("{", "}") if opener == "{" else (r"\{", r"\}")
        return (text == pair[0]) - (text == pair[1])
    if opener == "]":
        return -(text in "[]" and text != "")
    return (text in "([" and text != "") - (text in ")]" and text != "")
