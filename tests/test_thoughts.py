"""Unfinished reasoning has no vote, however a sample arrives: engines, servers, logs, a submission's journal."""

import json
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.answers import read_answer
from mathlete.answers.check import our_verdict, read_cases
from mathlete.drawing import doubt_opening
from mathlete.engines import OpenEngine
from mathlete.errors import UserError
from mathlete.logs import Joined, join_logs, read_log, read_own_run
from mathlete.models import find_model, load_prompt_format
from mathlete.problems import Problem, write_problems
from mathlete.reasoning import MARKS, Opening, is_within_thoughts, split
from mathlete.replay.sampler import ReplaySampler
from mathlete.sampling import Sample, SamplingConfig, read_samples
from mathlete.sampling.served.openai_engine import OpenAISampler, ServerSettings
from mathlete.sampling.served.reply import Reply
from mathlete.scoring import Pool
from mathlete.solve import Policy, RealClock, Solution, solve
from tests.conftest import CommandLine
from tests.loopback import Behaviour, Loopback, answers, event, streams
from tests.thinking_logs import COLUMNS, LAYOUTS, QUESTION, table, write

PROBLEM = Problem(id="p", statement=QUESTION, gold="42")
THOUGHTS = (
    r"Suppose the answer is 35. Then \boxed{35}? No wait, 35 is odd." + "\n\nSo **Final Answer**\n\n$36$. Hmm, wait.",
    "I first try $x = 7$.\n\n#### 7\n\nThat was a guess. <answer>8</answer> is one too. \\boxed{9}",
    'As JSON: {"answer": 35}.\n\n```output\n35\n```\n\nThe final answer is 35.\nBut 40 + 2 is 42.\n',
)
ENDS = (r"It is \boxed{42}.", "40 + 2 = 42.\n\nThe answer is 42.\n", "**Answer:** $42$\n\nThat was easy.\n")
TRACES = [(thought, end) for thought in THOUGHTS for end in ENDS]


def cut_somewhere(text: str) -> st.SearchStrategy[str]:
    return st.integers(0, len(text) - 1).map(lambda at: text[:at])


def places(text: str, *, every: int) -> list[str]:
    """The text cut at so many places, those around its marks among them."""
    marks = [at for mark in ("think", "boxed") for at in range(len(text)) if text.startswith(mark, at)]
    near = {at + more for at in marks for more in range(-3, 14)}
    return [text[:at] for at in sorted({*range(0, len(text), every), *near}) if 0 <= at < len(text)]


def assert_no_thought_votes(sample: Sample) -> None:
    assert sample.answer in (None, "42", "$42$"), sample.text
    assert (split(sample.text) is not None) or sample.answer is None, sample.text


def solved(text: str, *, thinking: bool | None) -> Sample:
    drawn = Sample(problem_id="p", index=0, seed=0, text=text, tokens=9, finish="length", seconds=1.0)
    (sample,) = solve(
        PROBLEM, sampler=ReplaySampler([drawn]), clock=RealClock(), policy=Policy(n=1), thinking=thinking
    ).samples
    return sample


@given(data=st.data(), trace=st.sampled_from(TRACES), name=st.sampled_from([*MARKS]))
def test_a_trace_that_is_cut_anywhere_has_no_answer_out_of_its_thoughts(
    data: st.DataObject, trace: tuple[str, str], name: str
) -> None:
    marks = MARKS[name]
    finished = f"{trace[0]}{marks.ending}{trace[1]}"
    text = data.draw(cut_somewhere(finished))
    for thinking in (True, None):  # the prompt has opened the thoughts, or nobody knows
        assert_no_thought_votes(solved(text, thinking=thinking))
    # The model opens them itself.
    assert_no_thought_votes(solved(f"{marks.before}{text}", thinking=False))
    # What is not cut has its answer.
    assert read_answer(finished, thinking=True) == read_answer(trace[1])


def test_a_number_that_a_cut_may_have_shortened_is_no_answer() -> None:
    shortened = (r"\boxed{4", r"It is \boxed{\frac{1}{4", "The answer is 4", "The answer is 4.", "#### 4", "<answer>4")
    assert [read_answer(text, cut=True) for text in shortened] == [None] * 6
    assert [read_answer(f"{text}.", cut=True) for text in (r"\boxed{4}", "The answer is 4.\nSo")] == ["4", "4"]


def test_a_sample_says_that_it_stands_in_thoughts_and_weighs_less(tmp_path: Path) -> None:
    inside, outside = (Sample(problem_id="p", index=index, seed=index, text=r"Maybe \boxed{7}", tokens=9, finish="stop",
                              seconds=1.0, in_thoughts=index == 0) for index in range(2))  # fmt: skip
    assert Sample.from_json(inside.to_json(), where="here") == inside
    assert "in_thoughts" not in outside.to_json()
    with pytest.raises(UserError, match="in_thoughts has the wrong type"):
        Sample.from_json({**outside.to_json(), "in_thoughts": 1}, where="here")
    weigh = Policy(vote="strength").weigh
    assert (weigh(inside), weigh(outside)) == (256, 1024)


# Servers


@pytest.fixture
def drawn() -> Generator[Callable[..., tuple[OpenAISampler, Sample]], None, None]:
    prompts = load_prompt_format(find_model("pocket"))
    opened: list[OpenAISampler | Loopback] = []

    def draw(
        events: Sequence[bytes], *, rendering: Behaviour | None = None, **how: Any
    ) -> tuple[OpenAISampler, Sample]:
        told: dict[str, Any] = {} if rendering is None else {"rendering": rendering}
        server = Loopback(then=streams(*events), **told)
        opened.append(server)
        settings = ServerSettings(urls=(server.url,), api="chat", **how)
        opened.append(engine := OpenAISampler(settings, model="m", prompts=prompts))
        policy = Policy(n=1, sampling=SamplingConfig(max_tokens=40))
        solution = solve(PROBLEM, sampler=engine, clock=RealClock(), policy=policy, thinking=engine.opening.thinking)
        return engine, solution.samples[0]

    yield draw
    for one in reversed(opened):
        one.close()


def delta(reason: str | None = None, **said: str) -> bytes:
    return event({"choices": [{"index": 0, "delta": said, "finish_reason": reason}]})


CUT = (delta(content=r"Suppose \boxed{35}. No wait"), delta("length"), b"data: [DONE]\n\n")
RENDERED: dict[str, tuple[Behaviour | None, dict[str, Any], str, str | None]] = {
    "llama.cpp, opened": (answers("200 OK", json.dumps({"prompt": "1+1?<think>\n"})), {}, "opened: the server's", None),
    "llama.cpp, not": (answers("200 OK", json.dumps({"prompt": "1+1?<A>"})), {}, "not opened: the server's", "35"),
    "vllm": (answers("200 OK", json.dumps({"token_strs": ["?", "<think>", "Ċ"]})), {}, "opened: the server's", None),
    "unknown": (None, {}, "opened: the model's own template", None),
    "nonsense": (answers("200 OK", "[1, 2"), {}, "opened: the model's own template", None),
    "told no": (None, {"opens_thoughts": "no"}, "not opened: --servers.opens-thoughts no", "35"),
    "told yes": (answers("200 OK", '{"prompt": "x"}'), {"opens_thoughts": "yes"}, "opened: --servers", None),
}  # fmt: skip


@pytest.mark.parametrize("name", RENDERED)
def test_a_server_is_asked_whether_its_template_opens_the_thoughts(
    name: str, drawn: Callable[..., tuple[OpenAISampler, Sample]]
) -> None:
    pytest.importorskip("httpx2", reason="needs httpx2, the extra `openai`")
    rendering, how, words, answer = RENDERED[name]
    engine, sample = drawn(CUT, rendering=rendering, **how)
    assert engine.opening.describe().startswith(words)
    assert (sample.answer, sample.in_thoughts) == (answer, answer is None)


@given(data=st.data(), trace=st.sampled_from(TRACES))
def test_thoughts_that_a_server_sends_apart_are_thoughts_where_they_are_cut(
    data: st.DataObject, trace: tuple[str, str]
) -> None:
    thought, said = trace
    at = data.draw(st.integers(1, len(thought) + len(said) - 1))
    reply = Reply()
    for key, text in (("reasoning_content", thought[:at]), ("content", said[: max(0, at - len(thought))])):
        reply.add(json.dumps({"choices": [{"index": 0, "delta": {key: text}}]}))
    reply.add(json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}))
    sample = reply.sample(problem_id="p", index=0, seed=0, seconds=1.0)
    for thinking in (True, None, False):
        assert_no_thought_votes(solved(sample.text, thinking=thinking))


@pytest.mark.parametrize(("thinking", "texts", "is_doubted"), [
    (False, ["2.</think>It is \\boxed{4}", r"\boxed{35}? No"], True),
    (False, ["<think>2.</think>It is \\boxed{4}", r"\boxed{35}? No"], False),
    (False, [r"It is \boxed{4}", r"\boxed{35}? No"], False),
    (None, ["2.</think>It is \\boxed{4}", r"\boxed{35}? No"], False),
])  # fmt: skip
def test_a_run_says_where_its_texts_speak_against_what_is_known(
    thinking: bool | None, texts: list[str], is_doubted: bool
) -> None:
    samples = [solved(text, thinking=thinking) for text in texts]
    samples = [replace(one, finish="stop" if n == 0 else "length") for n, one in enumerate(samples)]
    solution = Solution(problem_id="p", answer=None, votes=[], samples=samples, seconds=1.0)
    sampler: Any = None
    engine = OpenEngine(sampler=sampler, rows=1, facts={}, opening=Opening(thinking=thinking, because="said"))
    assert ("--servers.opens-thoughts yes" in doubt_opening(engine, [solution])) == is_doubted


# Logs


def read(file: Path, layout: str, **how: Any) -> Joined:
    from mathlete.corpus import load_suite

    suite = None
    if "chat" in layout or "completions" in layout:
        write_problems(file.parent / "problems.jsonl", [PROBLEM])
        suite = load_suite(str(file.parent / "problems.jsonl"))
    log = read_log(file, COLUMNS if layout == "table" else {})
    return join_logs([log], suite=suite, pace=None, own_answers=False, **how)


@pytest.mark.parametrize("finish", ["length", None])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_cut_sample_of_a_log_has_no_answer_out_of_its_thoughts(
    layout: str, finish: str | None, tmp_path: Path
) -> None:
    for number, (thought, end) in enumerate(TRACES[::2]):
        folder = tmp_path / str(number)
        folder.mkdir()
        finished = f"{thought}</think>{end}"
        # The first one is finished, and shows that the model reasons.
        joined = read(LAYOUTS[layout](folder, [finished, *places(finished, every=25)], finish), layout)
        assert joined.opening is not None
        assert joined.opening.thinking is not False
        for sample in joined.samples:
            inside = split(sample.text) is None
            assert sample.answer is None if inside else sample.answer != "35", sample.text
            # A log may not tell that it was cut behind its thoughts: then what is there is the answer.
            if sample.finish == "length":
                assert_no_thought_votes(sample)


def test_what_is_not_known_of_a_log_is_said_and_can_be_told(tmp_path: Path) -> None:
    cut = [r"Maybe \boxed{35}? No"] * 2
    file = table(tmp_path, cut, "length")
    plain = read(file, "table")
    assert [one.answer for one in plain.samples] == ["35", "35"]
    assert plain.opening is not None
    assert plain.opening.describe() == (
        "not opened: nothing in the logs says so; 1 texts without marks of reasoning were cut, or may have been"
    )
    told = read(file, "table", opens_thoughts="yes")
    assert [(one.answer, one.in_thoughts) for one in told.samples] == [("35", True), (None, True)]
    assert told.opening is not None
    assert told.opening.describe() == "opened: --opens-thoughts yes"
    pocket = read(file, "table", model=str(find_model("pocket").folder))
    assert pocket.opening is not None
    assert pocket.opening.describe().startswith("opened: the chat template in ")
    assert [one.answer for one in pocket.samples] == ["35", None]
    # One that opens its thoughts itself shows that the prompt does not.
    own = read(table(tmp_path, ["<think>x</think>7", *cut], "length"), "table")
    assert [one.answer for one in own.samples] == ["7", "35", "35"]
    # The log's own answers are its own.
    log = read_log(file, {**COLUMNS, "answer": "right"})
    assert join_logs([log], suite=None, pace=None, own_answers=True).opening is None


def test_the_reading_of_a_log_is_recorded_and_kept_in_another_import(tmp_path: Path, evaluate: CommandLine) -> None:
    finished = r"40 + 2.</think>It is \boxed{42}"
    file = table(tmp_path, [finished, finished, r"Maybe \boxed{35}?"], "length")
    columns = [f"{name}={column}" for name, column in COLUMNS.items()]
    done = evaluate("import", file, "--columns", *columns, "--run", tmp_path / "r", "--json")
    assert "thoughts taken as opened where a text was cut: 2 of 3 texts end a reasoning" in done.stderr
    assert "1 of 3 samples stand in unfinished thoughts" in done.stderr
    results = json.loads((tmp_path / "r" / "results.json").read_text())
    assert results["thoughts"].startswith("taken as opened where a text was cut")
    recorded = read_samples(tmp_path / "r" / "samples.jsonl")
    assert [(one.answer, one.in_thoughts) for one in recorded] == [("42", False), ("42", False), (None, True)]
    again = join_logs([read_own_run(tmp_path / "r")], suite=None, pace=None, own_answers=False)
    assert again.samples == recorded
    assert again.opening is None
    refused = evaluate("import", file, "--run", tmp_path / "s", "--opens-thoughts", "perhaps").refusal
    assert "opens-thoughts" in refused


def test_a_recording_of_another_program_without_answers_is_read_as_its_texts_show(tmp_path: Path) -> None:
    write_problems(tmp_path / "problems.jsonl", [PROBLEM])
    texts = ["2.</think>It is \\boxed{42}", r"\boxed{35}? No", r"\boxed{42}"]
    rows = [
        Sample(
            problem_id="p", index=n, seed=n, text=text, tokens=9, finish="length" if n == 1 else "stop", seconds=1.0
        ).to_json()
        for n, text in enumerate(texts)
    ]
    write(tmp_path, rows, "samples.jsonl")
    assert [one.answer for one in Pool.read([tmp_path]).problems[0].samples] == ["42", None, "42"]


def test_a_case_of_a_file_says_whether_it_was_cut_and_thought(tmp_path: Path) -> None:
    text = r"Maybe \boxed{42}? No"
    row = {"id": "a", "kind": "extract", "gold": "42", "text": text, "expected": False}
    told: tuple[dict[str, bool], ...] = (
        {"cut": True},
        {"cut": True, "thinking": True},
        {"cut": True, "thinking": False},
        {"thinking": True},
        {},
    )
    file = write(tmp_path, [{**row, **more} for more in told])
    outcomes = [our_verdict(case)[0].outcome for case in read_cases(file)]
    assert outcomes == ["unknown", "unknown", "equal", "equal", "equal"]


def test_a_text_without_marks_is_within_thoughts_only_where_its_prompt_opened_them() -> None:
    table = [(True, True), (True, None), (False, True)]
    assert all(is_within_thoughts("Maybe 7?", cut=cut, thinking=thinking) for cut, thinking in table)
    assert not any(is_within_thoughts("7", cut=cut, thinking=known) for cut, known in ((False, None), (True, False)))


@pytest.mark.slow
def test_a_real_trace_that_is_cut_anywhere_has_no_answer_out_of_its_thoughts(shared: Path) -> None:
    rows = (shared / "data" / "r1_traces_camel" / "traces.jsonl").read_text().splitlines()
    texts = [text for row in rows for text in json.loads(row).values() if isinstance(text, str) and "boxed" in text]
    assert len(texts) >= 20
    for text in texts:
        thought = (split(text) or (text, ""))[0].replace("<think>", "")
        behind = [match.end() for match in re.finditer(r"\\boxed\{[^{}]*\}|answer is[^.\n]*[.\n]", thought)]
        for at in {*range(0, len(thought), 997), *behind}:
            cut = f"{thought[:at]}\nWait"
            assert [read_answer(cut, cut=True, thinking=known) for known in (True, None)] == [None, None], cut[-200:]
            assert read_answer(f"<think>{cut}", cut=True) is None
