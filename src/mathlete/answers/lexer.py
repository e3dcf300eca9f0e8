"""Tokens of an answer: numbers (grouped thousands included), names, LaTeX commands, text, signs."""

import re
from dataclasses import dataclass

from mathlete.answers.effort import spend
from mathlete.answers.literals import is_factorial
from mathlete.answers.tree import Unreadable
from mathlete.answers.vocabulary import (
    FUNCTION_SPELLINGS,
    FUNCTIONS,
    GREEK,
    MANY_ARGUMENTS,
    OPERATORS,
    PLAIN_FUNCTIONS,
    UNITS,
)

MAX_CHARS = 20_000
"""Longest expression that is read; inspect_ai's limits table (tests/scorer, 0.3.285) is the model."""
MAX_WRITTEN = 100_000
"""Longest answer, with its spacing and fonts, that is looked at: what is longer is no answer but a text."""
MAX_NESTING = 120
"""Deepest nesting of brackets that is read."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an expression."""

    kind: str
    """num, name, cmd, text, word, op, based or nl; join where words separate items."""
    text: str
    spaced: bool = False
    """Whether white space came before it."""


_TEXT_COMMAND = re.compile(
    r"\\(?:text|mbox|textnormal|textbf|textit|textrm|textsf|texttt|textsc|textup|textmd|textsl|mathrm|mathbf|mathit|mathsf|rm|bf"
    r"|operatorname\*?|hbox|emph|mathtt|mathcal|mathbb|Bbb|mathfrak)(?![a-zA-Z])\s*"
)
_TOKEN = re.compile(
    r"(?P<space>[ \t\r]+)|(?P<nl>\n[\s]*)"
    r"|(?P<based>(?=[0-9A-Z]*\d)[0-9A-Z]{2,}(?=_\{?(?:1[1-9]|[23]\d)(?!\d)))"
    r"|(?P<repeat>\d*\.\d*(?:\\(?:overline|bar|dot)\s*\{?\s*\d+\s*\}?|\(\d+\))|\d*\.\d{3,}\s*(?:\.\.\.|\\l?dots\b))"
    r"|(?P<coded>0(?:[xX][0-9A-Fa-f]+|[bB][01]+|[oO][0-7]+)(?![\w.]))"
    r"|(?P<num>(?<![\d_])\d{1,3}(?:_\d{3})+(?![\d_])"
    r"|[1-9]\d{0,2}(?:,\d{3})+(?![\d]|,\d)(?:\.\d+)?|[1-9]\d{0,2}(?:[ ]\d{3})+(?![\d]|[ ]?\d)(?:\.\d+)?"
    r"|\d+\.?\d*|\.\d+)"
    r"|(?P<exp>[eE][+-]?\d+(?![\d.a-zA-Z]))"
    r"|(?P<cmd>\\[a-zA-Z]+\*?)|(?P<name>[a-zA-Z]+)"
    r"|(?P<op>\\[{}|\\%$#&_]|\|\||<=|>=|!=|<>|==|->|:=|[-+*/^_=<>(){}\[\]|,;:!%&'\"€£¥$?.\\])"
)
_LETTER_FONTS = frozenset({r"\mathbf", r"\mathit", r"\mathcal", r"\bf"})
_SWITCHES = frozenset({r"\rm", r"\bf"})
"""Fonts that hold to the end of their group, so that no argument follows."""
_NAMES = FUNCTIONS | MANY_ARGUMENTS | PLAIN_FUNCTIONS | {"pi", "infinity", "inf", "oo", "and", "or", "mod"}
_GROUPING = {"(": 1, "[": 1, r"\{": 1, ")": -1, "]": -1, r"\}": -1}


def tokenize(text: str) -> list[Token]:
    """Return the tokens of cleaned text.

    Raises:
        Unreadable: a sign outside the alphabet, too long, too deep.
    """
    if len(text) > MAX_CHARS:
        raise Unreadable(f"longer than {MAX_CHARS} characters")
    tokens: list[Token] = []
    at, depth, braces, spaced = 0, 0, 0, False
    # One pass over the text with one regular expression: the time is linear in its length.
    while at < len(text):
        command = _TEXT_COMMAND.match(text, at) if text[at] == "\\" else None
        if command and command.end() < len(text):
            at = _append_text(text, command, tokens, spaced)
            spaced = False
            continue
        match = _TOKEN.match(text, at)
        if match is None:
            raise Unreadable(f"unexpected {text[at]!r}")
        spend()
        kind, at_next = str(match.lastgroup), match.end()
        if kind == "space":
            spaced, at = True, at_next
            continue
        word = match[0]
        if kind == "num" and depth > 0 and "," in word:
            # Inside brackets a comma separates: (1,234) is a pair, 1,234 a number.
            word = word.partition(",")[0]
            at_next = at + len(word)
        depth += _GROUPING.get(word, 0)
        braces += (word == "{") - (word == "}")
        if max(depth, -depth, braces) > MAX_NESTING:
            raise Unreadable(f"nested deeper than {MAX_NESTING}")
        _append_token(kind, word, tokens, spaced, follows=text[at_next : at_next + 30])
        at, spaced = at_next, False
    return _split_bars(tokens) if "||" in text else tokens


def _split_bars(tokens: list[Token]) -> list[Token]:
    """Return the tokens with two bars for || where one bar closes and another opens, |a||b|, or two open, ||x|-1|."""
    parts: list[Token] = []
    is_open, texts = False, [token.text for token in tokens]
    norms = texts.count("||")
    # A bar between the two of a norm makes them bars around bars: ||a|-|b||.
    is_nested = norms == 1 or (norms == 2 and "|" in texts[texts.index("||") : len(texts) - texts[::-1].index("||")])
    for token in tokens:
        is_open ^= token.text == "|"
        if token.text == "||" and (is_open or is_nested):
            parts += [Token("op", "|", token.spaced), Token("op", "|")]
        else:
            parts.append(token)
    return parts


def _append_token(kind: str, word: str, tokens: list[Token], spaced: bool, *, follows: str) -> None:
    if kind == "exp":
        _append_exponent(word, tokens, spaced)
    elif kind == "name":
        _append_name(word, tokens, spaced)
    elif kind == "repeat":
        tokens.append(Token("num", _repeating_fraction(word), spaced))
    elif word == "!=" and not spaced and tokens and _ends_factorial(tokens[-1], follows):
        tokens.extend((Token("op", "!"), Token("op", "=")))
    elif kind == "num":
        tokens.append(Token("num", re.sub("[, _]", "", word), spaced))
    elif kind == "coded":
        # Read as a product, 0x2A would be 0.
        raise Unreadable(f"{word!r} is a program's number")
    elif kind == "cmd":
        tokens.append(Token("cmd", "\\" + FUNCTION_SPELLINGS.get(word[1:], word[1:]), spaced))
    else:
        tokens.append(Token(kind, word, spaced))


def _ends_factorial(before: Token, follows: str) -> bool:
    """Return whether != after a token is a factorial's sign and an equality: in `n!=120`, but not in `n!=5`."""
    value = re.match(r"\s*(\d+)", follows)
    is_value = value is not None and is_factorial(int(value[1]))
    return before.kind == "num" or (is_value and (before.text in _NATURAL or before.text == ")"))


_NATURAL = frozenset("nmkpN")


def _repeating_fraction(word: str) -> str:
    """Return a repeating decimal as a fraction: `0.1\\overline{6}`, `0.1(6)`, `0.1666...`.

    Raises:
        Unreadable: dots after digits that do not repeat three times.
    """
    whole, _, rest = word.partition(".")
    digits = re.findall(r"\d+", rest)
    fixed, period = digits if len(digits) == 2 else ("", digits[0])
    if word.endswith((".", "dots")):
        rounds = re.fullmatch(r"(\d*?)(\d+?)\2{2,}", digits[0])
        if rounds is None:
            raise Unreadable(f"{word!r} is a number cut short")
        fixed, period = rounds[1], rounds[2]
    top = int(f"0{whole}{fixed}{period}") - int(f"0{whole}{fixed}")
    return f"{top}/{(10 ** len(period) - 1) * 10 ** len(fixed)}"


def _append_exponent(word: str, tokens: list[Token], spaced: bool) -> None:
    """Append `e3`: glued to a number, as in `1.5e3`, it is scientific notation; anywhere else the letter is a name."""
    if tokens and tokens[-1].kind == "num" and not spaced:
        tokens[-1] = Token("num", tokens[-1].text + word.lower(), tokens[-1].spaced)
        return
    tokens.append(Token("name", word[0], spaced))
    if word[1] in "+-":
        tokens.append(Token("op", word[1]))
    tokens.append(Token("num", word.lstrip("eE+-")))


def _append_name(word: str, tokens: list[Token], spaced: bool) -> None:
    """Append a name, or a word whose letters may be a product or a unit."""
    word = FUNCTION_SPELLINGS.get(word, word) if len(word) > 2 else word
    if word in _NAMES or word.lower() in ("and", "or"):
        tokens.append(Token("name", word.lower() if word.lower() in ("and", "or") else word, spaced))
    elif len(word) == 1:
        tokens.append(Token("name", word, spaced))
    else:
        tokens.append(Token("word", word, spaced))


def _append_text(text: str, command: re.Match[str], tokens: list[Token], spaced: bool) -> int:
    """Append the content of \\text{...} as a text token; return where the next token starts."""
    at = command.end()
    font = command[0].strip().rstrip("*")
    if text[at] != "{":
        # A font before digits or an expression changes nothing: `\\bf 42` is 42. Before a letter it takes that letter,
        # which may be a unit or a field.
        if font in _SWITCHES or not text[at].isalpha():
            return at
        tokens.append(_letter_token(font, text[at], spaced))
        return at + 1
    end, depth = at, 0
    for end in range(at, len(text)):
        depth += (text[end] == "{") - (text[end] == "}")
        if depth == 0:
            break
    spend((end - at) // 20)  # for a brace that is never closed all of the text is looked through
    content = text[at + 1 : end] if depth == 0 else text[at + 1 :]
    # One blank says as much as thousands, which the expressions for words would try in all ways.
    content = _BLANKS.sub(" ", content)
    if re.fullmatch("[0-9A-F]{2,}", content) and _BASE.match(text, end + 1):
        tokens.append(Token("based", content, spaced))
        return end + 1
    if content.strip() in OPERATORS & UNITS and _ARGUMENT.match(text, end + 1):
        font = r"\operatorname"
    tokens.append(_letter_token(font, content, spaced))
    return end + 1


_BLANKS = re.compile(r"\s+")
_BASE = re.compile(r"_\{?(?:1[1-9]|[23]\d)(?!\d)")
_ARGUMENT = re.compile(
    r"\s*(?:\^\s*(?:\{[^{}]*\}|\d)\s*)?(?:\(|[a-zA-Z](?![a-zA-Z])|\\(?:"
    + "|".join(sorted(GREEK))
    + r"|frac|sqrt|left\s*\()(?![a-zA-Z])|\{\s*[\w\\]|(?:\\,|\\ |\s)\s*(?:[a-zA-Z](?![a-zA-Z])|\d))"
)
"""What makes `\\mathrm{sec}` the secant of what comes next, and no second."""


def _letter_token(font: str, content: str, spaced: bool) -> Token:
    r"""Return the token of a font's argument: a name, a field, a function, or text."""
    word = content.strip()
    if word in ("e", "i") or (font in _LETTER_FONTS and re.fullmatch("[a-z]", content)):
        return Token("name", word, spaced)
    if font in (r"\mathbb", r"\Bbb") and word in ("R", "Z", "N", "Q", "C"):
        return Token("cmd", "\\" + word, spaced)
    # `\operatorname{sgn}` is an operator, known or not, and never a label that could be dropped.
    if re.fullmatch("[A-Za-z]+", word) and (
        font == r"\operatorname" or word in OPERATORS - UNITS or word in FUNCTION_SPELLINGS
    ):
        return Token("cmd", "\\" + FUNCTION_SPELLINGS.get(word, word), spaced)
    return Token("text", content, spaced)
