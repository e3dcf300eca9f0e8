"""The answer in loose prose, where nothing marks it: the last formula, bold text, line with =, number, a short text."""

from __future__ import annotations

import re

from mathlete.answers.bare_maths import delimit_formulas
from mathlete.answers.remarks import drop_afterthought
from mathlete.answers.sentences import (
    MATHS,
    NUMBER,
    PROSE,
    drop_references,
    find_formulas,
    is_prose,
    last_of_chain,
    place_formulas,
    read_last_number,
    read_sentence,
)

EMPTY_LINE = re.compile(r"[-\s*_$.:=\\()\[\]{}`\"']*\Z")
"""A line without a value."""


def read_loosely(window: str, *, is_list: bool = False) -> tuple[str, str] | None:
    """Return the place and the answer in a text that marks none, or None."""
    window = _spell_signs(_drop_table(window))
    concluded = None if is_list else _read_conclusion(window)
    # The last number counts here, so "..., attained for x = 3" must not stand behind the value.
    window = drop_afterthought(_delimit_in_prose(window))
    if is_list and (listed := _read_list(window)):
        return "line", listed
    for provenance, reader in _WEAK:
        if answer := reader(window):
            if concluded is None or reader in _SAID_AS_A_WHOLE:
                return provenance, answer
            # A unit behind the value says no more.
            is_same = concluded.startswith(answer) and re.match(r"\Z| [a-zA-Z]", concluded[len(answer) :])
            return (provenance, answer) if is_same else ("line", concluded)
    return None


_SENTENCE = re.compile(r"(?:\A|(?<=[.!?:])\s+|\n)(?=[*_ ]*(?!Note|If|Suppose|Let|When|For |Since|Because)[A-Z][a-z])")
_COPULA = r"\b(?:is|are|has|have|equals?|be|becomes|gives?|yields?)\b"
_CONCLUSION = re.compile(
    rf"[*_ ]*[A-Z](?:(?!{_COPULA}|\b(?:when|where|if|since|because)\b)[^.\n=])*{_COPULA}"
    r"\s+(?:exactly |only |thus |simply |equal to |a total of )?"
    r"(?P<said>(?:[-−(\[$\\\d√π]|[b-zB-HJ-Z](?![a-zA-Z']))[^\n]*)\Z"
)
_SAYS_MORE = re.compile(
    rf"{_COPULA}|\b(?:so|thus|hence|then|therefore|giving|yielding|namely|which|where|but|we|being|total|times|i\.e)\b|[.?!:]\s+\S"
)


def _read_conclusion(window: str) -> str | None:
    """Return the value in a last sentence such as "Therefore the maximum is 5 (for x = 1)", which says nothing more."""
    starts = [match.end() for match in _SENTENCE.finditer(window.rstrip())]
    said = _CONCLUSION.match(window.rstrip()[starts[-1] :]) if starts else None
    if said is None or _SAYS_MORE.search(MATHS.sub(" ", said["said"])):
        return None
    counted = _COUNTED_VALUE.match(said["said"])
    value = read_sentence(counted[0] if counted else said["said"])
    # Several formulas are several values, of which none is the answer, and an equation may be a label.
    is_value = value and not is_prose(value) and re.search(r"\d|\\", value) and not re.search(r"[$=]|\\[()]", value)
    return value if is_value else None


_COUNTED_VALUE = re.compile(
    r"(\$[^$]{1,200}\$|\\\([^$]{1,200}?\\\)|-?\d[\d,]*)(?=\s+(?!and\b|or\b|to\b|times\b|by\b)[a-z]{3,})"
)


def _spell_signs(window: str) -> str:
    """Return the text with commands for π and √, and without the powers of units: 36 cm^2 is no 2."""
    if "π" in window or "√" in window:
        window = _ROOT.sub(r"\\sqrt{\1}", window.replace("π", r"\pi "))
    return _UNIT_POWER.sub(r"\1", window) if "^" in window else window


_ROOT = re.compile(r"√\s?\(?(\d{1,9})\)?")
_UNIT_POWER = re.compile(
    r"(?<=[\d$})])(\s?(?:[mck]?m|in|ft|yd|mi|feet|inches|meters|metres|units?))\s?\^\s?\{?[23]\}?(?![\w^])"
)


def _delimit_in_prose(window: str) -> str:
    """Return the text with dollar signs around the formulas of its lines of prose."""
    if "\\" not in window and "^" not in window:
        return window
    return "\n".join(delimit_formulas(line) if is_prose(line) else line for line in window.split("\n"))


def _drop_table(window: str) -> str:
    """Return the text without the rows of tables, unless it is nothing but a table: a check behind the answer."""
    if "|\n" not in window and not window.rstrip().endswith("|"):
        return window
    kept = "\n".join(line for line in window.split("\n") if not _TABLE_ROW.fullmatch(line))
    return kept if NUMBER.search(kept) else window


_TABLE_ROW = re.compile(r"\s*\|.*\|\s*")


_BOLD = re.compile(r"\*\*([^*\n]+)\*\*")


def _read_last_formula(window: str) -> str | None:
    placed = place_formulas(window)
    if not placed:
        return None
    formula, end = placed[-1]
    after = window[end:]
    percent = re.match(r"\s*\\?\$*\s*(?:\\?%|percent\b|pct\b)", after)
    return None if NUMBER.search(drop_references(after)) else last_of_chain(formula) + (r"\%" if percent else "")


def _read_last_bold(window: str) -> str | None:
    bold = list(_BOLD.finditer(window))
    if not bold or NUMBER.search(drop_references(window[bold[-1].end() :])):
        return None
    content = bold[-1][1].strip()
    return read_sentence(content) if re.search(r"\d|\\", content) or len(content) == 1 else None


def _read_phrase_with_formula(window: str) -> str | None:
    r"""Return a text of a few words around a formula, which is the answer itself: `odd $n$`."""
    bare = window.strip()
    short = len(bare.split()) <= 3 and "\n" not in bare and not re.search(r"\d|[.:=]|answer", bare, re.I)
    return bare if short and find_formulas(bare) and is_prose(bare) else None


_FORMULA = r"(?:\$[^$\n]{1,120}\$|\\\([^\n]{1,120}?\\\))"
_ITEM = rf"(?:{_FORMULA}|[-−]?\d[\d./]*)"
_COMMA = r"\s*(?:,\s*(?:and|or)\b|,|and\b|or\b)\s*"
_LISTED = re.compile(
    rf"\b(?:are|is|either)\s+({_ITEM}(?:{_COMMA}{_ITEM})+)\.?\Z|({_FORMULA}(?:{_COMMA}{_FORMULA})+)\.?\Z"
)


_EITHER = re.compile(
    rf"\b(?:is|be|are|either)\s+(?P<items>{_ITEM}(?:\s*,\s*{_ITEM})*,?\s+or\s+{_ITEM})[\s.*]*\Z"
    r"|(?P<named>\$([a-zA-Z])\s*=[^=$]{1,60}\$,?\s+or\s+\$\3\s*=[^=$]{1,60}\$)[\s.*]*\Z"
)


def _read_either(window: str) -> str | None:
    """Return the values that end a text with "or" between them: `is 6 or 7`, `$x = 5$ or $x = -5$`.

    Behind anything else the second one is most often the first once more: `it equals $50\\cdot 12$, or $600$`.
    """
    either = _EITHER.search(window, max(0, len(window) - 2 * _LAST_SENTENCE))
    return (either["items"] or either["named"]) if either else None


def _read_list(window: str) -> str | None:
    """Return the values that the last line lists: `The roots are $2$ and $3$.`"""
    listed = _LISTED.search(window.rstrip().rpartition("\n")[2])
    return (listed[1] or listed[2]) if listed else None


_NAMED_VALUES = re.compile(
    r"(?<![-+*/^(\w$\\])(?<![-+*/^(] )(?:[a-zA-Z]\s*=\s*[^=,\s]+(?:,\s*|\s+and\s+|\s+or\s+|\Z)){2,}\Z"
)


def _read_last_line(window: str) -> str | None:
    lines = [line.strip() for line in window.splitlines() if not EMPTY_LINE.match(line)]
    if not lines or "=" not in lines[-1]:
        return None
    end = lines[-1].rstrip(".")[-_LAST_SENTENCE:]
    if named := (_NAMED_VALUES.match(lines[-1]) or _NAMED_VALUES.search(end)):
        return named[0]
    value = lines[-1].rpartition("=")[2].partition(r"\end{")[0].strip().rstrip(".*$ ")
    value = value.rstrip(".)") if "(" not in value else value
    curve = _CURVE.search(end.rstrip(".*$ "))
    if curve and not is_prose(curve[2]):
        return curve[0]
    # Half a formula is none.
    return value if value and not is_prose(value) and "$" not in value and re.search(r"\d", value) else None


_CURVE = re.compile(r"(?<![\w=$\\])([xyz])\s*=\s*([^=$,;]*[xyzt][^=$,;]*)\Z")
"""The equation of a line or a curve, which is an answer with both sides."""
_PAIR = re.compile(r"(?<![\w\\)}])[(\[]\s*[-−]?\d[\d./]*(?:\s*,\s*[-−]?\d[\d./]*)+\s*[)\]][\s.!*]*\Z")


def _read_last_pair(window: str) -> str | None:
    """Return the pair, or the interval, that ends a text: `The lines meet at (3, 4).`"""
    pair = _PAIR.search(window[-_LAST_SENTENCE:])
    return pair[0].rstrip(" .!*\n") if pair else None


def _read_short_text(window: str) -> str | None:
    """Return a text that is nothing but a short formula or a single word: it is its own answer."""
    bare = window.strip()
    short = 0 < len(bare) <= 80 and "\n" not in bare and re.search(r"\w", bare)
    return bare if short and "boxed" not in bare and not PROSE.search(bare) else None


_NONE = re.compile(
    r"\b(?:no|zero)(?: (?:real|integer|such|positive|valid|possible|rational))*"
    r" (?:solutions?|roots?|zeros|values?|integers?|numbers?)"
    r"(?: exist)?[.! ]*\Z",
    re.I,
)
_RATIO = re.compile(r"\bratio\b[^\d\n]*?(\d+)(?: to | : )(\d+)[.! ]*\Z")


def _read_none(window: str) -> str | None:
    """Return "no solution" where the last sentence says it: `there are no real solutions.`"""
    last = window.replace("*", "").rstrip().rpartition("\n")[2][-_LAST_SENTENCE:]
    return "no solution" if _NONE.search(last) and not NUMBER.search(last) else None


def _read_ratio(window: str) -> str | None:
    ratio = _RATIO.search(window[-_LAST_SENTENCE:])
    return f"{ratio[1]}:{ratio[2]}" if ratio else None


_SAID_AS_A_WHOLE = (_read_none, _read_ratio, _read_phrase_with_formula)
_LAST_SENTENCE = 200
"""Characters at the end of a text in which it may say that there is nothing, or a ratio."""
_WEAK = (
    ("line", _read_none),
    ("line", _read_ratio),
    ("whole", _read_phrase_with_formula),
    ("line", _read_either),
    ("formula", _read_last_formula),
    ("bold", _read_last_bold),
    ("line", _read_last_line),
    ("line", _read_last_pair),
    ("number", read_last_number),
    ("whole", _read_short_text),
)
