"""Reasoning that a tool left out, put into parts or had a prompt open; numbers of a row that has several samples."""

import json
from pathlib import Path
from typing import Any

import pytest

from mathlete.errors import UserError
from mathlete.logs import read_log
from mathlete.logs.entries import Entry
from mathlete.runs import write_json
from tests.conftest import CommandLine
from tests.test_logs import HERE, body, imported, inspect_json, join, logs, write_lines

PROMPT = "1 + 1?<|Assistant|><think>\n"
(SAMPLES,) = HERE.glob("samples_*.jsonl")
DATE = SAMPLES.stem.rpartition("_")[2]


@pytest.fixture(autouse=True)
def inside(workdir: Path) -> None:
    """Every test stands in a folder of its own."""


def harness() -> Path:
    """The harness's samples, of a prompt that opens the thoughts."""
    rows = [json.loads(line) for line in SAMPLES.read_text().splitlines()]
    for row in rows:
        row["arguments"] = {"gen_args_0": {"arg_0": PROMPT, "arg_1": {}}}
        row["resps"] = [row["resps"][0][:1]]
    return Path(write_lines(SAMPLES.name, rows))


ARGUMENTS: list[tuple[object, bool]] = [
    ("pretrained=r1,think_end_token=</think>,dtype=auto", True),
    ({"pretrained": "r1", "think_end_token": "</think>"}, True),
    ({"think_end_token": 151668}, True),
    ("pretrained=r1", False),
    ("pretrained=r1,think_end_token=None", False),
    ({"think_end_token": None}, False),
    (None, False),
]


@pytest.mark.parametrize(("arguments", "left_out"), ARGUMENTS)
def test_a_text_whose_reasoning_the_harness_left_out_is_an_answer(arguments: object, left_out: bool) -> None:
    samples = harness()
    Path(f"results_{DATE}.json").write_text(json.dumps({"config": {"model_args": arguments}}))
    if not left_out:
        with pytest.raises(UserError, match=r"got neither in any of 3(?s:.*)--opens-thoughts no where the tool left"):
            join(logs(samples))
        return
    assert all(one.answer for one in join(logs(samples)))
    assert "not opened: 0 of 3 texts" in " ".join(imported("r", samples))


@pytest.mark.parametrize(("told", "within"), [("no", 0), ("yes", 1)])
@pytest.mark.parametrize("kind", ["a table", "a response"])
def test_texts_of_which_nothing_shows_where_the_reasoning_ends_are_read_as_told(
    kind: str, told: str, within: int, evaluate: CommandLine
) -> None:
    """A score of 0 would be of a tool that left the reasoning out, answers those of texts that were cut within it."""
    row, columns = ROWS[kind]
    row = {**row, "gold": "2"}
    if kind == "a response":
        row["choices"] = [{"index": 0, "text": "So \\boxed{2}"}]
    words = [f"{name}={column}" for name, column in {**columns, "gold": "gold"}.items()]
    done = ("import", write_lines("t.jsonl", [row]), "--run", "r", "--columns", *words)
    assert "--opens-thoughts no where the tool left the reasoning out" in evaluate(*done).refusal
    assert f"{within} of 1 samples stand in unfinished" in evaluate(*done, "--opens-thoughts", told).stdout


@pytest.mark.parametrize("answer", [None, "2"])
def test_a_text_in_thoughts_that_was_cut_or_gave_its_answer_gets_no_hint(answer: str | None) -> None:
    rows = [{"problem_id": "a", "gold": "2", "prompt": PROMPT, **body("text_completion", "a", [answer])}]
    assert "unfinished thoughts\n" in "\n".join(
        [*imported("r", write_lines("cut.jsonl", rows), "--columns", "gold=gold"), ""]
    )


ROWS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "a table": ({"id": "a", "prompt": PROMPT, "said": "2"}, {"problem_id": "id", "text": "said"}),
    "a table's statement": ({"asked": PROMPT, "said": "2"}, {"statement": "asked", "text": "said"}),
    "a table's request": ({"request": {"prompt": PROMPT}, "said": "2"}, {"text": "said"}),
    "a response": ({"prompt": PROMPT, **body("text_completion", "a", ["2"])}, {}),
    "a response's request": ({"request": {"prompt": PROMPT}, **body("text_completion", "a", ["2"])}, {}),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_prompt_that_opens_the_thoughts_is_seen_wherever_it_stands(name: str) -> None:
    row, columns = ROWS[name]
    text = json.dumps(row)
    for prompt, thinking in ((PROMPT, True), ("1 + 1?", False)):
        rows = [json.loads(text.replace(json.dumps(PROMPT), json.dumps(prompt)))]
        entries = read_log(Path(write_lines("t.jsonl", rows)), columns).entries
        # A chat's template may open them behind a question: that of a completion's request is the prompt itself.
        assert [entry.thinking for entry in entries] == [
            thinking or (False if name == "a response's request" else None)
        ]


THOUGHT = {"type": "text", "text": "hm"}
PARTS: list[tuple[list[Any], str]] = [
    ([{"type": "text", "text": "so 2"}], "so 2"),
    ([{"type": "output_text", "text": "so"}, {"type": "text", "text": "2"}], "so\n2"),
    ([{"type": "thinking", "thinking": [THOUGHT]}, {"type": "text", "text": "2"}], "hm\n</think>\n\n2"),
    ([{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "2"}], "hm\n</think>\n\n2"),
    ([{"type": "thinking", "thinking": "hm"}], "<think>\nhm"),
]


@pytest.mark.parametrize(("parts", "text"), PARTS)
def test_the_parts_of_a_message_are_its_text(parts: list[Any], text: str) -> None:
    row = body("chat.completion", "a", ["2"])
    row["choices"][0]["message"] = {"content": parts}
    content = json.loads(Path(str(inspect_json()[0])).read_text())
    for sample in content["samples"]:
        sample["output"]["choices"][0]["message"]["content"] = parts
    Path("log.json").write_text(json.dumps(content))
    for name in (write_lines("t.jsonl", [row]), "log.json"):
        assert {entry.text for entry in read_log(Path(name), {}).entries} == {text}


def test_every_choice_of_inspect_is_a_sample() -> None:
    content = json.loads(Path(str(inspect_json()[0])).read_text())
    for sample in content["samples"]:
        (choice,) = sample["output"]["choices"]
        sample["output"]["choices"] = [choice, {**choice, "message": {"content": "It is \\boxed{77}"}}]
    Path("log.json").write_text(json.dumps(content))
    log = read_log(Path("log.json"), {})
    samples = join([log])
    assert [sum("77" in one.text for one in samples), len(samples)] == [12, 24]
    # Usage and scores are not the second one's.
    assert {(entry.tokens, bool(entry.verdicts)) for entry in log.entries} == {(None, True), (None, False)}
    assert {one.problem_id: one.index for one in samples} == dict.fromkeys("abc", 7)
    assert any("seconds that all samples of a row share" in words for words in log.words)


ROW = {"id": "a", "said": ["2", "3"], "all": 800, "each": [300, 500], "ids": [[1, 2], [1]], "took": 9.5}


def read(row: dict[str, Any], **columns: str) -> tuple[list[Entry], str]:
    log = read_log(Path(write_lines("t.jsonl", [row])), {"problem_id": "id", "text": "said", **columns})
    return log.entries, " ".join(log.words)


def test_one_number_of_several_samples_is_no_sample_s_own() -> None:
    total = "is one number for several samples in 1 of the rows, and no sample's own"
    for name, value in (("tokens", 800), ("logprob_mean", -0.5)):
        entries, said = read({**ROW, "all": value}, **{name: "all"})
        assert [getattr(entry, name) for entry in entries] == [None, None]
        assert total in said
        entries, said = read({**ROW, "all": value, "said": "2"}, **{name: "all"})
        assert ([getattr(entry, name) for entry in entries], said) == ([value], "")
    row = {"all": 4, "problem_id": "a", **body("text_completion", "a", ["2", "3"])}
    # What the layout counts stays.
    log = read_log(Path(write_lines("b.jsonl", [row])), {"tokens": "all"})
    assert [entry.tokens for entry in log.entries] == [2, 2]
    assert total in " ".join(log.words)


def test_what_each_sample_has_of_its_own_stays() -> None:
    assert [entry.tokens for entry in read(ROW, tokens="each")[0]] == [300, 500]
    assert [entry.tokens for entry in read(ROW, tokens="ids")[0]] == [2, 1]
    entries, said = read(ROW, seconds="took")
    assert [entry.seconds for entry in entries] == [9.5, 9.5]
    assert "t.jsonl: seconds that all samples of a row share, and so are those of the longest: 1, first" in said


def test_a_sum_of_log_probabilities_is_divided_by_the_tokens() -> None:
    row = {**ROW, "cumulative_logprob": [-30.0, -50.0]}
    assert [one.logprob_mean for one in read(row, tokens="each", logprob_mean="cumulative_logprob")[0]] == [-0.1, -0.1]
    assert [one.logprob_mean for one in read(row, logprob_mean="cumulative_logprob")[0]] == [None, None]


@pytest.mark.parametrize(("ids", "tokens"), [([5, 6, 7], 3), ([], 0), ([5], 5), (9, 9)])
def test_ids_beside_one_text_are_its_own(ids: object, tokens: int) -> None:
    """A list of one is a number as any other."""
    rows = [{"id": "a", "gold": "2", "response": "So \\boxed{2}", "ids": ids}]
    columns = {"problem_id": "id", "gold": "gold", "text": "response", "tokens": "ids"}
    entries = read_log(Path(write_lines("ids.jsonl", rows)), columns=columns).entries
    assert [(entry.text, entry.tokens) for entry in entries] == [("So \\boxed{2}", tokens)]


def test_a_chats_answer_is_none_that_its_prompt_opens() -> None:
    """Its server kept the reasoning apart."""
    chat = {"id": "a", "prompt": PROMPT, **body("chat.completion", "a", ["2"])}
    (entry,) = read_log(Path(write_lines("chat.jsonl", [chat])), columns={}).entries
    assert entry.thinking is None


def test_results_that_come_beside_a_log_are_read_when_it_is_imported_again(evaluate: CommandLine) -> None:
    words = ("import", harness(), "--run", "r")
    assert evaluate(*words, "--opens-thoughts", "yes").code == 0
    write_json(Path(f"results_{DATE}.json"), {"config": {"model_args": "think_end_token=</think>"}})
    assert "--overwrite" in evaluate(*words, "--opens-thoughts", "yes").refusal
    assert "with think_end_token" in evaluate(*words, "--overwrite").stdout
