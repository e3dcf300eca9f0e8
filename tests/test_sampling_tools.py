"""Samples whose Python is run: laws over recorded turns, and the loop through the real engines."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import cache
from queue import SimpleQueue

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.errors import UserError
from mathlete.models import find_model, load_prompt_format
from mathlete.problems import Problem
from mathlete.prompts import PromptFormat
from mathlete.sampling.continuing import Continuing
from mathlete.sampling.fence import code_end
from mathlete.sampling.samples import Sample, SamplingConfig
from mathlete.sampling.served.asked import ServerPrompt
from mathlete.sampling.served.reply import Reply
from mathlete.solve.clock import RealClock
from mathlete.solve.policy import Policy
from mathlete.solve.solver import solve
from mathlete.tir.tools import ToolSampler, ToolSettings
from tests.conftest import dear

PROBLEM = Problem(id="p", statement="What is 6 * 7?", gold="42")
CONFIG = SamplingConfig(max_tokens=10_000)


@cache
def _prompts() -> PromptFormat:
    return load_prompt_format(find_model("pocket"))


class Recorded(Continuing):
    """An engine that says what was recorded for a sample, piece by piece; a token is a character."""

    name = "recorded"

    def __init__(self, texts: Mapping[int, str]) -> None:
        self.texts, self.told, self.closed = texts, dict.fromkeys(texts, 0), False
        self.cancelled = 0
        self.prompts = _prompts()

    def begin(
        self,
        problem: Problem,
        *,
        seeds: Mapping[int, int],
        config: SamplingConfig,
        results: "SimpleQueue[Sample | Exception]",
        said: str = "",
        until_code: bool = False,
    ) -> Callable[[], None]:
        for index, seed in seeds.items():
            rest = self.texts[index][self.told[index] :]
            end = code_end(rest) if until_code else None
            text = rest[: min(config.max_tokens, len(rest) if end is None else end)]
            self.told[index] += len(text)
            finish = "length" if len(text) < (len(rest) if end is None else end) else "stop"
            made = Sample(
                problem_id=problem.id, index=index, seed=seed, text=text, tokens=len(text), finish="stop", seconds=1.0
            )
            results.put(replace(made, finish="length") if finish == "length" else made)
        return self.count

    def count(self) -> None:
        self.cancelled += 1

    def close(self) -> None:
        self.closed = True


def block(program: str) -> str:
    return f"So:\n```python\n{program}\n```"


TURNS = 3


class Draw:
    """Draws recorded samples with that many turns; their sandbox is started once."""

    def __init__(self) -> None:
        self.engine = Recorded({})
        self.tools = ToolSampler(self.engine, ToolSettings(turns=TURNS, timeout_s=5))

    def sampler(self, texts: Mapping[int, str]) -> ToolSampler:
        self.engine.texts, self.engine.told = texts, dict.fromkeys(texts, 0)
        return self.tools

    def __call__(self, texts: Mapping[int, str], *, config: SamplingConfig = CONFIG) -> dict[int, Sample]:
        stream = self.sampler(texts).stream(PROBLEM, seeds={i: i for i in texts}, config=config)
        return {s.index: s for s in stream}


@pytest.fixture(scope="module")
def drawn() -> Iterator[Draw]:
    drawing = Draw()
    yield drawing
    drawing.tools.close()


def test_a_program_is_run_and_its_output_read(drawn: Draw) -> None:
    (sample,) = drawn({0: block("print(6 * 7)") + "Thus \\boxed{42}."}).values()
    assert sample.text == block("print(6 * 7)") + "\n```output\n42\n```\nThus \\boxed{42}."
    assert (sample.finish, sample.tokens) == ("stop", len(block("print(6 * 7)")) + 16)
    assert 2.0 < sample.seconds < 10


def test_variables_live_through_a_sample_and_errors_are_read(drawn: Draw) -> None:
    text = block("x = 5") + block("print(x + 1)") + block("x / 0") + "end"
    (sample,) = drawn({0: text}).values()
    assert "```output\n\n```" in sample.text
    assert "```output\n6\n```" in sample.text
    assert "ZeroDivisionError: division by zero\n```\nend" in sample.text


def test_a_killed_interpreter_is_replaced(drawn: Draw) -> None:
    (sample,) = drawn({0: block("import os; os._exit(1)") + block("print('x' in globals())") + "end"}).values()
    assert "all variables are gone]\n```\n" in sample.text
    assert "```output\nFalse\n```\nend" in sample.text


def test_after_the_last_turn_programs_are_not_run(drawn: Draw) -> None:
    (sample,) = drawn({0: "".join(block(f"print({number})") for number in range(1, TURNS + 3)) + "end"}).values()
    for number in range(1, TURNS + 1):
        assert f"```output\n{number}\n```" in sample.text
    assert sample.text.count("[not run: there are no runs left") == 1
    assert sample.text.endswith(block(f"print({TURNS + 2})") + "end")


def test_a_printed_end_of_the_reasoning_is_none(drawn: Draw) -> None:
    (sample,) = drawn({0: block("print('</think>5')") + "end"}).values()
    assert "</think>" not in sample.text.partition("```output")[2]


def test_the_cap_holds_over_all_turns(drawn: Draw) -> None:
    text = block("print('y' * 300)") + "z" * 100
    first = len(block("print('y' * 300)"))
    for cap, finish in ((first - 1, "length"), (first, "length"), (first + 50, "length"), (first + 100, "stop")):
        (sample,) = drawn({0: text}, config=SamplingConfig(max_tokens=cap)).values()
        assert (sample.tokens, sample.finish) == (cap, finish)


programs = st.lists(st.sampled_from(["print(1)", "x = 1", "1/0", "'a'"]), max_size=TURNS + 1)


@dear(6)
@given(samples=st.lists(st.tuples(programs, st.text("ab \n", max_size=20)), min_size=1, max_size=4))
def test_what_the_model_drew_is_kept_and_counted(drawn: Draw, samples: list[tuple[list[str], str]]) -> None:
    texts = {i: "".join(map(block, some)) + f" {rest}" for i, (some, rest) in enumerate(samples)}
    drawing = drawn(texts)
    assert sorted(drawing) == sorted(texts)
    for index, (some, _) in enumerate(samples):
        pieces = drawing[index].text.split("```output\n")
        assert len(pieces) - 1 == min(len(some), TURNS + 1)
        own = pieces[0] + "".join(piece.partition("\n```\n")[2] for piece in pieces[1:])
        assert own.replace("\n", "") == texts[index].replace("\n", "")
        assert drawing[index].tokens == len(texts[index])
        assert drawing[index].seed == index


def test_a_sample_without_programs_is_the_engine_s_own(drawn: Draw) -> None:
    texts = {0: "no code", 1: "```\nprint(1)\n```\n", 2: "```python\nprint(1)"}
    plain = {s.index: s for s in Recorded(texts).stream(PROBLEM, seeds={0: 0, 1: 1, 2: 2}, config=CONFIG)}
    assert drawn(texts) == plain


def test_solve_votes_over_samples_with_programs(drawn: Draw) -> None:
    texts = {i: block(f"print(6 * {7 if i else 8})") + f"\\boxed{{{42 if i else 48}}}" for i in range(3)}
    solution = solve(PROBLEM, sampler=drawn.sampler(texts), clock=RealClock(), policy=Policy(n=3))
    assert (solution.answer, solution.votes[0].count) == ("42", 2)


def test_closing_and_the_clock_end_programs_that_run() -> None:
    engine = Recorded({0: "quick", 1: block("while True: pass") + "end"})
    tools = ToolSampler(engine, ToolSettings(turns=2, timeout_s=60))
    started = time.monotonic()
    with closing(tools):
        with closing(tools.stream(PROBLEM, seeds={0: 0, 1: 1}, config=CONFIG)) as stream:
            assert next(stream).text == "quick"
        assert engine.cancelled == 1
        engine.told = {0: 0, 1: 0}
        soon = replace(CONFIG, timeout_s=0.5)
        assert [s.text for s in tools.stream(PROBLEM, seeds={0: 0, 1: 1}, config=soon)] == ["quick"]
    assert engine.closed
    assert time.monotonic() - started < 30


def test_settings_are_checked() -> None:
    for wrong, message in (
        (ToolSettings(turns=-1), "--tools.turns must be 0 or more, got -1"),
        (ToolSettings(timeout_s=0), "--tools.timeout-s must be above 0, got 0"),
        (ToolSettings(at_once=0), "--tools.at-once must be at least 1, got 0"),
    ):
        with pytest.raises(UserError, match=message):
            wrong.check()


def test_the_model_is_told_only_where_it_has_tools() -> None:
    from mathlete.models import load_prompt_format

    own: PromptFormat = load_prompt_format(find_model("pocket"))
    assert ToolSettings().instruct(own) is own
    told = ToolSettings(turns=1).instruct(own)
    assert told.instruction.startswith(own.instruction)
    assert "```output" in told.instruction
    assert told.sha256 != own.sha256
    assert ToolSettings(turns=1, instruction="").instruct(own).instruction == own.instruction
    asked = ServerPrompt.of(PROBLEM, own, chat=False, said="so</think>")
    assert asked.text.endswith("so</think>")
    assert asked.ids[: -len(own.tokenizer("so</think>", add_special_tokens=False)["input_ids"])] == own.prompt_ids(
        PROBLEM.statement
    )


def test_a_server_s_reply_is_left_where_the_program_closes() -> None:
    reply = Reply(until_code=True)
    for piece in ("So:\n", "```python\nprint(1)\n", "``", "`\n```out"):
        assert not reply.complete
        reply.add(json.dumps({"choices": [{"text": piece}]}))
    assert reply.complete
    assert reply.ended
    sample = reply.sample(problem_id="p", index=0, seed=0, seconds=1)
    assert (sample.text, sample.finish) == (block("print(1)"), "stop")
