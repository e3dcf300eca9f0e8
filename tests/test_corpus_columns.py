"""Files as people have them: every column is read or named, shapes are seen by structure, bad cells are told."""

import bz2
import csv
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest

from mathlete.corpus import Corpus, open_source
from mathlete.corpus.columns import ColumnUse, Reading, parse_columns
from mathlete.corpus.layouts import read_traced
from mathlete.corpus.stream import BadRows, SourceSpec
from mathlete.corpus.tables import read_rows
from mathlete.errors import UserError
from mathlete.renderings import read_rendered
from mathlete.traces import TracedProblem

ASKED = "How many legs do three stools have, of four legs each?"
THOUGHT = "One stool has 4 legs. Three have 3 * 4 = 12."
SAID = "They have \\boxed{12} legs."
WRITTEN = f"<think>\n{THOUGHT}\n</think>\n\n{SAID}"
LONG = "What a teacher wrote about this problem, in a sentence that is longer than any label."
Row = Mapping[str, object]


def write_lines(file: Path, *rows: Row) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def read(file: Path, reading: Reading | None = None) -> tuple[list[TracedProblem], ColumnUse]:
    use = ColumnUse(file.name)
    return [*chain.from_iterable(open_source(str(file), reading=reading, use=use))], use


def turns(
    *said: str, role: str = "role", text: str = "content", names: Sequence[str] = ("user", "assistant")
) -> list[dict[str, str]]:
    return [{role: names[at % 2], text: one} for at, one in enumerate(said)]


REASONED: dict[str, Row] = {
    "a key of the turn": {"messages": [{"role": "user", "content": ASKED},
        {"role": "assistant", "content": SAID, "reasoning_content": THOUGHT}]},
    "a key of the turn, sharegpt": {"conversations": [{"from": "human", "value": ASKED},
        {"from": "gpt", "value": SAID, "thinking": THOUGHT}]},
    "a part of the turn": {"messages": [{"role": "user", "content": [{"type": "text", "text": ASKED}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": SAID}]}]},
    "beside the conversation": {"messages": turns(ASKED, SAID), "reasoning": THOUGHT},
    "a column": {"problem": ASKED, "thinking": THOUGHT, "solution": SAID},
    "a column with marks": {"question": ASKED, "cot": f"<think>\n{THOUGHT}\n</think>\n\nSo 12.", "response": SAID},
    "a column with all of it": {"question": ASKED, "reasoning": WRITTEN},
    "alpaca": {"instruction": "How many legs do three stools have,", "input": "of four legs each?",
               "output": SAID, "thought": THOUGHT},
    "prompt and completion": {"prompt": ASKED, "completion": SAID, "reasoning_content": THOUGHT},
    "a column, and the answer alone": {"problem": ASKED, "thinking": THOUGHT, "solution": "12"},
    "s1": {"question": ASKED, "deepseek_thinking_trajectory": THOUGHT, "deepseek_attempt": SAID},
    "capitals": {"Question": ASKED, "Complex_CoT": THOUGHT, "Response": SAID},
    "a label of the same name": {"messages": turns(ASKED, WRITTEN), "reasoning": "on"},
}  # fmt: skip


@pytest.mark.parametrize("name", REASONED)
def test_reasoning_in_a_field_of_its_own_is_the_trace(tmp_path: Path, name: str) -> None:
    (one,), use = read(write_lines(tmp_path / "f.jsonl", {**REASONED[name], "answer": "12"}))
    assert (" ".join(one.problem.statement.split()), one.problem.gold) == (ASKED, "12")
    assert (one.trace.text, one.trace.answer, one.trace.flaw) == (THOUGHT, "12", "")
    assert use.unread == (["reasoning"] if "label" in name else [])
    use.check()


def test_several_replies_in_a_row_are_several_traces(tmp_path: Path) -> None:
    row = {"problem": ASKED, "answer": 12, "generations": [WRITTEN, WRITTEN.replace("One", "A")], "uuid": "u"}
    both, _ = read(write_lines(tmp_path / "f.jsonl", row))
    assert [(one.problem.id, one.trace.text) for one in both] == [("u", THOUGHT), ("u", THOUGHT.replace("One", "A"))]
    row = {"problem": ASKED, "answer": 12, "thinking_trajectories": [THOUGHT, "Or 12 at once."], "solution": SAID}
    both, _ = read(write_lines(tmp_path / "f.jsonl", row))
    assert [one.trace.text for one in both] == [THOUGHT, "Or 12 at once."]


@pytest.mark.parametrize("write", [str, json.dumps])
@pytest.mark.parametrize("name", ["generations", "solution"])
def test_several_replies_may_be_the_text_of_a_list(tmp_path: Path, name: str, write: Callable[[object], str]) -> None:
    replies = [WRITTEN, WRITTEN.replace("One", "A")]
    with (tmp_path / "f.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["problem", "answer", name], [ASKED, "['12']", write(replies)]])
    both, _ = read(tmp_path / "f.csv")
    assert [(one.problem.gold, one.trace.text) for one in both] == [
        ("12", THOUGHT), ("12", THOUGHT.replace("One", "A"))
    ]  # fmt: skip
    # A reply in a chat may be such a text itself.
    chat, _ = read(tmp_path / "f.csv", Reading(task="chat"))
    assert len(chat) == (2 if name == "generations" else 1)


def test_several_texts_of_reasoning_for_one_reply_may_be_its_steps(tmp_path: Path) -> None:
    row = {"problem": ASKED, "answer": 12, "cot": ["First I add.", "So it is 12."], "solution": SAID}
    with pytest.raises(UserError, match="cot must be one text: of several nobody knows whether they are steps or tra"):
        read(write_lines(tmp_path / "f.jsonl", row))


UNREAD: list[tuple[Row, str]] = [
    ({"problem": ASKED, "solution": SAID, "analysis": LONG}, "analysis"),
    ({"problem": ASKED, "solution": SAID, "notes": [{"by": "me", "what": LONG}]}, "notes"),
    ({"messages": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID, "why": LONG}]},
     "messages[].why"),
    ({"chosen": turns(ASKED, SAID), "rejected": turns(ASKED, LONG)}, "rejected"),
    ({"question": ASKED, "deepseek_thinking_trajectory": THOUGHT, "deepseek_attempt": SAID,
      "gemini_thinking_trajectory": LONG}, "gemini_thinking_trajectory"),
    ({"question": ASKED, "options": ["A) 11", "B) 12"], "rationale": SAID}, "options"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "name"), UNREAD)
def test_a_column_that_most_rows_say_something_in_is_read_or_named(tmp_path: Path, row: Row, name: str) -> None:
    file = write_lines(tmp_path / "f.jsonl", *[{**row, "answer": "12", "source": "mine"}] * 3)
    corpus = Corpus(source=(str(file),), limit=None)
    with pytest.raises(UserError, match=r"f\.jsonl:1: a column that says something in most rows must be read") as error:
        corpus.check_first_rows()
    assert f"{name!r} unread in 3 of 3 rows (read: " in str(error.value)
    assert f"--ignore {name}" in str(error.value)
    Corpus(source=(str(file),), limit=None, ignore=(name,)).check_first_rows()


def test_what_is_said_twice_or_in_few_rows_is_no_loss(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"messages": turns(ASKED, WRITTEN), "answer": "12", "problem": ASKED, "url": f"https://a.b/{'x' * 90}"},
        {"messages": turns(ASKED, WRITTEN), "answer": "12", "problem": LONG},
    ]
    _, use = read(write_lines(tmp_path / "f.jsonl", *rows))
    use.check()
    assert use.describe() == "f.jsonl: read messages, answer; not read: problem, url"


def test_columns_are_named(tmp_path: Path) -> None:
    row = {"task": ASKED, "how": THOUGHT, "result": SAID, "truth": 12.0, "number": 7, "kind": "legs"}
    file = write_lines(tmp_path / "f.jsonl", row)
    words = ["statement=task", "trace=how", "ending=result", "gold=truth", "id=number", "subset=kind"]
    (one,), use = read(file, Reading(columns=parse_columns(words)))
    assert (one.problem.id, one.problem.statement, one.problem.gold, one.problem.subset) == ("7", ASKED, "12", "legs")
    assert (one.trace.text, one.trace.answer, use.unread) == (THOUGHT, "12", [])
    for words, message in (
        (["statment=task"], "--columns must say which column is what, got statment=task"),
        (["statement"], "--columns must say which column is what, got statement="),
        (["gold=a", "gold=b"], "each name once, got gold=a and gold=b"),
    ):
        with pytest.raises(UserError, match=message):
            Corpus(source=(str(file),), limit=None, columns=(*words,)).check()
    with pytest.raises(UserError, match=r"f\.jsonl:1: the column of --columns gold=thruth must be there") as error:
        read(file, Reading(columns={"gold": "thruth"}))
    assert "did you mean truth" in str(error.value)


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ("It uses 7.40% of its space: 7582209024 of 102463635135 bytes.", "no answer"),
        ("So $x = 12$", "no answer"),
        ("So \\boxed{12}", "no gold"),
        ("The answer is 12.", "no gold"),
        ("3 * 4\n#### 12", "no gold"),
        ("<answer>12</answer>", "no gold"),
    ],
)
def test_without_a_gold_only_a_marked_answer_counts(tmp_path: Path, text: str, flaw: str) -> None:
    (one,), _ = read(write_lines(tmp_path / "f.jsonl", {"problem": ASKED, "solution": text}))
    assert (one.trace.answer, one.trace.flaw) == ("12" if flaw == "no gold" else "", flaw)


SHAPES: dict[str, Row] = {
    "role and content": {"conversations": turns(ASKED, WRITTEN)},
    "from and value": {"messages": turns(ASKED, WRITTEN, role="from", text="value", names=("Human", "GPT"))},
    "one conversation": {"conversation": turns(ASKED, WRITTEN, names=("human", "chatgpt"))},
    "a name of its own": {"exchange": turns(ASKED, WRITTEN, role="speaker", text="text", names=("USER", "model"))},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": ASKED}]},
                           {"role": "assistant", "content": [{"type": "text", "text": WRITTEN}]}]},
    "input and output": {"input": ASKED, "output": WRITTEN},
    "worked answer": {"question": ASKED, "answer": WRITTEN, "final_answer": "12"},
    "chosen": {"prompt": ASKED, "chosen": WRITTEN},
    "rendered by R1": {"text": f"<｜begin▁of▁sentence｜><｜User｜>{ASKED}<｜Assistant｜>{WRITTEN}"
                               "<｜end▁of▁sentence｜>"},
    "rendered as ChatML": {"text": f"<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n{ASKED}<|im_end|>\n"
                                   f"<|im_start|>assistant\n{WRITTEN}<|im_end|>\n"},
    "rendered as Alpaca": {"text": "Below is an instruction that describes a task. Write a response.\n\n"
                                   f"### Instruction:\n{ASKED}\n\n### Response:\n{WRITTEN}<|endoftext|>"},
    "rendered as Guanaco": {"text": f"### Human: {ASKED}### Assistant: {WRITTEN}"},
    "a rendered prompt": {"prompt": f"<｜User｜>{ASKED}<｜Assistant｜><think>\n",
                          "completion": f"{THOUGHT}\n</think>\n\n{SAID}"},
    "a rendered prompt, opened twice": {"prompt": f"<｜begin▁of▁sentence｜><｜User｜>{ASKED}<｜Assistant｜><think>\n",
                                        "completion": f"{WRITTEN}<｜end▁of▁sentence｜>"},
    "a rendered Llama prompt": {"prompt": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
                                          f"{ASKED}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
                                "response": f"{WRITTEN}<|eot_id|>"},
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_a_layout_is_seen_by_its_structure(tmp_path: Path, name: str) -> None:
    gold = {} if "final_answer" in SHAPES[name] else {"answer": "12"}
    (one,), use = read(write_lines(tmp_path / "f.jsonl", {**SHAPES[name], **gold}))
    assert (one.problem.statement, one.problem.gold) == (ASKED, "12")
    assert (one.trace.text, one.trace.answer, one.trace.flaw) == (THOUGHT, "12", "")
    use.check()
    assert use.unread == []


@pytest.mark.parametrize(
    "text",
    [
        "What is 2+2?<｜Assistant｜>5<｜User｜>Sure?",
        "What is 2+2?<|im_end|>\n<|im_start|>user\nand 3+3?",
        "What is <|eot_id|>?",
    ],
)
def test_a_text_with_a_hidden_turn_is_no_rendering(tmp_path: Path, text: str) -> None:
    assert read_rendered(text) is None
    (one,), _ = read(write_lines(tmp_path / "f.jsonl", {"problem": text, "solution": SAID, "answer": "12"}))
    assert one.problem.statement == text


GOOD = {"problem": ASKED, "solution": WRITTEN, "answer": "12"}


def write_csv(file: Path, delimiter: str) -> None:
    with file.open("w", newline="") as out:
        writer = csv.writer(out, delimiter=delimiter)
        writer.writerows([[*GOOD], [*GOOD.values()], [*GOOD.values()]])


def write_zst(file: Path) -> None:
    with pa.output_stream(str(file), compression="zstd") as out:
        out.write(LINES)


LINES = f"{json.dumps(GOOD)}\n{json.dumps(GOOD)}\n".encode()
TABLES: dict[str, Callable[[Path], object]] = {
    "a.ndjson": lambda file: file.write_bytes(LINES),
    "A.JSONL": lambda file: file.write_bytes(LINES),
    "lines.json": lambda file: file.write_bytes(LINES),
    "object.json": lambda file: file.write_text(json.dumps({"version": 2, "data": [GOOD, GOOD]})),
    "a.jsonl.gz": lambda file: file.write_bytes(gzip.compress(LINES)),
    "a.json.bz2": lambda file: file.write_bytes(bz2.compress(json.dumps([GOOD, GOOD]).encode())),
    "a.jsonl.zst": write_zst,
    "a.csv": lambda file: write_csv(file, ";"),
    "b.csv": lambda file: write_csv(file, "\t"),
    "c.tsv": lambda file: write_csv(file, "\t"),
    "a.parquet": lambda file: pyarrow.parquet.write_table(pa.Table.from_pylist([GOOD, GOOD]), file),
    "saved": lambda file: datasets.Dataset.from_list([GOOD, GOOD]).save_to_disk(file),
    "splits": lambda file: datasets.DatasetDict(train=datasets.Dataset.from_list([GOOD, GOOD])).save_to_disk(file),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_read_however_it_is_stored(tmp_path: Path, name: str) -> None:
    TABLES[name](tmp_path / name)
    assert SourceSpec.names_file(str(tmp_path / name))
    traced, _ = read(tmp_path / name)
    assert [(one.problem.statement, one.trace.text) for one in traced] == [(ASKED, THOUGHT)] * 2
    if name == "saved":
        traced, _ = read(next((tmp_path / name).glob("*.arrow")))
        assert len(traced) == 2


def test_a_folder_and_a_pattern_are_their_files(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "test-00000-of-00001.jsonl"):
        (tmp_path / "set" / "data").mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / "data" / name).write_bytes(LINES)
    (tmp_path / "set" / "README.md").write_text("A card.")
    assert len(read(tmp_path / "set")[0]) == 4
    assert len(read(tmp_path / "set" / "data" / "*.jsonl")[0]) == 6
    names = [file.name for file in SourceSpec.parse(str(tmp_path / "set")).files(None)]
    assert names == ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"]


def test_a_set_of_the_hub_without_an_entry_is_read_by_its_columns(tmp_path: Path) -> None:
    file = tmp_path / "owner" / "legs" / "part" / "test.jsonl"
    file.parent.mkdir(parents=True)
    write_lines(file, {"task": ASKED, "how": WRITTEN, "truth": "12"})
    reading = Reading(columns=parse_columns(["statement=task", "trace=how", "gold=truth"]))
    (row,) = open_source("owner/legs:part@test", mirror=tmp_path, reading=reading)
    assert (row[0].problem.id, row[0].problem.gold, row[0].trace.text) == ("legs-0", "12", THOUGHT)
    with pytest.raises(UserError, match=r"the mirror must hold owner/other"):
        [*open_source("owner/other", mirror=tmp_path)]
    # No hub is asked here, and what is there is no folder.
    with pytest.raises(UserError, match=r"owner/other cannot be read from the hub .*") as error:
        [*open_source("owner/other")]
    assert "on this machine there is no file or folder of that name" in str(error.value)


DEEP = "(" * 200_000
BAD: list[tuple[str, object, str]] = [
    ("x.jsonl", {**GOOD, "answer": 1e23}, ":2: answer must be a number whose digits are all there"),
    ("x.jsonl", {**GOOD, "answer": float("inf")}, ":2: answer must be a number whose digits are all there"),
    ("x.jsonl", {**GOOD, "solution": "a\0b"}, ":2: solution must have no NUL in it"),
    ("x.jsonl", {**GOOD, "answer": {"value": 12}}, ":2: answer must be text or a number, got dict"),
    ("x.jsonl", '{"answer": ' + "9" * 5000 + "}", ":2: must be one line of JSON"),
    ("x.jsonl", "[" * 200_000, ":2: must be one line of JSON"),
    ("x.jsonl", {"messages": [{"role": "narrator", "content": "a"}], "answer": "1"}, "write a speaker of these"),
    ("x.jsonl", {"messages": [{"role": "user", "content": [{"type": "image"}]}]}, ":2: a turn's parts must be text"),
    ("x.parquet", {**GOOD, "answer": b"12"}, "[1]: answer must be text or a number, got bytes"),
    (
        "y.parquet",
        {**GOOD, "answer": pa.scalar(0, pa.date32()).as_py()},
        "[1]: answer must be text or a number, got date",
    ),
]


@pytest.mark.parametrize(("name", "bad", "message"), BAD)
def test_a_bad_cell_is_named_and_skipped_where_asked(tmp_path: Path, name: str, bad: object, message: str) -> None:
    file = tmp_path / name
    if name.endswith(".parquet"):
        # A column of such a type is all of it: the row before has none.
        pyarrow.parquet.write_table(pa.Table.from_pylist([{**GOOD, "answer": None, "gold": "12"}, bad]), file)
    else:
        line = bad if isinstance(bad, str) else json.dumps(bad)
        file.write_text(f"{json.dumps(GOOD)}\n{line}\n{json.dumps(GOOD)}\n")
    with pytest.raises(UserError) as error:
        read(file)
    assert message in str(error.value)
    assert f"{file}" in str(error.value)
    skipped = BadRows(skip=True)
    good = 1 if name.endswith(".parquet") else 2
    assert (len([*open_source(str(file), on_bad=skipped)]), skipped.count) == (good, 1)


def test_texts_have_one_kind_of_line_break_and_no_half_characters(tmp_path: Path) -> None:
    file = tmp_path / "f.jsonl"
    text = json.dumps({**GOOD, "solution": WRITTEN.replace("\n", "\r\n")}).replace("legs", "le\\ud83dgs")
    file.write_text(f"{text}\n")
    (one,) = read_traced(file)
    assert (one.problem.statement, one.trace.text) == (
        ASKED.replace("legs", "le\ufffdgs"),
        THOUGHT.replace("legs", "le\ufffdgs"),
    )


def test_a_row_that_is_nested_too_deep_is_a_bad_row(tmp_path: Path) -> None:
    # As deep as JSON's own reader goes, with little left for others.
    deep: object = "end"
    for _ in range(900):
        deep = [deep]
    file = write_lines(tmp_path / "f.jsonl", GOOD, {**GOOD, "extra": deep}, GOOD)
    skipped = BadRows(skip=True)
    assert len([*open_source(str(file), on_bad=skipped)]) + skipped.count == 3
    assert all("nested" in one for one in skipped.messages)


def test_brackets_without_an_end_are_text(tmp_path: Path) -> None:
    (one,), _ = read(
        write_lines(tmp_path / "f.jsonl", {**GOOD, "problem": ASKED + DEEP, "solution": f"{DEEP}\\boxed{{{DEEP}"})
    )
    assert one.problem.statement == ASKED + DEEP


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "h.csv",
            b"problem,solution,answer,answer\na,b,1,2\n",
            "h.csv:1: each column must have a name of its own, got 'answer'",
        ),
        ("t.jsonl.gz", gzip.compress(LINES)[:-9], "t.jsonl.gz: must be a whole .gz file"),
        ("t.csv.gz", gzip.compress(b"problem,solution\na,b\n" * 99)[:-9], "t.csv.gz: must be a whole .gz file"),
        ("t.arrow", b"ARROW1", "t.arrow: must be a whole Arrow file"),
        ("two.json", json.dumps({"a": [GOOD], "b": [GOOD]}).encode(), "two.json: must have one list of rows, got a, b"),
    ],
)
def test_a_bad_file_is_named_and_skipped_where_asked(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    file = tmp_path / name
    file.write_bytes(data)
    with pytest.raises(UserError) as error:
        [*read_rows(file)]
    assert message in str(error.value)
    skipped = BadRows(skip=True)
    _ = [*read_rows(file, on_bad=skipped)]
    assert skipped.count == 1


def test_ids_are_unique_over_the_whole_mix(tmp_path: Path) -> None:
    for folder, first in (("a", 1), ("b", 3)):
        (tmp_path / folder).mkdir()
        rows = [{**GOOD, "problem": f"{number}?"} for number in (first, first + 1)]
        write_lines(tmp_path / folder / "train.jsonl", *rows)
        write_lines(tmp_path / folder / "own.jsonl", *({**row, "id": str(at)} for at, row in enumerate(rows)))
    for name in ("train", "own"):
        files = tuple(str(tmp_path / folder / f"{name}.jsonl") for folder in "ab")
        rows_ = [row[0].problem for row in Corpus(source=files, limit=None).open(seed=0)]
        prefix = "train-" if name == "train" else ""
        ids = [f"{prefix}0", f"{prefix}1", f"{prefix}0@2", f"{prefix}1@2"]
        assert [one.id for one in rows_] == ids
        assert len({(one.id, one.statement) for one in rows_}) == len({one.id for one in rows_}) == 4
