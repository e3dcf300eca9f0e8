"""Grades taken from results.json: those of a fresh look, wherever they are taken."""

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from mathlete.answers import label_classes
from mathlete.problems import Problem
from mathlete.runs import read_json
from mathlete.sampling.samples import Sample
from mathlete.scoring import EvalRun, Pool, Results, known
from mathlete.scoring.grading import judge
from mathlete.scoring.known import CHECKER, checker_sha256, find_code, find_grades, read_known
from mathlete.scoring.pool import read_recording, verify_recording
from tests.conftest import ROOT, CommandLine

GOLDS = ("7", r"\frac{1}{2}", "0.5", r"\sqrt{8}", "x = 3", "(1, 2)", r"2\pi", "12 apples")
SPELLED = {
    r"\frac{1}{2}": ["0.5", "50%"],
    "0.5": ["1/2"],
    r"\sqrt{8}": [r"2\sqrt{2}"],
    "x = 3": ["3"],
    "7": ["7.0", "07"],
}


@pytest.fixture
def imported(workdir: Path, evaluate: CommandLine) -> Path:
    """A run of 40 problems, of which some have answers of one class in several spellings."""
    source = random.Random(0)
    with Path("log.jsonl").open("w") as log:
        for number in range(40):
            gold = source.choice(GOLDS)
            answers = [gold, *source.sample(GOLDS, 2), *(SPELLED.get(gold, []) if number % 2 else [])]
            for index in range(8):
                text = rf"So \boxed{{{source.choice(answers)}}}" if source.random() < 0.9 else "and so on"
                row = {"problem_id": f"p{number}", "statement": f"{number}?", "gold": gold, "text": text,
                       "index": index, "tokens": 9, "seconds": source.random()}  # fmt: skip
                log.write(json.dumps(row) + "\n")
    columns = [f"{name}={name}" for name in ("problem_id", "statement", "gold", "text", "tokens", "seconds", "index")]
    evaluate("import", "log.jsonl", "--run", "run", "--columns", *columns)
    return Path("run")


def test_a_run_and_a_pool_are_the_same_with_what_is_known_and_without(
    imported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = read_known(imported, verify_recording(imported))
    problems, samples = read_recording(imported)
    told = [find_grades(one, [s for s in samples if s.problem_id == one.id], rows[one.id]) for one in problems]
    assert 5 < sum(one is None for one in told) < 35  # both ways are tried
    run, pool = EvalRun.read(imported), Pool.read([imported])
    monkeypatch.setattr(known, "checker_sha256", lambda: "another checker")
    assert read_known(imported, verify_recording(imported)) == {}
    assert EvalRun.read(imported) == run
    assert Pool.read([imported]) == pool
    # So a fresh look comes to what stands in the file.
    assert Results.of(run.graded, run.results.facts).to_json() == Results.read(imported).to_json()


def test_the_manifest_names_the_checker(imported: Path) -> None:
    figures = read_json(imported / "manifest.json")["figures"]
    assert isinstance(figures, dict)
    assert figures[CHECKER] == checker_sha256()


@pytest.mark.parametrize("name", ["pocket", "qwen-coder-0.5b-gsm8k"])
def test_grades_of_the_shipped_recordings_are_those_of_a_fresh_look(name: str) -> None:
    folder = ROOT / "data" / "recordings" / name
    rows = {row.id: row for row in Results.read(folder).per_problem}
    problems, samples = read_recording(folder)
    taken = 0
    for problem in problems:
        drawn = [one for one in samples if one.problem_id == problem.id]
        if (grades := find_grades(problem, drawn, rows[problem.id])) is None:
            continue
        taken += 1
        assert grades == {one: judge(one, gold=problem.gold, settings=problem.answers) for one in grades}
        answers = [one.answer for one in drawn if one.answer is not None]
        assert max(label_classes(answers), default=-1) + 1 == len(set(answers))
    assert taken > len(problems) / 4


def test_nothing_is_taken_where_results_do_not_tell(imported: Path) -> None:
    rows = {row.id: row for row in Results.read(imported).per_problem}
    problems, samples = read_recording(imported)
    taken = {one.id: [s for s in samples if s.problem_id == one.id] for one in problems}
    problem = next(one for one in problems if find_grades(one, taken[one.id], rows[one.id]))
    drawn, row = taken[problem.id], rows[problem.id]

    def is_told(problem: Problem = problem, samples: list[Sample] = drawn, of: object = row) -> bool:
        return find_grades(problem, samples, of) is not None  # type: ignore[arg-type]

    assert is_told()
    assert not is_told(of=None)
    assert not is_told(problem=replace(problem, gold="another"))
    assert not is_told(samples=drawn[1:])
    assert not is_told(samples=[replace(drawn[0], finish="clock"), *drawn[1:]])
    assert not is_told(samples=[replace(drawn[0], answer="another"), *drawn[1:]])
    assert not is_told(of=replace(row, votes=[*row.votes, row.votes[0]]))
    # What could not be judged may be another time: on a machine that is less busy.
    assert not is_told(of=replace(row, votes=[replace(row.votes[0], verdict="unknown"), *row.votes[1:]]))


def test_the_checker_is_known_by_all_code_that_reads_answers() -> None:
    files = find_code()
    names = {file.stem for file in files} | {file.parent.name for file in files}
    imports = re.compile(r"^\s*from mathlete\.(\w+)", re.MULTILINE)
    used = {name for file in files if file.parent.name == "answers" for name in imports.findall(file.read_text())}
    # The first says what a mistake is, the second writes the file of a check.
    assert used - names == {"errors", "runs"}
