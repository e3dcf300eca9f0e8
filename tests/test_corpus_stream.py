"""Sources, file layouts and mixes: what is read out of each, and what a bad row does."""

import csv
import json
from collections.abc import Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.corpus.adapters import read_traces
from mathlete.corpus.cells import GOLDS, find_gold
from mathlete.corpus.layouts import read_traced
from mathlete.corpus.sources import find_source, load_sources
from mathlete.corpus.stream import BadRows, Mix, SourceSpec, open_source
from mathlete.errors import UserError
from mathlete.traces import read_completion

THOUGHT = "<think>\n2+2=4\n</think>\n\nIt is $\\boxed{4}$."
ASKED = "What is 2+2?"

Read = tuple[str, str, str, str]
"""Gold, trace, answer, flaw."""


@pytest.mark.parametrize(
    ("name", "row", "read"),
    [
        ("gsm8k", {"question": ASKED, "answer": "2+2=<<2+2=4>>4.\n#### 1,004"}, [("1004", "2+2=4.", "1004", "")]),
        ("math", {"problem": ASKED, "level": "Level 2", "type": "Algebra", "solution": "So $\\boxed{4}$."},
         [("4", "So $\\boxed{4}$.", "4", "")]),
        ("numina-cot", {"problem": ASKED, "source": "math", "solution": "So $\\boxed{4}$.", "messages": []},
         [("4", "So $\\boxed{4}$.", "4", "")]),
        ("numina-cot", {"problem": ASKED, "source": "math", "solution": "It is obvious!"},
         [("", "It is obvious!", "", "no gold")]),
        ("numina-1.5", {"problem": ASKED, "answer": "4", "solution": "So $\\boxed{4}$.", "problem_is_valid": "Yes",
                        "solution_is_valid": "Yes", "source": "math"}, [("4", "So $\\boxed{4}$.", "4", "")]),
        ("numina-1.5", {"problem": ASKED, "answer": "proof", "solution": "QED", "problem_is_valid": "Yes",
                        "solution_is_valid": "Yes", "source": "math"}, [("", "QED", "", "no gold")]),
        ("numina-1.5", {"problem": ASKED, "answer": "4", "solution": "So $\\boxed{4}$.", "problem_is_valid": "Yes",
                        "solution_is_valid": "No", "source": "math"}, [("4", "So $\\boxed{4}$.", "4", "unfit")]),
        ("openr1", {"problem": ASKED, "answer": "4", "uuid": "u", "problem_type": "A", "generations": []},
         [("4", "", "", "no trace")]),
        ("openr1:extended", {"problem": ASKED, "answer": "4", "uuid": "u", "generations": [THOUGHT, "<think>\n2+2"]},
         [("4", "2+2=4", "4", ""), ("4", "<think>\n2+2", "", "unclosed")]),
        ("openr1", {"problem": ASKED, "answer": "4", "uuid": "u", "generations": ["2+2=4\n</think>\n\\boxed{4}"]},
         [("4", "2+2=4", "4", "")]),
        ("openmath", {"problem": ASKED, "expected_answer": "4", "generated_solution": THOUGHT,
                      "generation_model": "QwQ-32B"}, [("4", "2+2=4", "4", "")]),
        ("openmath:tir", {"problem": ASKED, "expected_answer": "4", "generated_solution": "<think>2+"},
         [("4", "<think>2+", "", "unclosed")]),
        ("s1k-1.1", {"question": ASKED, "solution": "4", "cot_type": "math", "deepseek_thinking_trajectory": "2+2=4",
                     "deepseek_attempt": "It is \\boxed{4}"}, [("4", "2+2=4", "4", "")]),
        ("s1k-1.1", {"question": ASKED, "solution": "4", "cot_type": "science", "deepseek_thinking_trajectory": "2+2",
                     "deepseek_attempt": "\\boxed{4}"}, [("4", "2+2", "4", "unfit")]),
        ("limo", {"question": ASKED, "answer": 4, "solution": "Long. **Final Answer**\n\\boxed{4}"},
         [("4", "Long. **Final Answer**\n\\boxed{4}", "4", "")]),
        ("deepscaler", {"problem": ASKED, "answer": "4", "solution": ""}, [("4", "", "", "no trace")]),
        ("metamath", {"type": "GSM_Rephrased", "query": ASKED, "response": "2+2=4\n#### 4\nThe answer is: 4"},
         [("4", "2+2=4", "4", "")]),
        ("mathinstruct", {"source": "data/CoT/aqua_rat.json", "instruction": ASKED, "output": "The answer is 4"},
         [("4", "The answer is 4", "4", "")]),
        ("mathinstruct", {"source": "data/PoT/gsm.json", "instruction": ASKED, "output": "print(4)"},
         [("4", "print(4)", "4", "unfit")]),
    ],
)  # fmt: skip
def test_each_set_is_read_by_its_columns(name: str, row: dict[str, Any], read: list[Read]) -> None:
    result = read_traces(find_source(name), row, number=3, where="w")
    assert [(one.problem.gold, one.trace.text, one.trace.answer, one.trace.flaw) for one in result] == read
    assert {(one.problem.statement, one.problem.source, one.where) for one in result} == {
        (ASKED, find_source(name).hub, "w")
    }


def test_the_registry_holds_every_set_with_its_licence() -> None:
    with_traces = {name for name, src in load_sources().items() if src.trace}
    assert with_traces >= {
        "numina-cot", "numina-tir", "numina-1.5", "openr1", "openmath", "openmath:tir", "openmath:genselect",
        "s1k-1.1", "limo", "deepscaler", "metamath", "mathinstruct", "gsm8k", "math",
    }  # fmt: skip
    assert {"aime-history", "aimo-validation-aime", "aimo-validation-amc"} <= load_sources().keys()
    assert all(src.licence and len(src.part.revision or "a" * 40) == 40 for src in load_sources().values())


def test_a_set_without_a_config_of_its_own_is_all_of_them(tmp_path: Path) -> None:
    for number, part in enumerate(find_source("math").part.configs):
        file = find_source(f"math:{part}").mirror_path(tmp_path)
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"problem": f"p{number}", "level": "1", "solution": f"\\boxed{{{number}}}"}) + "\n")
    assert [one.problem.gold for one in chain.from_iterable(open_source("math", mirror=tmp_path))] == list("0123456")
    assert [one.problem.gold for one in chain.from_iterable(open_source("math:geometry", mirror=tmp_path))] == ["2"]


@pytest.mark.parametrize(
    ("word", "spec"),
    [
        ("openr1", SourceSpec(name="openr1")),
        ("openr1:extended=0.5", SourceSpec(name="openr1:extended", weight=0.5)),
        ("my=files.jsonl", SourceSpec(name="my=files.jsonl")),
        ("a.csv=2", SourceSpec(name="a.csv", weight=2.0)),
        ("openr1=0", "above 0, got 'openr1=0'"),
        ("openr1=two", "above 0, got 'openr1=two'"),
        ("openr1:extendedd", "config of openr1 must be a known one, got 'extendedd'.\n  Fix: did you mean extended"),
        ("openmath:tri", "did you mean tir"),
        ("gsm8k:easy", "use gsm8k, it has no configs"),
        ("aime-history", "training needs a source with traces"),
        ("file.txt", "or a file of traced problems ending in .jsonl"),
    ],
)
def test_a_source_is_named_with_config_and_weight(word: str, spec: SourceSpec | str) -> None:
    if isinstance(spec, SourceSpec):
        assert SourceSpec.parse(word) == spec
        return
    with pytest.raises(UserError) as error:
        SourceSpec.parse(word)
    assert spec in str(error.value)


LAYOUTS: dict[str, dict[str, Any]] = {
    "mathlete": {"id": "424e18", "statement": ASKED, "gold": "4", "trace": "2+2=4", "answer": "4"},
    "messages": {"id": "424e18", "gold": "4", "messages": [
        {"role": "system", "content": "Be kind."}, {"role": "user", "content": ASKED},
        {"role": "assistant", "content": THOUGHT}]},
    "sharegpt": {"id": "424e18", "answer": "4", "conversations": [
        {"from": "human",
         "value": f"{ASKED} Please reason step by step, and put your final answer within \\boxed{{}}."},
        {"from": "gpt", "value": THOUGHT}]},
    "alpaca": {"id": "424e18", "answer": "4", "instruction": "What is", "input": "2+2?", "output": THOUGHT},
    "prompt": {"id": "424e18", "answer": "4", "prompt": ASKED, "completion": THOUGHT},
    "prompt of messages": {"id": "424e18", "answer": "4", "prompt": [{"role": "user", "content": ASKED}],
                           "completion": [{"role": "assistant", "content": THOUGHT}]},
    "solutions": {"ID": "424e18", "Problem": ASKED, "Answer": "4", "Solution": THOUGHT},
}  # fmt: skip


def write_table(file: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    match file.suffix:
        case ".jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".json":
            file.write_text(json.dumps(rows))
        case ".parquet":
            pyarrow.parquet.write_table(pa.Table.from_pylist(rows), file)
        case _:
            with file.open("w", newline="") as out:
                writer = csv.DictWriter(out, [*rows[0]])
                writer.writeheader()
                cells = [{k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in rows]
                writer.writerows(cells)
    return file


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_recognised_in_every_format(tmp_path: Path, layout: str, suffix: str) -> None:
    file = write_table(tmp_path / f"rows{suffix}", [LAYOUTS[layout]])
    (result,) = read_traced(file)
    problem, trace = result.problem, result.trace
    assert (problem.id, " ".join(problem.statement.split()), problem.gold) == ("424e18", ASKED, "4")
    assert (trace.text, trace.answer, trace.flaw, trace.generator) == ("2+2=4", "4", "", file.name)


@pytest.mark.parametrize(
    ("row", "read"),
    [
        ({"problem": ASKED, "solution": "So \\boxed{4}"}, ("f-0", "", "So \\boxed{4}", "4", "no gold")),
        ({"problem": ASKED, "solution": [THOUGHT], "answer": ["4"]}, ("f-0", "4", "2+2=4", "4", "")),
        ({"problem": ASKED, "solution": THOUGHT, "answer": 4.0}, ("f-0", "4", "2+2=4", "4", "")),
        ({"problem": ASKED, "solution": "<think> so", "answer": "4"}, ("f-0", "4", "<think> so", "", "unclosed")),
        ({"problem": ASKED, "solution": "", "response": "Dunno.", "answer": "4", "id": 7},
         ("7", "4", "Dunno.", "", "no answer")),
    ],
)  # fmt: skip
def test_what_a_file_leaves_out_is_said(tmp_path: Path, row: dict[str, Any], read: tuple[str, ...]) -> None:
    (result,) = read_traced(write_table(tmp_path / "f.jsonl", [row]))
    trace = result.trace
    assert (result.problem.id, result.problem.gold, trace.text, trace.answer, trace.flaw) == read


BAD: list[tuple[str, object, str]] = [
    ("x.jsonl", {"id": 4.24e20, "problem": ASKED, "solution": "4", "answer": "4"}, ":2: an id must be text or a whole"),
    ("x.jsonl", {"id": "1", "problem": ASKED, "solution": "4", "answer": " "}, ":2: answer must not be empty"),
    ("x.jsonl", {"id": "1", "problem": ASKED, "solution": "4", "answer": None}, ":2: answer must not be empty"),
    ("x.jsonl", {"id": "1", "problem": ASKED, "solution": "4", "answer": ["4", "5"]}, ":2: answer must be text or"),
    ("x.jsonl", {"id": "1", "problem": ASKED, "solution": 4, "answer": "4"}, ":2: solution must be text, got 4"),
    ("x.jsonl", {"id": "1", "question": 4, "solution": "4", "answer": "4"}, ":2: question must be text, got 4"),
    ("x.jsonl", {"id": "1", "solution": "4", "answer": "4"}, ":2: a row needs its question in a column"),
    ("x.jsonl", {"id": "0", "problem": "Other?", "solution": "4", "answer": "4"}, ":2: ids must be unique, got '0'"),
    ("x.jsonl", "[1]", ":2: a row must be an object, got list"),
    ("x.jsonl", '{"id": ', ":2: must be one line of JSON"),
    ("x.jsonl", b'{"id": "\xff"}', ":2: text must be UTF-8"),
    ("x.csv", "7,8", ":3: must have as many cells as the header"),
    ("x.json", {"id": "1", "problem": ASKED, "solution": "4", "answer": ""}, "[1]: answer must not be empty"),
    ("x.jsonl", {"id": "1", "problem": ASKED, "solution": "4", "answer": float("nan")}, ":2: answer must not be empty"),
    ("x.parquet", {"id": "1", "problem": ASKED, "solution": None, "answer": None}, "[1]: answer must not be empty"),
]


@pytest.mark.parametrize(("name", "bad", "message"), BAD)
def test_a_bad_row_is_named_or_counted(tmp_path: Path, name: str, bad: Any, message: str) -> None:
    good = {"id": "0", "problem": ASKED, "solution": "So \\boxed{4}", "answer": "4"}
    file = tmp_path / name
    write_table(file, [good, bad, {**good, "id": "9"}] if isinstance(bad, dict) else [good])
    if not isinstance(bad, dict):
        line = bad if isinstance(bad, bytes) else bad.encode()
        last = b"9,b,So 4,4\n" if name.endswith(".csv") else json.dumps({**good, "id": "9"}).encode()
        file.write_bytes(file.read_bytes() + line + b"\n" + last)
    with pytest.raises(UserError) as error:
        list(open_source(str(file)))
    assert f"{file}{message}" in str(error.value)
    assert "\n  Fix: " in str(error.value)
    skipped = BadRows(skip=True)
    result = list(open_source(str(file), on_bad=skipped))
    assert [one[0].problem.id for one in result] == ["0", "9"]
    assert (skipped.count, len(skipped.messages)) == (1, 1)
    assert message in skipped.messages[0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"conversations": "no list"}, "a conversation must be a list of turns"),
        ({"conversations": [{"from": "human"}]}, "a conversation must be a list of turns"),
        ({"messages": [{"role": "user", "content": ASKED}]}, "must have a reply to learn from"),
        ({"messages": []}, "one question and one answer, got no turn"),
        ({"prompt": ASKED, "completion": 4}, "completion must be text, got 4"),
        ({"instruction": None, "output": "4"}, "instruction must be text"),
        ({"instruction": " ", "output": "4"}, "a row needs a statement"),
        ({"tokens": 3, "text": "x"}, "must have the columns of a known layout, got columns tokens, text"),
    ],
)
def test_a_row_of_the_wrong_shape_is_exit_2(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        list(read_traced(write_table(tmp_path / "f.jsonl", [row])))
    assert f"f.jsonl:1: {message}" in str(error.value) or message in str(error.value)


def test_a_truncated_parquet_is_named_and_its_whole_rows_are_not_lost_silently(tmp_path: Path) -> None:
    file = write_table(tmp_path / "t.parquet", [{"problem": ASKED, "solution": "4", "answer": "4"}] * 3)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"t\.parquet: must be a whole parquet file"):
        list(read_traced(file))
    skipped = BadRows(skip=True)
    assert not list(read_traced(file, on_bad=skipped))
    assert skipped.count == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"problem": "p", "answer": "4", "uuid": "u"}, "a row needs its traces in 'generations'"),
        ({"problem": "p", "answer": "4", "generations": "text"}, "a row needs its traces in 'generations', got str"),
        ({"problem": "p", "answer": True, "generations": []}, "a row needs an answer in 'answer', got True"),
        ({"answer": "4", "generations": []}, "a row needs a statement in 'problem'"),
    ],
)
def test_a_bad_row_of_a_set_is_named_or_counted(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    file = find_source("openr1").mirror_path(tmp_path)
    file.parent.mkdir(parents=True)
    write_table(file, [{"problem": "p", "answer": "4", "uuid": "u", "generations": [THOUGHT]}, row])
    with pytest.raises(UserError) as error:
        list(chain.from_iterable(open_source("openr1", mirror=tmp_path)))
    assert f"{file}:2: {message}" in str(error.value)
    skipped = BadRows(skip=True)
    assert len(list(open_source("openr1", mirror=tmp_path, on_bad=skipped))) == skipped.count == 1


def file_of(folder: Path, name: str, count: int) -> str:
    rows = [
        {"id": f"{name}{n}", "problem": f"{name}{n}?", "solution": "\\boxed{4}", "answer": "4"} for n in range(count)
    ]
    return str(write_table(folder / f"{name}.jsonl", rows))


def open_mix(words: list[str], limit: int | None = None) -> tuple[str, Mix]:
    mix = Mix([SourceSpec.parse(word) for word in words], mirror=None, limit=limit, seed=0)
    return "".join(row[0].problem.id[0] for row in mix), mix


def test_sources_follow_each_other_or_are_mixed_by_weight(tmp_path: Path) -> None:
    a, b = file_of(tmp_path, "a", 4), file_of(tmp_path, "b", 8)
    result, mix = open_mix([a, b])
    assert (result, mix.taken, mix.ended_by) == ("aaaabbbbbbbb", {a: 4, b: 8}, "")
    result, mix = open_mix([f"{a}=1", f"{b}=3"], limit=8)
    assert (result, mix.taken, mix.ended_by) == ("bbabbbab", {a: 2, b: 6}, "")
    result, mix = open_mix([f"{a}=1", f"{b}=1"])
    assert (result.count("a"), mix.ended_by) == (4, a)
    assert open_mix([a, f"{b}=1"])[0] == "aaaabbbbbbbb"
    assert open_mix(["pocket", a], limit=6)[1].taken == {"pocket": 6, a: 0}


@given(st.lists(st.floats(0.05, 20), min_size=2, max_size=4), st.integers(1, 200))
def test_shares_hold_in_every_part_of_the_mix(weights: list[float], count: int) -> None:
    mix = Mix([], mirror=None, limit=None, seed=0)
    specs = [SourceSpec(name=str(index), weight=weight) for index, weight in enumerate(weights)]
    row = next(iter(open_source("pocket", limit=1)))
    mix._streams = {spec: iter([row] * count) for spec in specs}
    mix.taken = dict.fromkeys((spec.name for spec in specs), 0)
    total = len(list(islice(mix, count)))
    assert total == count
    for spec, weight in zip(specs, weights, strict=True):
        # Divisors of this kind (Jefferson's) give each at least its share rounded down.
        assert mix.taken[spec.name] >= int(count * weight / sum(weights) - 1e-9)


TEXTS = st.text(alphabet="ab\n <>/think", max_size=40)


@given(thought=TEXTS, ending=TEXTS)
def test_what_is_written_as_r1_does_is_read_back(thought: str, ending: str) -> None:
    if "</think" in thought + ending or "<think" in thought:
        return
    for text in (f"<think>\n{thought}\n</think>\n\n{ending}", f"{thought}\n</think>\n\n{ending}"):
        result = read_completion(text, thinks=True)
        assert (result.thought, result.ending, result.flaw) == (thought.strip(), ending.strip(), "")


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("openr1", ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]),
        ("openr1:extended", ["extended/train-00000-of-00001.parquet"]),
        ("openr1", ["default/train.jsonl"]),
        ("openmath:tir", ["data/tir-00000-of-00001.parquet"]),
        ("gsm8k", ["main/train-00000-of-00001.parquet"]),
        ("metamath", ["MetaMathQA-395K.json"]),
        ("limo", ["limo.jsonl"]),
    ],
)
def test_a_mirror_is_what_the_hub_has_or_json_lines(tmp_path: Path, name: str, places: list[str]) -> None:
    src = find_source(name)
    row: dict[str, Any] = {src.statement: ASKED, src.golds.answer: "It is 4\n#### 4", src.trace: "It is 4\n#### 4"}
    if src.trace_kind == "generations":
        row |= {src.golds.answer: "4", src.trace: [THOUGHT], src.id: "u"}
    folder = tmp_path.joinpath(*src.hub.split("/"))
    folder.mkdir(parents=True)
    for place in places:
        (folder / place).parent.mkdir(exist_ok=True)
        write_table(folder / place, [row])
    (folder / "README.md").write_text("A card.")
    assert len(list(open_source(name, mirror=tmp_path))) == len(places)
    assert [str(file.relative_to(folder)) for file in SourceSpec(name=name).files(tmp_path)] == places


def test_a_mirror_without_the_set_names_both_ways(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        list(chain.from_iterable(open_source("limo", mirror=tmp_path)))
    assert "hf download --repo-type dataset GAIR/LIMO" in str(error.value)


def test_a_csv_of_a_spreadsheet_with_long_traces_is_read(tmp_path: Path) -> None:
    long = "2+2=4, let me see. " * 20_000
    row = {"id": "424e18", "problem": ASKED, "solution": long + "\\boxed{4}", "answer": "4"}
    file = write_table(tmp_path / "f.csv", [row])
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    (result,) = read_traced(file)
    assert (result.problem.id, len(result.trace.text), result.trace.answer) == ("424e18", len(long) + 9, "4")


@pytest.mark.parametrize(
    ("trace", "read"),
    [
        ("2+2=4", ("2+2=4", "")),
        ("<think>\n2+2=4\n</think>\n\n\\boxed{4}", ("2+2=4", "")),
        ("2+2=4\n</think>", ("2+2=4", "")),
        ("<think>\n2+2=4", ("<think>\n2+2=4", "unclosed")),
    ],
)
def test_our_own_layout_takes_traces_with_their_marks_and_without(
    tmp_path: Path, trace: str, read: tuple[str, str]
) -> None:
    row = {"id": "1", "statement": ASKED, "gold": "4", "trace": trace, "answer": "4"}
    (result,) = read_traced(write_table(tmp_path / "f.jsonl", [row]))
    assert (result.trace.text, result.trace.flaw) == read


@pytest.mark.parametrize(
    ("row", "columns", "gold"),
    [
        ({"gold": "7", "answer": "8"}, GOLDS, ("gold", "7")),
        ({"answer": "8", "Answer": "7"}, GOLDS, ("answer", "8")),
        ({"gold": None, "expected_answer": 7}, GOLDS, ("expected_answer", 7)),
        ({"gold": None}, GOLDS, ("gold", None)),
        ({"gold": ""}, GOLDS, ("gold", "")),
        ({"answer": ["7"]}, GOLDS, ("answer", "7")),
        ({"answer": ["7", "8"]}, GOLDS, ("answer", ["7", "8"])),
        ({"answer": " 3+4=7\n"}, GOLDS, ("", None)),
        ({"gold": "7", "answer": "3+4=7"}, GOLDS, ("gold", "7")),
        ({"statement": "?"}, GOLDS, ("", None)),
        ({"gold": "7", "final": "8"}, ("final",), ("final", "8")),
    ],
)
def test_one_rule_says_where_the_gold_stands(row: dict[str, Any], columns: Any, gold: tuple[str, object]) -> None:
    assert find_gold(row, columns, solution="3+4=7") == gold
