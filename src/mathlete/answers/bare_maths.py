r"""Formulas that stand in prose without dollar signs: "the answer is \frac{3}{4} of the cake"."""

from __future__ import annotations

import re

_COMMANDS = (
    "frac|dfrac|tfrac|sqrt|binom|pi|infty|cdot|times|pm|mp|left|right|circ|alpha|beta|gamma|theta|lambda|mu|phi|varphi"
    "|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|ln|log|exp|lfloor|rfloor|lceil|rceil|cup|cap|in|setminus|mathbb"
    "|le|leq|ge|geq|ne|neq|lt|gt|degree|pmod|bmod|text|mathrm|overline|angle|equiv|ldots|dots|cdots"
)
_COMMAND = rf"\\(?:{_COMMANDS})(?![a-zA-Z])"
_GROUP = r"\{(?:[^{}$\n]|\{(?:[^{}$\n]|\{[^{}$\n]*\})*\})*\}"
_NUMBER = r"\d+(?::\d+)*(?:,\d{3}(?!\d))*(?:\.\d+)?"
_SIGN = r"[-−+*/^_=()|!<>]"
_LETTER = r"(?<![A-Za-z\\])(?:[b-zB-HJ-Z]|(?<=\S)[aAI]|[aAI](?=[\^_=]| [-+=*/<>]))(?![A-Za-z'])"
_TUPLE = (
    r"[(\[](?![^()\[\]$\n]*(?<![\\a-zA-Z])[a-zA-Z]{3})[-−+\d\\{}^_./a-zA-Z ]{1,40}"
    r"(?:,[-−+\d\\{}^_./a-zA-Z ]{1,40})+[)\]]"
)
_ATOM = rf"(?:{_TUPLE}|{_COMMAND}|{_GROUP}|\\[{{}},;!| ]|{_NUMBER}|{_SIGN}|{_LETTER}|(?<=sqrt)\[\d\]|,(?= ?[-−]?\\))"
_BEFORE = rf"(?:{_TUPLE}|{_NUMBER}|[-−+*/^_=()|<>]|\\[,;! ]|{_LETTER}(?= ?[-−+*/^_=<>(\\]))"
_POWER = rf"(?<![A-Za-z\\])(?:{_NUMBER}|[A-Za-z]|(?<=[)\]]))\^(?:{_GROUP}|-?\d+|[a-z](?![a-z]))"
_FORMULA = re.compile(rf"(?:{_BEFORE} ?){{0,16}}(?:{_COMMAND}|{_POWER})(?: ?{_ATOM})*")
_DELIMITED = re.compile(
    r"(\$\$[^$]*\$\$|\$[^$\n]*\$|\\\(.{1,300}?\\\)|\\\[.{1,300}?\\\]|\\begin\b.*?\\end\{\w+\*?\})", re.S
)
_RELATION = r"\\(?:ne|neq|leq?|geq?|lt|gt|in|equiv|cdot|times|pm|mp|cup|cap|setminus|left|right|bmod)(?![a-zA-Z])"
_END = re.compile(rf"(?:[-−+*/^_=(<>,.\s]|\\[,;! ]|{_RELATION})+\Z")
_START = re.compile(rf"(?:[*/^_=)<>,.\s]|\\[,;! ]|{_RELATION})+")
_CONTENT = re.compile(r"\d|(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])|\\(?:pi|infty|sqrt|frac|text)")
_NAMED_NUMBER = re.compile(r"[^=]*[^=\s:<>]\s*=\s*(?=[^=]*\d[^=]*\Z)(?![^=]*(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z]))")
"""What stands before a number: in loose prose `4x^2 + 9y^2 = 64` says 64."""


def delimit_formulas(text: str) -> str:
    r"""Return the text with dollar signs around the LaTeX formulas that have no delimiters.

    >>> delimit_formulas(r"We get x = \frac{3}{4}, or $y$, of the cake.")
    'We get x = $\\frac{3}{4}$, or $y$, of the cake.'
    """
    if "\\" not in text and "^" not in text:
        return text
    parts = _DELIMITED.split(text)
    return "".join(part if at % 2 else _FORMULA.sub(_delimit, part) for at, part in enumerate(parts))


_REMARK = re.compile(r"\s*[a-zA-Z]{3,}[^()]{0,80}\)")
"""Words up to the end of a bracket that opened inside a formula: `\\frac{3}{4} (2 marks)`."""


def _delimit(match: re.Match[str]) -> str:
    formula = match[0]
    cut = _END.search(formula)
    end = cut.start() if cut else len(formula)
    # The bracket around a remark is no part of its formula.
    while end and formula[end - 1] == ")" and formula.count("(", 0, end) < formula.count(")", 0, end):
        end -= 1
    if formula.count("(", 0, end) > formula.count(")", 0, end) and _REMARK.match(match.string, match.end()):
        end = formula.rfind("(", 0, end)
        end = len(formula[:end].rstrip())
    opening = _START.match(formula, 0, end)
    named = _NAMED_NUMBER.match(formula[:end])
    start = named.end() if named else opening.end() if opening else 0
    if formula[start : start + 1] == "(" and formula.count("(", start, end) > formula.count(")", start, end):
        start += 1
    inside = formula[start:end]
    return f"{formula[:start]}${inside}${formula[end:]}" if _CONTENT.search(inside) else formula
