r"""The organiser's scorer: where it reads an answer, and when that is right.

It knows no maths: "1/2" is no number, 1,000 is none, and the last brace may end a box. Whatever the text is, it gives
points and raises nothing. A way to read is an entry of `READINGS`, a way to compare one of `COMPARISONS`.

>>> rules = ScorerRules(rule="number", reads=("last-box", "last-number"), relative_tolerance=0.01, binary_as_text=True)
>>> rules.judge(r"First \boxed{7}, at last \boxed{24.7}", gold="24.64")
Judged(read='24.7', right=True, points=1.0)
>>> [rules.judge(rf"\boxed{{{answer}}}", gold=gold).right for answer, gold in (("1/2", "0.5"), ("0011", "11"))]
[False, False]
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from mathlete.errors import Rule

AnswerType = Literal["integer", "number", "text"]
"""What an answer is: an integer of a range · a number · a text, be it a number, a word or a string of bits."""
Reading = Literal["submission", "last-box", "final-answer", "last-number", "last-line"]
"""Where the organiser reads an answer: in the submission's column · in the model's text: its last box that is not
empty, what stands behind "final answer", its last number, its last line that is not empty."""
BoxEnd = Literal["balanced", "last-brace", "first-brace"]
"""Where a box ends: at the brace that closes it · at the last brace before the next box · at the first brace."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What the organiser's scorer makes of one answer."""

    read: str | None
    """The answer as it was read; None: there is none."""
    right: bool
    points: float


@dataclass(frozen=True, kw_only=True)
class ScorerRules:
    """How the organiser reads an answer, and when it is right."""

    rule: AnswerType
    """Equal as integers · as numbers within the tolerances, or as texts where either is no number · as texts."""
    reads: tuple[Reading, ...] = ("submission",)
    """Where the answer is read; of several places the first that is there: an empty box hides what stands elsewhere."""
    box_end: BoxEnd = "balanced"
    """Where a box ends."""
    tolerance: float = 0.0
    """Two numbers that lie no farther apart are equal."""
    relative_tolerance: float = 0.0
    """The same as a share of the greater of the two, as in Python's math.isclose."""
    binary_as_text: bool = False
    """Whether a gold of the digits 0 and 1 alone is compared as a text, so that 011 is not 11."""
    case_matters: bool = True
    """Whether texts that differ in capitals alone differ."""
    wrong: float = 0.0
    """Points of a wrong answer; below 0 where guessing is penalised."""
    blank: float = 0.0
    """Points of no answer."""

    @property
    def reads_text(self) -> bool:
        """Whether the organiser reads the answer in the model's own text."""
        return self.reads != ("submission",)

    def list_rules(self) -> Iterator[Rule]:
        """Yield what must hold of the values."""
        number = self.rule == "number"
        yield (
            "scorer.reads",
            [*self.reads],
            "submission" not in self.reads or not self.reads_text,
            "submission alone, or places in the model's text",
        )
        yield "scorer.box_end", self.box_end, self.box_end == "balanced" or "last-box" in self.reads, _FOR_BOXES
        for name in ("tolerance", "relative_tolerance"):
            value: float = getattr(self, name)
            yield f"scorer.{name}", value, value >= 0, "0 or more"
            yield f"scorer.{name}", value, not value or number, _FOR_NUMBERS
        yield "scorer.relative_tolerance", self.relative_tolerance, self.relative_tolerance < 1, "below 1"
        yield "scorer.binary_as_text", self.binary_as_text, not self.binary_as_text or number, _FOR_NUMBERS
        yield "scorer.case_matters", self.case_matters, self.case_matters or self.rule != "integer", _FOR_TEXTS
        yield "scorer.wrong", self.wrong, self.wrong <= self.blank, "at most scorer.blank"
        yield "scorer.blank", self.blank, self.blank < 1, "below the point of a right answer"

    def judge(self, text: str | None, *, gold: str) -> Judged:
        """Return the points for what was handed in: a cell of the submission, or the model's text where that is read.

        No text, and one in which nothing is read, is a blank.
        """
        read = self.read(text or "")
        if read is None:
            return Judged(None, right=False, points=self.blank)
        right = COMPARISONS[self.rule](read, gold.strip(), self)
        return Judged(read, right=right, points=1.0 if right else self.wrong)

    def read(self, text: str) -> str | None:
        """Return the answer that is read in a text, without the blanks around it; None where there is none."""
        places = (READINGS[place](text, self) for place in self.reads)
        return next((answer for answer in places if answer is not None), "").strip() or None


_FOR_BOXES = "left out where scorer.reads has no last-box"
_FOR_NUMBERS = "left out where scorer.rule is not number"
_FOR_TEXTS = "left out where scorer.rule is integer"


def _read_submission(text: str, rules: ScorerRules) -> str | None:
    return text


def _read_last_box(text: str, rules: ScorerRules) -> str | None:
    boxes = _BOX_ENDS[rules.box_end](text)
    return next((box for box in reversed(boxes) if box.strip()), "") if boxes else None


def _read_final_answer(text: str, rules: ScorerRules) -> str | None:
    """Return what follows "final answer" on its line, by the first of three ways to write it that occurs at all."""
    ways = (way.findall(text) for way in _FINAL_ANSWERS)
    return next((answers[-1] for answers in ways if answers), None)


def _read_last_number(text: str, rules: ScorerRules) -> str | None:
    numbers = _NUMBER.findall(text)
    return numbers[-1] if numbers else None


def _read_last_line(text: str, rules: ScorerRules) -> str | None:
    return next((line for line in reversed(text.splitlines()) if line.strip()), None)


READINGS: dict[Reading, Callable[[str, ScorerRules], str | None]] = {
    "submission": _read_submission,
    "last-box": _read_last_box,
    "final-answer": _read_final_answer,
    "last-number": _read_last_number,
    "last-line": _read_last_line,
}
"""{place: how an answer is read there; None where the text has no such place}. All but the first, with a box up to its
last brace, are those of the Nemotron challenge's metric (Kaggle's notebook metric/nvidia-nemotron-metric, 2026, as
participants' repositories quote it: until May a box ended at its first brace)."""
_FINAL_ANSWERS = [
    re.compile(start + r"\s*([^\n]+)", re.IGNORECASE)
    for start in (r"The final answer is:", r"Final answer is:", r"Final answer\s*[:：]")
]
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_BOX = re.compile(r"\\boxed\{")


def _end_at_first_brace(text: str) -> list[str]:
    return re.findall(r"\\boxed\{([^}]*)", text)


def _end_at_last_brace(text: str) -> list[str]:
    """Return what stands in each box up to the last brace before the next; of one without any, all."""
    parts = _BOX.split(text)[1:]
    return [part if (end := part.rfind("}")) < 0 else part[:end] for part in parts]


def _end_at_own_brace(text: str) -> list[str]:
    """Return the boxes that are closed; as in `last_boxed_only_string` of hendrycks/math, escaped braces count too."""
    ends, opened = dict[int, int](), list[int]()
    for brace in re.finditer(r"[{}]", text):
        if brace[0] == "{":
            opened.append(brace.end())
        elif opened:
            ends[opened.pop()] = brace.start()
    return [text[box.end() : ends[box.end()]] for box in _BOX.finditer(text) if box.end() in ends]


_BOX_ENDS: dict[BoxEnd, Callable[[str], list[str]]] = {
    "balanced": _end_at_own_brace,
    "last-brace": _end_at_last_brace,
    "first-brace": _end_at_first_brace,
}


def _are_same_integers(answer: str, gold: str, rules: ScorerRules) -> bool:
    """Return whether both are the same integer, as a column of integers in a table holds them: digits and a sign."""
    number = _read_integer(answer)
    return number is not None and number == _read_integer(gold)


def _read_integer(text: str) -> str | None:
    # As a text: `int` refuses five thousand digits, and takes 4_2 and digits of any script.
    form = re.fullmatch(r"(?:\+|(-))?0*([0-9]*)(?<=[0-9])", text)
    return form and (form[1] or "" if form[2] else "") + form[2]


def _are_close_numbers(answer: str, gold: str, rules: ScorerRules) -> bool:
    """Return whether both are numbers for Python's float and close enough, or else the same text.

    So does `verify` of the Nemotron challenge's metric, which has compared bits as texts since the end of March 2026:
    as numbers 10011001 was within one percent of 10011000.
    """
    if rules.binary_as_text and re.fullmatch("[01]+", gold):
        return _are_same_texts(answer, gold, rules)
    try:
        numbers = float(gold), float(answer)
    except ValueError:
        return _are_same_texts(answer, gold, rules)
    return math.isclose(*numbers, rel_tol=rules.relative_tolerance, abs_tol=rules.tolerance)


def _are_same_texts(answer: str, gold: str, rules: ScorerRules) -> bool:
    return answer == gold if rules.case_matters else answer.lower() == gold.lower()


COMPARISONS: dict[AnswerType, Callable[[str, str, ScorerRules], bool]] = {
    "integer": _are_same_integers,
    "number": _are_close_numbers,
    "text": _are_same_texts,
}
"""{rule: whether an answer, as it was read, equals the gold}."""
