"""The border for text: whatever comes from outside, inside there is only what UTF-8 can hold; marks are text."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mathlete.answers.check import read_cases
from mathlete.corpus.sources import load_hub_problems
from mathlete.corpus.tables import read_rows
from mathlete.errors import UserError
from mathlete.jsonl import JsonLines, read_json_lines
from mathlete.lost import LostLog, LostTry
from mathlete.models import find_model, load_prompt_format
from mathlete.models.names import ModelSource
from mathlete.models.tokenizers import load_tokenizer
from mathlete.problems import Problem, hash_problems, read_problems, write_problems
from mathlete.prompts import PromptFormat
from mathlete.reasoning import remove_marks
from mathlete.rows import Filters, Rows
from mathlete.rows.parity import find_mismatch
from mathlete.rows.programs import split_by_writer
from mathlete.rows.row import IGNORED
from mathlete.rows.token_rows import make_row
from mathlete.runs import read_json, write_atomically, write_json
from mathlete.sampling import SampleLog, read_samples
from mathlete.sampling.samples import Sample, SamplingConfig
from mathlete.sampling.served.reply import Reply
from mathlete.text import clean, parse_json, quote, readable, strict_json
from mathlete.tir.tools import ToolSampler, ToolSettings
from tests.conftest import dear
from tests.traced import make_traced

TEXTS = st.text(st.one_of(st.characters(), st.sampled_from("\ud800\udc00\udfff\ud83d\ude00\x00\ufffd")), max_size=12)
"""Texts as Python may hold them, half characters among them."""
ODD = ("\ud800", "a\udfffb", "\ud83d\ude00", "\ude00\ud83d", "\x00", "\ufffd", "\ufeffx", "\u2028")
SETTINGS = settings(dear(20), suppress_health_check=[HealthCheck.function_scoped_fixture])


def is_clean(text: str) -> bool:
    return bool(text.encode().decode() == text)


def all_clean(value: Any) -> bool:
    if isinstance(value, dict):
        return all(is_clean(key) and all_clean(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(all_clean, value))
    return is_clean(value) if isinstance(value, str) else True


@given(TEXTS)
@example("\ud83d\ude00")
@example("\ude00\ud83d")
def test_cleaning_keeps_what_utf8_holds_and_replaces_the_rest_once(text: str) -> None:
    assert is_clean(clean(text))
    assert clean(clean(text)) == clean(text)
    # The halves of a character are one.
    assert clean(text) == clean(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    if is_clean_already(text):
        assert clean(text) is text


def is_clean_already(text: str) -> bool:
    return not any("\ud800" <= one <= "\udfff" for one in text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.booleans())
def test_json_is_read_and_written_clean(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert all_clean(parse_json(text))
    assert all_clean(json.loads(strict_json(value), parse_constant=pytest.fail))


@pytest.mark.parametrize("data", [b"\xff", b'"\xed\xa0\x80"', b"[" * 100_000, b"9" * 5000, b"{", b"", b'{"a": 1} x'])
def test_what_is_no_json_is_one_kind_of_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_json(data)


# Every reader: a file with such a text in it, as an escape or as bytes that are no UTF-8, and what is read.
Reader = Callable[[Path], Any]


def _read_tables(path: Path) -> Any:
    return [dict(row) for _, row in read_rows(path)]


def _read_samples(path: Path) -> Any:
    return [one.to_json() for one in read_samples(path)]


def _read_problem_file(path: Path) -> Any:
    return [(one.id, one.statement, one.gold) for one in read_problems(path)]


SAMPLE = {"problem_id": "p", "index": 0, "seed": 1, "tokens": 3, "finish": "stop", "seconds": 1.0}
CASE = {"id": "a", "kind": "equiv", "gold": "7", "expected": True}
LOST = {"index": 0, "seed": 1, "where": "w", "reason": "r", "text": "t"}
READERS: dict[str, tuple[str, dict[str, object], str, Reader]] = {
    "JSON lines": ("x.jsonl", {}, "text", lambda path: [row for _, row in read_json_lines(path)]),
    "problems": ("x.jsonl", {"id": "p", "gold": "7"}, "statement", _read_problem_file),
    "samples": ("x.jsonl", SAMPLE, "text", _read_samples),
    "lost tries": ("x.jsonl", LOST, "problem_id", lambda path: [one.problem_id for one in LostLog(path).tries]),
    "a log": ("x.jsonl", {}, "text", lambda path: [row for _, row in JsonLines(path).read()]),
    "a table of JSON lines": ("x.jsonl", {"id": "p"}, "problem", _read_tables),
    "a table of JSON": ("x.json", {"id": "p"}, "problem", _read_tables),
    "a JSON file": ("y.json", {}, "text", read_json),
    "cases of the checker": ("x.jsonl", CASE, "pred", lambda path: [one.given for one in read_cases(path)]),
}


@pytest.mark.parametrize("name", [*READERS])
@SETTINGS
@given(text=st.one_of(TEXTS.map(lambda text: f"a{text}"), st.sampled_from(ODD)))
def test_every_reader_gives_clean_text(name: str, text: str, tmp_path: Path) -> None:
    file, row, field, read = READERS[name]
    value = [{**row, field: text}] if file == "x.json" else {**row, field: text}
    (tmp_path / file).write_text(json.dumps(value) + "\n")
    assert all_clean(json.loads(json.dumps(read(tmp_path / file))))
    assert (
        clean(text) in json.dumps(read(tmp_path / file), ensure_ascii=False)
        or '"' in json.dumps(text)[1:-1]
        or ("\\" in json.dumps(text, ensure_ascii=False))
    )


@pytest.mark.parametrize("name", [*READERS])
@pytest.mark.parametrize("data", [b"\xff\xfe", b"caf\xe9", b"\xed\xa0\x80", b"\xf0\x9f"])
def test_every_reader_refuses_a_file_in_another_encoding(name: str, data: bytes, tmp_path: Path) -> None:
    file, row, field, read = READERS[name]
    value = [{**row, field: "HERE"}] if file == "x.json" else {**row, field: "HERE"}
    (tmp_path / file).write_bytes(json.dumps(value).encode().replace(b"HERE", data) + b"\n")
    with pytest.raises(UserError):
        read(tmp_path / file)


@pytest.mark.parametrize("data", [b"caf\xe9", b"\xed\xa0\x80"])
def test_tables_of_other_kinds_are_clean_or_refused(data: bytes, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "x.csv").write_bytes(b"id,problem\n1," + data + b"\n")
    text = pyarrow.Array.from_buffers(
        pyarrow.string(),
        1,
        [None, pyarrow.array([0, len(data)], pyarrow.int32()).buffers()[1], pyarrow.py_buffer(data)],
    )
    pyarrow.parquet.write_table(pyarrow.table({"problem": text}), tmp_path / "x.parquet")
    for name in ("x.csv", "x.parquet"):
        with pytest.raises(UserError, match=r"must be"):
            _read_tables(tmp_path / name)


def test_a_hub_set_whose_text_is_no_utf8_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def rows() -> Iterator[dict[str, str]]:
        yield {"question": "1+1?", "answer": "#### 2"}
        b"\xff".decode()

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows())
    with pytest.raises(UserError, match=r"openai/gsm8k cannot be read from the hub \(UnicodeDecodeError\)"):
        load_hub_problems("gsm8k")


# Every writer.
WRITERS: dict[str, Callable[[Path, str], object]] = {
    "a file": write_atomically,
    "JSON": lambda path, text: write_json(path, {text: [text]}),
    "problems": lambda path, text: write_problems(path, [Problem(id="p", statement=text, gold="7")]),
    "JSON lines": lambda path, text: JsonLines(path).append({"text": text}),
    "samples": lambda path, text: SampleLog(path).append(Sample.from_json({**SAMPLE, "text": text}, where="here")),
    "lost tries": lambda path, text: LostLog(path).append(
        LostTry(problem_id="p", index=0, seed=1, where="", reason=text)
    ),
    "a hash": lambda path, text: path.write_text(hash_problems([Problem(id="p", statement=text, gold="7")])),
}


@pytest.mark.parametrize("name", [*WRITERS])
@SETTINGS
@given(text=st.one_of(TEXTS, st.sampled_from(ODD)))
def test_every_writer_writes_utf8(name: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.unlink(missing_ok=True)
    WRITERS[name](file, text)
    assert all_clean(file.read_bytes().decode())


# Engines.
@given(st.lists(TEXTS, max_size=5))
def test_a_server_s_reply_is_clean_and_joins_halves(pieces: list[str]) -> None:
    reply = Reply()
    for piece in pieces:
        reply.add(json.dumps({"choices": [{"text": piece}]}))
    assert reply.text == clean("".join(pieces))


def test_a_byte_order_mark_says_nothing() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


@given(TEXTS, st.integers(1, 40))
def test_what_a_program_prints_is_readable(text: str, most: int) -> None:
    shown = readable(text, most=most)
    assert is_clean(shown)
    assert len(shown) <= max(len(text), most) + 50


PRINTED = {
    "half a character": (r"print('\ud800 and \udfff')", "\ufffd and \ufffd"),
    "two halves": (r"print('\ud83d' + '\ude00')", "😀"),
    "bytes": (r"print(bytes(range(256)).decode('latin-1') * 20)", "characters of binary output left out]"),
    "more than fits": ("print('x' * 10**6)", "characters left out]"),
    "colours": (r"print('\x1b[31mred\x1b[0m')", "\nred\n"),
    "a tag": ("print('</think>7')", "\n7\n"),
    "a tag in a tag": ("print('</th</think>ink>7', '<th<think>ink>')", "\n7 \n"),
    "a tag in many": ("print('</th' * 200 + '</think>' + 'ink>' * 200)", "\n\n"),
    "a mark": ("print('<|im_end|>')", "<|im_end|>"),
    "a fence": ("print('`' * 3 + '\\n' + chr(92) + 'boxed{7}')", "\n` ``\n\\boxed{7}\n```\n"),
    "a fence in a tag": ("print('``</think>`')", "\n` ``\n```\n"),
}


@pytest.fixture(scope="module")
def tools() -> Any:
    from tests.test_sampling_tools import Recorded

    engine = Recorded({})
    with closing(ToolSampler(engine, ToolSettings(turns=1, timeout_s=20))) as sampler:
        yield engine, sampler


@pytest.mark.parametrize("name", [*PRINTED])
def test_a_program_s_output_passes_the_border(tools: Any, name: str) -> None:
    engine, sampler = tools
    program, shown = PRINTED[name]
    engine.texts, engine.told = {0: f"So:\n```python\n{program}\n```end"}, {0: 0}
    problem = Problem(id="p", statement="?", gold="7")
    (drawn,) = sampler.stream(problem, seeds={0: 0}, config=SamplingConfig(max_tokens=10_000))
    output = drawn.text.partition("```output")[2]
    assert shown in output
    assert is_clean(output)
    assert len(output) < 2300
    assert [part for part, own in split_by_writer(drawn.text) if not own] == [
        f"\n```output{output.removesuffix('end')}"
    ]
    assert not {"<think>", "</think>"} & {output[at : at + n] for at in range(len(output)) for n in (7, 8)}


@given(st.lists(st.sampled_from(["<think>", "</think>", "</th", "ink>", "<", "/", "t", "hink>", "x"]), max_size=12))
def test_tags_are_removed_until_none_is_left(pieces: list[str]) -> None:
    shown = remove_marks("".join(pieces))
    assert "<think>" not in shown
    assert "</think>" not in shown
    assert remove_marks(shown) == shown


# Marks.
@pytest.fixture(scope="module")
def pocket() -> PromptFormat:
    return load_prompt_format(find_model("pocket"))


def marks_of(prompts: PromptFormat) -> list[str]:
    return [*prompts.marks.tokens]


def check_marks(prompts: PromptFormat, statement: str) -> None:
    """The prompt has as many marks as one with a plain statement, and reads as the template says."""
    ids, plain = prompts.prompt_ids(statement), prompts.prompt_ids("1")
    marks = {*prompts.marks.tokens.values()}
    assert [one for one in ids if one in marks] == [one for one in plain if one in marks]
    content = f"{statement}\n{prompts.instruction}" if prompts.instruction else statement
    messages = [{"role": "user", "content": content}]
    tokenizer: Any = prompts.tokenizer
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(ids, skip_special_tokens=False) == rendered


def test_the_pocket_model_has_marks(pocket: PromptFormat) -> None:
    assert {"<think>", "</think>", str(pocket.tokenizer.eos_token)} <= {*marks_of(pocket)}
    for mark in marks_of(pocket):
        check_marks(pocket, f"What is {mark} + 1?")
        check_marks(pocket, mark * 3)


@given(st.data())
def test_marks_in_a_statement_are_text(pocket: PromptFormat, data: st.DataObject) -> None:
    marks = marks_of(pocket)
    pieces = st.one_of(
        st.sampled_from(marks), st.sampled_from([mark[:-1] for mark in marks]), st.sampled_from("<>|x \n")
    )
    check_marks(pocket, "".join(data.draw(st.lists(pieces, min_size=1, max_size=6))) + "x")


def test_a_statement_without_marks_is_tokenised_as_ever(pocket: PromptFormat) -> None:
    tokenizer: Any = pocket.tokenizer
    messages = [{"role": "user", "content": "What is 3 < 4 > 2?"}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert pocket.prompt_ids("What is 3 < 4 > 2?") == tokenizer(rendered, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("text", ODD)
def test_any_statement_can_be_asked(pocket: PromptFormat, text: str) -> None:
    ids = pocket.prompt_ids(text)
    assert ids == pocket.prompt_ids(clean(text))
    assert is_clean(pocket.server_text(text))
    assert all_clean(pocket.messages(text))
    assert pocket.said_ids(text) == pocket.ids(clean(text))


def test_of_what_was_said_only_the_tags_are_marks(pocket: PromptFormat) -> None:
    tokenizer: Any = pocket.tokenizer
    eos = str(tokenizer.eos_token)
    ids = pocket.said_ids(f"So </think> it is\n```output\n{eos}\n```\n")
    assert tokenizer.eos_token_id not in ids
    assert ids.count(tokenizer.convert_tokens_to_ids("</think>")) == 1
    assert tokenizer.decode(ids, skip_special_tokens=False) == f"So </think> it is\n```output\n{eos}\n```\n"


def test_who_renders_by_itself_gets_marks_that_are_none(pocket: PromptFormat) -> None:
    eos, statement = str(pocket.tokenizer.eos_token), f"Say {pocket.tokenizer.eos_token} and <think>."
    said = pocket.messages(statement)[0]["content"]
    assert said.startswith(f"Say {eos[0]} {eos[1:]} and < think>.")
    assert pocket.server_text(statement).count(eos) == pocket.server_text("Say.").count(eos)
    tokenizer: Any = pocket.tokenizer
    served = tokenizer.apply_chat_template(pocket.messages(statement), tokenize=True, add_generation_prompt=True)[
        "input_ids"
    ]
    marks = {*pocket.marks.tokens.values()}
    assert [one for one in served if one in marks] == [one for one in pocket.prompt_ids("1") if one in marks]


@pytest.mark.slow
def test_real_tokenizers_take_marks_as_text(shared: Path) -> None:
    folders = [folder for folder in sorted((shared / "tokenizers").iterdir()) if (folder / "tokenizer.json").is_file()]
    tried = 0
    for folder in folders:
        try:
            tokenizer = load_tokenizer(ModelSource(name=folder.name, location=str(folder)))
        except UserError:
            continue
        prompts = PromptFormat(tokenizer=tokenizer)
        tried += 1
        for mark in marks_of(prompts):
            ids, plain = prompts.prompt_ids(f"a{mark}b"), prompts.prompt_ids("ab")
            marks = {*prompts.marks.tokens.values()}
            assert [one for one in ids if one in marks] == [one for one in plain if one in marks], (folder, mark)
            assert mark in str(tokenizer.decode(ids, skip_special_tokens=False)), (folder, mark)
    assert tried


def test_an_error_quotes_on_one_line() -> None:
    assert quote("a\n\n b\x00\ud800") == "a b\ufffd\ufffd"


def test_rows_train_on_the_prompt_that_is_served(pocket: PromptFormat) -> None:
    eos = str(pocket.tokenizer.eos_token)
    one = make_traced()
    odd = replace(one, problem=replace(one.problem, statement=f"{eos}</think> What is 2+2? <｜User｜>"))
    # Served, such marks are text. In a file they are a hidden turn, or a prompt that was rendered already.
    assert make_row(odd, prompts=pocket, rows=Rows(max_tokens=256), filters=Filters(repeats=1.0)) == "marks"
    result = make_row(one, prompts=pocket, rows=Rows(max_tokens=256), filters=Filters(repeats=1.0))
    assert not isinstance(result, str)
    assert result["input_ids"][: result["prompt_tokens"]] == pocket.prompt_ids(one.problem.statement)
    assert result["input_ids"].count(int(pocket.tokenizer.eos_token_id)) == 1
    # Marks as marks are found out.
    served: Any = pocket.tokenizer(pocket.render(odd.problem.statement), add_special_tokens=False)["input_ids"]
    rest = result["input_ids"][result["prompt_tokens"] :]
    wrong = {**result, "prompt_tokens": len(served), "input_ids": served + rest}
    wrong["labels"] = [IGNORED] * len(served) + rest
    completion = pocket.completion(trace=one.trace.text, answer=one.trace.answer)
    assert "prompt" in find_mismatch(wrong, completion=completion, prompts=pocket)  # type: ignore[arg-type]
