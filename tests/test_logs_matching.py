"""Samples find their problems in a suite by all that a log says of them: its numbers may be those of others."""

import json
from pathlib import Path
from typing import Any

import pytest

from mathlete.corpus import Suite
from mathlete.errors import UserError
from mathlete.logs.entries import Entry
from mathlete.logs.matching import make_finder
from mathlete.overlap import is_stated_in
from mathlete.problems import Problem
from tests.test_logs import HERE, SUMS, imported, inspect_json, write_lines

SUITE = Suite(
    name="own",
    sha256="x",
    problems=[
        Problem(id="1", statement=r"Find \(\tfrac{6}{2} + 1\).", gold="4"),
        Problem(id="2", statement="What is (2 + 3) * 4?", gold="20"),
        Problem(id="3", statement="What is 2 + (3 * 4)?", gold="14"),
        Problem(id="4", statement="sha256:0123456789abcdef", gold="7"),
    ],
)


@pytest.fixture(autouse=True)
def inside(workdir: Path) -> None:
    """Every test stands in a folder of its own."""


@pytest.mark.parametrize(
    ("said", "found"),
    [
        # An id alone, or with a number behind it, and what agrees with it.
        ({"problem_id": "2"}, "2"),
        ({"problem_id": "2-7"}, "2"),
        ({"problem_id": "2", "gold": "20.0"}, "2"),
        ({"problem_id": "1", "statement": "Solve step by step. Find $\\frac{6}{2}+1$. Put it in a box."}, "1"),
        # The statement decides against the id.
        ({"problem_id": "2", "statement": "What is  2 + (3 * 4)?"}, "3"),
        ({"problem_id": "2-7", "statement": "What is 2 + (3 * 4)?"}, "3"),
        ({"problem_id": "3", "statement": "Find $\\frac{6}{2}+1$."}, "1"),
        ({"statement": "Find $\\frac{6}{2}+1$.", "gold": "4"}, "1"),
        ({"problem_id": "1", "statement": "sha256:0123456789abcdef"}, "4"),
        # A gold answer that was corrected since is no other problem.
        ({"problem_id": "2", "statement": "What is (2 + 3) * 4?", "gold": "24"}, "2"),
        ({"problem_id": "1", "statement": "Find $\\frac{6}{2}+1$.", "gold": "9"}, "1"),
        ({"problem_id": "1", "statement": "Find $\\frac{6}{2}+1$. (A) 3 (B) 4 (C) 5", "gold": "B"}, "1"),
        # Of two statements that are alike the gold answer tells.
        ({"problem_id": "2", "statement": "What is 2 + 3 * 4?", "gold": "14"}, "3"),
        ({"problem_id": "9", "statement": "What is 2 + 3 * 4?", "gold": "20"}, "2"),
        ({"problem_id": "2", "statement": "What is 2 + 3 * 4?", "gold": "99"}, "2"),
        # What stands in a statement's place, in the log or in the suite, says nothing where it is no other's.
        ({"problem_id": "2", "statement": "(not in the log)", "gold": "20"}, "2"),
        ({"problem_id": "2", "statement": "sha256:fedcba9876543210", "gold": "20"}, "2"),
        ({"problem_id": "2", "statement": "sha256:fedcba9876543210", "gold": "14"}, "the gold of 2 is another one"),
        ({"problem_id": "4", "statement": "What is 3 + 4?", "gold": "7"}, "4"),
        ({"problem_id": "4", "statement": "What is 3 + 4?", "gold": "8"}, "the gold of 4 is another one in own"),
        # Something else has the id.
        ({"problem_id": "2", "statement": "What is 7 + 7?"}, "the statement of 2 is another one in own"),
        ({"problem_id": "2-7", "statement": "What is 7 + 7?"}, "the statement of 2 is another one in own"),
        ({"problem_id": "2", "gold": "14"}, "the gold of 2 is another one in own, got '14' and '20'"),
        # Two problems differ in nothing but their brackets.
        ({"problem_id": "9", "statement": "What is 2 + 3 * 4?"}, "must be of a problem of own, by its id or its sta"),
        ({"problem_id": "9"}, "must be of a problem of own, by its id or its statement, got 9"),
        ({}, "got no id and no statement"),
    ],
)
def test_a_problem_is_found_by_all_that_a_log_says_of_it(said: dict[str, str], found: str) -> None:
    find = make_finder(SUITE)
    if len(found) == 1:
        assert find(Entry(where="log:1", **said)).id == found  # type: ignore[arg-type]
        return
    with pytest.raises(UserError) as refused:
        find(Entry(where="log:1", **said))  # type: ignore[arg-type]
    assert found in str(refused.value)


def test_an_instruction_around_a_problem_is_told_from_other_numbers_in_it() -> None:
    statement = SUMS["problems"][0]["statement"]
    assert is_stated_in(statement, f"Think step by step.\n\n{statement} Put your answer in \\boxed{{}}.")
    assert not is_stated_in("A train travels 60 km in 2 hours.", "A train travels 80 km in 2 hours.")
    assert not is_stated_in(statement, "")


@pytest.mark.parametrize(
    ("short", "other"),
    [
        ("Find $x$.", "Find $y$."),
        (r"$\phi(1200)$", r"$\phi(1300)$"),
        ("8!", "9!"),
        ("求60的正约数个数。", "求80的正约数个数。"),
        ("設x為正整數，求x的最小值", "設x為正整數，求x的最大值"),
        ("方程式を解け。", "不等式を解け。"),
    ],
)
def test_a_short_statement_is_found_in_a_prompt(short: str, other: str) -> None:
    for prompt in (
        "{}\nPlease reason step by step, and put your final answer within \\boxed{{}}.",
        "请解答{}并说明理由。",
    ):
        for text in (short, short.rstrip("。")):
            assert is_stated_in(short, prompt.format(text))
        assert not is_stated_in(other, prompt.format(short))


def numbered_suite(shift: int) -> str:
    """The sums under the numbers that Inspect gives, of which each is another problem's by `shift`."""
    rows = [{**one, "id": f"pocket_sums-{(place + shift) % 3 + 1}"} for place, one in enumerate(SUMS["problems"])]
    return write_lines("numbered.jsonl", rows)


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_a_log_of_inspect_scores_the_same_whatever_number_a_suite_begins_with(shift: int) -> None:
    (file,) = inspect_json()
    content: dict[str, Any] = json.loads(Path(str(file)).read_text())
    numbers = {one["id"]: place for place, one in enumerate(SUMS["problems"], start=1)}
    content["samples"] = [{**row, "id": numbers[row["id"]]} for row in content["samples"]]
    Path("log.json").write_text(json.dumps(content))
    said = " ".join(imported("r", "log.json", "--problems", numbered_suite(shift)))
    assert json.loads(Path("r/results.json").read_text())["right"] == 6
    assert "agree with the checker on 12 of 12 samples" in said


def test_gold_answers_that_the_suite_replaces_are_said() -> None:
    (file,) = HERE.glob("samples_*.jsonl")
    corrected = [{**one, "gold": "99"} if one["id"] == "a" else one for one in SUMS["problems"]]
    said = " ".join(imported("r", file, "--problems", write_lines("sums.jsonl", corrected)))
    assert "the gold answers are those of sums; 4 samples had another one in the log, first" in said
    assert "'2', and '99' in problem a" in said


def test_a_run_of_this_project_is_held_against_the_suite_by_its_statements() -> None:
    (file,) = HERE.glob("samples_*.jsonl")
    for words in ((), ("--no-texts",)):
        folder = f"run{len(words)}"
        imported(folder, file, *words)
        ids = [json.loads(line)["id"] for line in Path(folder, "problems.jsonl").read_text().splitlines()]
        # The same ids, each of another problem.
        moved = [{**one, "id": ids[place - 1]} for place, one in enumerate(SUMS["problems"])]
        imported(f"moved{len(words)}", folder, "--problems", write_lines("moved.jsonl", moved))
        assert json.loads(Path(f"moved{len(words)}/results.json").read_text())["right"] == 6
        others = [{"id": name, "statement": f"What is {name}?", "gold": "5"} for name in ids]
        with pytest.raises(UserError, match="equal ids must be equal problems"):
            imported(f"other{len(words)}", folder, "--problems", write_lines("others.jsonl", others))


def test_a_recording_without_statements_is_scored_by_ids_and_golds() -> None:
    rows = [{"id": one["id"], "gold": one["gold"], "text": "\\boxed{14}"} for one in SUMS["problems"]]
    columns = ("--columns", "problem_id=id", "gold=gold", "text=text")
    imported("bare", write_lines("t.jsonl", rows), *columns)
    imported("hidden", "bare", "--no-texts")
    imported(
        "typeset", write_lines("s.jsonl", [{**row, "statement": f"Find ${row['id']}$."} for row in rows]), *columns
    )
    imported("typeset-hidden", "typeset", "--no-texts")
    suite = write_lines("sums.jsonl", SUMS["problems"])
    for name in ("bare", "hidden", "typeset-hidden"):
        imported(f"{name}-scored", name, "--problems", suite)
        assert json.loads(Path(f"{name}-scored/results.json").read_text())["right"] == sum(
            one["gold"] == "14" for one in SUMS["problems"]
        )
        statements = {one["id"]: one["statement"] for one in SUMS["problems"]}
        for line in Path(f"{name}-scored/problems.jsonl").read_text().splitlines():
            assert json.loads(line)["statement"] == statements[json.loads(line)["id"]]


SEEDED = [
    {"id": f"p{place}", "statement": f"What is {place}?", "gold": str(place), "said": f"Try: \\boxed{{{place}}}"}
    for place in range(3)
    for _ in range(4)
]
"""Four samples of each of three problems, all of one text, as short answers are."""


@pytest.mark.parametrize("seeds", ["none", "one", "of each", "some"])
@pytest.mark.parametrize("cells", [{"text": "said"}, {"answer": "said"}])
def test_samples_of_other_tools_stay_apart_when_their_run_is_imported_again(cells: dict[str, str], seeds: str) -> None:
    told: dict[str, Any] = {"none": [None] * 12, "one": [42] * 12, "of each": [*range(4)] * 3, "some": [7, None] * 6}
    rows = [{**row, "seed": seed} for row, seed in zip(SEEDED, told[seeds], strict=True)]
    columns = [f"{name}={column}" for name, column in cells.items()]
    named = ["seed=seed"] if seeds != "none" else []
    imported("one", write_lines("t.jsonl", rows), "--columns", "problem_id=id", "gold=gold", *columns, *named)
    # Once more, as a recording, and joined with itself: the same samples each time.
    imported("again", "one", "--no-texts")
    imported("third", "again", "again")
    figures = [json.loads(Path(name, "results.json").read_text()) for name in ("one", "again", "third")]
    assert [(one["samples"], one["right"], one["maj_at"]) for one in figures] == [
        (12, figures[0]["right"], figures[0]["maj_at"])
    ] * 3


def test_repeats_of_a_row_that_say_the_same_are_samples_of_their_own() -> None:
    (file,) = HERE.glob("samples_*.jsonl")
    imported("one", file)
    assert not any("stand twice" in words for words in imported("again", "one"))
