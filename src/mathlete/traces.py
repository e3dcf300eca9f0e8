"""Trace: a reasoning text with the answer it reaches."""

import re
from dataclasses import dataclass
from typing import Literal

from mathlete.problems import Problem
from mathlete.prompts import END_THINK, THINK

Flaw = Literal["", "unclosed", "no answer", "no gold", "no trace", "unfit"]
"""What is wrong with a trace as it was read: the reasoning never ends · it reaches no answer · its problem has no
answer to check it against · there is none · its source says itself that it is of no use."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One reasoning text for one problem."""

    problem_id: str
    text: str
    """What stands between `<think>` and `</think>`."""
    answer: str
    """What the trace ends on, to be boxed."""
    generator: str
    """Who wrote it: a model's or generator's name."""
    verified: bool = False
    """True only where the answer checker found `answer` equal to gold."""
    ending: str = ""
    """What its writer put after `</think>`; the row has the boxed answer there."""
    flaw: Flaw = ""


@dataclass(frozen=True, kw_only=True)
class TracedProblem:
    """A problem with one trace: a training example before it becomes tokens."""

    problem: Problem
    trace: Trace
    where: str = ""
    """The row it was read from: `file:line`, `file[row]` or `hub id[row]`."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What a model or a person wrote after a problem, taken apart."""

    thought: str
    ending: str
    flaw: Flaw = ""


_OPEN = re.compile(r"<think(?:ing)?>|<\|begin_of_thought\|>")
_CLOSE = re.compile(r"</think(?:ing)?>|<\|end_of_thought\|>")
_CALCULATOR = re.compile(r"<<[^<>]*>>")
"""GSM8K's marks <<48/2=24>> are for a tool, not for a reader."""
_HASHES = re.compile(r"\n\s*####.*\Z", re.S)
_SOLUTION_MARKS = re.compile(r"<\|(?:begin|end)_of_solution\|>")


def read_completion(text: str, *, thinks: bool = False) -> Completion:
    r"""The reasoning and what follows it; a text without marks is reasoning and ending both.

    Args:
        text: as written, with or without `<think>`: R1's revised template puts that into the prompt.
        thinks: whether it comes from a model that always reasons, so that a text without `</think>` was cut.

    >>> read_completion("<think>\n2+2=4\n</think>\n\nIt is 4.").thought
    '2+2=4'
    """
    closes = [*_CLOSE.finditer(text)]
    opened = _OPEN.search(text)
    if not closes:
        flaw: Flaw = "unclosed" if thinks or opened else ""
        return Completion(thought=_HASHES.sub("", _CALCULATOR.sub("", text)).strip(), ending=text, flaw=flaw)
    thought, ending = text[: closes[-1].start()], text[closes[-1].end() :]
    if opened and opened.end() <= len(thought):
        thought = thought[opened.end() :]
    return Completion(thought=thought.strip(), ending=_SOLUTION_MARKS.sub("", ending).strip())


def trace_of(text: str, *, problem: Problem, generator: str, thinks: bool = False) -> Trace:
    """The Trace in a completion, with its own answer; without one it has a flaw."""
    from mathlete.answers import extract

    found = read_completion(text, thinks=thinks)
    answer = "" if found.flaw else extract(found.ending).string or ""
    flaw: Flaw = found.flaw or ("" if answer else "no answer")
    if not text.strip():
        flaw = "no trace"
    return Trace(
        problem_id=problem.id, text=found.thought, answer=answer, generator=generator, ending=found.ending, flaw=flaw
    )


def has_marks(text: str) -> bool:
    """Whether a trace holds the marks around it: it would teach the model to leave its reasoning in its middle."""
    return THINK in text or END_THINK in text
