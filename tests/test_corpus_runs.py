"""Runs as sources of traces, and sources as suites."""

import json
from pathlib import Path

import pytest

from mathlete.corpus.sources import find_source
from mathlete.corpus.stream import SourceSpec, open_source
from mathlete.corpus.suites import load_suite
from mathlete.errors import UserError

ASKED = "What is 2+2?"
SAMPLE = {
    "problem_id": "a",
    "index": 0,
    "seed": 1,
    "text": "2+2=4, so \\boxed{4}",
    "answer": "4",
    "tokens": 9,
    "finish": "stop",
    "seconds": 0.5,
}


def write_run(folder: Path, *changes: dict[str, object]) -> Path:
    folder.mkdir()
    problem = {"id": "a", "statement": ASKED, "gold": "4", "answers": "percent=points"}
    (folder / "problems.jsonl").write_text(json.dumps(problem) + "\n")
    (folder / "samples.jsonl").write_text("".join(json.dumps({**SAMPLE, **change}) + "\n" for change in changes))
    return folder


def test_the_samples_of_a_run_are_traces_of_its_problems(tmp_path: Path) -> None:
    thinking = "<think>\nso 4\n</think>\n\n\\boxed{4}"
    run = write_run(
        tmp_path / "run",
        {},
        {"text": "5\\boxed{5}"},
        {"finish": "length"},
        {"text": thinking},
        {"text": "It is obvious!"},
        {"finish": "cancelled"},
        {"finish": "boxed"},
    )
    (tmp_path / "run=2").symlink_to(run)  # a folder's name may look like a weight
    assert SourceSpec.parse(f"{run}=3").weight == 3
    for word in (str(run), f"{run}/samples.jsonl", str(tmp_path / "run=2")):
        assert SourceSpec.names_file(word)
        traced = [one for row in open_source(word) for one in row]
        assert [(one.trace.text, one.trace.answer, one.trace.flaw) for one in traced] == [
            ("2+2=4, so \\boxed{4}", "4", ""),
            ("5\\boxed{5}", "5", ""),
            ("2+2=4, so \\boxed{4}", "4", "unclosed"),
            ("so 4", "4", ""),
            ("It is obvious!", "", "no answer"),
            ("2+2=4, so \\boxed{4}", "4", "unclosed"),
            ("2+2=4, so \\boxed{4}", "4", ""),
        ]
        assert {(one.problem.gold, one.problem.answers) for one in traced} == {("4", "percent=points")}


def test_a_sample_without_its_problem_is_a_bad_row(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"problem_id": "b"})
    with pytest.raises(UserError, match=r"samples.jsonl:1: a sample's problem must stand in problems.jsonl"):
        list(open_source(str(run)))


def test_a_sample_without_a_word_is_left_out_and_a_broken_one_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"text": ""}, {})
    assert [row[0].trace.flaw for row in open_source(str(run))] == ["no trace", ""]
    changes: tuple[dict[str, object], ...] = ({"text": None}, {"text": 5}, {"problem_id": ["a"]}, {"problem_id": None})
    for number, broken in enumerate(changes):
        run = write_run(tmp_path / str(number), {}, broken)
        with pytest.raises(UserError, match=r"samples.jsonl:2: a sample"):
            list(open_source(str(run)))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"id": "a", "question": "What is 3+3?", "answer": "6"}, "ids must be unique"),
        ({"id": "b", "question": "What is 3+3?", "answer": ""}, "answer must not be empty"),
        ({"id": "b", "question": "What is 3+3?"}, "problems that are sampled need a gold answer, got 'b'"),
    ],
)
def test_a_file_of_traces_that_is_no_suite_is_named(tmp_path: Path, second: dict[str, str], message: str) -> None:
    rows = (
        {"id": "a", "question": ASKED, "answer": "4", "solution": "So 4."},
        {**second, "solution": "It is obvious."},
    )
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=message):
        load_suite(f"source:{file}")


def test_a_suite_may_be_the_problems_of_a_source(tmp_path: Path) -> None:
    file = find_source("gsm8k").mirror_path(tmp_path)
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"question": ASKED, "answer": "2+2=4.\n#### 4"}) + "\n")
    suite = load_suite("source:gsm8k", mirror=tmp_path)
    assert suite.name == "source-gsm8k"
    assert "openai/gsm8k" in suite.origin
    assert [(problem.statement, problem.gold) for problem in suite.problems] == [(ASKED, "4")]
    traced = tmp_path / "mine.jsonl"
    row = {"id": "a", "statement": ASKED, "gold": "4", "trace": "2+2=4.", "answer": "4"}
    traced.write_text("".join(json.dumps({**row, "trace": trace}) + "\n" for trace in ("2+2=4.", "4, so 4.")))
    assert [problem.id for problem in load_suite(f"source:{traced}").problems] == ["a"]
    with pytest.raises(UserError, match="gsm8k"):
        load_suite("source:gsm9k", mirror=tmp_path)
