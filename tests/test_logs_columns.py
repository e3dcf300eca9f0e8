"""What the columns of a log hold: odd numbers, cells that say nothing, rows of two runs in one file."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from mathlete.errors import UserError
from mathlete.logs import read_log
from mathlete.logs.columns import COLUMNS
from mathlete.logs.finishes import as_finish
from tests.test_logs import body, imported, write_lines
from tests.test_logs_odd import ROWS, with_value

Rows = list[dict[str, Any]]


def csv_file(rows: Rows) -> Path:
    with Path("t.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    return Path("t.csv")


def parquet_file(rows: Rows) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), "t.parquet")
    return Path("t.parquet")


FILES: dict[str, Callable[[Rows], Path]] = {
    "csv": csv_file,
    "jsonl": lambda rows: Path(write_lines("t.jsonl", rows)),
    "parquet": parquet_file,
}
NUMBERS: list[float] = [0, 7, 7.0, 2.5, -1, -1.5, 0.5, -9999.0, 1e300, math.nan, math.inf, -math.inf]
READ: dict[str, list[float | None]] = {
    **{name: [0, 7, 7, *[None] * 9] for name in ("tokens", "seed", "index")},
    "seconds": [0, 7, 7, 2.5, None, None, 0.5, *[None] * 5],
    "logprob_mean": [0, None, None, None, -1, -1.5, *[None] * 6],
}
"""{name: what is read of the numbers}."""


@pytest.fixture(autouse=True)
def inside(workdir: Path) -> None:
    """Every test stands in a folder of its own."""


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", READ)
def test_a_number_is_read_alike_in_every_kind_of_file_and_none_that_cannot_be(kind: str, name: str) -> None:
    # In a table of one type for a column all numbers are floats, as pandas makes them beside a missing one.
    cells = [*map(float, NUMBERS)] if kind == "parquet" else NUMBERS
    path = FILES[kind]([{"id": "a", "gold": "2", "said": "2", "cell": cell} for cell in cells])
    log = read_log(path, {"problem_id": "id", "gold": "gold", "answer": "said", name: "cell"})
    assert [getattr(entry, name) for entry in log.entries] == READ[name]
    assert f"hold no {name}, and count as missing: {READ[name].count(None)}, first " in " ".join(log.words)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", COLUMNS)
def test_a_named_column_that_holds_nothing_is_said(kind: str, name: str) -> None:
    columns = {"problem_id": "id", "answer": "said", name: "cell"}
    empty = FILES[kind]([{"id": "a", "said": "2", "cell": ""}] * 2)
    log = read_log(empty, columns)
    assert name == "text" or any(f"the column cell, named for {name}, is empty" in words for words in log.words)
    odd: Any = "soon" if kind == "csv" else {"a": 1}
    wrong = FILES[kind]([{"id": "a", "said": "2", "cell": odd}] * 2)
    if name in READ or kind != "csv":
        with pytest.raises(UserError, match=rf"the column cell, named for {name}, must hold .*, got .* in t\."):
            read_log(wrong, columns)
    with pytest.raises(UserError, match="must have the named columns, got gone"):
        read_log(empty, {**columns, name: "gone"})


def test_seeds_are_exact_and_lists_have_their_odd_members_counted() -> None:
    large = 2**53 + 1
    log = read_log(csv_file([{"said": "2", "cell": large}]), {"answer": "said", "seed": "cell"})
    assert log.entries[0].seed == large
    rows = [{"said": ["2", "3"], "cell": [-1, "soon"]}]
    log = read_log(FILES["jsonl"](rows), {"answer": "said", "logprob_mean": "cell"})
    assert [entry.logprob_mean for entry in log.entries] == [-1.0, None]
    assert log.words == [
        "t.jsonl: cells of cell that hold no logprob_mean, and count as missing: 1, first 'soon' in t.jsonl:1"
    ]


@pytest.mark.parametrize("odd", [math.nan, math.inf, -9999.0, 3.0, True, "x"])
def test_a_log_probability_that_is_none_is_missing_and_the_samples_are_json(odd: object) -> None:
    row = {"question": "1 + 1?", "gold": "2", **body("chat.completion", "a", ["2", "2"])}
    row["choices"][0]["logprobs"] = {"content": [{"token": "x", "logprob": odd}, {"token": "y", "logprob": -1.0}]}
    said = imported("r", write_lines("t.jsonl", [row]), "--columns", "gold=gold")
    assert "logprobs (1 of 2 samples)" in " ".join(said)
    lines = Path("r/samples.jsonl").read_text().splitlines()
    assert [json.loads(line, parse_constant=pytest.fail)["logprob_mean"] for line in lines] == [None, -1.0]


REQUEST = {"temperature": 0.6, "top_p": 0.95, "max_tokens": 64}
TABLE = {"statement": "1 + 1?", "gold": "2", "said": "2", "model": "small", **REQUEST}
RUNS: list[tuple[str, dict[str, Any], tuple[Any, ...], object]] = [
    ("model", ROWS["chat.jsonl"], ("model",), "big"),
    ("model", ROWS["batch.jsonl"], ("response", "body", "model"), "big"),
    ("model", ROWS["responses.jsonl"], ("response", "body", "model"), "big"),
    ("top_p", ROWS["responses.jsonl"], ("response", "body", "top_p"), 0.5),
    *[(name, {**ROWS["text.jsonl"], "request": REQUEST}, ("request", name), 1) for name in REQUEST],
    ("temperature", ROWS["harness.jsonl"], ("arguments", "gen_args_0", "arg_1", "temperature"), 1.5),
    *[(name, TABLE, (name,), other) for name, other in (("model", "big"), ("temperature", 1), ("max_tokens", 9))],
]  # fmt: skip
"""(what rows must agree in, a row, where it says it, what another run says)."""


@pytest.mark.parametrize(("name", "row", "place", "other"), RUNS)
def test_rows_of_two_runs_in_one_file_are_refused(
    name: str, row: dict[str, Any], place: tuple[Any, ...], other: object
) -> None:
    columns = {"answer": "said"} if row is TABLE else {}
    assert len(read_log(Path(write_lines("one.jsonl", [row, row])), columns).entries) >= 2
    # A row that says nothing of it contradicts none.
    silent = with_value(row, place, None)
    assert read_log(Path(write_lines("one.jsonl", [silent, row, silent])), columns).facts.model != "big"
    both = Path(write_lines("both.jsonl", [row, silent, with_value(row, place, other)]))
    with pytest.raises(UserError, match=rf"with the same {name}, got .* in both\.jsonl:1 and .* in both\.jsonl:3"):
        read_log(both, columns)


def test_a_table_tells_its_model_and_settings_under_their_own_names() -> None:
    facts = read_log(csv_file([TABLE]), {"answer": "said"}).facts
    assert (facts.model, facts.sampling) == ("small", REQUEST)
    odd = {**TABLE, "temperature": 7, "top_p": 0, "max_tokens": 1.5}
    assert read_log(csv_file([odd]), {"answer": "said"}).facts.sampling == {}


ENDS: list[tuple[object, str | None]] = [
    *[
        (word, "stop")
        for word in ("stop", "STOP", "finished", "done", "eot_id", "END_ID", "eos_token_id", "<|im_end|>")
    ],
    *[(word, "stop") for word in ("FINISH_REASON_STOP", "FinishReason.STOP", "FINISHED_STOPPED", "stop token")],
    *[(word, "length") for word in ("max_tokens", "MAX_TOKENS", "FINISHED_LENGTH_CAPPED", "max-new-tokens", "LENGTH")],
    *[(word, "cancelled") for word in ("abort", "FINISHED_ABORTED", "content_filter", "SAFETY", "canceled", "clock")],
    *[(word, None) for word in ("", "unknown", "soon", "stopwatch", "climax", True, 1.5, None)],
    *[(word, "stop") for word in ("EndTurn", "stopSequence", "FINISH", "</s>", "<|return|>")],
    *[
        (word, "length")
        for word in ("model_context_window_exceeded", "max_context_length", "context_length_exceeded", "length_limit")
    ],
    *[(word, "length") for word in ("max_length_reached", "maxTokens", "MaxTokens", "ERROR_LIMIT", "OutputTruncated")],
    *[(word, "cancelled") for word in ("ERROR_TOXIC", "USER_CANCEL", "guardrail_intervened", "pause_turn")],
    *[(word, "cancelled") for word in ("time_limit", "contentFiltered")],
    ({"type": "length", "length": 64}, "length"),
    ("boxed", "boxed"),
]
"""(a tool's word for why a sample ended, what is read)."""


def test_words_for_the_end_are_read_in_every_spelling_and_others_are_counted() -> None:
    for word, end in ENDS:
        assert as_finish(word) == end, word
    rows = [{"question": f"{at}?", "gold": "2", "said": "Adding up gives 2", "end": word} for at, word in
            enumerate(("done", "soon", "", "length", "later"))]  # fmt: skip
    columns = ("gold=gold", "text=said", "finish=end")
    said = " ".join(imported("r", write_lines("t.jsonl", rows), "--columns", *columns))
    assert "cells of end that hold no finish, and count as missing: 2, first 'soon' in t.jsonl:2" in said
    assert "finish (3 of 5 samples)" in said
    # An end that is not known cuts nothing off.
    assert json.loads(Path("r/results.json").read_text())["right"] == 4
    write_lines("t.jsonl", rows[1:2])
    with pytest.raises(UserError, match=r"named for finish, must hold words for why a sample ended(.|\n)*leave finish"):
        read_log(Path("t.jsonl"), {"text": "said", "finish": "end"})


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("chat.jsonl", ("choices", 0, "finish_reason")),
        ("output-rs0.jsonl", ("finish_reason",)),
        ("log.json", ("samples", 0, "output", "choices", 0, "stop_reason")),
    ],
)
def test_a_layout_s_own_word_for_the_end_that_is_not_known_is_said(name: str, place: tuple[Any, ...]) -> None:
    for word, told in (("soon", True), ("stop", False), ("unknown", False), (None, False)):
        Path(name).write_text(json.dumps(with_value(ROWS[name], place, word)))
        log = read_log(Path(name), {})
        assert log.entries[0].finish == ("stop" if word == "stop" else None)
        words = f"{name}: words for why a sample ended that are not known, and count as missing: 1, first 'soon' in "
        assert any(one.startswith(words) for one in log.words) == told


@pytest.mark.parametrize("name", ["harness.jsonl", "chat.jsonl", "details.parquet.jsonl", "text.jsonl"])
def test_a_list_beside_a_layout_s_own_samples_is_theirs_one_by_one(name: str) -> None:
    alone = read_log(Path(write_lines(name, [ROWS[name]])), {}).entries
    times = [1.5 + number for number in range(len(alone))]
    write_lines(name, [{**ROWS[name], "times": times, "asked": "b"}] * 2)
    beside = read_log(Path(name), {"seconds": "times", "problem_id": "asked"}).entries
    assert [entry.seconds for entry in beside] == times * 2
    assert [(entry.text, entry.index, entry.uid) for entry in beside] == [
        (entry.text, entry.index, entry.uid) for entry in [*alone, *alone]
    ]
    write_lines(name, [{**ROWS[name], "times": [*times, 9.5]}])
    count = len(alone)
    with pytest.raises(UserError, match=f"one length, got {{'seconds': {count + 1}, 'samples': {count}}}"):
        read_log(Path(name), {"seconds": "times"})


def test_an_empty_cell_beside_a_word_that_is_known_is_no_word_that_is_not() -> None:
    cells = ("length", "", None)
    rows = [{**body("chat.completion", f"a-{at}", ["2"]), "cell": cell} for at, cell in enumerate(cells)]
    for row in rows:
        row["choices"][0]["finish_reason"] = "stop"
    read = read_log(Path(write_lines("t.jsonl", rows)), {"finish": "cell"})
    assert [entry.finish for entry in read.entries] == ["length", None, None]
    assert read.words == []
