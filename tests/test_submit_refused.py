"""Questions that a server refuses: one alone fails alone; where all are refused the run ends, and nothing is lost."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mathlete.answer_sheet import SheetLine, SheetLog
from mathlete.errors import UserError
from mathlete.lost import QuestionRefused
from submit.refused import LAST, MOST, RefusedQuestions
from tests.conftest import CommandLine
from tests.loopback import Loopback, Wire, answers
from tests.test_submit_answer import asked_of, calculate, lines_of, refuse, words_of
from tests.test_submit_answer import serve as serve  # fixtures
from tests.test_submit_answer import table as table

FLAGGED = "Invalid prompt: your prompt was flagged."


async def flag(wire: Wire) -> None:
    """Refuse one question, as a hosted model whose filter takes it for something else."""
    await (refuse(wire, FLAGGED) if wire.request["messages"][0]["content"].startswith("2 + 2") else calculate(wire))


async def withhold(wire: Wire) -> None:
    """Answer all but one question, whose reply a filter withholds."""
    if not wire.request["messages"][0]["content"].startswith("2 + 2"):
        return await calculate(wire)
    withheld = {"choices": [{"index": 0, "delta": {}, "finish_reason": "content_filter"}]}
    return await answers("200 OK", f"data: {json.dumps(withheld)}\n\n")(wire)


async def fail(wire: Wire) -> None:
    """Fail over one question whenever it comes, and take a while for the others."""
    if wire.request["messages"][0]["content"].startswith("2 + 2"):
        return await answers("500 Internal Server Error", "list index out of range")(wire)
    await asyncio.sleep(0.1)
    return await calculate(wire)


@pytest.mark.slow  # patience takes its time
def test_a_server_that_fails_over_one_question_while_others_come_fails_it_alone(
    table: Path, serve: Callable[..., Loopback], submit: CommandLine
) -> None:
    with table.open("a") as file:
        file.writelines(f"{number},{number} + 1,{number + 1}\n" for number in range(20, 50))
    few = ("--servers.at-once", 4, "--servers.patience-s", 2, "--fallbacks-max", 1)
    done = submit(*words_of(server := serve(then=fail), *few))
    assert (done.result["answered"], done.result["fallbacks"]) == (31, 3)
    assert "500 Internal Server Error: list index out of range" in done.result["without_answer"][" b"]
    assert asked_of(server)["2 + 2"] >= 5
    # Of a server that fails over all, no question is failed.
    down = serve(then=answers("500 Internal Server Error", "out of memory"))
    refusal = submit(*words_of(down, *few, "--run", "down")).refusal
    assert "one of the servers must answer within 2 s, got" in refusal
    assert not Path("down/answers.jsonl").exists() or not lines_of("down/answers.jsonl")


@pytest.mark.parametrize(("behaviour", "reason"), [(flag, FLAGGED), (withhold, "content_filter")])
@pytest.mark.parametrize("clock", [(), ("--budget", "60")])
def test_a_question_that_is_refused_does_not_stop_the_others(
    table: Path,
    serve: Callable[..., Loopback],
    submit: CommandLine,
    behaviour: Callable[[Wire], object],
    reason: str,
    clock: tuple[str, ...],
) -> None:
    done = submit(*words_of(server := serve(then=behaviour), "--fallbacks-max", 1, *clock))
    assert (done.result["answered"], done.result["fallbacks"]) == (1, 3)
    assert done.result["without_answer"][" b"].startswith("refused: ")
    assert reason in done.result["without_answer"][" b"]
    assert reason in done.stderr  # at once, and with the count in the end
    assert lines_of("runs/answer-q/submission.csv")[2] == '" b",3'
    asked = len(server.requests)
    assert submit(*words_of(server, "--fallbacks-max", 1, *clock)).result["fallbacks"] == 3
    assert len(server.requests) == asked


def test_where_all_are_refused_the_run_ends_and_asks_them_again_once_that_is_mended(
    table: Path, serve: Callable[..., Loopback], submit: CommandLine
) -> None:
    server = serve(then=lambda wire: refuse(wire, "Your credit balance is too low."))
    for clock in ((), ("--budget", "60")):
        run = ("--run", f"runs/{len(clock)}", "--fallbacks-max", 1, *clock)
        refusal = submit(*words_of(server, *run)).refusal
        assert "and 3 more questions were refused behind it, got 400 Bad Request: Your credit balance" in refusal
        assert not Path(run[1], "answers.jsonl").exists() or not lines_of(f"{run[1]}/answers.jsonl")
        server.then, server.requests[:] = calculate, []
        assert submit(*words_of(server, *run)).result["answered"] == 2
        assert {*asked_of(server)} == {"1 + 1", "2 + 2", "30 * 30", "say nothing"}
        server.then = lambda wire: refuse(wire, "Your credit balance is too low.")


def test_what_is_refused_is_written_once_another_is_answered(tmp_path: Path) -> None:
    names = [f"q{number}" for number in range(3 * MOST)]
    log = SheetLog(tmp_path / "answers.jsonl", ids=names)
    questions, said = RefusedQuestions(log, say=lambda text: None), QuestionRefused("rule", value="400", cure="cure")

    def refuse_next(name: str) -> None:
        questions.note(name, said)
        questions.add(SheetLine(id=name, answer="", fallback=True, ended="refused"))

    for name in names[: MOST - 1]:
        refuse_next(name)
    assert not log.lines
    questions.add(SheetLine(id=names[MOST], answer="7", fallback=False, samples=1))
    assert len(log.lines) == MOST
    assert log.lines["q0"].why == "refused: 400"
    for name in names[MOST + 1 : 2 * MOST]:
        refuse_next(name)
    with pytest.raises(UserError, match=f"rule, and {MOST - 1} more questions were refused behind it"):
        refuse_next(names[-1])
    assert len(log.lines) == MOST  # an account that ran empty in the middle has failed no question


def test_the_last_ones_of_a_run_are_doubted_once(tmp_path: Path) -> None:
    names = [f"q{number}" for number in range(LAST + 1)]
    log = SheetLog(tmp_path / "answers.jsonl", ids=names)

    def run(asked: list[str]) -> None:
        questions = RefusedQuestions(log, say=lambda text: None)
        if "q0" in asked:
            questions.add(SheetLine(id="q0", answer="7", fallback=False, samples=1))
        for name in [name for name in asked if name != "q0"]:
            questions.note(name, QuestionRefused("rule", value="400", cure="cure"))
            questions.add(SheetLine(id=name, answer="", fallback=True, ended="refused"))
        questions.finish()

    with pytest.raises(UserError, match=f"rule, and {LAST - 1} more questions were refused behind it"):
        run(names)
    assert {*log.lines} == {"q0"}
    run(names[1:])  # as the same command does, for what is left
    assert log.lines[names[-1]].why == "refused: 400"
    assert len(log.lines) == len(names)
