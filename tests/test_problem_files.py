"""One reader of problems: what a user's file may be, for evaluation, rehearsal, golds and the checker."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from eval.losses import read_golds
from mathlete.corpus import load_suite
from mathlete.errors import UserError
from mathlete.problems import Problem
from tests.conftest import CommandLine

ROWS: list[dict[str, object]] = [
    {"id": "424e18", "problem": "What is 1 + 1?", "answer": 2, "difficulty": "easy"},
    {"id": "b", "problem": "Line one\nline two, with a comma?", "answer": 336, "difficulty": ""},
]
WANTED = [
    Problem(id="424e18", statement="What is 1 + 1?", gold="2"),
    Problem(id="b", statement="Line one\nline two, with a comma?", gold="336"),
]
CSV = 'id,problem,answer,difficulty\n424e18,What is 1 + 1?,2,easy\nb,"Line one\nline two, with a comma?",336,\n'


def write(name: str) -> Path:
    file = Path(name)
    match file.suffix:
        case ".csv":
            file.write_text(CSV)
        case ".jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        case ".json":
            file.write_text(json.dumps({"rows": ROWS}))
        case _:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), file)
    return file


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl", "p.json", "p.parquet"])
def test_every_format_gives_the_same_suite_and_golds(workdir: Path, name: str) -> None:
    suite = load_suite(str(write(name)))
    assert suite.problems == WANTED
    assert suite.origin == f"{name}: read id, problem, answer; not read: difficulty"
    assert suite.sha256 == load_suite(str(write("again.jsonl"))).sha256
    assert read_golds(Path(name)) == {"424e18": "2", "b": "336"}


@pytest.mark.parametrize(
    ("cell", "gold"),
    [("['7']", "7"), ('["7"]', "7"), ("['x', 'y']", "['x', 'y']"), ("[1, 2]", "[1, 2]"), ("[7]", "[7]")],
)
def test_a_gold_may_be_the_text_of_a_list_of_one(workdir: Path, cell: str, gold: str) -> None:
    Path("p.csv").write_text('id,problem,answer\na,1?,"{}"\n'.format(cell.replace('"', '""')))
    assert [one.gold for one in load_suite("p.csv").problems] == [gold]


def test_own_fields_are_kept_and_a_row_without_id_is_named_after_its_place(workdir: Path) -> None:
    own = Problem(
        id="x", statement="50?", gold="50%", source="s", subset="hard", licence="MIT", answers="percent=points"
    )
    Path("own.jsonl").write_text(json.dumps(own.to_json()) + "\n" + json.dumps({"question": "2?", "gold": "2"}) + "\n")
    suite = load_suite("own.jsonl")
    assert suite.problems == [own, Problem(id="own-1", statement="2?", gold="2")]
    assert suite.origin == ""


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "p.csv",
            CSV + '424e18,"Again\nand again?",3,\n',
            r"p\.csv:5: ids must be unique, got '424e18', first at .*csv:2",
        ),
        ("p.csv", "id,problem\na,1?\n", r"p\.csv:2: a problem needs gold, got \['id', 'problem'\]"),
        ("p.csv", "id,problem,answer\na,1?,\n", r"p\.csv:2: a problem needs gold, got no text in answer\."),
        ("p.csv", "id,problem,answer\na,,4\n", r"p\.csv:2: a problem needs its statement .* no text in problem\."),
        ("p.csv", "id,text,answer\na,1?,1\n", r"p\.csv:2: a problem needs its statement"),
        (
            "p.jsonl",
            '{"problem": "1?", "answer": 1}\n{"problem": "2?", "answer": true}\n',
            r"p\.jsonl:2: answer must be",
        ),
        (
            "p.jsonl",
            '{"id": 4e18, "problem": "1?", "answer": 1}\n',
            r"p\.jsonl:1: an id must be text or a whole number",
        ),
        *(
            (
                "p.jsonl",
                f'{{"id": {odd}, "problem": "1?", "answer": 1}}\n',
                r"p\.jsonl:1: an id must be text or a whole number",
            )
            for odd in ("true", '["a"]', '{"a": 1}')
        ),
        ("p.json", "[]", "a problem file needs at least one problem"),
        ("p.toml", "", "the suite must be a known one"),
    ],
)
def test_a_bad_row_is_named_with_its_line(workdir: Path, name: str, text: str, message: str) -> None:
    Path(name).write_text(text)
    with pytest.raises(UserError, match=message):
        load_suite(name)


def test_a_rehearsal_takes_the_same_files(workdir: Path, submit: CommandLine) -> None:
    Path("p.csv").write_text("id,problem\na,1?\n")
    assert "a problem needs gold" in submit("rehearse", "--problems", "p.csv").refusal


def test_the_checker_takes_a_table_of_cases(workdir: Path, evaluate: CommandLine) -> None:
    Path("cases.csv").write_text("id,kind,gold,pred,expected,note\n1,equiv,2,2.0,true,x\n2,equiv,2,3,False,y\n")
    line = evaluate("check", "cases.csv", "--json").result
    assert (line["cases"], line["accuracy"]) == (2, 1.0)
    Path("cases.csv").write_text("id,kind,gold,pred,expected\n1,equiv,2,2.0,perhaps\n")
    assert "cases.csv:2: expected must be true or false" in evaluate("check", "cases.csv").refusal
