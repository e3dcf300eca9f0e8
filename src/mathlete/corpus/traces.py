"""Trace: a reasoning text with the answer it reaches."""

from dataclasses import dataclass

from mathlete.problems import Problem


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


@dataclass(frozen=True, kw_only=True)
class TracedProblem:
    """A problem with one trace: a training example before it becomes tokens."""

    problem: Problem
    trace: Trace
