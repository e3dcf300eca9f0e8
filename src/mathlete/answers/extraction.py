r"""The final answer in a model's text, with the place it stands in and how sure that place is.

The order of places decides many texts, and peers have bugs there (see docs/answers.md): text after `</think>` first;
there the last non-empty box, `<answer>`, `####`, the last "answer is" line, program output, and, marked weak, the last
formula or number. Every search runs from the right and over a bounded window, so the time is linear in the text's
length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from mathlete.answers.boxes import Box, joined_boxes, last_box
from mathlete.answers.vocabulary import FUNCTIONS, MANY_ARGUMENTS, PLAIN_FUNCTIONS

Strength = Literal["strong", "weak", "none"]
Kind = Literal["value", "list", "choice"]
"""What the task wants: one value, several values (neighbouring boxes are joined), or a letter of a choice."""
WINDOW = 6000
"""Characters at the end of the text that are searched for an answer without a box."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """An answer as written, or None with the reason."""

    string: str | None
    provenance: str
    """The place: box, tag, hashes, phrase, heading, output, formula, bold, line, number, letter or whole.

    Without an answer, the reason."""
    strength: Strength
    """How sure the place is; a weak answer was read out of loose prose, so a vote may discount it."""


def extract(text: object, *, kind: Kind = "value") -> Extracted:
    r"""Return the final answer in a model's text; never raise, never invent one.

    >>> extract(r"First \boxed{10}, no: \boxed{42}").string
    '42'
    >>> extract("no idea")
    Extracted(string=None, provenance='no answer in the text', strength='none')
    """
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError:
            return _no_answer("bytes that are not UTF-8")
    if not isinstance(text, str):
        return _no_answer(f"no text but {type(text).__name__}")
    after = _text_after_thinking(text)
    if after != text and (extracted := _search(after, kind)):
        return extracted
    # A model that stopped after its thoughts, or never closed them, may have boxed the answer inside.
    return _search(_THINKING.sub(" ", text), kind) or _no_answer(
        "no answer in the text" if text.strip() else "empty text"
    )


def read_answer(text: str, *, cut: bool = False) -> str | None:
    r"""Return the final answer in a completion, or None; a cut completion has one only in a box or another clear form.

    The last number of an unfinished derivation is no answer, and would vote as one.

    >>> read_answer("So far 3 + 4 is 7, and then"), read_answer("So far 3 + 4 is 7, and then", cut=True)
    ('7', None)
    """
    answer = extract(text)
    return None if cut and answer.strength == "weak" else answer.string


def _no_answer(reason: str) -> Extracted:
    return Extracted(string=None, provenance=reason, strength="none")


_THINKING = re.compile(r"</?think(?:ing)?>|◁/?think▷")


def _text_after_thinking(text: str) -> str:
    ends = [text.rfind(tag) + len(tag) for tag in ("</think>", "</thinking>", "◁/think▷") if tag in text]
    return text[max(ends) :] if ends else text


def _search(text: str, kind: Kind) -> Extracted | None:
    if kind == "choice":
        return _search_choice(text) or _search_value(text, last_box(text))
    return _search_value(text, joined_boxes(text) if kind == "list" else last_box(text), kind)


def _search_value(text: str, box: Box | None, kind: Kind = "value") -> Extracted | None:
    window = text[-WINDOW:]
    if box is not None:
        # A box is the last word, unless the text goes on and names its "final answer".
        later = _read_final_phrase(text[box.end :][-WINDOW:])
        return _strong(later, "phrase") if later else _strong(box.content, "box")
    for provenance, reader in _STRONG:
        if answer := reader(window):
            return _strong(answer, provenance)
    # From here on the last number counts, so "..., attained for x = 3" must not stand behind the value.
    window = _AFTERTHOUGHT.sub("", window)
    if kind == "list" and (listed := _read_list(window)):
        return Extracted(listed, "line", "weak")
    for provenance, reader in _WEAK:
        if answer := reader(window):
            return Extracted(answer, provenance, "weak")
    return None


_AFTERTHOUGHT = re.compile(
    r"(?<=[\w$)}]),?[ \t]+(?:where|attained|achieved|obtained|reached|occurring|for (?:all|every|any|each))\b[^\n]*\Z"
)


def _strong(answer: str, provenance: str) -> Extracted:
    return Extracted(answer, provenance, "strong")


def _read_tag(window: str) -> str | None:
    start = window.rfind("<answer>")
    while start >= 0:
        content = window[start + 8 :].partition("</answer>")[0].strip()
        if content:
            return _read_sentence(content) if "\n" not in content else content
        start = window.rfind("<answer>", 0, start)
    return None


def _read_hashes(window: str) -> str | None:
    for line in reversed(window.splitlines()):
        head, hashes, rest = line.rpartition("####")
        if hashes and rest.strip() and not head.strip().strip("#"):
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


def _read_phrase(window: str) -> str | None:
    for match in reversed(list(_PHRASE.finditer(window))):
        rest = window[match.end() :].lstrip(" *_:=")
        line, _, below = rest.partition("\n")
        if _EMPTY.match(line):
            # "The answer is:" and the value on a line of its own.
            line = next((one for one in below.split("\n")[:4] if not _EMPTY.match(one)), "")
        if answer := _read_sentence(_HOPE.sub("", line)):
            return answer
    return None


def _read_final_phrase(after: str) -> str | None:
    """Return the "final answer" that a text names after its last box, if that is a formula or a number."""
    mention = re.search(r"\bfinal answer\b", after, re.I)
    if mention is None:
        return None
    answer = _read_phrase(after[mention.start() :])
    return answer if answer and not is_prose(answer) and re.search(r"\d", answer) else None


_OUTPUT = re.compile(r"```\s*(?:output|result|text)\s*\n([^`]*)```")


def _read_output(window: str) -> str | None:
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
    r"""Return whether a text has words that are neither functions nor inside a LaTeX command's braces."""
    bare = re.sub(r"\\(?:text|mbox|mathrm|textbf|operatorname|begin|end)\s*\{[^{}]*\}", " ", text)
    return any(word[0].lower() not in _FUNCTION_WORDS for word in _PROSE.finditer(bare))


_NO_VALUE = re.compile(r"\\(?:blacksquare|square|Box|qed|checkmark)\Z|\((?:[a-z]\s*,\s*)+[a-z]\)\Z")
"""A formula that is no answer where another stands before it: the end of a proof, the names of a pair."""


def _find_formulas(text: str) -> list[str]:
    formulas = ((next(g for g in m.groups() if g is not None)).strip() for m in _MATHS.finditer(text))
    return [one for one in formulas if one and not is_prose(one) and not _NO_VALUE.match(one)]


_HEADING = re.compile(r"[#*\s]*(?:the )?(?:final )?(?:answer|result)[\s*:]*\Z", re.I)


def _read_below_heading(window: str) -> str | None:
    """Return the value in the first line below the last heading "Answer"."""
    lines = window.splitlines()
    for at in range(len(lines) - 2, -1, -1):
        if _HEADING.match(lines[at]):
            below = next((line for line in lines[at + 1 : at + 5] if not _EMPTY.match(line)), "")
            return _read_sentence(below)
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


def _read_sentence(sentence: str) -> str | None:
    r"""Return the value in one sentence that says the answer.

    >>> _read_sentence("m+n = 256+37 = 293.")
    '293'
    >>> _read_sentence(r"$\frac{1}{2}$ of the cake")
    '\\frac{1}{2}'
    """
    sentence = sentence.strip().strip("*_`").strip()
    # Words before and reasons after the value go first: a number among them is not the answer.
    sentence = _LEAD.sub("", _TAIL.sub("", _COPULA.sub("", sentence)))
    if leading_formula := _LEADING_FORMULA.match(sentence):
        return _last_of_chain(_find_formulas(leading_formula[0])[-1])
    sentence = re.split(r"(?<=[^\s.])[.。](?=\s+[A-Z\"(]|\s*\Z|\*)", sentence, maxsplit=1)[0].strip().strip("*").strip()
    if not is_prose(sentence):
        return _last_of_chain(sentence.rstrip(".;,").strip(" *")) or None
    # In prose a formula is the value, unless a plain number is said after it: "for $n = 3$ the sum is 12".
    maths = _find_formulas(sentence)
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
    return sentence if with_unit else _read_last_number(sentence)


_AND_OR = re.compile(r"\s(?:and|or)\s")


def _last_of_chain(maths: str) -> str:
    """Return what stands after the last = of a chain of equalities or of a labelled number; else all of it."""
    bare = maths.strip().strip("$").strip()
    parts = [part.strip() for part in re.split(r"(?<![<>!:\\])=(?!=)", bare)]
    # x = 2 or x = 3 are two values, not the chain's end 3.
    if _AND_OR.search(bare) and all(part.count("=") == 1 for part in _AND_OR.split(bare)):
        return bare
    if len(parts) < 2 or not parts[-1] or "," in bare or r"\begin" in bare:
        return bare
    if len(parts) > 2 and not re.search(r"[<>]", bare):
        return parts[-1]
    # m+n = 33 is a labelled number; y = 2x + 1 and x + y = 1 are equations, and stay.
    letters = re.sub(r"\\(?:[dt]?frac|sqrt|pi|cdot|times|left|right)", "", parts[-1])
    return parts[-1] if not re.search(r"[A-Za-z]", letters) and not re.search(r"[-+*/]?\d*[xyz]\b", parts[0]) else bare


def _read_last_formula(window: str) -> str | None:
    formulas = _find_formulas(window)
    if not formulas:
        return None
    after = window[window.rfind(formulas[-1]) + len(formulas[-1]) :]
    percent = re.match(r"\s*\\?\$*\s*(?:\\?%|percent\b|pct\b)", after)
    return None if _NUMBER.search(after) else _last_of_chain(formulas[-1]) + (r"\%" if percent else "")


def _read_last_bold(window: str) -> str | None:
    bold = list(_BOLD.finditer(window))
    if not bold or _NUMBER.search(window[bold[-1].end() :]):
        return None
    content = bold[-1][1].strip()
    return _read_sentence(content) if re.search(r"\d|\\", content) or len(content) == 1 else None


def _read_phrase_with_formula(window: str) -> str | None:
    r"""Return a text of a few words around a formula, which is the answer itself: `odd $n$`."""
    bare = window.strip()
    short = len(bare.split()) <= 3 and "\n" not in bare and not re.search(r"\d|[.:=]|answer", bare, re.I)
    return bare if short and _find_formulas(bare) and is_prose(bare) else None


_FORMULA = r"(?:\$[^$\n]{1,120}\$|\\\([^\n]{1,120}?\\\))"
_ITEM = rf"(?:{_FORMULA}|[-−]?\d[\d./]*)"
_COMMA = r"\s*(?:,\s*(?:and|or)\b|,|and\b|or\b)\s*"
_LISTED = re.compile(
    rf"\b(?:are|is|either)\s+({_ITEM}(?:{_COMMA}{_ITEM})+)\.?\Z|({_FORMULA}(?:{_COMMA}{_FORMULA})+)\.?\Z"
)


def _read_list(window: str) -> str | None:
    """Return the values that the last line lists: `The roots are $2$ and $3$.`"""
    listed = _LISTED.search(window.rstrip().rpartition("\n")[2])
    return (listed[1] or listed[2]) if listed else None


_NAMED_VALUES = re.compile(r"(?:[a-zA-Z]\s*=\s*[^=,\s]+(?:,\s*|\s+and\s+|\s+or\s+|\Z)){2,}\Z")


def _read_last_line(window: str) -> str | None:
    lines = [line.strip() for line in window.splitlines() if not _EMPTY.match(line)]
    if not lines or "=" not in lines[-1]:
        return None
    if _NAMED_VALUES.match(lines[-1]):
        return lines[-1]
    value = lines[-1].rpartition("=")[2].partition(r"\end{")[0].strip().rstrip(".*$ ")
    value = value.rstrip(".)") if "(" not in value else value
    return value if value and not is_prose(value) and re.search(r"\d", value) else None


def _read_last_number(window: str) -> str | None:
    numbers = [m[0] for m in _NUMBER.finditer(window) if any(c.isdigit() for c in m[0])]
    return numbers[-1].strip() if numbers else None


def _read_short_text(window: str) -> str | None:
    """Return a text that is nothing but a short formula or a single word: it is its own answer."""
    bare = window.strip()
    short = 0 < len(bare) <= 80 and "\n" not in bare and re.search(r"\w", bare)
    return bare if short and "boxed" not in bare and not _PROSE.search(bare) else None


_STRONG = (
    ("tag", _read_tag),
    ("hashes", _read_hashes),
    ("phrase", _read_phrase),
    ("heading", _read_below_heading),
    ("output", _read_output),
)
_WEAK = (
    ("whole", _read_phrase_with_formula),
    ("formula", _read_last_formula),
    ("bold", _read_last_bold),
    ("line", _read_last_line),
    ("number", _read_last_number),
    ("whole", _read_short_text),
)
_LETTER = re.compile(r"(?<![A-Za-z\\'])\(?([A-Z])\)?(?![A-Za-z'])")


def _search_choice(text: str) -> Extracted | None:
    """Return the letter of a multiple-choice answer; a box that holds no letter does not count."""
    box = last_box(text)
    if box is not None and (letter := _read_leading_letter(box.content)):
        return _strong(letter, "box")
    window = text[-WINDOW:]
    for match in reversed(list(_PHRASE.finditer(window))):
        rest = window[match.end() :].split("\n\n")[0]
        letters = [one[1] for one in _LETTER.finditer(rest.replace("*", " ")) if one[1] != "I"]
        if letters:
            return _strong(letters[0], "phrase")
    if leading := re.match(r"\s*\**\(?([A-Z])\)?\**\s*[.:)]", window):
        return Extracted(leading[1], "letter", "weak")
    letters = [one[1] for one in _LETTER.finditer(window) if one[1] != "I"]
    return Extracted(letters[-1], "letter", "weak") if letters else None


def _read_leading_letter(content: str) -> str | None:
    bare = re.sub(r"\\(?:text(?:bf|rm|it)?|mathrm|mathbf|mbox)\s*|[{}$*\s]", "", content)
    match = re.match(r"\(?([A-Za-z])(?:\)|\Z|[.:])", bare)
    return match[1] if match else None
