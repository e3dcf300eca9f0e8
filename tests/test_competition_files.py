"""Competitions of other kinds: an adapter's, a table's, answers that are numbers or texts, and files that are wrong."""

import copy
import json
import re
import tomllib
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from mathlete.answers import read_integer
from mathlete.competitions import Competition, competition
from mathlete.competitions.files import read_competition
from mathlete.competitions.rules import read_rules
from mathlete.errors import UserError
from mathlete.organiser import choose_answer, organisers_gold
from mathlete.shipped import data_folder
from tests.conftest import CommandLine

Table = dict[str, Any]

NOTEBOOK = """
slug = "some-cup"
answer_min = 0
answer_max = 9
problems = 4
wall_s = 1800
columns = ["key", "text"]
predict_deadline_s = 600
machine = "NvidiaL4X1"
gateway = {api = "iterator", module = "cup_questions"}
"""
ADAPTER = """
slug = "some-cup"
deliverable = "adapter"
answer_type = "text"
problems = 4
columns = ["id", "prompt"]
scorer = {rule = "number", reads = ["last-box", "last-line"], tolerance = 1, case_matters = false}
prompt = {system = "You are a mathematician.", suffix = "\\nBox it.", template = {enable_thinking = true, depth = 2}}
sampling = {temperature = 0.5, max_tokens = 64, samples = 2, top_k = 20, seed = 7, max_model_len = 128}
adapter = {base = ["some/model"], max_rank = 8, targets = ["q_proj"], dtypes = ["bfloat16"], max_mib = 100}
"""
CSV = """
slug = "some-league"
deliverable = "csv"
answer_type = "number"
answer_min = -5
problems = 4
columns = ["key", "text"]
submission_columns = ["key", "guess"]
licences = ["Apache 2.0", "MIT"]
scorer = {rule = "number", relative_tolerance = 0.01, wrong = -0.25}
"""
KINDS = {"notebook": NOTEBOOK, "adapter": ADAPTER, "csv": CSV}


SHIPPED = {file.stem: file.read_text() for file in sorted((data_folder() / "competitions").glob("*.toml"))}
TABLES = {name: tomllib.loads(text) for name, text in {**KINDS, **SHIPPED}.items()}
REQUIRED = {
    "notebook": {"answer_min", "answer_max", "wall_s", "predict_deadline_s", "machine"}
    | {"gateway", "gateway.api", "gateway.module", "gateway.server", "gateway.package"},
    "adapter": {"deliverable", "answer_type", "sampling", "sampling.temperature", "sampling.max_tokens"}
    | {"scorer.reads", "adapter", "adapter.base", "adapter.max_rank"},
    "csv": {"deliverable", "answer_type"},
}
"""What a file of that deliverable cannot do without, beside what every one must say."""
OF_ALL = {"slug", "problems", "columns", "scorer.rule"}
ODD = {"aimo-1": {"machine"}, "aimo-3": {"runs"}}
"""What these can do without, because `machines` has it first, or cannot, because `points` says one for each run."""
OTHERS: tuple[object, ...] = (
    True,
    "a word",
    7,
    1.5,
    [],
    ["word"],
    ["a", "b", "c"],
    [1],
    {},
    {"key": "word"},
    date(2027, 1, 1),
)
"""Values, each of another type: of any key at most five are of its own."""


def list_keys(table: Table, before: str = "") -> Iterator[tuple[str, Table, str]]:
    """Yield (key with its tables, the table that holds it, the key) of all of them."""
    for key, value in table.items():
        yield f"{before}{key}", table, key
        if isinstance(value, dict) and key not in ("placeholders", "template"):
            yield from list_keys(value, f"{before}{key}.")


def read_changed(name: str, number: int, change: str, value: object = None) -> str:
    """Return the error of a file with its key of that number dropped, misspelt or of another value; "" without one."""
    table = copy.deepcopy(TABLES[name])
    _, inside, key = [*list_keys(table)][number]
    old = inside.pop(key)
    if change != "drop":
        inside[key if change == "value" else f"{key}x"] = old if change == "misspell" else value
    try:
        read_rules(table, name=name, where="cup.toml")
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", TABLES)
def test_a_key_that_is_dropped_misspelt_or_of_another_type_is_one_error_that_names_it(name: str) -> None:
    required = (OF_ALL | REQUIRED[TABLES[name].get("deliverable", "notebook")]) ^ ODD.get(name, set())
    for number, (key, _, leaf) in enumerate(list_keys(TABLES[name])):
        said = read_changed(name, number, "drop")
        assert bool(said) == (key in required), key
        assert not said or re.search(rf"\b{key}\b", said), said
        assert f"cup.toml must have known keys only, got {key}x.\n" in read_changed(name, number, "misspell")
        refused = [said for value in OTHERS if (said := read_changed(name, number, "value", value))]
        assert len(refused) >= len(OTHERS) - 5, key
        for said in refused:
            assert said.startswith("cup.toml"), said
            assert re.search(rf"\b{leaf}\b", said), said


@pytest.mark.parametrize("kind", KINDS)
def test_rules_of_every_kind_survive_json(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"{kind}.toml"
    file.write_text(KINDS[kind])
    rules = read_competition(file)
    assert rules.deliverable == kind
    assert Competition.from_json(json.loads(json.dumps(rules.to_json()))) == rules


def test_a_range_of_numbers_need_not_be_of_integers(tmp_path: Path) -> None:
    file = tmp_path / "cup.toml"
    file.write_text(CSV.replace("answer_min = -5", "answer_min = -0.5\nanswer_max = 2"))
    rules = read_competition(file)
    assert (rules.answer_min, rules.answer_max, rules.integers) == (-0.5, 2, None)
    assert [choose_answer([one], rules=rules) for one in ("-0.25", "-0.75", "2", "2.5")] == ["-0.25", None, "2", None]
    # What is out of the range is no gold of this competition, and is not lost to its scorer.
    assert [organisers_gold(one, rules=rules) for one in ("2", "2.5", r"\frac12", "word")] == [
        "2",
        None,
        r"\frac12",
        "word",
    ]
    assert Competition.from_json(json.loads(json.dumps(rules.to_json()))) == rules


def test_a_file_of_an_editor_of_windows_is_read(tmp_path: Path) -> None:
    file = tmp_path / "cup.toml"
    file.write_bytes(b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode())
    assert read_competition(file).slug == "some-league"


def test_a_day_that_is_none_is_refused_in_json_too() -> None:
    with pytest.raises(UserError, match=r"released_before must be a date, got '2026-13-01'(.|\n)*build it again"):
        Competition.from_json({**competition("aimo-3").to_json(), "released_before": "2026-13-01"})


def test_what_an_adapters_file_says_is_read(tmp_path: Path) -> None:
    (tmp_path / "cup.toml").write_text(ADAPTER)
    rules = read_competition(tmp_path / "cup.toml")
    assert rules.prompt is not None
    assert rules.prompt.template == {"enable_thinking": True, "depth": 2}
    assert rules.adapter is not None
    assert (rules.adapter.targets, rules.adapter.dtypes, rules.adapter.file) == (
        ("q_proj",),
        ("bfloat16",),
        "submission.zip",
    )
    assert rules.sampling is not None
    assert (rules.sampling.samples, rules.sampling.top_p, rules.sampling.max_num_seqs) == (2, 1.0, None)
    assert (rules.scorer.reads, rules.scorer.tolerance, rules.scorer.box_end) == (
        ("last-box", "last-line"),
        1.0,
        "balanced",
    )
    assert (rules.machine, rules.machines, rules.fallback, rules.reserve_s) == (None, None, None, None)


def test_the_default_scorer_follows_from_deliverable_and_answer(tmp_path: Path) -> None:
    file = tmp_path / "cup.toml"
    for text, wanted in ((NOTEBOOK, ("integer", ("submission",))), (ADAPTER, ("text", ("last-box",)))):
        file.write_text("\n".join(line for line in text.splitlines() if not line.startswith("scorer")))
        scorer = read_competition(file).scorer
        assert (scorer.rule, scorer.reads) == wanted


def test_the_first_machine_is_the_notebooks(tmp_path: Path) -> None:
    file = tmp_path / "cup.toml"
    file.write_text(NOTEBOOK.replace('machine = "NvidiaL4X1"', 'machines = ["NvidiaL4", "NvidiaL4X1"]'))
    rules = read_competition(file)
    assert (rules.machine, rules.machines) == ("NvidiaL4", ("NvidiaL4", "NvidiaL4X1"))


def test_any_integer_is_read_where_answers_are_texts() -> None:
    assert read_integer("123456789", competition=competition("nemotron-like")) == 123_456_789


@pytest.mark.parametrize(
    ("kind", "old", "new", "message"),
    [
        ("notebook", "wall_s = 1800", "", "must say wall_s where deliverable is notebook, got nothing"),
        ("notebook", "answer_max = 9", "", "must say answer_max where answer_type is integer, got nothing"),
        ("notebook", "gateway =", "gateways =", "known keys only, got gateways"),
        ("notebook", '"cup_questions"', '"class"', "must be names in Python, got ['class']"),
        ("notebook", "answer_max = 9", "answer_max = 9.5", "answer_max must be an integer, got 9.5"),
        ("notebook", "answer_max = 9", "answer_max = 9\nmodulus = 11", "modulus must be at most answer_max + 1"),
        ("notebook", "problems = 4", "problems = 4000000", "problems must be 1 to 1,000,000, got 4000000"),
        ("notebook", "problems = 4", "problems = 4\nruns = 1000000000", "runs must be 1 to 100, got 1000000000"),
        ("csv", "problems = 4", 'problems = 4\ngateway = {api = "iterator", module = "m"}', "is csv, got a table"),
        (
            "notebook",
            "problems = 4",
            "problems = 4\nsampling = {temperature = 0, max_tokens = 9}",
            "sampling must be left out",
        ),
        (
            "notebook",
            "problems = 4",
            'problems = 4\nmachines = ["A"]',
            "machine must be one of machines, A, got Nvidia",
        ),
        (
            "notebook",
            "problems = 4",
            'problems = 4\nscorer = {rule = "text"}',
            "integer or number where answer_type is int",
        ),
        (
            "notebook",
            "problems = 4",
            'problems = 4\nruns = 2\nscorer = {rule = "integer", wrong = -1}',
            "0 where runs is",
        ),
        ("adapter", 'answer_type = "text"', "", "must say answer_min where answer_type is integer"),
        ("adapter", 'answer_type = "text"', 'answer_type = "word"', "answer_type must be integer or number or text"),
        ("adapter", "adapter = {", "adapters = {", "known keys only, got adapters"),
        ("adapter", "max_rank = 8", "max_rank = 0", "adapter.max_rank must be at least 1, got 0"),
        (
            "adapter",
            ', "last-line"',
            ', "last-word"',
            "scorer.reads must be a list of submission, last-box, final-answer",
        ),
        ("adapter", '"last-box", "last-line"', '"submission"', "scorer.reads must be places in the model's text where"),
        ("adapter", "tolerance = 1", "tolerance = nan", "scorer.tolerance must be a number, got nan"),
        ("adapter", 'rule = "number"', 'rule = "text"', "scorer.tolerance must be left out where scorer.rule is not"),
        ("adapter", "max_model_len = 128", "max_model_len = 64", "max_model_len must be above sampling.max_tokens"),
        ("adapter", "temperature = 0.5", "temperature = 0", "sampling.samples must be 1 at temperature 0"),
        ("adapter", "depth = 2", "depth = [2]", "prompt.template must be a table of plain values"),
        ("adapter", "thinking = true", "thinking = 0", "prompt.template.enable_thinking must be true or false, got 0"),
        ("adapter", "thinking = true", 'thinking = "False"', "enable_thinking must be true or false, got False"),
        ("adapter", '"some/model"', '"model"', "adapter.base must be names of models, OWNER/NAME each"),
        ("csv", "answer_min = -5", "modulus = 7", "modulus must be left out where answer_type is number, got 7"),
        ("csv", '"number"\nanswer_min', '"text"\nanswer_min', "answer_min must be left out where answer_type is text"),
        ("csv", "problems = 4", "problems = 4\nruns = 2", "runs must be 1 where deliverable is csv"),
        ("csv", "wrong = -0.25", "wrong = 0.5", "scorer.wrong must be at most scorer.blank, got 0.5"),
        ("csv", '["Apache 2.0", "MIT"]', '["MIT", "MIT"]', "licences must be a list of names, each once"),
        ("csv", "problems = 4", "problems = 4\npredict_deadline_s = 9", "left out where deliverable is csv, got 9"),
    ],
)
def test_a_contradiction_is_one_clear_error(kind: str, old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in KINDS[kind]
    file = tmp_path / "cup.toml"
    file.write_text(KINDS[kind].replace(old, new, 1))
    with pytest.raises(UserError) as error:
        read_competition(file)
    assert message in str(error.value)
    assert str(file) in str(error.value)


def test_a_notebook_is_not_built_where_none_is_taken(workdir: Path, submit: CommandLine) -> None:
    Path("cup.toml").write_text(KINDS["csv"])
    said = submit("build", "--competition", "cup.toml", "--names.owner", "alice").refusal
    assert "the competition must take a notebook, got cup, whose deliverable is csv" in said
