"""Files that are no logs, and rows that are odd: each is read, or refused by its place."""

import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.errors import UserError
from mathlete.logs import read_log
from mathlete.logs.inspect import read_zip_json
from mathlete.sampling import Sample
from tests.conftest import CommandLine
from tests.test_logs import HERE, body, join, response_body, write_lines


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gone.jsonl"], "files to import must be there, got gone.jsonl"),
        (["plain.jsonl"], "must be a log of a known layout, got columns id, said"),
        (["plain.jsonl", "--columns", "answer=answer"], "must have the named columns, got answer"),
        (["plain.jsonl", "--columns", "answer=said"], "a sample must say which problem it is of"),
        (["plain.jsonl", "--columns", "answer=said", "problem_id=id"], "every problem must have its gold answer"),
        (["plain.jsonl", "--columns", "said=answer"], "--columns must name what a sample has, got said"),
        (["plain.jsonl", "--columns", "answer=said", "answer=id"], "each name once, got answer=said and answer=id"),
        (["plain.jsonl", "--columns", "answer"], "--columns must be NAME=COLUMN, got answer"),
        (["uneven.jsonl", "--columns", "text=a", "tokens=b"], "lists of samples must be of one length, got {'text': 2"),
        (["plain.jsonl", "--pace", "0"], "--pace must be from 0.001 to 1,000,000, got 0.0"),
        (["chat.jsonl", "--columns", "problem_id=asked"], "must have the named columns, got asked"),
        ([".", "--columns", "problem_id=asked"], "--columns must be of a file"),
        (["likely.jsonl"], "a task scored by likelihoods has none"),
        (
            ["mute.jsonl", "--columns", "gold=gold"],
            "must hold a text or an answer of at least one sample, got none in 2",
        ),
        (["empty.jsonl"], "a log must hold at least one row"),
        (["broken.eval"], "broken.eval must be a whole log of Inspect"),
    ],
)
def test_what_cannot_be_imported_is_refused(
    words: list[str], message: str, workdir: Path, evaluate: CommandLine
) -> None:
    write_lines("plain.jsonl", [{"id": "1", "said": "7"}])
    write_lines("likely.jsonl", [{"doc_id": 0, "doc": {}, "target": "0", "resps": [[["-1.5", "False"]]]}])
    write_lines("uneven.jsonl", [{"question": "?", "a": ["7", "8"], "b": [1]}])
    write_lines("chat.jsonl", [body("chat.completion", "a", ["2"])])
    mute = body("chat.completion", "a", ["2", None])
    for choice in mute["choices"]:
        choice["message"] = {"content": [{"type": "image_url"}]}
    write_lines("mute.jsonl", [{"problem_id": "a", "gold": "2", **mute}])
    Path("empty.jsonl").touch()
    Path("broken.eval").write_bytes((HERE / "pocket-sums.eval").read_bytes()[:5000])
    assert message in evaluate("import", *words, "--run", "r").refusal


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a JSON value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(one for key, below in pairs for one in places(below, (*path, key)))]


def with_value(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = with_value(value[path[0]], path[1:], new)
    return copy


ODD: list[Any] = [
    None,
    True,
    -1,
    2.5,
    10**400,
    "",
    "\ud800",
    "[/]",
    [],
    {},
    [None],
    [[]],
    {"": 0},
    [{}],
    "nan",
    "1e999",
    -(10**400),
    math.nan,
    math.inf,
    -math.inf,
    -9999.0,
    0.5,
]
ROWS: dict[str, dict[str, Any]] = {
    "harness.jsonl": json.loads(next(HERE.glob("samples_*.jsonl")).read_text().splitlines()[0]),
    "chat.jsonl": {"custom_id": "a", **body("chat.completion", "a", ["2", None])},
    "text.jsonl": {"problem_id": "a", **body("text_completion", "a", ["2"])},
    "batch.jsonl": {"custom_id": "a", "error": None, "response": {"body": body("chat.completion", "a", ["2"])}},
    "responses.jsonl": {"custom_id": "a", "error": None, "response": {"body": response_body("a", "2")}},
    "output-rs0.jsonl": {"problem": "?", "expected_answer": 2, "generation": "2", "num_generated_tokens": 3,
                         "generation_time": 1.0, "finish_reason": "stop", "logprobs": [-1.0]},
    "log.json": {**read_zip_json(HERE / "pocket-sums.eval", "header.json"),
                 "samples": [read_zip_json(HERE / "pocket-sums.eval", "samples/a_epoch_2.json")]},
    "details.parquet.jsonl": pyarrow.parquet.read_table(next(HERE.glob("*.parquet"))).to_pylist()[0],
}  # fmt: skip


def check_is_read_or_refused(name: str, place: tuple[Any, ...], odd: Any) -> None:
    row = with_value(ROWS[name], place, odd)
    with TemporaryDirectory() as folder:
        file = Path(folder, name)
        file.write_text(json.dumps(row))
        try:
            samples = join([read_log(file, {})])
        except UserError:
            return
        assert samples
        for sample in samples:
            line = json.dumps(sample.to_json(), ensure_ascii=False, allow_nan=False)
            assert Sample.from_json(json.loads(line.encode()), where="") == sample


@given(data=st.data(), name=st.sampled_from([*ROWS]), odd=st.sampled_from(ODD))
def test_a_row_that_is_odd_anywhere_is_read_or_refused(data: st.DataObject, name: str, odd: Any) -> None:
    check_is_read_or_refused(name, data.draw(st.sampled_from(places(ROWS[name]))), odd)


@pytest.mark.parametrize(
    ("name", "place"), [("details.parquet.jsonl", ("doc", "generation_size")), ("log.json", ("samples", 0))]
)
def test_odd_numbers_and_members_that_were_met_are_read_or_refused(name: str, place: tuple[Any, ...]) -> None:
    for odd in ODD:
        check_is_read_or_refused(name, place, odd)


@pytest.mark.parametrize("content", [b"{not json", b"[1]", '{"model_name": "\u00e9"}'.encode("utf-16"), b"[" * 10**5])
def test_results_beside_the_harness_samples_that_cannot_be_read_are_refused(tmp_path: Path, content: bytes) -> None:
    samples = next(HERE.glob("samples_*.jsonl"))
    (tmp_path / samples.name).write_bytes(samples.read_bytes())
    results = tmp_path / f"results_{samples.stem.rpartition('_')[2]}.json"
    results.write_bytes(content)
    with pytest.raises(UserError, match=r"results_.*json"):
        read_log(tmp_path / samples.name, {})
    results.write_text('{"model_name": ["a", 1]}')
    assert read_log(tmp_path / samples.name, {}).facts.model is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_every_odd_value_in_every_place_is_read_or_refused(name: str) -> None:
    for place in places(ROWS[name]):
        for odd in ODD:
            check_is_read_or_refused(name, place, odd)


FAILED = {"error": {"message": "rate limit", "code": 429}, "asked": "b"}


@pytest.mark.parametrize("name", ["chat.jsonl", "text.jsonl", "batch.jsonl", "responses.jsonl"])
def test_a_request_that_failed_is_counted_wherever_it_stands(name: str, workdir: Path) -> None:
    rows = [ROWS[name], {**ROWS[name], "custom_id": "c"}]
    for at in range(3):
        log = read_log(Path(write_lines(name, [*rows[:at], FAILED, *rows[at:]])), {})
        assert (log.layout, len(log.failed), len(log.entries)) == ("openai", 1, len(read_log(Path(name), {}).entries))
    with pytest.raises(UserError, match="must be a log of a known layout, got columns error, asked"):
        read_log(Path(write_lines(name, [FAILED] * 2)), {})


@pytest.mark.parametrize("kind", ["chat.completion.chunk", "text_completion", "none"])
def test_pieces_of_a_streamed_response_are_no_responses(kind: str, workdir: Path) -> None:
    rows = []
    for at, words in enumerate(("It is", " \\boxed{2}", "")):
        choice = {"text": words} if kind == "text_completion" else {"delta": {"content": words}}
        choices = [{"index": 0, "finish_reason": "stop" if at == 2 else None, **choice}]
        rows.append({"id": "a", "question": "1 + 1?", "gold": "2", "choices": choices, "object": kind})
    with pytest.raises(UserError, match=r"odd\.jsonl:1: a response must be whole(.|\n)*without `stream`"):
        join([read_log(Path(write_lines("odd.jsonl", rows)), {"gold": "gold"})])


@pytest.mark.parametrize(
    ("kind", "choice"),
    [
        ("chat.completion", {"message": {"role": "assistant", "content": "\\boxed{2}"}, "delta": None}),
        ("chat.completion", {"message": {"role": "assistant", "content": "\\boxed{2}"}, "delta": {}}),
        ("text_completion", {"text": "\\boxed{2}", "delta": None}),
        ("none", {"message": {"role": "assistant", "content": "\\boxed{2}"}}),
    ],
)
def test_whole_responses_are_no_pieces_whatever_stands_beside(kind: str, choice: Any, workdir: Path) -> None:
    """KoboldCpp gives all one id."""
    rows = [
        {"id": "a", "question": "1 + 1?", "gold": "2", "object": kind,
         "choices": [{"index": 0, "finish_reason": None, **choice}]},
    ]  # fmt: skip
    if kind != "text_completion":
        other = {**choice, "message": {"content": "It is \\boxed{2}"}, "index": 0, "finish_reason": "stop"}
        rows.append({**rows[0], "choices": [other]})
    log = read_log(Path(write_lines("odd.jsonl", rows)), {"gold": "gold"})
    assert len(join([log])) == len(rows)


def test_a_folder_of_another_tool_is_answered_with_its_files(workdir: Path, evaluate: CommandLine) -> None:
    Path("out/model").mkdir(parents=True)
    for name in ("out/model/samples_sums.jsonl", "out/model/other.eval"):
        write_lines(name, [ROWS["harness.jsonl"]])
    for command in ("import", "replay"):
        words = ("--run", "r") if command == "import" else ()
        cure = "imported by its files: `python -m eval import out/model/other.eval … --run RUN`"
        assert cure in evaluate(command, "out", *words).refusal
