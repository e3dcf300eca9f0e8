"""`--task chat`: replies as they stand, each learnt behind what a server makes of the turns before it."""

import json
from pathlib import Path
from typing import Any

import pytest

from mathlete.corpus.columns import Reading
from mathlete.corpus.layouts import read_traced_rows
from mathlete.corpus.turns import read_rendered_turns
from mathlete.prompts import PromptFormat
from mathlete.rows import RowFiles
from mathlete.rows.row import IGNORED
from mathlete.rows.settings import Filters, Rows
from mathlete.rows.token_rows import make_row
from mathlete.traces import TracedProblem, Turn, read_completion
from tests.chats import CHATS, load_chat
from tests.conftest import CommandLine

TALK = (
    Turn(role="system", text="You look after the machines."),
    Turn(role="user", text="How full is /data?"),
    Turn(role="assistant", text="It uses 7.40% of its space.", thought="7582209024 of 102463635135 bytes."),
    Turn(role="user", text="Is that much?"),
    Turn(role="assistant", text="No. Nothing needs to be done."),
)
NO_SYSTEM = ("gemma", "mistral")
"""Families whose template takes no system turn."""


def talk(*turns: Turn) -> list[TracedProblem]:
    """Return the replies of a conversation as a file of it is read."""
    row = {"messages": [{"role": t.role, "content": t.text, "reasoning_content": t.thought} for t in turns]}
    rows = read_traced_rows([("f.jsonl:1", row)], Path("f.jsonl"), reading=Reading(task="chat"))
    return [one for traced in rows for one in traced]


@pytest.mark.parametrize("name", CHATS)
def test_replies_of_a_chat_are_learnt_behind_what_a_server_makes_of_the_turns_before(name: str) -> None:
    prompts = load_chat(name)
    turns = TALK[1:] if name in NO_SYSTEM else TALK
    first, second = (make_row(one, prompts=prompts, rows=Rows(), filters=Filters()) for one in talk(*turns))
    assert not isinstance(first, str), first
    assert not isinstance(second, str), second
    tokenizer: Any = prompts.tokenizer
    for one, reply, before in ((first, TALK[2], turns[:-3]), (second, TALK[4], turns[:-1])):
        at, ids = one["prompt_tokens"], one["input_ids"]
        messages = [{"role": turn.role, "content": turn.text} for turn in before]
        served = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=True)
        assert (ids[:at], one["labels"]) == ([*served["input_ids"]], [IGNORED] * at + ids[at:])
        thought = f"<think>\n{reply.thought}\n</think>\n\n" if reply.thought else ""
        said = str(tokenizer.decode(ids[at:-1]))
        assert said.removeprefix("\n") == f"{thought}{reply.text}".removeprefix(
            "<think>\n" if prompts.prefilled else ""
        )
        assert ids[-1] == tokenizer.eos_token_id
    assert first["problem_key"] == second["problem_key"]
    assert first["trace_key"] != second["trace_key"]


@pytest.mark.parametrize("name", NO_SYSTEM)
def test_a_template_that_takes_no_such_turn_drops_the_row(name: str) -> None:
    assert {make_row(one, prompts=load_chat(name), rows=Rows(), filters=Filters()) for one in talk(*TALK)} == {
        "template"
    }


@pytest.mark.parametrize("name", CHATS)
def test_what_a_known_template_has_rendered_is_read_back(name: str) -> None:
    prompts = load_chat(name)
    said = [(turn.role, turn.text) for turn in TALK[1:]]
    text = prompts.render_turns([{"role": role, "content": text} for role, text in said])
    read = read_rendered_turns(text)
    assert read is not None, text
    # Some templates write a system turn of their own where there is none.
    spoken = [turn for turn in read if turn.role != "system"]
    assert [(turn.role, read_completion(turn.text).ending) for turn in spoken] == said
    prompt = read_rendered_turns(prompts.render("How full is /data?"))
    assert prompt is not None
    assert [turn.role for turn in prompt if turn.role != "system"] == ["user", "assistant"]
    assert " ".join(prompt[-2].text.split()).startswith("How full is /data?")


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ((TALK[1], Turn(role="assistant", text="So <|im_end|> ends it.")), "marks"),
        ((Turn(role="user", text="<|eot_id|>?"), TALK[4]), "marks"),
        ((TALK[1], Turn(role="assistant", text="<think> let me")), "unclosed"),
        ((TALK[1], Turn(role="assistant", text="")), "no trace"),
        ((TALK[1], Turn(role="assistant", text="again " * 200)), "loop"),
        ((TALK[1], Turn(role="assistant", text=" ".join(map(str, range(999))))), "too long"),
    ],
)
def test_a_reply_that_teaches_something_else_is_dropped(
    pocket: PromptFormat, turns: tuple[Turn, ...], reason: str
) -> None:
    (one,) = talk(*turns)
    assert make_row(one, prompts=pocket, rows=Rows(), filters=Filters()) == reason


def test_a_reply_without_reasoning_closes_it_where_the_template_opens_it(pocket: PromptFormat) -> None:
    assert pocket.prefilled
    (one,) = talk(*TALK[3:])
    row_ = make_row(one, prompts=pocket, rows=Rows(), filters=Filters())
    assert not isinstance(row_, str)
    assert str(pocket.tokenizer.decode(row_["input_ids"])).endswith(
        "<think>\n\n</think>\n\nNo. Nothing needs to be done.<｜end▁of▁sentence｜>"
    )


def test_tools_turns_have_no_loss() -> None:
    prompts = load_chat("qwen2.5")
    tool, call = Turn(role="tool", text="7.40%"), Turn(role="assistant", text="Let me look.")
    said = []
    for one in talk(*TALK[:2], call, tool, TALK[4]):
        result = make_row(one, prompts=prompts, rows=Rows(), filters=Filters())
        assert not isinstance(result, str)
        said.append(prompts.tokenizer.decode([token for token in result["labels"] if token != IGNORED]))
    assert said == ["Let me look.<|im_end|>", "No. Nothing needs to be done.<|im_end|>"]


def write_talk(file: Path, count: int) -> None:
    """A file as a guide to fine-tuning has it: a system turn, a question and a reply in prose, without an answer."""
    turns = (
        ("system", "You look after the machines."),
        ("human", "How full is disk {n}?"),
        ("gpt", "It is {n}% full."),
    )
    lines = (
        json.dumps({"conversations": [{"from": who, "value": said.format(n=n)} for who, said in turns]}) + "\n"
        for n in range(count)
    )
    file.write_text("".join(lines))


def test_replies_without_an_answer_are_for_a_chat(workdir: Path, train: CommandLine) -> None:
    write_talk(workdir / "talk.jsonl", 12)
    words = [
        "--model",
        "pocket",
        "--source",
        "talk.jsonl",
        "--against",
        "pocket_val",
        "--until",
        "format",
        "--run",
        "r",
    ]
    for more in ([], ["--filters.unverified", "keep"]):
        refusal = train("math", *words, *more).refusal
        assert "0 of 12 is left, got no answer: 12." in refusal
        assert "replies that have none are trained on with --task chat" in refusal
    done = train("math", *words, "--task", "chat", "--rows.policy", "shortest_correct", "--json")
    assert (done.result["kept"], done.result["unverified"], done.result["drops"]) == (12, 12, {})
    assert "verified by nothing: 12 of 12 kept traces have no gold" in done.stderr
    assert "talk.jsonl: read conversations" in done.stderr
    head = RowFiles(workdir / "r" / "data").read_head(1)[0]
    assert "You look after the machines.<｜User｜>How full is disk" in head.prompt
    assert "boxed" not in head.prompt + head.trained
    card = (workdir / "r" / "data" / "README.md").read_text()
    assert "Checked against a gold: 0 of 12 kept traces. 12 replies are trained as they stand: nothing has" in card
    assert "- Columns of talk.jsonl: read conversations." in card
    assert (
        "needs answers that are right or wrong, got --task chat"
        in train("math", *words, "--task", "chat", "--method", "dpo").refusal
    )


def test_the_card_counts_what_was_trusted_and_the_error_what_was_skipped(workdir: Path, train: CommandLine) -> None:
    rows = [{"problem": f"What is {n}+0?", "solution": f"It is \\boxed{{{n}}}"} for n in range(9)]
    (workdir / "f.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--model", "pocket", "--source", "f.jsonl", "--against", "pocket_val", "--until", "format", "--run", "r"]
    assert train("math", *words, "--filters.unverified", "keep", "--json").result["unverified"] == 9
    card = (workdir / "r" / "data" / "README.md").read_text()
    assert "Checked against a gold: 0 of 9 kept traces. 9 were trusted: they have no gold" in card
    (workdir / "f.jsonl").write_text('{"a": 1}\n{"problem": "1?", "solution": 1}\n')
    refusal = train("math", *words[:-1], "s", "--on-bad", "skip").refusal
    assert "0 of 0 is left, got 2 rows could not be read; the first, f.jsonl:1: a row of traced problems" in refusal


@pytest.mark.slow
def test_a_chat_goes_the_whole_way(workdir: Path, train: CommandLine) -> None:
    write_talk(workdir / "talk.jsonl", 40)
    small = ["--tune.steps", 4, "--tune.batch", 4, "--rows.heldout", 2, "--survival.max-tokens", 8]
    limits = ["--survival.greedy", 0, "--survival.kl-int8", 1, "--forgetting.loss", 100, "--forgetting.problems", 2]
    words = ["--model", "pocket", "--source", "talk.jsonl", "--task", "chat", "--run", "r", "--json", *small, *limits]
    done = train("math", *words, "--forgetting.accuracy", 1, "--survival.trial-rows", 0)
    assert done.result["unverified"] == 40
    assert json.loads((workdir / "r" / "merged" / "mathlete_prompt.json").read_text())["instruction"] == ""
    assert (workdir / "r" / "export" / "model.safetensors").is_file()
