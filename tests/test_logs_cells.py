"""Lists in the cells of a table: those that are text, those of objects; columns that tell runs and samples apart."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mathlete.errors import UserError
from mathlete.logs import join_logs, read_log
from mathlete.logs.columns import OF_RUN
from tests.test_logs import imported, write_lines

NAMED = {"problem_id": "id", "gold": "gold"}


@pytest.fixture(autouse=True)
def inside(workdir: Path) -> None:
    """Every test stands in a folder of its own."""


def read(cells: dict[str, list[Any]], columns: dict[str, str], *, kind: str = "csv") -> Any:
    """Read a table of these columns, as `csv` or as JSON lines."""
    rows = [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]
    if kind != "csv":
        return read_log(Path(write_lines("t.jsonl", rows)), columns)
    with Path("t.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*cells])
        writer.writeheader()
        writer.writerows(rows)
    return read_log(Path("t.csv"), columns)


MEMBERS: dict[str, list[list[Any]]] = {
    "text": [["So \\boxed{7}", 'it\'s "7"', "two\nlines, é", ""], ["a", "b", "[1, 2]", "c"]],
    "answer": [["7", "[1, 2]", None, "0.5"], ["(0, 1)", "x", "y", "z"]],
    "tokens": [[165, 170, 147, 103], [1, 2, 3, 4]],
    "seconds": [[1.5, 2.25, 0.1, 3], [1, 2, 3, 4]],
    "logprob_mean": [[-0.5, -1e-05, None, -2.0], [-1.0, -2.0, -3.0, -4.0]],
    "finish": [["stop", "length", "stop", "stop"], ["stop"] * 4],
    "seed": [[1, 2, 2**60 + 1, 4], [5, 6, 7, 8]],
    "index": [[3, 1, 0, 2], [0, 1, 2, 3]],
}
"""{a name: what two problems' lists of four samples hold}."""
WRITTEN: dict[str, Callable[[list[Any]], str]] = {
    "repr": str,
    "json": json.dumps,
    "numpy numbers": lambda members: str([np.float64(one) if isinstance(one, float) else one for one in members]),
    "nan": lambda members: str([float("nan") if one is None else one for one in members]),
    "spaced": lambda members: f" {members} ",
}
"""{who writes a list as text: how}."""


@pytest.mark.parametrize("name", MEMBERS)
def test_a_list_is_the_same_as_a_text(name: str) -> None:
    columns = {"problem_id": "id", "answer": "said", name: "cell"}
    said = MEMBERS["text"] if name == "answer" else [["1", "2", "3", "4"]] * 2
    whole = {"id": ["a", "b"], "said": said, "cell": MEMBERS[name]}
    lists = read(whole, columns, kind="jsonl").entries
    assert len(lists) == 8
    for how, write in WRITTEN.items():
        texts = {**whole, "said": [*map(json.dumps, said)], "cell": [*map(write, MEMBERS[name])]}
        for kind in ("csv", "jsonl"):
            log = read(texts, columns, kind=kind)
            told = [
                (one.text, one.answer, one.tokens, one.seconds, one.finish, one.seed, one.index) for one in log.entries
            ]
            assert told == [
                (one.text, one.answer, one.tokens, one.seconds, one.finish, one.seed, one.index) for one in lists
            ], (how, kind)
            assert f"{log.path}: texts of cell that are lists, and were read as such: 2" in log.words


ANSWERS: list[tuple[list[str], dict[str, list[str]], list[str | None] | None]] = [
    # (cells of a CSV named for answer, others of its row, what is read; None: it is not plain)
    (["[1, 2]", "7"], {}, ["[1, 2]", "7"]),
    (["[1, 2]", "(0, 1)", ""], {}, ["[1, 2]", "(0, 1)", None]),
    (["[1, 2]", "[0, 1]"], {}, None),
    (["[1, 2]", "[0, 1]"], {"tokens": ["[5, 6]", "[7, 8]"]}, ["1", "2", "0", "1"]),
    (["['1', '2']", "[]"], {}, ["1", "2"]),
    (["['1', '2']", ""], {}, ["1", "2", None]),
    (["['1', '2']", "7"], {}, None),
    (["['1' '2']", "['3' '4']"], {}, None),
    (["[1 2]", "[3 4]"], {}, None),
    (["['1', '2", "['3', '4']"], {}, None),
    (["[[1, 2], [3, 4]]"] * 2, {}, ["[[1, 2], [3, 4]]"] * 2),
    (["[x, y]", "[a]"], {}, ["[x, y]", "[a]"]),
    (["['2']", "5"], {}, ["2", "5"]),
    (["['2', '3']", "None"], {}, ["2", "3", None]),
    (["['2', '3']", *"1234567890123456789"], {}, ["['2', '3']", *"1234567890123456789"]),
]


@pytest.mark.parametrize(("cells", "others", "answers"), ANSWERS)
def test_all_cells_together_say_whether_a_text_is_a_list(
    cells: list[str], others: dict[str, list[str]], answers: list[str | None] | None
) -> None:
    ids = [f"p{number}" for number in range(len(cells))]
    columns = {"problem_id": "id", "answer": "said", **{name: name for name in others}}
    if answers is None:
        with pytest.raises(
            UserError, match=r"it must be plain whether said, named for answer, has lists(.|\n)*JSON lines"
        ):
            read({"id": ids, "said": cells, **others}, columns)
        # A file that can hold a list has one where one is meant, or texts of nothing else.
        plain = read({"id": ids, "said": cells, **others}, columns, kind="jsonl")
        assert [one.answer for one in plain.entries] == cells
        is_mixed = cells[1] in ("7", "['3', '4']")
        assert any("read as texts, for others are none: 1 of 2" in words for words in plain.words) == is_mixed
    else:
        log = read({"id": ids, "said": cells, **others}, columns)
        assert [one.answer for one in log.entries] == answers
        told = len(answers) > len(cells) or answers[0] == "1" or "['" in cells[0]
        assert any("lists" in words for words in log.words) == told


@pytest.mark.parametrize(
    ("golds", "read_as"),
    [
        (["['7']", "8"], ["7", "8"]),
        (["[7]", "[8.0]"], ["7", "8"]),
        (["[7]", "8"], ["[7]", "8"]),
        (["[1, 2]", "[0, 1]"], ["[1, 2]", "[0, 1]"]),
        (["['7', '8']", "9"], ["7", "9"]),
        (["[1, 2]", "['7', 8]"], ["[1, 2]", "7"]),
    ],
)
def test_a_gold_answer_may_be_a_list_of_one(golds: list[str], read_as: list[str]) -> None:
    log = read({"id": ["a", "b"], "gold": golds, "said": ["x", "y"]}, {**NAMED, "text": "said"})
    assert [one.gold for one in log.entries] == read_as


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("golds", [["5", "6"], ["5", 6], [None, "5", "6"]])
def test_of_several_gold_answers_the_first_counts_which_is_said(golds: list[Any], kind: str) -> None:
    table: dict[str, list[Any]] = {"id": ["a", "b"], "gold": [golds, "7"], "said": ["\\boxed{5}"] * 2}
    log = read(table, {**NAMED, "text": "said"}, kind=kind)
    assert [one.gold for one in log.entries] == ["5", "7"]
    where = "t.csv:2" if kind == "csv" else "t.jsonl:1"
    assert f"{log.path}: samples with several gold answers, of which the first counts: 1, first {where}" in log.words


def test_one_reply_that_is_a_list_among_many_texts_is_a_text() -> None:
    said = ['["2", "5"]', *["So \\boxed{7}"] * 19]
    table: dict[str, list[Any]] = {"id": [*range(20)], "gold": ["7"] * 20, "said": said}
    log = read(table, {**NAMED, "text": "said"})
    assert [one.text for one in log.entries] == said
    assert "read as texts, for others are none: 1 of 20" in " ".join(log.words)
    with pytest.raises(UserError, match="named for text, has lists"):
        read({name: cells[:19] for name, cells in table.items()}, {**NAMED, "text": "said"})


OBJECTS = [{"text": "\\boxed{7}", "usage": {"tokens": 5}, "index": 1}, {"text": "8", "usage": None, "index": 0}]


def test_a_name_beyond_a_list_of_objects_is_a_sample_for_each() -> None:
    cells: dict[str, list[Any]] = {"id": ["a", "b"], "gold": ["7", "7"], "outputs": [OBJECTS, OBJECTS[:1]]}
    columns = {**NAMED, "text": "outputs.text", "tokens": "outputs.usage.tokens", "index": "outputs.index"}
    entries = read(cells, columns, kind="jsonl").entries
    assert [(one.problem_id, one.text, one.tokens, one.index) for one in entries] == [
        ("a", "\\boxed{7}", 5, 1), ("a", "8", None, 0), ("b", "\\boxed{7}", 5, 1),
    ]  # fmt: skip
    assert len(read({**cells, "outputs": [OBJECTS, []]}, columns, kind="jsonl").entries) == 2
    with pytest.raises(UserError, match=r"outputs, named for text, must hold texts(.|\n)*text=outputs\.text"):
        read(cells, {**NAMED, "text": "outputs"}, kind="jsonl")
    # A conversation is no list of samples.
    chat = [[{"role": "user", "content": "?"}, {"role": "assistant", "content": "7"}]] * 2
    with pytest.raises(UserError, match=r"must have the named columns, got said\.content"):
        read({**cells, "said": chat}, {**NAMED, "text": "said.content"}, kind="jsonl")


SPELLINGS = {
    "model": ("model", "Model", "model_name", "modelId", "MODEL PATH", "llm"),
    "temperature": ("temperature", "Temperature", "temp", "sampling_temperature"),
    "top_p": ("top_p", "top-p", "TopP"),
    "max_tokens": ("max_tokens", "max_new_tokens", "maxOutputTokens", "max_completion_tokens"),
}
VALUES: dict[str, tuple[Any, Any]] = {
    "model": ("small", "big"), "temperature": (0.0, 1.0), "top_p": (0.5, 0.95), "max_tokens": (64, 128),
}  # fmt: skip


def facts(log: Any, name: str) -> object:
    return log.facts.model if name == "model" else log.facts.sampling.get(name)


@pytest.mark.parametrize("name", OF_RUN)
def test_rows_of_two_runs_are_refused_however_the_column_is_called(name: str) -> None:
    columns, (one, other) = {**NAMED, "text": "said"}, VALUES[name]
    table = {"id": ["a", "a"], "gold": ["7", "7"], "said": ["7", "8"]}
    both = rf"with the same {name}, got {one}.* in .* and {other}.* in"
    for spelling in SPELLINGS[name]:
        assert facts(read({**table, spelling: [one, one]}, columns), name) == one
        if name == "model" or spelling == name:
            with pytest.raises(UserError, match=both):
                read({**table, spelling: [one, other]}, columns)
    within: dict[str, list[Any]] = {**table, "request": [{SPELLINGS[name][-1]: one}, {SPELLINGS[name][-1]: other}]}
    if name == "model":
        with pytest.raises(UserError, match=both):
            read(within, columns, kind="jsonl")
    # A column of any name can be named for it, before those of its own name.
    named = {**table, "arm": [one, other], name: [one, one]}
    assert facts(read(named, columns), name) == one
    with pytest.raises(UserError, match=both):
        read(named, {**columns, name: "arm"})
    with pytest.raises(UserError, match="must have the named columns, got gone"):
        read(named, {**columns, name: "gone"})


GUESSED: list[tuple[str, Callable[[object], object]]] = [
    *[(name, lambda value: value) for name in ("temp", "Temperature", "sampling-temperature")],
    *[
        (name, lambda value: {"temperature": value, "seed": 1})
        for name in ("config", "sampling_params", "request", "Generation_Config")
    ],
]
"""(a column under which a temperature is guessed, its cell)."""


@pytest.mark.parametrize(("column", "cell"), GUESSED)
def test_a_setting_that_is_guessed_and_differs_is_not_known(column: str, cell: Callable[[object], object]) -> None:
    rows = [
        {"id": f"p{number}", "gold": "7", "said": "\\boxed{7}", "max_tokens": 64, column: cell(value)}
        for number, value in enumerate((0.6, 1.0, 0.6, 0.8))
    ]
    columns = {**NAMED, "text": "said"}
    files = {"one": rows, "two": rows[2:3], "three": rows[1:2]}
    logs = {name: read_log(Path(write_lines(f"{name}.jsonl", own)), columns) for name, own in files.items()}
    for names in (("one",), ("one", "two"), ("two", "one"), ("two", "three"), ("three", "two")):
        joined = join_logs([logs[name] for name in names], suite=None, pace=None, own_answers=False)
        assert joined.sampling == {"max_tokens": 64}, names
        assert joined.missing["temperature"] == len(joined.samples)
        said = [words for words in joined.words if "differ in temperature, which is not known then: " in words]
        assert len(said) == 1, names
    own = [read_log(Path(write_lines(f"{at}.jsonl", [{**rows[0], "temperature": at}])), columns) for at in (0, 1)]
    with pytest.raises(UserError, match="joined only as slices of one run, with the same temperature, got 0"):
        join_logs([logs["one"], *own], suite=None, pace=None, own_answers=False)
    # As one of a name, it tells runs apart.
    column += ".temperature" if isinstance(cell(1), dict) else ""
    with pytest.raises(UserError, match=r"same temperature, got 0.6 in one\.jsonl:1 and 1.0 in one\.jsonl:2"):
        read_log(Path("one.jsonl"), {**columns, "temperature": column})


@pytest.mark.parametrize("name", ["text", "answer", "statement", "tokens", "seconds", "index"])
@pytest.mark.parametrize("column", ["llm", "model", "temp", "max_tokens", "config.temperature"])
def test_a_column_that_is_named_for_one_thing_is_nothing_else(name: str, column: str) -> None:
    cells: list[Any] = [str(number + 1) for number in range(3)]
    if "." in column:
        cells = [{column.split(".")[1]: cell} for cell in cells]
    table = {"id": ["a", "b", "c"], "gold": ["7"] * 3, "said": ["7"] * 3, column.split(".")[0]: cells}
    log = read(table, {**NAMED, "answer": "said", name: column}, kind="jsonl")
    assert (log.facts.model, log.facts.sampling) == (None, {})
    assert len(log.entries) == 3


def test_a_number_of_two_samples_is_refused_and_files_of_their_own_are_joined() -> None:
    rows = [
        {"id": id_, "q": id_, "gold": "7", "said": f"\\boxed{{{run}}}", "n": number}
        for run in (7, 8) for id_ in ("a", "b") for number in (0, 1)
    ]  # fmt: skip
    words = ("--columns", "problem_id=id", "gold=gold", "text=said")
    with pytest.raises(UserError, match=r"t\.jsonl:5: the column n, named for index, must number a problem's samples"):
        imported("r", write_lines("t.jsonl", rows), *words, "index=n")
    imported("both", write_lines("one.jsonl", rows[:4]), write_lines("two.jsonl", rows[4:]), *words, "index=n")
    assert len(Path("both/samples.jsonl").read_text().splitlines()) == 8
