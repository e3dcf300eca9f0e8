"""A rehearsal's verdict, of what both containers left: no container is started here."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from mathlete.competitions import competition
from mathlete.kernel import JOURNAL, SUBMISSION, JournalLine
from mathlete.problems import Problem
from mathlete.rehearsal import RehearsalSettings, Thresholds, check_rehearsal, write_report
from mathlete.rehearsal.containers import NOTEBOOK_LOG, Ended
from mathlete.rehearsal.gateway.behaviours import RESULT
from mathlete.rehearsal.report import load_report
from mathlete.rehearsal.verdict import Rehearsed, judge
from mathlete.submission import Build

PROBLEMS = [Problem(id=name, statement="?", gold="7") for name in ("a", "b", "c")]
ANSWERED = JournalLine(id="a", answer=7, fallback=False, why="", seconds=3.0, load_s=1.0, tokens=50, samples=2)
FALLBACK = JournalLine(id="b", answer=0, fallback=True, why="TimeoutError: the engine")


class Left:
    """The folders of both containers, to be filled and judged."""

    def __init__(self, folder: Path, build: Build) -> None:
        self.folder, self.build = folder, build
        for name in ("notebook", "gateway"):
            (folder / name).mkdir(parents=True)

    def submit(self, table: dict[str, Sequence[Any]]) -> None:
        pyarrow.parquet.write_table(pa.table(table), self.folder / "gateway" / SUBMISSION)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def judge(self, *, code: int | None = 0, timed_out: bool = False) -> Rehearsed:
        ended = Ended(
            notebook_code=code, gateway_code=0, timed_out=timed_out, isolation="namespaces", folder=self.folder
        )
        return judge(self.build, PROBLEMS, RehearsalSettings(), ended, seconds=60.0, contention=1.0)


def test_a_notebook_that_asks_itself_must_end_without_an_error(left: Left, build: Build) -> None:
    ids, notebook = ["000aaa", "111bbb", "222ccc"], left.folder / "notebook"
    pyarrow.parquet.write_table(pa.table({"id": ids, "answer": [1, 2, 3]}), notebook / SUBMISSION)
    left.write(NOTEBOOK_LOG, "ValueError: the end")
    for code in (0, 1, None):
        ended = Ended(
            notebook_code=code, gateway_code=None, timed_out=False, isolation="namespaces", folder=left.folder
        )
        run = judge(build, PROBLEMS, RehearsalSettings(rerun=False), ended, seconds=1.0, contention=1.0)
        assert (run.refusal is None) == (code == 0)
    assert run.refusal is not None
    assert "ended with None: ValueError: the end" in run.refusal.value


@pytest.fixture
def left(tmp_path: Path, build: Build) -> Left:
    left = Left(tmp_path / "ended", build)
    lines = [ANSWERED, FALLBACK, ANSWERED]
    left.write(f"notebook/{JOURNAL}", "".join(json.dumps(line.to_json()) + "\n" for line in lines))
    return left


def test_a_valid_end_counts_what_is_right_and_says_what_went_wrong_on_the_way(left: Left) -> None:
    left.submit({"id": ["a", "b", "c"], "answer": [7, 0, 7]})
    rehearsed = left.judge()
    assert (rehearsed.outcome, rehearsed.right) == ("valid", 2)
    assert rehearsed.why == "TimeoutError: the engine"
    figures = rehearsed.figures()
    assert (figures.questions, figures.fallbacks, figures.tokens_per_s) == (3, 1, 25.0)
    assert "outcome valid · right 2 · questions 3 · fallbacks 1" in figures.in_words()


def test_a_rerun_says_what_the_scorer_makes_of_its_answers(left: Left, tmp_path: Path) -> None:
    rules = competition("aimo-1")
    lines = [
        replace(ANSWERED, votes=(("7", 2),)),
        replace(ANSWERED, id="b", votes=(("1007", 2),)),
        replace(FALLBACK, id="c"),
    ]
    left.write(f"notebook/{JOURNAL}", "".join(json.dumps(line.to_json()) + "\n" for line in lines))
    left.submit({"id": ["a", "b", "c"], "answer": [7, 7, 0]})
    run = left.judge()
    golds = {problem.id: problem.gold for problem in PROBLEMS}
    said = [*run.describe("run 1", golds=golds, rules=rules)]
    assert said[-2] == "run 1: scorer of aimo-1: 2 of 3 points; mathlete's checker: 1 of 3 right"
    assert said[-1].endswith("does not call equal: b (read 7, gold 7, mathlete read 1007)")
    write_report(
        left.build, [run], PROBLEMS, RehearsalSettings(), image=(), hashes=left.build.hashes(), folder=tmp_path
    )
    report = load_report(tmp_path)
    assert report is not None
    assert (report.penalised_score, report.scorer[0]["points"], report.scorer[0]["right"]) == (2.0, 2.0, 2)
    assert [row["id"] for row in report.scorer[0]["gained_by_scorer"]] == ["b"]
    # Of a refused run there are no points.
    left.submit({"id": ["a", "b"], "answer": [7, 7]})
    refused = left.judge()
    assert refused.refusal
    assert not any("scorer of" in line for line in refused.describe("run 1", golds=golds, rules=rules))


def test_engines_that_were_left_are_told_and_counted_in_report_and_preflight(left: Left, tmp_path: Path) -> None:
    left.submit({"id": ["a", "b", "c"], "answer": [7, 7, 7]})
    fact = {"left": {"step": "vllm", "cause": "GPU memory: by 46 MiB", "seconds": 61.5, "next": "embedded"}}
    lines = [json.dumps(fact), *(json.dumps(ANSWERED.to_json()) for _ in PROBLEMS)]
    left.write(f"notebook/{JOURNAL}", "\n".join(lines))
    run, told = left.judge(), "vllm after 61.5 s: GPU memory: by 46 MiB"
    assert (run.outcome, run.left) == ("valid", (told,))
    said = run.describe("run 1", golds={}, rules=left.build.config.competition)
    assert [next(said), next(said)] == [f"run 1: {run.figures().in_words()}", f"run 1: left {told}"]
    hashes = left.build.hashes()
    settings = RehearsalSettings()
    write_report(left.build, [run], PROBLEMS, settings, image=("a==1",), hashes=hashes, folder=tmp_path)
    check = check_rehearsal(hashes, folder=tmp_path, thresholds=Thresholds(), rules=left.build.config.competition)
    assert check.refusals == ()
    assert check.what == f"rehearsal; engines that were left for the next: 1, {told}"


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ({"id": ["a", "b", "c"], "reply": [7, 0, 7]}, "columns ['id', 'reply']"),
        ({"id": ["a", "b", "b"], "answer": [7, 0, 7]}, "ids 2/3 covered, 3 rows"),
        ({"id": ["a", "b", "c"], "answer": ["7", "0", "7"]}, "answer has type string"),
        ({"id": ["a", "b", "c"], "answer": [7, None, 7]}, "1 null answers"),
        ({"id": ["a", "b", "c"], "answer": [7, -1, 7]}, "answers out of range"),
    ],
)
def test_an_unfit_file_is_refused_with_what_is_wrong(left: Left, table: dict[str, Any], fault: str) -> None:
    left.submit(table)
    rehearsed = left.judge()
    assert rehearsed.refusal is not None
    assert (rehearsed.outcome, rehearsed.answers, rehearsed.refusal.value) == ("refused", {}, fault)
    assert NOTEBOOK_LOG in rehearsed.refusal.cure
    assert rehearsed.why.endswith(fault)


def test_a_model_that_answers_too_little_is_refused_with_the_reasons(left: Left) -> None:
    left.submit({"id": ["a", "b", "c"], "answer": [7, 0, 0]})
    left.write(f"notebook/{JOURNAL}", "".join(json.dumps(FALLBACK.to_json()) + "\n" for _ in range(2)))
    refusal = left.judge().refusal
    assert refusal is not None
    assert refusal.rule == "the model must answer at least 50% of the questions itself"
    assert refusal.value == "2 of 3 without an answer (TimeoutError: the engine)"


TRACEBACK = "Traceback (most recent call last):\n  File ...\nConnectionError: the server is gone"


@pytest.mark.parametrize(
    ("result", "log", "value"),
    [
        (None, "", "notebook ended with 1: no error was printed"),
        (None, "loading\nKeyError: 'x'\n  in Error line\n", "notebook ended with 1: KeyError: 'x'"),
        ({"Succeeded": True}, "", "notebook ended with 1: no error was printed"),
        (
            {"Succeeded": False, "ErrorName": "GatewayRuntimeError", "ErrorDetails": TRACEBACK},
            "ValueError: no weights",
            "GatewayRuntimeError · ConnectionError: the server is gone · ValueError: no weights",
        ),
        ({"Succeeded": False, "ErrorName": "Timeout", "ErrorDetails": "no\n answer"}, "", "Timeout · no answer"),
    ],
)
def test_no_file_at_all_is_explained_by_gateway_and_log(
    left: Left, result: dict[str, Any] | None, log: str, value: str
) -> None:
    if result is not None:
        left.write(f"gateway/{RESULT}", json.dumps(result))
    left.write(NOTEBOOK_LOG, log)
    refusal = left.judge(code=1).refusal
    assert refusal is not None
    assert (refusal.rule, refusal.value) == ("a rehearsal must end with the gateway's submission.parquet", value)


def test_what_ran_out_of_time_says_so(left: Left) -> None:
    refusal = left.judge(code=None, timed_out=True).refusal
    assert refusal is not None
    assert refusal.value == "no end: it was broken off at its time limit"


@pytest.mark.parametrize("content", [b"", b"PAR1", b"id,answer\na,7\n"])
def test_a_file_that_is_cut_off_is_refused(left: Left, content: bytes) -> None:
    (left.folder / "gateway" / SUBMISSION).write_bytes(content)
    refusal = left.judge().refusal
    assert refusal is not None
    assert refusal.value.startswith("no parquet file: ")
