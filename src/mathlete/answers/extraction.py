r"""The final answer in a model's text, with the place it stands in and how sure that place is.

The order of places decides many texts, and peers have bugs there (see docs/answers.md): text after `</think>` first;
there the last non-empty box, `<answer>`, `####`, the last "answer is" line, program output, and, marked weak, the last
formula or number. Every search runs from the right and over a bounded window, so the time is linear in the text's
length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from mathlete.answers.answer import parse
from mathlete.answers.boxes import Box, exact_box, join_boxes, last_box
from mathlete.answers.kinds import is_constant
from mathlete.answers.loose import EMPTY_LINE, read_loosely
from mathlete.answers.rounding import is_rounded
from mathlete.answers.sentences import is_prose, is_supposed, read_sentence
from mathlete.answers.vocabulary import CURRENCY, UNITS
from mathlete.reasoning import blank_marks, find_unfinished, may_have_marks, split

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
    """The place: box, tag, hashes, json, phrase, heading, output, formula, bold, line, number, letter or whole.

    Without an answer, the reason."""
    strength: Strength
    """How sure the place is; a weak answer was read out of loose prose, so a vote may discount it."""


def extract(text: object, *, kind: Kind = "value", thinking: bool = False) -> Extracted:
    r"""Return the final answer in a model's text; never raise, never invent one.

    Args:
        text: what the model wrote.
        kind: what the task wants.
        thinking: whether the prompt has opened the thoughts already, so that a text without their end is unfinished.

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
    if not thinking and not may_have_marks(text):
        return _search(text, kind) or _no_answer("no answer in the text" if text.strip() else "empty text")
    parts = split(text)
    thoughts = find_unfinished(text)
    if thoughts is None and thinking and parts is None:
        thoughts = text
    if thoughts is not None:
        # "Suppose the answer is 35": what stands in thoughts that never end was not said in the end.
        inside = _search(thoughts, kind)
        return replace(inside, strength="weak") if inside else _no_answer("no answer in the unfinished thoughts")
    if parts is None:
        return _search(text, kind) or _no_answer("no answer in the text" if text.strip() else "empty text")
    # A model that stopped after its thoughts may have boxed the answer inside.
    return _search(parts[1], kind) or _search(blank_marks(text), kind) or _no_answer("no answer in the text")


def _no_answer(reason: str) -> Extracted:
    return Extracted(string=None, provenance=reason, strength="none")


def _search(text: str, kind: Kind) -> Extracted | None:
    if "```" in text and (box := last_box(text)) and _is_in_code(text, box):
        # A box that a program prints was not said, unless nothing else was.
        outside = _search_without_code(text, kind)
        if outside and outside.strength == "strong":
            return outside
    if kind == "choice":
        return _search_choice(text) or _search_value(text, last_box(text))
    return _search_value(text, join_boxes(text) if kind == "list" else last_box(text), kind)


def _is_in_code(text: str, box: Box) -> bool:
    start = text.rfind("```", 0, box.start)
    return start >= 0 and text.count("```", 0, box.start) % 2 == 1 and _PROGRAM.match(text, start) is not None


_PROGRAM = re.compile(
    r"```(?:python|py|sympy|cpp|c|java|javascript|js)\b|```[ \t]*\n(?=(?:[^`]*\n)?\s*(?:print\(|import |from |def ))"
)


def _search_without_code(text: str, kind: Kind) -> Extracted | None:
    pieces = text.split("```")
    return _search(" ".join(pieces[::2]), kind)


def _search_value(text: str, box: Box | None, kind: Kind = "value") -> Extracted | None:
    window = text[-WINDOW:]
    if box is not None:
        # A box is the last word, unless the text goes on and names its "final answer".
        later = _read_final_phrase(text[box.end :][-WINDOW:])
        later = later if later and _may_replace(box.content, later) else None
        if kind == "value":
            box = exact_box(text, box, agrees=is_rounded)
        return _strong(later, "phrase") if later else _strong(box.content, "box")
    for provenance, reader in _STRONG:
        if answer := reader(window):
            return _strong(answer, provenance)
    loose = read_loosely(window, is_list=kind == "list")
    return Extracted(loose[1], loose[0], "weak") if loose else None


def _may_replace(boxed: str, later: str) -> bool:
    r"""Return whether a later phrase may override a box: a boxed number is not overridden by what is no number.

    "The final answer is $N \bmod 1000$", "$\le 99999$", "0-999" and "$\{0, \ldots, 999\}$" say where the number lies.
    """
    boxed_node, later_node = parse(boxed).node, parse(later).node
    if boxed_node is None or not is_constant(boxed_node):
        return True
    return later_node is not None and is_constant(later_node) and not _RANGE.fullmatch(later.strip(" $"))


_RANGE = re.compile(r"\d+\s*(?:[-–—]|\.{2,3}|\\ldots|\\dots)\s*\d+")


def _strong(answer: str, provenance: str) -> Extracted:
    return Extracted(answer, provenance, "strong")


def _read_tag(window: str) -> str | None:
    start = window.rfind("<answer>")
    while start >= 0:
        content = window[start + 8 :].partition("</answer>")[0].strip()
        if content:
            return read_sentence(content) if "\n" not in content else content
        start = window.rfind("<answer>", 0, start)
    return None


def _read_hashes(window: str) -> str | None:
    for line in reversed(window.splitlines()):
        head, hashes, rest = line.rpartition("####")
        if hashes and rest.strip() and not head.strip().strip("#"):
            return rest.strip().strip("*").strip()
    return None


_PHRASE = re.compile(
    r"(?:\b(?:answers?|(?:correct|right|best) (?:option|choice|alternative)"
    r"|r[ée]ponse(?:\s+finale)?|respuesta|antwort|risposta|resposta)\b|ответ|答案|答え)"
    r"[\s*_]{0,4}"
    r"(?:(?:is|are|equals|est|es|ist|было|это)\b(?:\s*:)?|:|=|：|是|为|為|는|は)(?P<bold>[\s*_]{0,4})",
    re.I,
)
_JSON_NUMBER = r"(-?\d(?:[\d.]|,\d{3}(?!\d))*(?:[eE][-+]?\d+)?)"
_JSON = re.compile(
    r"""["'](?:final[_ ]?)?answer["']\s*:\s*(?:"((?:[^"\\\n]|\\.)*)"|'([^'\n]*)'|"""
    + _JSON_NUMBER
    + r"""|\[([^\[\]\n]*)\])""",
    re.I,
)


def _read_json(window: str) -> str | None:
    """Return the value of the last key "answer" of a JSON object."""
    values = _JSON.findall(window)
    return next(filter(None, values[-1]), None) if values else None


_HOPE = re.compile(r"\.?\s{0,9}I hope (?:it|this)\b.*", re.I | re.S)


_DENIED = re.compile(r"\s*(?:not \S+ (?:n?or) |neither\b)", re.I)


def _read_phrase(window: str) -> str | None:
    for match in reversed(list(_PHRASE.finditer(window))):
        # "The answer is neither 4 nor 5" says no answer.
        if is_supposed(window, match.start()) or _DENIED.match(window, match.end()):
            continue
        answer = read_sentence(_HOPE.sub("", _first_line(window[match.end() :])))
        # "The answer is not 35" says no answer.
        if answer and not answer.startswith("not "):
            return answer
    return None


def _first_line(after: str) -> str:
    """Return the line behind "the answer is", or the value on a line of its own; a formula's lines are one."""
    formula = _DISPLAYED.match(after)
    if formula and "\n" in formula[1].strip():
        return formula[1].replace("\n", " ")
    line, _, below = after.lstrip(" *_:=").partition("\n")
    if not EMPTY_LINE.match(line):
        return line
    return next((one for one in below.split("\n")[:4] if not EMPTY_LINE.match(one)), "")


_DISPLAYED = re.compile(
    r"[\s*_:=]*((?:\$\$(?:(?!\n\s*\n)[^$]){1,400}\$\$|\\\[(?:(?!\\\]|\n\s*\n).){1,400}\\\]|\$(?:(?!\n\s*\n)[^$]){1,400}\$)"
    r"[^\n]*)",
    re.S,
)
"""A formula in its delimiters, with what stands behind it in its last line."""


def _read_final_phrase(after: str) -> str | None:
    """Return the "final answer" that a text names after its last box, if its sentence is nothing but the value."""
    mention = _FINAL.search(after)
    phrases = list(_PHRASE.finditer(after, mention.start())) if mention else []
    heading = _FINAL_HEADING.search(after) if mention else None
    if not phrases and heading is None:
        return None
    said = phrases[-1].end() if phrases else heading.end() if heading else 0
    sentence = _HOPE.sub("", _first_line(after[said:])).strip().rstrip(".").strip(" *_")
    # "The final answer is an integer between 0 and 99999" says something about the value in the box.
    if is_prose(_UNIT_WORDS.sub("", sentence)) or not re.search(r"\d", sentence):
        return None
    return read_sentence(sentence)


_FINAL_HEADING = re.compile(r"^[#* \t]*(?:the )?final answer[ \t*:]*$", re.I | re.M)
_FINAL = re.compile(r"\bfinal answer\b", re.I)
_UNIT_WORDS = re.compile(r"(?<=[\d$)}])\s*(?:" + "|".join(sorted(UNITS | CURRENCY, key=len, reverse=True)) + r")\b")
_OUTPUT = re.compile(r"```\s*(?:output|result|text)\s*\n([^`]*)```")


def _read_output(window: str) -> str | None:
    blocks = [block.strip() for block in _OUTPUT.findall(window)]
    return blocks[-1].splitlines()[-1].strip() if blocks and blocks[-1] else None


_HEADING = re.compile(r"[#*\s]*(?:the )?(?:final )?(?:answer|result)[\s*:]*\Z", re.I)


def _read_below_heading(window: str) -> str | None:
    """Return the value in the first line below the last heading "Answer"."""
    lines = window.splitlines()
    for at in range(len(lines) - 2, -1, -1):
        if _HEADING.match(lines[at]):
            return read_sentence(_first_line("\n".join(lines[at + 1 :])))
    return None


_STRONG = (
    ("tag", _read_tag),
    ("hashes", _read_hashes),
    ("json", _read_json),
    ("phrase", _read_phrase),
    ("heading", _read_below_heading),
    ("output", _read_output),
)
_LETTER = re.compile(r"(?<![A-Za-z\\'])\(?([A-Z])\)?(?![A-Za-z'])")
_LETTERS = re.compile(r"\s*\(?[A-Z]\)?(?:(?:,|,? (?:and|or)) \(?[A-Z]\)?)+(?![\w'])")
"""Several choices, of which none is the answer by itself."""


def _search_choice(text: str) -> Extracted | None:
    """Return the letter of a multiple-choice answer; a box that holds no letter does not count."""
    box = last_box(text)
    if box is not None and (letter := _read_leading_letter(box.content)):
        return _strong(letter, "box")
    window = text[-WINDOW:]
    for match in reversed(list(_PHRASE.finditer(window))):
        rest = window[match.end() :].split("\n\n")[0]
        if several := _LETTERS.match(rest.replace("*", " ")):
            return _strong(several[0].strip(), "phrase")
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
