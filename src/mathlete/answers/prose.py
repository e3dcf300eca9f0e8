"""Answers in words: a letter of a choice, a number word, "no solution", and the value inside a sentence."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import accumulate

from mathlete.answers.tree import Node, Unreadable, number
from mathlete.answers.vocabulary import ALL_REALS, CURRENCY, FUNCTIONS, NO_SOLUTION, NUMBER_WORDS, OPERATORS, UNITS

_WORDS = re.compile(r"[A-Za-z][A-Za-z'\- ]*[.!]?\Z|[A-Za-z]{3}[A-Za-z'\- ]*(?:, ?[A-Za-z]{3}[A-Za-z'\- ]*)+\Z")
"""Words, or several with commas between them, whose order counts: they may be ranked."""
_TIME = re.compile(r"\d{1,2}\s?:\s?0\d(?::\d{2})?|\d{1,2}(?:\s*:\s*[0-5]\d)?\s*(?:[ap]\.m\.?|[ap]m)\Z", re.I)
_MONTH = "january|february|march|april|may|june|july|august|september|october|november|december"
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?:,? (\d{4}))?\Z"
_DATE = re.compile(rf"({_MONTH}) {_DAY}{_YEAR}|{_DAY}(?: of)? ({_MONTH}){_YEAR}")
_ISO_DATE = re.compile(r"\A(1[5-9]\d\d|20\d\d)-(0[1-9]|1[0-2])-([0-2]\d|3[01])\Z")
_CHOICE = re.compile(r"\(?\s*([A-Z])\s*\)\s*\S|([A-Z])\s*[.:)]\s+\S|\(?([A-Za-z])\)\Z")
_SEVERAL_TITLES = re.compile(r"\S[,;]?\s+\(?[A-Z]\s*[.:)](?:\s+\S|\Z)")
_ENUMERATION = re.compile(r"\A\((?:a|i|1)\)\s.*\((?:b|ii|2)\)\s", re.S)
"""Parts of a question, each with its answer."""
_OPTION = re.compile(r"(?:option|choice|(?:the )?(?:correct )?answer is:?) (?=\(?[A-Z]\)?(?:\Z|[:.]))", re.I)
_TEXT = re.compile(
    r"\\(?:text|mbox|textnormal|textbf|textit|textrm|texttt|textsc|textup|textsl|emph|mathrm|mathbf|mathit|mathtt|textsf"
    r"|operatorname|bf|rm)\s*(?=\{)"
)
_OPERATOR = re.compile(
    _TEXT.pattern + r"\{\s*(?:(?:" + "|".join(sorted(OPERATORS - UNITS)) + r")\s*\}\s*\S"
    r"|sec\s*\}(?:\s|\\[,; ])*(?:\(|[a-z](?![a-z])))"
)
"""An operator in upright letters before its argument: no word."""
_ALL_TEXT = re.compile(_TEXT.pattern + r"\{(?=[^{}]*[,\d])([^{}]*)\}")
_ARTICLE = re.compile(r"(?:an?|the) (?=[a-z]{3})|on (?=[a-z]+day\b)|it (?=can)")
_SYNONYMS = {"dne": "does not exist", "doesn't exist": "does not exist"}
_ROMAN = frozenset({"II", "IV", "VI", "IX", "XI", "XX"})
_NAMES = frozenset({"pi", "infinity", "inf", "oo", "abc", "xyz", "abcd"})
_IS = re.compile(r"\b(?:is|are|equals)\s*:?(?:\s*\}\s*|\s+(?!\}))(?=\S*[\d\\(\[{])", re.S)
_PLAIN_LABEL = re.compile(r"(?:(?:final|the|my|total) )*(?:answer|ans|result|total|sum|solution)\s*[:=]\s*(?=\S)", re.I)
_ABOUT = re.compile(
    r"\\(?:text|mbox)\s*\{\s*\(?\s*(?:(?:or )?(?:about|approx|approximately)|i\.e\.|(?:which|where)\b)[^{}]*\}.*", re.S
)
_BACKSLASH_SPACE = re.compile(r"(?<!\\)\\ ")
_WHERE = re.compile(
    r"(?<=\S),?\s+(?:(?:where|for (?:all|any|every|each|some))\s"
    r"|as (?:desired|required|claimed|needed|expected|wanted|shown|asked)\b).*",
    re.S,
)


def unwrap_text(cleaned: str) -> str | None:
    r"""Return the content of an answer that is nothing but `\text{...}` around a value, or None."""
    wrapped = _ALL_TEXT.fullmatch(cleaned)
    if wrapped is None and "=" in cleaned and cleaned.endswith("}") and (opened := _TEXT.match(cleaned)):
        # \mathbf{x = \frac{3}{7}}: the font's own brace is the last one.
        inside = cleaned[opened.end() + 1 : -1]
        depths = accumulate((sign == "{") - (sign == "}") for sign in inside)
        return inside if min(depths, default=0) >= 0 else None
    return wrapped[1] if wrapped else None


def read_words(cleaned: str) -> Node | None:
    """Return the tree of an answer made of words, or None where it is a formula.

    Words are a letter of a choice, a number word, "no solution", a time of day, any other text.
    """
    if "\\" in cleaned and (r"\operatorname" in cleaned or _OPERATOR.search(cleaned)):
        return None
    plain = _TEXT.sub("", cleaned).replace("{", "").replace("}", "").replace("$", "").strip()
    plain = re.sub(r" ?, ?", ", ", re.sub(r"\s+", " ", plain)).strip(' .,;:*"').lstrip("'")
    # The prime of x' belongs to the name.
    plain = plain.removesuffix(" only")
    plain = _OPTION.sub("", plain if plain[-2:-1].isalpha() else plain.rstrip("'"))
    folded = plain.casefold()
    if folded in NO_SOLUTION:
        return Node("set")
    if folded in ALL_REALS:
        return Node("field", value="reals")
    if (count := read_number_word(folded)) is not None:
        return number(count)
    count_of, _, unit = folded.rpartition(" ")
    if unit in _MEASURES and (count := read_number_word(count_of)) is not None:
        return number(count)
    if (part := _read_fraction_words(folded)) is not None:
        return number(part)
    # Before the formulas: 3:05 would be a ratio.
    if _TIME.match(plain):
        time = folded.replace(".", "").replace(" ", "")
        # 9 a.m. is 9:00 a.m.
        return Node("text", value=time if ":" in time else f"{time[:-2]}:00{time[-2:]}")
    if iso := _ISO_DATE.match(folded):
        folded = f"{_MONTH.split('|')[int(iso[2]) - 1]} {iso[3]} {iso[1]}"
    if date := _DATE.match(folded):
        month, day, year = (date[at] or date[other] or "" for at, other in ((1, 5), (2, 4), (3, 6)))
        return Node("text", value=f"{month} {int(day)} {year}".strip())
    # "B) 12" is the choice B: what stands behind the letter repeats the option.
    choice = _CHOICE.match(plain) if not _SEVERAL_TITLES.search(plain) else None
    if choice:
        return Node("letter", value=str(choice[1] or choice[2] or choice[3]).casefold())
    if len(plain) == 1 and plain.isalpha() and plain not in "ei":
        return Node("letter", value=folded)
    if all(word in FUNCTIONS or len(word) == 1 for word in plain.split(" ")) and plain.partition(" ")[0] in FUNCTIONS:
        return None  # sin x
    # Words that stand in one \text are one text; those that each have their own are items.
    are_items = "," in plain and len(_TEXT.findall(cleaned)) > 1
    if _WORDS.match(plain) and _is_text(plain, cleaned) and not are_items:
        names = [_ARTICLE.sub("", name, count=1) for name in re.split(r" and | or ", folded)]
        texts = tuple(Node("text", value=_SYNONYMS.get(name, name)) for name in names)
        return Node("list", texts) if len(texts) > 1 else texts[0]
    return None


_ONES = "one|two|three|four|five|six|seven|eight|nine"
_BELOW_100 = rf"(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)(?:[ -](?:{_ONES}))?|[a-z]+"
_SPELT = re.compile(rf"(?:({_ONES}) hundred)?(?:(?<=d) and |(?<=d) |\A)?((?:{_BELOW_100})?)\Z")


def read_number_word(word: str) -> int | None:
    """Return the number that a word or a few spell, or None.

    >>> read_number_word("forty-two"), read_number_word("two thousand and five"), read_number_word("one two")
    (42, 2005, None)
    """
    thousands, sign, rest = word.rpartition(" thousand")
    parts = (thousands, rest.removeprefix(" and"))
    values = [_read_below_thousand(part.strip()) for part in parts if part.strip()]
    if None in values or not values:
        return None
    return sum(value * (1000 if sign and not at else 1) for at, value in enumerate(filter(None, values)))


_PARTS = {"half": 2, "halve": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7,
          "eighth": 8, "ninth": 9, "tenth": 10}  # fmt: skip
_MEASURES = UNITS | CURRENCY
_FRACTION = re.compile(rf"(?:([a-z -]+) and )?(?:(an?|[a-z]+)[ -])?({'|'.join(_PARTS)})(s?)\Z")


def _read_fraction_words(words: str) -> Fraction | None:
    """Return the value of "two thirds" or "two and a half"; twenty-third is no fraction, since it is no plural."""
    spelt = _FRACTION.match(words)
    if spelt is None or (spelt[2] is None and words != "half"):
        return None
    count = 1 if spelt[2] in (None, "a", "an") else read_number_word(spelt[2])
    whole = read_number_word(spelt[1]) if spelt[1] else 0
    if count is None or whole is None or (count > 1) != bool(spelt[4]):
        return None
    return whole + Fraction(count, _PARTS[spelt[3]])


def _read_below_thousand(word: str) -> int | None:
    spelt = _SPELT.match(word)
    tens = [part for part in re.split("[ -]", spelt[2]) if part] if spelt else []
    if spelt is None or not (spelt[1] or tens) or not all(part in NUMBER_WORDS for part in tens):
        return None
    return 100 * NUMBER_WORDS.get(spelt[1], 0) + sum(NUMBER_WORDS[part] for part in tens)


def _is_text(plain: str, cleaned: str) -> bool:
    """Return whether letters are text: marked as such, or words rather than products of variables."""
    if plain.casefold() in ("no", "ok"):
        return True
    if re.fullmatch("[A-Z]{2}", plain):
        # AB is a segment or a product in any font, IV is four.
        return plain in _ROMAN
    marked = bool(_TEXT.match(cleaned)) and len(plain) > 1
    longest = max(len(w) for w in re.split(r"[ '\-]+", plain) if w) if plain else 0
    return (marked and plain not in ("pi", "infinity")) or (longest > 2 and plain not in _NAMES)


_REPEATED = re.compile(r"(\d{1,6})\s*\(([a-zA-Z -]{3,40})\)\Z|([a-zA-Z -]{3,40}?)\s*\((\d{1,6})\)\Z")
"""A number with its name in words behind it or before it."""


def strip_prose(cleaned: str) -> str:
    """Return the value in "the area is 5", and the exact part of "5/3 (about 1.67)"."""
    if _ENUMERATION.match(cleaned):
        raise Unreadable("the answers of several parts")
    spelt = _REPEATED.match(cleaned)
    if spelt and read_number_word((spelt[2] or spelt[3]).casefold()) == int(spelt[1] or spelt[4]):
        return str(spelt[1] or spelt[4])
    # A remark at the very start is not a remark behind a value: then all of it stays.
    starts_with_remark = _ABOUT.match(cleaned)
    if starts_with_remark is None and (remark := _ABOUT.search(cleaned)) and remark.start() > 0:
        cleaned = cleaned[: remark.start()]
    cleaned = _WHERE.sub("", _PLAIN_LABEL.sub("", cleaned) if _PLAIN_LABEL.match(cleaned) else cleaned)
    # Most answers have none of these words; the search for them is the slow part.
    # Inside cases "n is odd" is a condition.
    if ("is" in cleaned or "are" in cleaned or "equals" in cleaned) and "cases}" not in cleaned:
        cleaned = _BACKSLASH_SPACE.sub(" ", cleaned)
        # The last one counts; `.*` in front of the pattern would take quadratic time where there is none.
        last = max((match.end() for match in _IS.finditer(cleaned)), default=0)
        cleaned = cleaned[last:]
    return cleaned
