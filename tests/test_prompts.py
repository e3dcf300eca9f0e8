from copy import copy
from pathlib import Path

import pytest

from mathlete.errors import UserError
from mathlete.models import find_model, load_prompt_format
from mathlete.prompts import INSTRUCTION, PromptFormat, instruction_of

REAL = ("r1-distill-qwen", "r1-distill-llama")


@pytest.fixture(scope="session", params=["pocket", *REAL])
def prompts(request: pytest.FixtureRequest) -> PromptFormat:
    if request.param == "pocket":
        return load_prompt_format(find_model("pocket"))
    loaded: PromptFormat = request.getfixturevalue("load_real")(request.param)
    return loaded


def rewrite(prompts: PromptFormat, template: str | None) -> PromptFormat:
    """Return prompts of the same tokenizer with another template, or none."""
    tokenizer = copy(prompts.tokenizer)
    tokenizer.chat_template = template
    return PromptFormat(tokenizer=tokenizer)


STATEMENT = "Find the remainder when $7^{100}$ is divided by 13."


def test_prompt_has_one_bos_and_opens_the_reasoning(prompts: PromptFormat) -> None:
    ids = prompts.prompt_ids(STATEMENT)
    assert ids.count(prompts.tokenizer.bos_token_id) == 1
    assert ids[0] == prompts.tokenizer.bos_token_id
    assert prompts.prefilled
    assert str(prompts.tokenizer.decode(ids)).endswith("<｜Assistant｜><think>\n")


def test_completion_is_trace_box_and_eos(prompts: PromptFormat) -> None:
    ids = prompts.completion_ids(trace="7^2=49, r=10.", answer="9")
    assert ids[-1] == prompts.tokenizer.eos_token_id
    assert prompts.tokenizer.decode(ids[:-1]) == "7^2=49, r=10.\n</think>\n\n\\boxed{9}"


def test_reasoning_survives_skipping_special_tokens(prompts: PromptFormat) -> None:
    ids = prompts.completion_ids(trace="a", answer="9")
    assert prompts.tokenizer.decode(ids, skip_special_tokens=True) == "a\n</think>\n\n\\boxed{9}"


def test_padding_is_not_eos(prompts: PromptFormat) -> None:
    assert prompts.tokenizer.pad_token_id not in (None, prompts.tokenizer.eos_token_id)


def test_template_without_prefill_leaves_the_opening_to_the_model(prompts: PromptFormat) -> None:
    template = str(prompts.tokenizer.chat_template)
    open_ended = rewrite(prompts, template.replace("<think>\\n", "").replace("<think>\n", ""))
    assert not open_ended.prefilled
    said = str(prompts.tokenizer.decode(open_ended.completion_ids(trace="a", answer="9")))
    assert said.startswith("<think>\na\n</think>")


def test_instruction_is_the_second_paragraph(prompts: PromptFormat) -> None:
    with_it = PromptFormat(tokenizer=prompts.tokenizer, instruction=INSTRUCTION)
    assert f"{STATEMENT}\n{INSTRUCTION}<｜Assistant｜>" in str(prompts.tokenizer.decode(with_it.prompt_ids(STATEMENT)))
    without = PromptFormat(tokenizer=prompts.tokenizer, instruction="")
    assert f"{STATEMENT}<｜Assistant｜>" in str(prompts.tokenizer.decode(without.prompt_ids(STATEMENT)))
    assert with_it.sha256 != without.sha256


def test_instruction_travels_in_the_model_folder(tmp_path: Path, prompts: PromptFormat) -> None:
    assert instruction_of(tmp_path) == INSTRUCTION
    PromptFormat(tokenizer=prompts.tokenizer, instruction="Box it.").save(tmp_path)
    assert instruction_of(tmp_path) == "Box it."


def test_no_chat_template_is_an_error(prompts: PromptFormat) -> None:
    with pytest.raises(UserError, match="needs a chat template"):
        rewrite(prompts, None).prompt_ids(STATEMENT)
