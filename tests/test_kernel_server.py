"""predict always answers: whatever the engine, the clock, the arguments or the disk do."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.competitions import Competition, competition, competition_names
from mathlete.errors import UserError
from mathlete.kernel import answering
from mathlete.kernel.answering import Answerer, one_line
from mathlete.kernel.config import KernelConfig, NotebookClock, config_from
from mathlete.kernel.engine import EngineError, EngineProcess
from mathlete.kernel.engine_child import describe_torch
from mathlete.kernel.server import answer_in_turn, make_predict
from mathlete.models import Device
from mathlete.problems import Problem
from mathlete.sampling.samples import Sample, SamplingConfig
from mathlete.solve.policy import Policy
from tests.conftest import CHARACTERS, POCKET, dear

NOTEBOOKS = [name for name in competition_names() if competition(name).deliverable == "notebook"]

AIMO_2, AIMO_3 = competition("aimo-2"), competition("aimo-3")
QUICK = KernelConfig(
    policy=Policy(n=3),
    clock=NotebookClock(wall_s=60.0, reserve_s=1.0, question_min_s=0.0, question_max_s=0.3, load_max_s=5.0),
    problems=4,
)


def sample(index: int, text: str, problem: Problem) -> Sample:
    return Sample(problem_id=problem.id, index=index, seed=index, text=text, tokens=5, finish="stop", seconds=0.1)


class Engine:
    """An engine that says given texts, then raises or hangs."""

    name = "scripted"

    def __init__(
        self, texts: list[str], *, then: BaseException | None = None, hang: bool = False, load: Any = None
    ) -> None:
        self.texts, self.then, self.hang, self.load, self.closed, self.loads = texts, then, hang, load, 0, 0

    def start(self, *, timeout_s: float) -> None:
        self.loads += 1
        if self.load is not None:
            raise self.load

    def stream(
        self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig
    ) -> Generator[Sample, None, None]:
        for index, text in zip(seeds, self.texts, strict=False):
            yield sample(index, text, problem)
        if self.then is not None:
            raise self.then
        if self.hang:
            time.sleep(3)

    def close(self) -> None:
        self.closed += 1


def journal_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def answerer(engine: Any, folder: Path, config: KernelConfig = QUICK, *, started: float | None = None) -> Answerer:
    started = time.time() if started is None else started
    return Answerer(config, engine=engine, started=started, journal=folder / "journal.jsonl")


def ask_server(engine: Any, folder: Path, config: KernelConfig = QUICK) -> tuple[Any, dict[str, Any]]:
    """Return the frame that predict returns, and its line in the journal."""
    predict = make_predict(answerer(engine, folder, config), config.competition)
    columns = config.competition.columns
    predicted = predict(pl.Series(columns[0], ["424e18"]), pl.Series(columns[1], ["What is 3+4?"]))
    return predicted, journal_of(folder)[-1]


BOX = "<think>x</think>\\boxed{%s}"
INSIDE = [
    pytest.param(Engine([BOX % 7] * 3), 7, "", id="answers"),
    pytest.param(Engine([]), 0, "no sample was finished", id="no sample at all"),
    pytest.param(Engine(["", " ", "\n"]), 0, "only empty completions", id="empty completions"),
    pytest.param(Engine(["I do not know."] * 3), 0, "no sample has an answer", id="no answer"),
    pytest.param(Engine(["hm"] * 3), 0, "no answer in range", id="an answer that is no number"),
    pytest.param(Engine([BOX % 100_000] * 3), 0, "no answer in range", id="too big"),
    pytest.param(Engine([BOX % -3] * 3), 0, "no answer in range", id="negative"),
    pytest.param(Engine([BOX % 100_000, BOX % 100_000, BOX % 8]), 8, "", id="the next class in range"),
    pytest.param(Engine([BOX % 9], then=ValueError("x" * 20_000)), 9, "ValueError", id="20 kB error after a vote"),
    pytest.param(Engine([], then=ValueError("a\nb")), 0, "ValueError: a b", id="line break"),
    pytest.param(Engine([], then=SystemExit(3)), 0, "SystemExit", id="sys.exit"),
    pytest.param(Engine([], then=KeyboardInterrupt()), 0, "KeyboardInterrupt", id="interrupt"),
    pytest.param(Engine([], then=MemoryError("CUDA out of memory")), 0, "out of memory", id="out of memory"),
    pytest.param(Engine([], load=EngineError("no such model")), 0, "no such model", id="the model does not load"),
    pytest.param(Engine([], load=SystemExit(1)), 0, "SystemExit", id="loading exits"),
    pytest.param(Engine([BOX % 5], hang=True), 5, "", id="hangs after a vote"),
    pytest.param(Engine([], hang=True), 0, "no sample was finished", id="hangs"),
]


@pytest.mark.parametrize(("engine", "answer", "why"), INSIDE)
def test_predict_answers_whatever_happens_inside(engine: Engine, answer: int, why: str, tmp_path: Path) -> None:
    predicted, line = ask_server(engine, tmp_path)
    assert predicted.columns == ["id", "answer"]
    assert predicted.rows() == [("424e18", answer)]
    assert predicted.schema["answer"] == pl.Int64
    assert line["fallback"] == (answer == 0)
    assert why in line["why"]
    assert "\n" not in line["why"]
    assert len(line["why"]) <= 200


CUT = r"Suppose it is \boxed{35}. No, the answer is 36" + "\n\nwait.</think>\n\nSo it is \\boxed{7}. That is all."


class CutEngine(Engine):
    """One whose prompt opens the thoughts, and whose samples are cut."""

    opens_thoughts = True

    def stream(
        self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig
    ) -> Generator[Sample, None, None]:
        for one in super().stream(problem, seeds=seeds, config=config):
            yield replace(one, finish="length")


@pytest.mark.parametrize("at", range(5, len(CUT), 6))
def test_a_cut_sample_sends_nothing_out_of_its_thoughts(at: int, tmp_path: Path) -> None:
    _, line = ask_server(CutEngine([CUT[:at]] * 3), tmp_path)
    whole = at >= CUT.index("7}") + 2
    assert (line["answer"], line["fallback"], line["answered"]) == ((7, False, 3) if whole else (0, True, 0))
    assert line["lost"].get("cut_at_cap", 0) == (0 if whole else 3)


@dear(20)
@given(text=st.text(CHARACTERS, max_size=400), name=st.sampled_from(NOTEBOOKS))
def test_any_completion_gives_an_integer_in_range(
    text: str, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rules = competition(name)
    config = replace(QUICK, competition=rules)
    folder = tmp_path_factory.mktemp("any")
    given_answer = answerer(Engine([text, BOX % text, text]), folder, config).answer(problem_id="a", statement=text)
    assert given_answer in rules.notebook.answers


def test_modulus_is_taken_only_where_the_competition_says_so(tmp_path: Path) -> None:
    for rules, answer in ((AIMO_2, 900), (AIMO_3, 0)):
        engine = Engine([BOX % -100] * 3)
        assert (
            answerer(engine, tmp_path, replace(QUICK, competition=rules)).answer(problem_id="a", statement="") == answer
        )


ARGUMENTS: list[tuple[tuple[Any, ...], Competition]] = [
    ((pl.Series("id", ["a"]), pl.Series("problem", ["x"])), AIMO_3),
    ((pl.Series("id", ["a"]), pl.Series("question", ["x"])), AIMO_2),
    ((pl.Series("problem", ["x"]), pl.Series("id", ["a"])), AIMO_3),
    ((pl.Series("id", ["a"]), pl.Series("problem", ["x"]), pl.Series("answer", [0])), AIMO_3),
    (("a", "x"), AIMO_3),
    ((pl.DataFrame({"id": ["a"]}), pl.DataFrame({"problem": ["x"]})), AIMO_3),
    ((pl.Series("id", ["a"]),), AIMO_3),
    ((pl.Series("id", ["a"]), pl.Series("problem", ["x", "y"])), AIMO_3),
    ((pl.Series("id", ["a"]), None), AIMO_3),
    ((pl.DataFrame({"id": ["a"], "problem": ["x"]}),), AIMO_3),
    ((pd.DataFrame({"id": ["a"], "problem": ["x"]}),), AIMO_3),
    ((pl.DataFrame({"id": ["a"], "problem": ["x"]}), pl.DataFrame({"id": ["b"], "answer": [0]})), AIMO_3),
    ((pl.DataFrame({"problem": ["x"], "id": ["a"]}), pd.DataFrame({"id": ["b"]})), AIMO_3),
    ((pl.DataFrame({"id": ["a"]}),), AIMO_3),
]


@pytest.mark.parametrize(("columns", "rules"), ARGUMENTS)
def test_predict_takes_whatever_columns_come(columns: tuple[Any, ...], rules: Competition, tmp_path: Path) -> None:
    predicted = make_predict(answerer(Engine([BOX % 7] * 3), tmp_path), rules)(*columns)
    assert predicted["id"].to_list() == ["a"]
    assert predicted["answer"].to_list() in ([7], [0])


UNREADABLE: list[tuple[Any, ...]] = [
    (),
    (None,),
    (pl.DataFrame(),),
    (pl.DataFrame({"x": [1]}),),
    (pl.DataFrame({"id": [], "problem": []}),),
    (object(), object()),
    (pl.Series("id", [object()]), pl.Series("problem", ["x"])),
    (pd.DataFrame([["a", "b", "x"]], columns=["id", "id", "problem"]),),
    ({"id": "a"}, {"problem": "x"}),
]


@pytest.mark.parametrize("columns", UNREADABLE)
def test_predict_returns_an_answer_for_whatever_it_is_given(
    columns: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", None)  # the log can't be written either
    predicted = make_predict(answerer(Engine([BOX % 7] * 3), tmp_path), AIMO_3)(*columns)
    assert predicted.columns == ["id", "answer"]
    assert predicted.schema["answer"] == pl.Int64
    assert predicted["answer"].null_count() == 0


def test_a_frame_of_several_ids_gets_as_many_rows(tmp_path: Path) -> None:
    predict = make_predict(answerer(Engine([BOX % 7] * 3), tmp_path), AIMO_3)
    assert predict(pl.DataFrame({"id": ["a", "b"], "problem": ["x", "x"]})).rows() == [("a", 7), ("b", 7)]


def test_the_frame_keeps_the_type_of_the_id(tmp_path: Path) -> None:
    predict = make_predict(answerer(Engine([BOX % 7] * 3), tmp_path), AIMO_3)
    assert predict(pl.Series("id", [4.24e20]), pl.Series("problem", ["x"])).schema["id"] == pl.Float64


def test_a_hang_outside_the_engine_ends_with_the_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "_GRACE_S", 0.1)
    monkeypatch.setattr(answering, "solve", lambda *_, **__: time.sleep(3))
    engine, began = Engine([]), time.monotonic()
    predicted, line = ask_server(engine, tmp_path)
    assert time.monotonic() - began < 2
    assert predicted["answer"].to_list() == [0]
    assert "nothing came back" in line["why"]
    assert engine.closed == 1


def test_an_engine_without_samples_twice_in_a_row_is_started_anew(tmp_path: Path) -> None:
    engine = Engine([])
    answers = answerer(engine, tmp_path)
    for name in "abc":
        answers.answer(problem_id=name, statement="x")
    assert engine.closed == 1


def test_thirty_seconds_before_the_end_every_question_still_gets_an_answer(tmp_path: Path) -> None:
    config = replace(QUICK, clock=replace(QUICK.clock, wall_s=100.0, reserve_s=10.0), problems=50)
    answers = answerer(Engine([], hang=True), tmp_path, config, started=time.time() - 89.5)
    began = time.monotonic()
    assert [answers.answer(problem_id=str(n), statement="x") for n in range(50)] == [0] * 50
    assert time.monotonic() - began < 3
    assert "no time is left" in journal_of(tmp_path)[-1]["why"]


def test_a_start_after_the_end_answers_all_the_same(tmp_path: Path) -> None:
    answers = answerer(Engine([BOX % 7]), tmp_path, started=time.time() - 1000)
    assert answers.answer(problem_id="a", statement="x") == 0


def test_a_question_asked_twice_has_one_answer_and_one_line(tmp_path: Path) -> None:
    answers = answerer(Engine([BOX % 7] * 3), tmp_path)
    assert {answers.answer(problem_id="a", statement="x") for _ in range(2)} == {7}
    assert len(journal_of(tmp_path)) == 1


def test_a_journal_that_cannot_be_written_costs_no_answer(tmp_path: Path) -> None:
    answers = answerer(Engine([BOX % 7] * 3), tmp_path / "missing")
    assert answers.answer(problem_id="a", statement="x") == 7


def test_aimo_1_is_answered_in_its_loop(tmp_path: Path) -> None:
    import pandas as pd

    class Environment:
        def __init__(self) -> None:
            self.predicted: list[Any] = []

        def iter_test(self) -> Any:
            for name in "ab":
                yield pd.DataFrame({"id": [name], "problem": ["x"]}), pd.DataFrame({"id": [name], "answer": [0]})

        def predict(self, submission: Any) -> None:
            self.predicted += submission.to_dict("records")

    environment = Environment()
    rules = competition("aimo-1")
    answers = answerer(Engine([BOX % 1007] * 3), tmp_path, replace(QUICK, competition=rules))
    answer_in_turn(environment, answers, rules=rules)
    assert environment.predicted == [{"id": "a", "answer": 7}, {"id": "b", "answer": 7}]


def test_the_settings_survive_their_json() -> None:
    assert config_from(json.loads(json.dumps(QUICK.to_json()))) == QUICK


@pytest.mark.parametrize(
    "change",
    [{"problems": 0}, {"fallback": 100_000}, {"reserve_s": 60.0}, {"question_min_s": 1.0}, {"load_max_s": 0.0}],
)
def test_settings_out_of_range_are_the_users_to_mend(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="must be"):
        config_from({**QUICK.to_json(), **change})


@given(st.text(CHARACTERS))
def test_an_error_is_one_short_line(text: str) -> None:
    line = one_line(ValueError(text))
    assert len(line) <= 200
    assert len(line.splitlines()) <= 1


SCRIPTED = """
from mathlete.kernel import engine_child
from mathlete.sampling import Sample

class Scripted:
    def stream(self, problem, *, seeds, config):
        for index, seed in seeds.items():
            told = dict(problem_id=problem.id, index=index, seed=seed, tokens=5, finish="stop", seconds=0.1)
            yield Sample(text="6.</think>" + chr(92) + "boxed{6}", **told)

engine_child.open_sampler = lambda settings, facts: Scripted()
engine_child.describe_torch = dict
engine_child.main()
"""
"""The engine's process as it is, but with an engine that needs no model and no torch: to load them costs seconds."""


@pytest.fixture(scope="module", params=["scripted", pytest.param("pocket", marks=pytest.mark.slow)])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[EngineProcess, None, None]:
    """An engine in its own process."""
    command: Any = {"command": (sys.executable, "-c", SCRIPTED)} if request.param == "scripted" else {}
    process = EngineProcess(POCKET, log=tmp_path_factory.mktemp("engine") / "engine.log", **command)
    yield process
    process.close()


def test_the_engine_process_answers_dies_and_comes_back(engine: EngineProcess, tmp_path: Path) -> None:
    config = replace(QUICK, clock=replace(QUICK.clock, question_max_s=20.0, load_max_s=60.0))
    answers = answerer(engine, tmp_path, config)
    answers.answer(problem_id="a", statement="What is 6^3 mod 10?")
    assert engine._process is not None
    os.kill(engine._process.pid, signal.SIGKILL)
    engine._process.wait()
    answers.answer(problem_id="b", statement="What is 6^3 mod 10?")
    assert engine.starts == 2
    assert [line["samples"] for line in journal_of(tmp_path)] == [3, 3]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["pocket"], indirect=True)
def test_an_engine_killed_in_the_middle_is_told_and_the_next_question_is_answered(
    engine: EngineProcess, tmp_path: Path
) -> None:
    config = replace(QUICK, clock=replace(QUICK.clock, question_max_s=20.0, load_max_s=60.0), policy=Policy(n=64))
    engine.start(timeout_s=60)
    assert engine._process is not None
    threading.Timer(0.05, engine._process.kill).start()
    answers = answerer(engine, tmp_path, config)
    answers.answer(problem_id="a", statement="What is 6^3 mod 10?")
    answers.answer(problem_id="b", statement="What is 6^3 mod 10?")
    first, second = journal_of(tmp_path)
    assert first["samples"] < 64
    assert "ended with code -9" in first["why"]
    assert second["samples"] == 64


# The first two say why at once, however long a busy machine takes to start them.
CHILDREN = [
    ("import sys; sys.exit('no weights here')", "no weights here", 60),
    ("print('not json', flush=True); import time; time.sleep(120)", "we ended it", 60),
    ("import time; time.sleep(30)", "not loaded within", 1),
]


def test_the_engines_process_tells_what_it_computes_on() -> None:
    import torch

    facts = json.loads(json.dumps(describe_torch()))
    assert (facts["torch"], facts["device"]) == (torch.__version__, Device.current().name)
    assert facts["memory_gib"] > 0


@pytest.mark.parametrize(("code", "why", "timeout_s"), CHILDREN)
def test_an_engine_that_does_not_load_says_why(code: str, why: str, timeout_s: float, tmp_path: Path) -> None:
    engine = EngineProcess(tmp_path, log=tmp_path / "log", command=(sys.executable, "-c", code))
    with pytest.raises(EngineError, match=why):
        engine.start(timeout_s=timeout_s)
    engine.close()
