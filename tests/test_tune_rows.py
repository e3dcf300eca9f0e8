"""Format: what is trained on, what is left out, what is held out, and what a kill leaves."""

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pytest

from mathlete.corpus.stream import iter_traces
from mathlete.corpus.traces import Trace, TracedProblem
from mathlete.errors import UserError
from mathlete.models import ModelSource, model_source, prompt_format
from mathlete.problems import Problem
from mathlete.prompts import PromptFormat
from mathlete.runs import sha256_tree
from mathlete.tune import rows as rows_module
from mathlete.tune.rows import HEAD, HELDOUT, IGNORED, TRAIN, Row, format_rows, row_of
from mathlete.tune.settings import Rows


@pytest.fixture(scope="module")
def pocket() -> PromptFormat:
    return prompt_format(model_source("pocket"))


def traced(*, text: str = "2+2=4.", answer: str = "4", gold: str = "4", name: str = "1") -> TracedProblem:
    problem = Problem(id=name, statement="What is 2+2?", gold=gold)
    return TracedProblem(problem=problem, trace=Trace(problem_id=name, text=text, answer=answer, generator="test"))


def row(one: TracedProblem, prompts: PromptFormat) -> Row:
    found = row_of(one, prompts=prompts, max_tokens=10_000)
    assert not isinstance(found, str), found
    return found


def as_trl_has_it(one: TracedProblem, prompts: PromptFormat) -> list[int]:
    """The tokens TRL's own training template makes of the same conversation: R1's template without its deletion."""
    template = files("trl").joinpath("chat_templates", "deepseek_r1_distill_training.jinja").read_text(encoding="utf-8")
    statement = one.problem.statement
    question = f"{statement}\n{prompts.instruction}" if prompts.instruction else statement
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": f"<think>\n{one.trace.text}\n</think>\n\n\\boxed{{{one.trace.answer}}}"},
    ]
    found: Any = prompts.tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=True, return_dict=True
    )
    return list(found["input_ids"])


def check_span(one: TracedProblem, prompts: PromptFormat) -> None:
    found = row(one, prompts)
    at = found["prompt_tokens"]
    # What is served, rendered by the template that serves, and all that follows it.
    served: Any = prompts.tokenizer.decode(found["input_ids"][:at])
    assert served.endswith("<think>\n")
    assert found["input_ids"][:at] == prompts.prompt_ids(one.problem.statement)
    assert found["labels"] == [IGNORED] * at + found["input_ids"][at:]
    trained = prompts.tokenizer.decode(found["input_ids"][at:-1])
    assert trained == f"{one.trace.text}\n</think>\n\n\\boxed{{{one.trace.answer}}}"
    assert found["input_ids"][-1] == prompts.tokenizer.eos_token_id
    assert found["input_ids"].count(int(prompts.tokenizer.bos_token_id)) == 1
    assert found["input_ids"] == as_trl_has_it(one, prompts)


def test_the_pocket_model_trains_on_exactly_what_follows_the_served_prompt(pocket: PromptFormat) -> None:
    for one in iter_traces("pocket", limit=40, seed=3):
        check_span(one, pocket)


def test_the_real_tokenizer_trains_on_the_trace_that_its_template_deletes(shared: Path) -> None:
    source = ModelSource(name="r1", location=str(shared / "tokenizers" / "r1-distill-qwen"))
    prompts = prompt_format(source)
    lost = prompts.tokenizer.apply_chat_template(
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>\nwhy\n</think>\n\n4"}],
        tokenize=False,
    )
    assert "why" not in str(lost)
    for one in islice(iter_traces("gsm8k", mirror=shared / "data" / "hub"), 20):
        check_span(one, prompts)
    for one in islice(iter_traces("openr1", mirror=shared / "data" / "hub"), 5):
        check_span(one, prompts)


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (traced(answer="5"), "wrong"),
        (traced(answer="A", gold="see the figure"), "wrong or unknown"),
        (traced(text="  \n "), "empty"),
        (traced(text="so </think> 4"), "marks"),
        (traced(text="<think> 4"), "marks"),
        (traced(text="4<｜end▁of▁sentence｜>4"), "marks"),
        (traced(text="2+2=4. " * 100), "too long"),
    ],
)
def test_an_unfit_trace_is_dropped_with_its_reason(pocket: PromptFormat, one: TracedProblem, reason: str) -> None:
    assert row_of(one, prompts=pocket, max_tokens=256) in reason.split(" or ")


def built(folder: Path, some: Iterator[TracedProblem], prompts: PromptFormat, **rows: int) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    return format_rows(
        folder, traced=some, total=None, prompts=prompts, rows=Rows(**rows), seed=0, advance=lambda *_: None
    )


def sides(folder: Path) -> tuple[list[Row], list[Row]]:
    train, heldout = (list(datasets.load_from_disk(folder / name)) for name in (TRAIN, HELDOUT))
    return train, heldout


def test_drops_are_counted_by_reason_and_no_row_is_cut(tmp_path: Path, pocket: PromptFormat) -> None:
    good = list(iter_traces("pocket", limit=60))
    lengths = sorted(len(row(one, pocket)["input_ids"]) for one in good)
    cap = lengths[39]
    wrong = [replace(one, trace=replace(one.trace, answer="-1")) for one in good[:7]]
    found = built(tmp_path / "data", iter([*good, *wrong]), pocket, max_tokens=cap, heldout=4)
    longer = sum(length > cap for length in lengths)
    assert found["dropped"] == {"too long": longer, "wrong": 7}
    assert (found["problems"], found["rows"], found["heldout"]) == (67, 60 - longer - 4, 4)
    train, heldout = sides(tmp_path / "data")
    texts = {one.problem.id: row(one, pocket)["input_ids"] for one in good}
    assert all(one["input_ids"] == texts[one["problem_id"]] for one in (*train, *heldout))
    assert found["longest"] == max(len(one["input_ids"]) for one in train) <= cap
    assert found["trained_tokens"] == sum(label != IGNORED for one in train for label in one["labels"])
    head = [json.loads(line) for line in (tmp_path / "data" / HEAD).read_text().splitlines()]
    assert [one["problem_id"] for one in head] == [one["problem_id"] for one in train][:20]
    assert all(one["trained"].endswith("<｜end▁of▁sentence｜>") for one in head)


def test_all_traces_of_a_held_out_problem_are_held_out(tmp_path: Path, pocket: PromptFormat) -> None:
    some = [traced(name=str(number), text=f"{way} gives 4.") for number in range(30) for way in ("one", "two", "three")]
    built(tmp_path / "data", iter(some), pocket, heldout=200)
    train, heldout = ({one["problem_id"] for one in side} for side in sides(tmp_path / "data"))
    assert not train & heldout
    assert (len(train), len(heldout)) == (27, 3)
    assert [len(side) for side in sides(tmp_path / "data")] == [81, 9]


@pytest.mark.parametrize(
    ("some", "message"),
    [
        ([traced(answer="5", name=str(n)) for n in range(3)], "0 of 3 is left, got wrong: 3"),
        ([], "0 of 0 is left, got no problem at all"),
        ([traced(), traced(answer="5", name="2")], "1 of 2 is left, got wrong: 1"),
        ([traced(), traced(text="once more 4")], "at least two problems, got 1"),
    ],
)
def test_too_few_rows_are_an_error_that_counts_the_drops(
    tmp_path: Path, pocket: PromptFormat, some: list[TracedProblem], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        built(tmp_path / "data", iter(some), pocket)


def test_a_part_without_rows_stops_nothing(tmp_path: Path, pocket: PromptFormat) -> None:
    # The first thousand problems are all wrong: datasets cannot load an empty set, so none may be saved.
    wrong = (traced(answer="5", name=f"w{n}") for n in range(1000))
    found = built(tmp_path / "data", iter([*wrong, *(traced(name=str(n)) for n in range(20))]), pocket)
    assert (found["rows"], found["heldout"], found["dropped"]) == (18, 2, {"wrong": 1000})


def test_an_interrupted_format_goes_on_from_its_finished_parts(
    tmp_path: Path, pocket: PromptFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "_PART", 20)
    some = list(iter_traces("pocket", limit=70))
    whole = built(tmp_path / "whole", iter(some), pocket, heldout=5)

    def torn() -> Iterator[TracedProblem]:
        yield from some[:50]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        built(tmp_path / "cut", torn(), pocket, heldout=5)
    parts = tmp_path / "cut" / ".parts"
    assert sorted(part.name for part in parts.iterdir()) == ["00000", "00001"]
    before = [part.stat().st_ino for part in sorted(parts.iterdir())]
    (parts / "00002.unfinished").mkdir()
    (parts / "00002.unfinished" / "half").touch()
    with pytest.raises(KeyboardInterrupt):
        built(tmp_path / "cut", torn(), pocket, heldout=5)
    assert [part.stat().st_ino for part in sorted(parts.glob("?????"))] == before
    assert built(tmp_path / "cut", iter(some), pocket, heldout=5) == whole
    assert sha256_tree(tmp_path / "cut") == sha256_tree(tmp_path / "whole")
    assert not parts.exists()
