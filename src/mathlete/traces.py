"""Trace: a reasoning text and the answer it reaches."""

import re
from dataclasses import dataclass
from typing import Literal

from mathlete.problems import Problem
from mathlete.reasoning import THINK, find_unfinished, split, strip_opening

Flaw = Literal["", "unclosed", "no answer", "no gold", "no trace", "unfit"]
"""What is wrong with a trace as it was read: the reasoning never ends · it reaches no answer · its problem has no gold
to check it against · there is no trace · its source marks it as unfit."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One reasoning text for one problem."""

    problem_id: str
    text: str
    """The reasoning, without `<think>` and `</think>` around it."""
    answer: str
    """The answer that the trace reaches, without a box."""
    generator: str
    """Name of the model or generator that wrote it."""
    verified: bool = False
    """True only where the answer checker found `answer` equal to gold."""
    ending: str = ""
    """What followed `</think>` in the source; a training row has the boxed answer instead."""
    flaw: Flaw = ""


Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What one side of a conversation says."""

    role: Role
    text: str
    thought: str = ""
    """The reasoning before it, without marks around it."""
    trained: bool = True
    """Whether a reply is learnt; one that its source has marked is only read."""

    @property
    def completion(self) -> str:
        """What a model writes in this turn."""
        return f"{THINK.before}{self.thought}{THINK.ending}{self.text}" if self.thought else self.text


@dataclass(frozen=True, kw_only=True)
class TracedProblem:
    """A problem with one trace: a training example before it becomes tokens."""

    problem: Problem
    trace: Trace
    where: str = ""
    """The row it was read from: `file:line`, `file[row]` or `hub id[row]`."""
    turns: tuple[Turn, ...] = ()
    """Of a chat: the conversation up to the reply that is trained. The problem is then its first question."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """The text written after a problem, split into reasoning and ending."""

    thought: str
    ending: str
    flaw: Flaw = ""


_CALCULATOR = re.compile(r"<<[^<>]*>>")
"""GSM8K's annotations <<48/2=24>> are calls of a calculator, not text."""
_HASHES = re.compile(r"\n\s*####.*\Z", re.S)
_SOLUTION_MARKS = re.compile(r"<\|(?:begin|end)_of_solution\|>")


def read_completion(text: str, *, thinks: bool = False) -> Completion:
    r"""Split a completion into the reasoning and what follows it; a text without marks counts as both.

    Args:
        text: as written, with or without `<think>`, which R1's revised template puts into the prompt.
        thinks: whether it is from a model that always reasons, so that a text without `</think>` was cut off.

    >>> read_completion("<think>\n2+2=4\n</think>\n\nIt is 4.").thought
    '2+2=4'
    """
    # The last mark closes the reasoning: a trace may quote an earlier one.
    parts = split(text)
    if parts is None:
        flaw: Flaw = "unclosed" if thinks or find_unfinished(text) is not None else ""
        thought = _CALCULATOR.sub("", text)
        # Without the marker, the search would take long in a text of line breaks.
        thought = _HASHES.sub("", thought) if "####" in thought else thought
        return Completion(thought=thought.strip(), ending=text, flaw=flaw)
    thought, ending = parts
    return Completion(thought=strip_opening(thought), ending=_SOLUTION_MARKS.sub("", ending).strip())


def read_trace(text: str, *, problem: Problem, generator: str, thinks: bool = False) -> Trace:
    """Return the trace in a completion, with the answer that stands in it; without one it has a flaw."""
    parts = read_completion(text, thinks=thinks)
    answer = "" if parts.flaw else _read_answer(parts.ending, marked=not problem.gold)
    flaw: Flaw = parts.flaw or ("" if answer else "no answer")
    if not text.strip():
        flaw = "no trace"
    return Trace(
        problem_id=problem.id, text=parts.thought, answer=answer, generator=generator, ending=parts.ending, flaw=flaw
    )


_MARKED = ("box", "phrase", "hashes", "tag")


def _read_answer(text: str, *, marked: bool) -> str:
    """Return the answer in a text, or "".

    Where there is no gold to check it against, only one that is marked as the answer counts, by a box, "answer is",
    #### or `<answer>`: the last number of any text, such as the bytes of a disk, would else become the right answer.
    """
    from mathlete.answers import extract

    answer = extract(text)
    return "" if marked and answer.provenance not in _MARKED else answer.string or ""
