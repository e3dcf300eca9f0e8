"""Rows: what is trained on is what is served, for every template, and what is unfit is dropped with its reason."""

from collections.abc import Callable
from importlib.resources import files
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.corpus import open_source
from mathlete.errors import UserError
from mathlete.models import ModelSource, find_model, load_prompt_format
from mathlete.prompts import PromptFormat
from mathlete.rows.parity import describe_mismatch, find_mismatch
from mathlete.rows.programs import split_by_writer
from mathlete.rows.row import IGNORED, TokenRow
from mathlete.rows.settings import Filters, Rows
from mathlete.rows.token_rows import make_row
from mathlete.traces import TracedProblem
from tests.traced import make_traced, row


def as_trl_has_it(one: TracedProblem, prompts: PromptFormat) -> list[int]:
    """Return the tokens of TRL's own training template for the same conversation: R1's without its deletion."""
    template = files("trl").joinpath("chat_templates", "deepseek_r1_distill_training.jinja").read_text(encoding="utf-8")
    statement = one.problem.statement
    question = f"{statement}\n{prompts.instruction}" if prompts.instruction else statement
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": f"<think>\n{one.trace.text}\n</think>\n\n\\boxed{{{one.trace.answer}}}"},
    ]
    result: Any = prompts.tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=True, return_dict=True
    )
    return list(result["input_ids"])


def check_span(one: TracedProblem, prompts: PromptFormat) -> None:
    result = row(one, prompts)
    at = result["prompt_tokens"]
    # What is served, rendered by the template that serves, and all that follows it.
    served: Any = prompts.tokenizer.decode(result["input_ids"][:at])
    assert served.endswith("<think>\n")
    assert result["input_ids"][:at] == prompts.prompt_ids(one.problem.statement)
    assert result["labels"] == [IGNORED] * at + result["input_ids"][at:]
    trained = prompts.tokenizer.decode(result["input_ids"][at:-1])
    assert trained == f"{one.trace.text}\n</think>\n\n\\boxed{{{one.trace.answer}}}"
    assert result["input_ids"][-1] == prompts.tokenizer.eos_token_id
    assert result["input_ids"].count(int(prompts.tokenizer.bos_token_id)) == 1
    assert result["input_ids"] == as_trl_has_it(one, prompts)


def test_the_pocket_model_trains_on_exactly_what_follows_the_served_prompt(pocket: PromptFormat) -> None:
    for one in chain.from_iterable(open_source("pocket", limit=40, seed=3)):
        check_span(one, pocket)


def test_the_real_tokenizer_trains_on_the_trace_that_its_template_deletes(
    shared: Path, load_real: Callable[[str], PromptFormat]
) -> None:
    prompts = load_real("r1-distill-qwen")
    lost = prompts.tokenizer.apply_chat_template(
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>\nwhy\n</think>\n\n4"}],
        tokenize=False,
    )
    assert "why" not in str(lost)
    for one in islice(chain.from_iterable(open_source("gsm8k", mirror=shared / "data" / "hub")), 20):
        check_span(one, prompts)
    for one in islice(chain.from_iterable(open_source("openr1", mirror=shared / "data" / "hub")), 5):
        check_span(one, prompts)


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (make_traced(answer="5"), "wrong"),
        (make_traced(answer="A", gold="see the figure"), "wrong or unknown"),
        (make_traced(text="  \n "), "empty"),
        (make_traced(text="so </think> 4"), "marks"),
        (make_traced(text="<think> 4"), "marks"),
        (make_traced(text="4<｜end▁of▁sentence｜>4"), "marks"),
        (make_traced(text="2+2=4. " * 100), "too long"),
    ],
)
def test_an_unfit_trace_is_dropped_with_its_reason(pocket: PromptFormat, one: TracedProblem, reason: str) -> None:
    result = make_row(one, prompts=pocket, rows=Rows(max_tokens=256), filters=Filters(repeats=1.0))
    assert result in reason.split(" or ")


BOXED = "First think.\nSo it is $\\boxed{4}$, is it?\n" + "Wait, check again. " * 40


@pytest.mark.parametrize(
    ("one", "shorten", "result"),
    [
        (make_traced(text=BOXED), False, "too long"),
        (make_traced(text=BOXED), True, "First think.\nSo it is $\\boxed{4}$, is it?"),
        (
            make_traced(text="Is it \\boxed{5}?\n" + BOXED),
            True,
            "Is it \\boxed{5}?\nFirst think.\nSo it is $\\boxed{4}$, is it?",
        ),
        (make_traced(text=BOXED.replace("\\boxed", "")), True, "too long"),
        (make_traced(text="Wait, again. " * 60 + BOXED), True, "too long"),
    ],
)
def test_a_long_trace_is_shortened_to_its_box_only_on_request(
    pocket: PromptFormat, one: TracedProblem, shorten: bool, result: str
) -> None:
    made = make_row(one, prompts=pocket, rows=Rows(max_tokens=160, shorten=shorten), filters=Filters(repeats=1.0))
    if isinstance(made, str):
        assert made == result
        return
    assert made["shortened"]
    text = str(pocket.tokenizer.decode(made["input_ids"][made["prompt_tokens"] : -1]))
    assert text == f"{result}\n</think>\n\n\\boxed{{4}}"
    assert not find_mismatch(made, completion=text, prompts=pocket)


RAN = (
    "Count.\n```python\nprint(2+2)\n```\n```output\n4\n```\n"
    "So 4.\n```python\nprint(1)\n```\n```output\n1\n```\nIt is 4."
)


@pytest.mark.parametrize(
    "text", [RAN, RAN.replace("```python\n", "<tool_call>\n").replace(")\n```", ")\n</tool_call>")]
)
@pytest.mark.parametrize("name", ["pocket", "r1-distill-qwen", "r1-distill-llama"])
def test_what_a_tool_wrote_has_no_loss(request: pytest.FixtureRequest, name: str, text: str) -> None:
    prompts: PromptFormat
    prompts = request.getfixturevalue("pocket") if name == "pocket" else request.getfixturevalue("load_real")(name)
    one = make_traced(text=text)
    assert make_row(one, prompts=prompts, rows=Rows(), filters=Filters()) == "tool output"
    made = make_row(one, prompts=prompts, rows=Rows(), filters=Filters(tool_output="mask"))
    assert not isinstance(made, str), made
    at = made["prompt_tokens"]
    decode = prompts.tokenizer.decode
    assert decode(made["input_ids"][at:-1]) == f"{RAN}\n</think>\n\n\\boxed{{4}}"
    trained = [label for label in made["labels"] if label != IGNORED]
    without = RAN.replace("\n```output\n4\n```\n", "").replace("\n```output\n1\n```\n", "")
    assert decode(trained[:-1]) == f"{without}\n</think>\n\n\\boxed{{4}}"
    assert (trained[-1], len(trained)) == (prompts.tokenizer.eos_token_id, made["trained_tokens"])
    # Loss on one token of an output, or none on one of the model's own, is no parity.
    completion = prompts.completion(trace=RAN, answer="4")
    masked = made["labels"].index(IGNORED, at)
    for index, label in ((masked, made["input_ids"][masked]), (at, IGNORED), (at, 0)):
        labels = [*made["labels"][:index], label, *made["labels"][index + 1 :]]
        wrong: Any = {**made, "labels": labels}
        assert find_mismatch(wrong, completion=completion, prompts=prompts) == "labels"


@given(st.text(alphabet="a`\n outp4", max_size=60))
def test_the_parts_of_a_trace_are_the_trace(text: str) -> None:
    assert "".join(part for part, _ in split_by_writer(text)) == text


TRAPS: dict[str, tuple[Callable[[TokenRow], TokenRow], str, str]] = {
    "another prompt": (
        lambda row: row | {"input_ids": [*row["input_ids"][:3], 65, *row["input_ids"][4:]]},
        "prompt",
        "token 3 of the prompt is 65 'b', and a server's is 280 ' is'",
    ),
    "a token of the answer missing": (
        lambda row: row | {"input_ids": [*row["input_ids"][:-3], *row["input_ids"][-2:]]},
        "completion",
        "character 24 of the completion reads '}', and must read '4}'",
    ),
    "another end": (
        lambda row: row | {"input_ids": [*row["input_ids"][:-1], 65]},
        "eos",
        "the row ends with 65 'b', and a turn ends with 570 '<｜end▁of▁sentence｜>'",
    ),
    "loss on the prompt": (
        lambda row: row | {"labels": row["input_ids"]},
        "labels",
        "token 0, 569 '<｜begin▁of▁sentence｜>', is of the prompt and has loss",
    ),
    "another token's label": (
        lambda row: row | {"labels": [*row["labels"][:-2], 65, row["labels"][-1]]},
        "labels",
        "token 24, 92 '}', has the label of another token, 65",
    ),
    "no loss on a word of the model": (
        lambda row: row | {"labels": [*row["labels"][:-2], IGNORED, row["labels"][-1]]},
        "labels",
        "what has loss reads '' at character 25, and the model writes '}'",
    ),
}


@pytest.mark.parametrize("name", TRAPS)
def test_what_is_not_served_or_not_trained_is_a_mismatch(pocket: PromptFormat, name: str) -> None:
    one, (change, part, difference) = make_traced(), TRAPS[name]
    good = row(one, pocket)
    text = pocket.completion(trace=one.trace.text, answer=one.trace.answer)
    assert find_mismatch(good, completion=text, prompts=pocket) == ""
    assert describe_mismatch(good, completion=text, prompts=pocket) == ""
    wrong = change(good)
    assert find_mismatch(wrong, completion=text, prompts=pocket) == part
    assert describe_mismatch(wrong, completion=text, prompts=pocket) == difference


def edit_template(source: ModelSource, *, old: str, new: str, instruction: str = "Think.") -> PromptFormat:
    tokenizer = load_prompt_format(source).tokenizer  # this caller's own
    template = str(tokenizer.chat_template)
    assert old in template
    tokenizer.chat_template = template.replace(old, new)
    return PromptFormat(tokenizer=tokenizer, instruction=instruction)


@pytest.mark.parametrize(
    ("new", "opening"),
    [
        ("<｜Assistant｜><think>\\n", ""),
        ("<｜Assistant｜><think>", "\n"),
        ("<｜Assistant｜>", "<think>\n"),
        ("Be brief. <｜Assistant｜>", "<think>\n"),
    ],
)
def test_templates_with_and_without_an_opening_give_one_reasoning(new: str, opening: str) -> None:
    prompts = edit_template(find_model("pocket"), old="<｜Assistant｜><think>\\n", new=new)
    assert prompts.opening == opening
    result = row(make_traced(), prompts)
    whole = str(prompts.tokenizer.decode(result["input_ids"]))
    assert whole.endswith(
        new.replace("<think>", "").replace("\\n", "") + ("<think>\n2+2=4.\n</think>\n\n\\boxed{4}<｜end▁of▁sentence｜>")
    )
    assert whole.count("<think>") == 1


def test_a_template_that_has_closed_the_reasoning_is_refused() -> None:
    prompts = edit_template(find_model("pocket"), old="<think>\\n", new="<think>\\n\\n</think>\\n\\n")
    with pytest.raises(UserError, match="must leave the reasoning to the model"):
        row(make_traced(), prompts)


def test_a_template_that_doubles_bos_has_no_parity() -> None:
    prompts = edit_template(find_model("pocket"), old="bos_token}}", new="bos_token}}{{bos_token}}")
    assert make_row(make_traced(), prompts=prompts, rows=Rows(), filters=Filters()) == "parity: bos"
