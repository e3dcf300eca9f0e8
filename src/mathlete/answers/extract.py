r"""The final answer in a model's text, with where it was found and how sure that place is.

The order of places is the issue of many peer bugs (see docs/answers.md): text after `</think>` first; there the last
non-empty box, `<answer>`, `####`, the last "answer is" line, program output, and, marked weak, the last formula or
number. Every search runs from the right and over a bounded window, so the time is linear in the text's length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from mathlete.answers.boxes import Box, joined_boxes, last_box
from mathlete.answers.vocabulary import FUNCTIONS, MANY_ARGUMENTS, PLAIN_FUNCTIONS

Strength = Literal["strong", "weak", "none"]
Kind = Literal["value", "list", "choice"]
"""What the task asks for: one value, several values (neighbouring boxes are joined), or a letter of a choice."""
WINDOW = 6000
"""Characters at the end of the text that are searched for an answer without a box."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """An answer as written, or None with the reason."""

    string: str | None
    provenance: str
    """Where: box, tag, hashes, phrase, heading, output, formula, bold, line, number, letter, whole; or why nowhere."""
    strength: Strength
    """weak: read out of loose prose, so that a vote may discount it."""


def extract(text: object, *, kind: Kind = "value") -> Extracted:
    r"""The final answer in a model's text. Never raises, never invents.

    >>> extract(r"First \boxed{10}, no: \boxed{42}").string
    '42'
    >>> extract("no idea")
    Extracted(string=None, provenance='no answer in the text', strength='none')
    """
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError:
            return _nothing("bytes that are not UTF-8")
    if not isinstance(text, str):
        return _nothing(f"no text but {type(text).__name__}")
    after = _after_thinking(text)
    if after != text and (found := _search(after, kind)):
        return found
    return _search(_THINKING.sub(" ", text), kind) or _nothing(
        "no answer in the text" if text.strip() else "empty text"
    )


def _nothing(reason: str) -> Extracted:
    return Extracted(string=None, provenance=reason, strength="none")


_THINKING = re.compile(r"</?think(?:ing)?>|◁/?think▷")


def _after_thinking(text: str) -> str:
    ends = [text.rfind(tag) + len(tag) for tag in ("</think>", "</thinking>", "◁/think▷") if tag in text]
    return text[max(ends) :] if ends else text


def _search(text: str, kind: Kind) -> Extracted | None:
    if kind == "choice":
        return _choice(text) or _value(text, last_box(text))
    return _value(text, joined_boxes(text) if kind == "list" else last_box(text), kind)


def _value(text: str, box: Box | None, kind: Kind = "value") -> Extracted | None:
    window = text[-WINDOW:]
    if box is not None:
        later = _final_phrase(text[box.end :][-WINDOW:])
        return _found(later, "phrase") if later else _found(box.content, "box")
    for provenance, reader in _STRONG:
        if answer := reader(window):
            return _found(answer, provenance)
    window = _AFTERTHOUGHT.sub("", window)
    if kind == "list" and (listed := _listed(window)):
        return Extracted(listed, "line", "weak")
    for provenance, reader in _WEAK:
        if answer := reader(window):
            return Extracted(answer, provenance, "weak")
    return None


_AFTERTHOUGHT = re.compile(
    r"(?<=[\w$)}]),?[ \t]+(?:where|attained|achieved|obtained|reached|occurring|for (?:all|every|any|each))\b[^\n]*\Z"
)


def _found(answer: str, provenance: str) -> Extracted:
    return Extracted(answer, provenance, "strong")


def _tag(window: str) -> str | None:
    start = window.rfind("<answer>")
    while start >= 0:
        content = window[start + 8 :].partition("</answer>")[0].strip()
        if content:
            return _sentence_value(content) if "\n" not in content else content
        start = window.rfind("<answer>", 0, start)
    return None


def _hashes(window: str) -> str | None:
    for line in reversed(window.splitlines()):
        head, found, rest = line.rpartition("####")
        if found and rest.strip() and not head.strip().strip("#"):
            return rest.strip().strip("*").strip()
    return None


_PHRASE = re.compile(
    r"(?:\b(?:answers?|r[ée]ponse(?:\s+finale)?|respuesta|antwort|risposta|resposta)\b|ответ|答案|答え)"
    r"[\s*_]{0,4}"
    r"(?:(?:is|are|equals|est|es|ist|было|это)\b(?:\s*:)?|:|=|：|是|为|為|는|は)(?P<bold>[\s*_]{0,4})",
    re.I,
)
_HOPE = re.compile(r"\.?\s*I hope (?:it|this)\b.*", re.I | re.S)
_EMPTY = re.compile(r"[\s*_$.:=\\()\[\]{}`\"']*\Z")


def _phrase(window: str) -> str | None:
    for match in reversed(list(_PHRASE.finditer(window))):
        rest = window[match.end() :].lstrip(" *_:=")
        line, _, below = rest.partition("\n")
        if _EMPTY.match(line):
            line = next((one for one in below.split("\n")[:4] if not _EMPTY.match(one)), "")
        if answer := _sentence_value(_HOPE.sub("", line)):
            return answer
    return None


def _final_phrase(after: str) -> str | None:
    """What a text that goes on after its last box says its final answer to be, if that is a formula or a number."""
    if not (said := list(re.finditer(r"\bfinal answer\b", after, re.I))):
        return None
    answer = _phrase(after[said[0].start() :])
    return answer if answer and not is_prose(answer) and re.search(r"\d", answer) else None


_OUTPUT = re.compile(r"```\s*(?:output|result|text)\s*\n([^`]*)```")


def _output(window: str) -> str | None:
    blocks = [block.strip() for block in _OUTPUT.findall(window)]
    return blocks[-1].splitlines()[-1].strip() if blocks and blocks[-1] else None


_MATHS = re.compile(
    r"\$\$([^$]+)\$\$|(?<!\\)\$([^$\n]+)(?<!\\)\$|\\\(((?:(?!\\\)).)+)\\\)|\\\[((?:(?!\\\]).)+)\\\]", re.S
)
_BOLD = re.compile(r"\*\*([^*\n]+)\*\*")
_NUMBER = re.compile(
    r"(?<![A-Za-z\d_.\\])(?:[-−+](?=[\d.$€£]))?[$€£]?(?:\d{1,3}(?:(?:,|\{,\}|\\,|,\\!)\d{3})+(?!\d)|\d+)?(?:\.\d+|(?<=\d))(?:/\d+|(?::\d+)+)?"
    r"(?:\s?\\?%|\s?percent\b)?(?![A-Z\d_])"
)
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}|[぀-ヿ一-鿿]{2,}")
_FUNCTION_WORDS = FUNCTIONS | MANY_ARGUMENTS | PLAIN_FUNCTIONS | {"mod", "and"}


def is_prose(text: str) -> bool:
    r"""Whether a text has words that are neither functions nor inside a LaTeX command's braces."""
    bare = re.sub(r"\\(?:text|mbox|mathrm|textbf|operatorname|begin|end)\s*\{[^{}]*\}", " ", text)
    return any(word[0].lower() not in _FUNCTION_WORDS for word in _PROSE.finditer(bare))


_NO_VALUE = re.compile(r"\\(?:blacksquare|square|Box|qed|checkmark)\Z|\((?:[a-z]\s*,\s*)+[a-z]\)\Z")
"""A formula that is no answer where another stands before it: the end of a proof, the names of a pair."""


def _formulas(text: str) -> list[str]:
    found = ((next(g for g in m.groups() if g is not None)).strip() for m in _MATHS.finditer(text))
    return [one for one in found if one and not is_prose(one) and not _NO_VALUE.match(one)]


_HEADING = re.compile(r"[#*\s]*(?:the )?(?:final )?(?:answer|result)[\s*:]*\Z", re.I)


def _below_heading(window: str) -> str | None:
    """The first line below the last heading "Answer"."""
    lines = window.splitlines()
    for at in range(len(lines) - 2, -1, -1):
        if _HEADING.match(lines[at]):
            below = next((line for line in lines[at + 1 : at + 5] if not _EMPTY.match(line)), "")
            return _sentence_value(below)
    return None


_SAID_NUMBER = re.compile(r"\b(?:is|are|equals)\s+(?:\w+\s+)?[-−]?\$?\d")
_LEAD = re.compile(
    r"\A\}?\s*(?:(?:approximately|about|roughly|exactly|equal to|simply|just|therefore|thus|also|both"
    r"|either|donc)\s+)*",
    re.I,
)
_COPULA = re.compile(r"(?<=[\d$)}])\s*(?:です|になります|である|となる|이다|입니다)?[。.]*\Z")
_LEADING_FORMULA = re.compile(
    r"(?:\$[^$]{1,200}\$|\\\([^$]{1,200}?\\\))(?=\s*[,;(]\s*(?!(?:and|or)\b)(?:i\.e|[a-z]{2,}))"
)
_TAIL = re.compile(
    r"(?<=\S)(?:[,;]?\s+(?:because|since|where|which|as|so that|when|due to|by|from|after checking"
    r"|attained|achieved|obtained|reached|as required)\b.*"
    r"|\s+\((?!mod\b)(?=[^()]*[a-z]{3})[^()]*\)\W*|\s+\([^()]{1,20}%\)\W*|\?)\Z",
    re.S,
)
_LEADING_NUMBER = re.compile(r"(" + _NUMBER.pattern + r")(?=\s*[,;(]|\s+[a-z]{2,}\b(?<!and)(?<!or))")
_PRICE = re.compile(
    r"\\?[$€£]\s?\d[\d,]*(?:\.\d+)?(?:\s+(?:thousand|million|billion)\b)?|\d[\d,]*(?:\.\d+)?\s?\\?[$€£]"
)


def _sentence_value(sentence: str) -> str | None:
    r"""The value in one sentence that says the answer.

    >>> _sentence_value("m+n = 256+37 = 293.")
    '293'
    >>> _sentence_value(r"$\frac{1}{2}$ of the cake")
    '\\frac{1}{2}'
    """
    sentence = sentence.strip().strip("*_`").strip()
    sentence = _LEAD.sub("", _TAIL.sub("", _COPULA.sub("", sentence)))
    if leading_formula := _LEADING_FORMULA.match(sentence):
        return _last_of_chain(_formulas(leading_formula[0])[-1])
    sentence = re.split(r"(?<=[^\s.])[.。](?=\s+[A-Z\"(]|\s*\Z|\*)", sentence, maxsplit=1)[0].strip().strip("*").strip()
    if not is_prose(sentence):
        return _last_of_chain(sentence.rstrip(".;,").strip(" *")) or None
    maths = _formulas(sentence)
    if maths and not _SAID_NUMBER.search(sentence[sentence.rfind(maths[-1]) + len(maths[-1]) :]):
        return _last_of_chain(maths[-1])
    priced = _PRICE.findall(sentence)
    if len(priced) == 1:
        return str(priced[0]).strip()
    if len(sentence.split()) <= 3 or not _NUMBER.search(sentence):
        return sentence.rstrip(".;,") or None
    leading = _LEADING_NUMBER.match(sentence)
    if leading and any(c.isdigit() for c in leading[0]) and _NUMBER.search(sentence[leading.end() :]):
        return leading[0]
    with_unit = re.match(r"[^A-Za-z]+[A-Za-z²³ ]{1,30}\Z", sentence)
    return sentence if with_unit else _last_number(sentence)


_AND_OR = re.compile(r"\s(?:and|or)\s")


def _last_of_chain(maths: str) -> str:
    """What stands after the last = of a chain of equalities or of a labelled number; else all of it."""
    bare = maths.strip().strip("$").strip()
    parts = [part.strip() for part in re.split(r"(?<![<>!:\\])=(?!=)", bare)]
    if _AND_OR.search(bare) and all(part.count("=") == 1 for part in _AND_OR.split(bare)):
        return bare
    if len(parts) < 2 or not parts[-1] or "," in bare or r"\begin" in bare:
        return bare
    if len(parts) > 2 and not re.search(r"[<>]", bare):
        return parts[-1]
    letters = re.sub(r"\\(?:[dt]?frac|sqrt|pi|cdot|times|left|right)", "", parts[-1])
    return parts[-1] if not re.search(r"[A-Za-z]", letters) and not re.search(r"[-+*/]?\d*[xyz]\b", parts[0]) else bare


def _last_formula(window: str) -> str | None:
    formulas = _formulas(window)
    if not formulas:
        return None
    after = window[window.rfind(formulas[-1]) + len(formulas[-1]) :]
    percent = re.match(r"\s*\\?\$*\s*(?:\\?%|percent\b|pct\b)", after)
    return None if _NUMBER.search(after) else _last_of_chain(formulas[-1]) + (r"\%" if percent else "")


def _last_bold(window: str) -> str | None:
    bold = list(_BOLD.finditer(window))
    if not bold or _NUMBER.search(window[bold[-1].end() :]):
        return None
    content = bold[-1][1].strip()
    return _sentence_value(content) if re.search(r"\d|\\", content) or len(content) == 1 else None


def _phrase_with_formula(window: str) -> str | None:
    r"""A text of a few words around a formula is the answer itself: `odd $n$`."""
    bare = window.strip()
    short = len(bare.split()) <= 3 and "\n" not in bare and not re.search(r"\d|[.:=]|answer", bare, re.I)
    return bare if short and _formulas(bare) and is_prose(bare) else None


_FORMULA = r"(?:\$[^$\n]{1,120}\$|\\\([^\n]{1,120}?\\\))"
_ITEM = rf"(?:{_FORMULA}|[-−]?\d[\d./]*)"
_COMMA = r"\s*(?:,\s*(?:and|or)\b|,|and\b|or\b)\s*"
_LISTED = re.compile(
    rf"\b(?:are|is|either)\s+({_ITEM}(?:{_COMMA}{_ITEM})+)\.?\Z|({_FORMULA}(?:{_COMMA}{_FORMULA})+)\.?\Z"
)


def _listed(window: str) -> str | None:
    """The values that the last line says there are: `The roots are $2$ and $3$.`"""
    found = _LISTED.search(window.rstrip().rpartition("\n")[2])
    return (found[1] or found[2]) if found else None


_NAMED_VALUES = re.compile(r"(?:[a-zA-Z]\s*=\s*[^=,\s]+(?:,\s*|\s+and\s+|\s+or\s+|\Z)){2,}\Z")


def _last_line(window: str) -> str | None:
    lines = [line.strip() for line in window.splitlines() if not _EMPTY.match(line)]
    if not lines or "=" not in lines[-1]:
        return None
    if _NAMED_VALUES.match(lines[-1]):
        return lines[-1]
    value = lines[-1].rpartition("=")[2].partition(r"\end{")[0].strip().rstrip(".*$ ")
    value = value.rstrip(".)") if "(" not in value else value
    return value if value and not is_prose(value) and re.search(r"\d", value) else None


def _last_number(window: str) -> str | None:
    numbers = [m[0] for m in _NUMBER.finditer(window) if any(c.isdigit() for c in m[0])]
    return numbers[-1].strip() if numbers else None


def _whole(window: str) -> str | None:
    """A text that is nothing but a short formula or a single word is its own answer."""
    bare = window.strip()
    short = 0 < len(bare) <= 80 and "\n" not in bare and re.search(r"\w", bare)
    return bare if short and "boxed" not in bare and not _PROSE.search(bare) else None


_STRONG = (("tag", _tag), ("hashes", _hashes), ("phrase", _phrase), ("heading", _below_heading), ("output", _output))
_WEAK = (
    ("whole", _phrase_with_formula),
    ("formula", _last_formula),
    ("bold", _last_bold),
    ("line", _last_line),
    ("number", _last_number),
    ("whole", _whole),
)
_LETTER = re.compile(r"(?<![A-Za-z\\'])\(?([A-Z])\)?(?![A-Za-z'])")


def _choice(text: str) -> Extracted | None:
    """The letter of a multiple-choice answer; a box that holds no letter does not count."""
    box = last_box(text)
    if box is not None and (letter := _leading_letter(box.content)):
        return _found(letter, "box")
    window = text[-WINDOW:]
    for match in reversed(list(_PHRASE.finditer(window))):
        rest = window[match.end() :].split("\n\n")[0]
        letters = [one[1] for one in _LETTER.finditer(rest.replace("*", " ")) if one[1] != "I"]
        if letters:
            return _found(letters[0], "phrase")
    if leading := re.match(r"\s*\**\(?([A-Z])\)?\**\s*[.:)]", window):
        return Extracted(leading[1], "letter", "weak")
    letters = [one[1] for one in _LETTER.finditer(window) if one[1] != "I"]
    return Extracted(letters[-1], "letter", "weak") if letters else None


def _leading_letter(content: str) -> str | None:
    bare = re.sub(r"\\(?:text(?:bf|rm|it)?|mathrm|mathbf|mbox)\s*|[{}$*\s]", "", content)
    match = re.match(r"\(?([A-Za-z])(?:\)|\Z|[.:])", bare)
    return match[1] if match else None
