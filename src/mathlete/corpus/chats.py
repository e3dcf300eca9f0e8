"""Chats: conversations up to a reply that is trained as it stands."""

from collections.abc import Sequence
from dataclasses import replace

from mathlete.corpus.turns import make_turn
from mathlete.problems import Problem
from mathlete.traces import Trace, TracedProblem, Turn, read_completion


def chat_of(traced: TracedProblem) -> list[TracedProblem]:
    """Return a problem with its trace as a chat of one question and its reply: the mix may hold both."""
    trace, problem = traced.trace, traced.problem
    if trace.flaw:
        return [traced]
    text = trace.ending.strip() or f"\\boxed{{{trace.answer}}}"
    turns = (Turn(role="user", text=problem.statement), make_turn("assistant", text, trace.text))
    return [make_chat(problem, turns, where=traced.where)]


def make_chat(problem: Problem, turns: Sequence[Turn], *, where: str) -> TracedProblem:
    """Return a conversation up to a reply; its problem is the first question, its trace what the reply thinks."""
    parts = read_completion(turns[-1].completion)
    said = "" if parts.flaw == "unclosed" else parts.ending
    thought = parts.thought if parts.ending != turns[-1].completion else ""
    reply = Turn(role="assistant", text=said, thought=thought)
    trace = Trace(
        problem_id=problem.id,
        text=thought,
        answer="",
        generator=problem.source,
        ending=said,
        flaw=parts.flaw or ("" if said.strip() else "no trace"),
    )
    # Of earlier replies a server gets what was said, and not what was thought.
    before = [_without_thought(turn) for turn in turns[:-1]]
    return TracedProblem(problem=problem, trace=trace, where=where, turns=(*before, reply))


def _without_thought(turn: Turn) -> Turn:
    said = read_completion(turn.text).ending if turn.role == "assistant" else turn.text
    return replace(turn, text=said, thought="")
