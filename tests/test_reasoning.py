"""The marks around a model's reasoning: one table for prompts, rows, engines, answers and corpus."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mathlete.answers import extract, read_answer
from mathlete.corpus.layouts import read_traced
from mathlete.problems import Problem
from mathlete.prompts import PromptFormat
from mathlete.reasoning import (
    _HINTS,
    MARKS,
    ends_in_opening,
    find_marks,
    find_unfinished,
    has_marks,
    is_reasoning_model,
    remove_marks,
    split,
)
from mathlete.sampling import CompletionReader, Sample, SampleBuilder, find_ending
from mathlete.sampling.served.reply import Reply
from mathlete.traces import read_completion
from tests.test_sampling_engine import byte_tokenizer

BARE = "analysisWe need 2+2=4.assistantfinalIt is \\boxed{4}"
EVERY = pytest.mark.parametrize("name", MARKS)


def written(name: str, *, thought: str = "Maybe \\boxed{9}? 2+2=4.", answer: str = "It is \\boxed{4}") -> str:
    marks = MARKS[name]
    return f"{marks.before}{thought}{marks.ending}{answer}"


def prompts_of(name: str) -> PromptFormat:
    """The prompts of a model whose vocabulary has the marks, and opens nothing in its prompt."""
    tokenizer: Any = byte_tokenizer(thoughts=MARKS[name].tokens, special=len(MARKS[name].parts) > 2)
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}({{ m.content }}){% endfor %}"
    return PromptFormat(tokenizer=tokenizer, instruction="")


@EVERY
def test_what_a_model_says_behind_its_marks_is_its_answer(name: str) -> None:
    text = written(name)
    assert extract(text).string == "4"
    assert read_completion(text).thought == "Maybe \\boxed{9}? 2+2=4."
    assert read_completion(text).ending == "It is \\boxed{4}"
    # A prompt may have opened the reasoning.
    rest = text.removeprefix(MARKS[name].before)
    assert extract(rest).string == "4"
    assert read_completion(rest, thinks=True) == read_completion(text)


@EVERY
def test_unfinished_reasoning_is_weak_and_a_cut_sample_has_no_answer(name: str) -> None:
    text = f"{MARKS[name].before}Suppose the answer is \\boxed{{35}}. No wait"
    assert (extract(text).string, extract(text).strength) == ("35", "weak")
    assert read_answer(text, cut=True) is None
    assert read_completion(text).flaw == "unclosed"
    assert find_unfinished(text) == text.removeprefix(MARKS[name].opening)
    # What is opened again after an answer is unfinished too.
    assert extract(written(name) + text).strength == "weak"


@EVERY
def test_marks_are_seen_and_removed_whatever_is_between_them(name: str) -> None:
    marks = MARKS[name]
    for mark in (marks.opening, marks.closing):
        assert any(hint in mark for hint in _HINTS)
        assert has_marks(f"a {mark} b")
        assert not has_marks(remove_marks(f"{mark[:3]}{mark}{mark[3:]} b {marks.opening}"))
    for token in marks.tokens:
        assert token not in remove_marks(f"{token[:2]}{token}{token[2:]}")


@EVERY
def test_the_completion_that_is_taught_is_the_one_that_is_read(name: str) -> None:
    prompts = prompts_of(name)
    assert prompts.reasoning == MARKS[name]
    text = prompts.completion(trace="2+2=4.", answer="4")
    assert text == f"{MARKS[name].before}2+2=4.{MARKS[name].ending}\\boxed{{4}}"
    assert extract(text).string == "4"
    assert not prompts.chat_tokens & {*prompts.ids(text)}


@EVERY
def test_an_engine_ends_a_sample_with_the_box_behind_the_marks_and_keeps_them(name: str) -> None:
    prompts = prompts_of(name)
    text = written(name)
    (sample,) = drawn(prompts, text + " and so on")
    assert (sample.text, sample.finish) == (text, "boxed")
    assert sample.tokens == len(prompts.ids(text))
    ending = find_ending(text + " and", marks=prompts.reasoning)
    assert ending is not None
    assert ending.text == text
    # What a sample has said is the same tokens again where it goes on.
    assert prompts.said_ids(text) == prompts.ids(text)
    # In a statement they are text.
    inside = {prompts.tokenizer.convert_tokens_to_ids(token) for token in MARKS[name].tokens}
    assert not inside & {*prompts.prompt_ids(f"Say {text}!")}


def drawn(prompts: PromptFormat, text: str) -> list[Sample]:
    reader = CompletionReader(prompts, eos_ids=set())
    builder = SampleBuilder(reader=reader, problem_id="p", index=0, seed=0, max_tokens=1000)
    return [sample for token in prompts.ids(text) if (sample := builder.add(token, 0.0)) is not None]


def test_a_model_that_names_no_marks_has_those_of_r1() -> None:
    assert find_marks(template="{{ messages }}", vocabulary=()) == MARKS["think"]
    both = {*MARKS["think"].tokens, *MARKS["harmony"].tokens}
    assert find_marks(template="", vocabulary=both) == MARKS["think"]
    assert find_marks(template="say <reasoning>…</reasoning>", vocabulary=()) == MARKS["reasoning"]
    assert find_marks(template="say <reasoning>", vocabulary=()) == MARKS["reasoning"]
    # What is written into no prompt.
    comment = "{# strips\n<reasoning></reasoning> #}"
    assert find_marks(template=f"{comment}.split('</think>')", vocabulary=()) == MARKS["think"]
    assert is_reasoning_model(template="</reasoning>", vocabulary=())
    assert not is_reasoning_model(template=comment, vocabulary=())


@pytest.mark.parametrize("template", ["{{ messages[0].content }}", "{{ messages[-1].content }}\n"])
def test_marks_that_an_instruction_names_are_not_the_models(template: str) -> None:
    tokenizer: Any = byte_tokenizer(thoughts=MARKS["think"].tokens)
    tokenizer.chat_template = template
    prompts = PromptFormat(tokenizer=tokenizer, instruction="Reason in <reasoning> and </reasoning>")
    assert prompts.reasoning == MARKS["think"]


TEMPLATES = {
    "prefills": "({{ messages[0].content }}){% if add_generation_prompt %}BEFORE{% endif %}",
    "closes": "({{ messages[0].content }}){% if add_generation_prompt %}BEFOREENDING{% endif %}",
    "keeps answers only": "({{ messages[0].content.split('CLOSING')[-1] }})",
    "asks for both": "Write OPENING…CLOSING.({{ messages[0].content.split('OTHER')[-1] }})",
}
"""How a template names the marks of a model."""


@example(name="kimi", others={"think"}, way="prefills")  # a mark whose last letter is several bytes
@given(
    name=st.sampled_from([*MARKS]),
    others=st.sets(st.sampled_from([*MARKS]), min_size=1, max_size=3),
    way=st.sampled_from([*TEMPLATES]),
)
def test_what_a_template_writes_beats_what_its_vocabulary_has(name: str, others: set[str], way: str) -> None:
    """A tuned model has the tokens of the model that it was made of, with which that one reasoned."""
    marks, other = MARKS[name], MARKS[min(others)]
    words = {"BEFORE": marks.before, "ENDING": marks.ending, "OPENING": marks.opening, "CLOSING": marks.closing}
    template = TEMPLATES[way].replace("OTHER", other.closing)
    for word, mark in words.items():
        template = template.replace(word, mark.replace("\n", "{{ '\\n' }}"))
    tokenizer: Any = byte_tokenizer(thoughts=[*dict.fromkeys(token for one in others for token in MARKS[one].tokens)])
    tokenizer.chat_template = template
    prompts = PromptFormat(tokenizer=tokenizer, instruction="")
    assert prompts.reasoning == marks
    assert prompts.prefilled is (way == "prefills")
    assert prompts.prefilled is ends_in_opening(prompts.render("1"))
    assert prompts.answers_at_once is (way == "closes")
    # What any of them reasons between is text in a statement, and what a model has said is what it wrote.
    text = f"{other.opening}1{other.closing}"
    inside = {tokenizer.convert_tokens_to_ids(token) for token in other.tokens}
    bare, asked = ([index for index in prompts.prompt_ids(one) if index in inside] for one in ("1", text))
    assert asked == bare
    if way in ("prefills", "asks for both"):
        (sample,) = drawn(prompts, written(name).removeprefix(marks.before) + " and so on")
        assert sample.finish == "boxed"
        thought = f"{marks.before}Suppose \\boxed{{35}}. No wait,"
        assert read_answer(thought.removeprefix(marks.before if prompts.prefilled else ""), cut=True,
                           thinking=prompts.prefilled) is None  # fmt: skip


def test_channels_whose_marks_a_server_left_out_are_read() -> None:
    assert extract(BARE).string == "4"
    assert read_completion(BARE).thought == "We need 2+2=4."
    assert extract("analysisSuppose the answer is 35").strength == "weak"
    assert extract("analysis of the problem gives the answer is 35").strength == "strong"
    assert split("The analysis and the assistantfinal word") is None


def test_a_channel_may_have_several_messages() -> None:
    harmony = MARKS["harmony"]
    text = f"{harmony.opening}one{harmony.turn}{harmony.opening}two{harmony.ending}\\boxed{{4}}"
    assert read_completion(text).thought == "one\n\ntwo"


@EVERY
def test_a_file_of_traces_is_read_with_any_marks(name: str, tmp_path: Path) -> None:
    file = tmp_path / "traced.jsonl"
    row = {"id": "p", "statement": "2+2?", "gold": "4", "trace": written(name), "answer": "4"}
    file.write_text(json.dumps(row) + "\n")
    (result,) = read_traced(file)
    assert result.trace.text == "Maybe \\boxed{9}? 2+2=4."


def test_a_server_that_sends_the_reasoning_apart_gives_the_models_own_marks() -> None:
    reply = Reply(marks=MARKS["magistral"])
    for delta in ({"reasoning_content": "2+2"}, {"content": "\\boxed{4}"}):
        reply.add(json.dumps({"choices": [{"index": 0, "delta": delta}]}))
    assert reply.text == "2+2[/THINK]\\boxed{4}"


def test_a_prompt_that_has_closed_the_reasoning_lets_the_first_box_end_a_sample() -> None:
    tokenizer: Any = byte_tokenizer()
    tokenizer.chat_template = "{{ messages[0].content }}<think>\n\n</think>\n\n"
    prompts = PromptFormat(tokenizer=tokenizer, instruction="")
    assert CompletionReader(prompts, eos_ids=set()).is_answering("")
    assert prompts.fit_prompt_ids(Problem(id="p", statement="1", gold="1"), context=100)
