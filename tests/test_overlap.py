"""Overlap with a suite: what is the same problem and what only looks so, and the tables it is read from."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.overlap.duplicates import find_first_duplicates
from mathlete.overlap.statements import Statement
from mathlete.overlap.suite_index import Kind, SuiteIndex, match_statements
from mathlete.problems import Problem
from tests.conftest import CommandLine, sample

TRAIN = (
    "A train leaves the old station with $60$ people, and at each of the next {} stops a quarter of them get off. "
    "How many are left?"
)
LETTERS = "In how many ways can the letters of {} be put?"
ODD = "Is ${}$ odd, even, or neither? Write one word."
DRAWN = "What is the value of $x$ in the diagram below? [asy] draw({}); [/asy]"


@pytest.mark.parametrize(
    ("one", "other", "golds", "kind"),
    [
        (TRAIN.format(3), TRAIN.format(3).replace("$60$", r"\(60\)").upper().lower(), ("", ""), "exact"),
        (TRAIN.format(3), TRAIN.format("three"), ("", ""), "exact"),
        (r"Find $\tfrac{6{,}000}{x}$.", r"Find \[\dfrac{6,000}{x}.\]", ("", ""), "exact"),
        (TRAIN.format(3), TRAIN.format(4), ("8", "8"), None),
        (TRAIN.format(3), TRAIN.format(3) + " Give a whole number below ten, without a unit.", ("8", "8"), "ngram"),
        (TRAIN.format(3), TRAIN.format(3) + " Give a whole number below ten, without a unit.", ("", "8"), "ngram"),
        (TRAIN.format(3), TRAIN.format(3) + " Give a whole number below ten, without a unit.", ("8", "9"), None),
        (TRAIN.format(3), TRAIN.format(3).replace("quarter", "third"), ("8", "8.0"), "near"),
        (TRAIN.format(3), TRAIN.format(3).replace("quarter", "third"), ("", ""), None),
        (TRAIN.format(3), TRAIN.format(3).replace("get off", "leave it").replace("old ", ""), ("8", "8"), "near"),
        (TRAIN.format(3), TRAIN.format(3).replace("get off", "leave it").replace("old ", ""), ("8", "7"), None),
        (LETTERS.format("BANANA"), LETTERS.format("PAPAYA"), ("60", "60"), None),
        (DRAWN.format("A--B"), DRAWN.format("A--B--C"), ("", ""), None),
        (DRAWN.format("A--B"), DRAWN.format("A--B--C"), ("7", "7"), None),
        (DRAWN.format("A--B"), DRAWN.format("A -- B"), ("", ""), "exact"),
        (ODD.format("x^3"), ODD.format("x^3") + " No more.", ("odd", "odd"), "ngram"),
        (ODD.format(r"\log x"), ODD.format(r"\exp x"), ("neither", "neither"), None),
        ("Find $m+n$.", "How many primes are there below a hundred?", ("25", "25"), None),
    ],
)  # fmt: skip
def test_pairs_of_statements(one: str, other: str, golds: tuple[str, str], kind: Kind | None) -> None:
    assert match_statements(Statement.parse(one), Statement.parse(other), golds=golds) == kind
    assert match_statements(Statement.parse(other), Statement.parse(one), golds=golds[::-1]) == kind


WORDS = st.lists(st.sampled_from(["find", "the", "sum", "of", "$x$", "7", "12", "prime", r"\frac{1}{2}"]), min_size=1)


@given(some=st.lists(WORDS.map(" ".join), min_size=1, max_size=20))
def test_every_statement_is_found_in_an_index_that_holds_it(some: list[str]) -> None:
    problems = [Problem(id=str(number), statement=text, gold="1") for number, text in enumerate(some)]
    pairs = list(SuiteIndex(problems).pairs(problems))
    assert {(p.row.id, p.suite.id) for p in pairs if p.kind == "exact"} >= {(p.id, p.id) for p in problems}
    assert all(0 <= p.similarity <= 1 for p in pairs)


def test_a_reworded_problem_is_found_among_many() -> None:
    suite = [Problem(id=str(number), statement=TRAIN.format(number), gold=str(number)) for number in range(50)]
    row = Problem(id="r", statement=TRAIN.format(7).replace("get off", "leave it").replace("old ", ""), gold="7")
    assert [(pair.suite.id, pair.kind) for pair in SuiteIndex(suite).pairs([row])] == [("7", "near")]


@pytest.fixture
def overlap(train: CommandLine) -> Callable[..., dict[str, Any]]:
    return lambda *words: train("data", "overlap", *words, "--json").result


ROWS = [
    {"id": "424e18", "question": TRAIN.format(3), "answer": "8"},
    {"id": "2", "question": "What is 2+2?", "answer": "4"},
]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet"])
def test_tables_of_every_format(tmp_path: Path, overlap: Callable[..., dict[str, Any]], name: str) -> None:
    (tmp_path / "suite.jsonl").write_text(json.dumps({"id": "s", "statement": TRAIN.format("three"), "gold": "8"}))
    file = tmp_path / name
    match file.suffix:
        case ".jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        case ".json":
            file.write_text(json.dumps(ROWS))
        case ".csv":
            with file.open("w", newline="") as out:
                writer = csv.DictWriter(out, ["id", "question", "answer"])
                writer.writeheader()
                writer.writerows(ROWS)
        case _:
            pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), file)
    pairs = tmp_path / "pairs.jsonl"
    result = overlap(file, "--suite", tmp_path / "suite.jsonl", "--out", pairs)
    assert result == {"pairs": 1, "rows_hit": 1, "suite_hit": 1, "by_kind": {"exact": 1, "ngram": 0, "near": 0}}
    pair = json.loads(pairs.read_text())
    assert (pair["row"]["id"], pair["suite"]["id"], pair["kind"]) == ("424e18", "s", "exact")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "the file must exist, got none.jsonl"),
        ("rows.txt", "", "must be JSON lines, JSON, CSV or parquet, got rows.txt"),
        ("rows.json", '{"id": 1}', "rows.json: must be a list of objects, got dict"),
        ("rows.json", "[1", "rows.json: must be JSON"),
        ("rows.json", "[1]", "rows.json[0]: a row must be an object, got int"),
        ("rows.jsonl", '{"id": "1", "tokens": 3}', "rows.jsonl:1: a row needs its statement in one of statement, "),
        ("rows.csv", "id,question\n1,2,3\n", "rows.csv:2: must have as many cells as the header"),
        ("rows.parquet", "PAR1", "rows.parquet: must be a whole parquet file"),
    ],
)
def test_a_bad_table_is_exit_2(workdir: Path, name: str, content: str | None, message: str, train: CommandLine) -> None:
    if content is not None:
        Path(name).write_text(content)
    assert message in train("data", "overlap", name, "--suite", "pocket_val").refusal


def test_training_problems_are_none_of_pocket_val(
    tmp_path: Path, train: CommandLine, overlap: Callable[..., dict[str, Any]]
) -> None:
    assert train("pocket-problems", tmp_path / "p.jsonl", "--families", "hard", "easy", "--count", 1000).code == 0
    assert overlap(tmp_path / "p.jsonl", "--suite", "pocket_val")["pairs"] == 0


@pytest.mark.parametrize(
    ("file", "suite", "least"),
    sample(
        ("math_test/test.jsonl", "math500", {"suite_hit": 500}),
        ("aime24/test.jsonl", "aimo_val", {"suite_hit": 30}),
        slow=[
            ("aime_1983_2023/aime.json", "aimo_val", {"suite_hit": 59}),
            ("hub/Maxwell-Jia/AIME_2024/train.jsonl", "aimo_val", {"suite_hit": 30}),
            ("hub/openai/gsm8k/main/train.jsonl", "gsm8k", {"suite_hit": 0}),
            ("math_train/math.json", "math500", {"suite_hit": 0}),
        ],
    ),
)
def test_known_leaks_of_real_sets(
    shared: Path, overlap: Callable[..., dict[str, Any]], file: str, suite: str, least: dict[str, int]
) -> None:
    result = overlap(shared / "data" / file, "--suite", suite, "--mirror", shared / "data" / "hub")
    assert {key: result[key] for key in least} == least


@given(some=st.lists(WORDS.map(" ".join), min_size=1, max_size=30))
def test_the_first_of_each_problem_is_its_own_first(some: list[str]) -> None:
    problems = [Problem(id=str(number), statement=text, gold="1") for number, text in enumerate(some)]
    places = list(find_first_duplicates(problems))
    assert all(place <= at and places[place] == place for at, place in enumerate(places))
    assert all(places[some.index(text)] == place for text, place in zip(some, places, strict=True))


def test_reworded_problems_are_one_and_a_template_with_other_numbers_is_not() -> None:
    reworded = TRAIN.replace("get off", "leave it").replace("old ", "")
    texts = [TRAIN.format(7), "What is 2+2?", reworded.format(7), TRAIN.format(8), reworded.format(8), TRAIN.format(7)]
    golds = ["7", "4", "7", "8", "8", "7"]
    problems = [Problem(id=str(n), statement=text, gold=golds[n]) for n, text in enumerate(texts)]
    assert list(find_first_duplicates(problems)) == [0, 1, 0, 3, 3, 0]


def test_precision_and_recall_on_labelled_pairs(root: Path) -> None:
    """Reworded problems and those that only look alike, in words of our own, labelled by hand."""
    lines = (root / "tests" / "golden" / "overlap_pairs.jsonl").read_text(encoding="utf-8").splitlines()
    same, paired = [], []
    for pair in map(json.loads, lines):
        one, other = (
            Problem(id=name, statement=pair[name], gold=gold)
            for name, gold in zip(("one", "other"), pair["golds"], strict=True)
        )
        same.append(pair["same"])
        paired.append(bool(list(SuiteIndex([other]).pairs([one]))))
    assert (len(same), sum(same)) == (24, 10)
    wrong = [line for line, really, said in zip(lines, same, paired, strict=True) if said != really]
    assert not wrong


def test_training_keeps_clear_of_the_reworded_problems_too(shared: Path, tmp_path: Path, train: CommandLine) -> None:
    """Seven of the 30 problems are written differently in this copy: 0 of 30 may become rows."""
    words = ["math", "--model", "pocket", "--source", "aime24-maxwell", "--mirror", str(shared / "data" / "hub"),
             "--against", "aimo_val", "--until", "format", "--run", str(tmp_path / "r")]  # fmt: skip
    assert "0 of 30 is left, got in aimo_val: 30" in train(*words).refusal
