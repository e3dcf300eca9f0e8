r"""Statements prepared for comparison: their tokens, n-grams and numbers, without typesetting.

Two problems of one template ("A train travels 60 km ...", "A train travels 80 km ...") differ in nothing but numbers.
They are different problems, so numbers are kept apart and must agree.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

_DRAWING = re.compile(
    r"\[asy\].*?(?:\[/asy\]|\Z)|\\begin\{tikzpicture\}.*?\\end\{tikzpicture\}|!\[[^\]]*\]\([^)]*\)", re.S
)
_BRANCH = re.compile(r"\\(?:text|mathrm|mathbf|mathit|mathcal|mathbb|operatorname|textbf|emph|boxed|overline)\b\*?")
_TYPESET = re.compile(
    r"\\(?:begin|end)\s*\{[^}]*\}(?:\{[lcr|]+\})?|\\(?:left|right|bigl?|bigr?|Bigl?|Bigr?|displaystyle|limits|quad|qquad"
    r"|label|tag|nonumber|phantom|hspace|vspace)(?![a-zA-Z])|\\[,;:!>\[\]() ]"
)
_FRAC = re.compile(r"\\[dt]frac(?![a-zA-Z])")
_GROUPS = re.compile(r"(?<=\d)(?:\{,\}|\\,|,)(?=\d{3}(?!\d))")
_TOKEN = re.compile(r"\d+(?:\.\d+)?|\\?[^\W\d_]+|[-+*/^=<>!|]")
_CAPITALS = re.compile(r"(?<![A-Za-z\\])[A-Z]{3,}(?![A-Za-z])")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese."""
_NUMBER_WORDS = {
    "zero": "0", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
    "nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "fifteen": "15", "twenty": "20",
}  # fmt: skip
"""Without "one": in "one of them" and "the one that" it is not a number."""
_EQUAL_SIGNS = {r"\leq": "<=", r"\le": "<=", r"\geq": ">=", r"\ge": ">=", r"\times": "*", r"\cdot": "*", r"\lt": "<"}


def split_tokens(statement: str) -> list[str]:
    r"""Return the statement's words, numbers and signs in lower case, without typesetting commands and drawings.

    >>> split_tokens(r"Let $x\cdot y = 6{,}000$. Find \(\tfrac{x}{y}\).")
    ['let', 'x', '*', 'y', '=', '6000', 'find', '\\frac', 'x', 'y']
    >>> split_tokens("Eight circles [asy] draw(0,0); [/asy]")
    ['8', 'circles']
    """
    text = unicodedata.normalize("NFKC", _DRAWING.sub(" ", statement))
    for pattern, put in ((_GROUPS, ""), (_FRAC, r"\\frac"), (_BRANCH, " "), (_TYPESET, " ")):
        text = pattern.sub(put, text)
    tokens = (_EQUAL_SIGNS.get(token, token.lower()) for token in _TOKEN.findall(text))
    return [_NUMBER_WORDS.get(token, token) for token in tokens]


@dataclass(frozen=True)
class Statement:
    """One statement, prepared for comparison."""

    tokens: tuple[str, ...]
    names: Counter[str]
    """Words in capitals, as PROOF in "the letters of PROOF". Like numbers, they must agree."""
    drawing: str
    """Its drawings without white space: many problems ask for "the value of $x$ in the diagram"."""

    @classmethod
    def parse(cls, text: str) -> "Statement":
        """Return the statement of a problem's text."""
        names = Counter(_CAPITALS.findall(_DRAWING.sub(" ", text)))
        return cls(tuple(split_tokens(text)), names, "".join("".join(_DRAWING.findall(text)).split()))

    @cached_property
    def numbers(self) -> Counter[str]:
        """Its numbers and names with their counts."""
        return Counter(token for token in self.tokens if token[0].isdigit()) + self.names

    def holds(self, other: "Statement") -> bool:
        """Return whether this statement has every token of the other one, as often as it does."""
        return not Counter(other.tokens) - Counter(self.tokens)

    def grams(self, size: int) -> frozenset[tuple[str, ...]]:
        """Return its runs of `size` tokens; a shorter statement is one run."""
        count = max(1, len(self.tokens) - size + 1)
        return frozenset(self.tokens[at : at + size] for at in range(count)) if self.tokens else frozenset()


def is_stated_in(statement: str, text: str) -> bool:
    r"""Return whether a text states a problem as a statement does: one stands in the other, or nearly so.

    It is told by the shorter one's runs of three tokens, of which the other must have four fifths, and all its numbers.
    In a script without spaces a token is as long as a clause, so there the whole may also stand within the other.

    >>> is_stated_in("Find $x$ if $x + 2 = 5$.", "Solve this, step by step: find \\(x\\) if \\(x+2=5\\)")
    True
    >>> is_stated_in("Find $x$ if $x + 2 = 5$.", "Find $x$ if $x + 3 = 5$.")
    False
    """
    shorter, longer = sorted(map(Statement.parse, (statement, text)), key=lambda one: len(one.tokens))
    if shorter.numbers - longer.numbers:
        return False
    whole, joined = "".join(longer.tokens), "".join(shorter.tokens)
    if joined and joined in whole and _UNSPACED.search(whole):
        return True
    size = min(3, len(shorter.tokens))
    return containment(shorter.grams(size), longer.grams(size)) >= 0.8


def hash_statement(statement: str) -> str:
    """Return a key that is equal for statements that differ only in typesetting."""
    text = " ".join(split_tokens(statement)) or statement
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def jaccard(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    """Return |A ∩ B| / |A ∪ B|, 0 to 1."""
    return len(one & other) / max(1, len(one | other))


def containment(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    """Return |A ∩ B| as a share of the smaller set, 0 to 1."""
    return len(one & other) / max(1, min(len(one), len(other)))
