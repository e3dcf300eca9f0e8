"""Any chat model's rows: what its template serves is what is trained on, to the token that ends its turn."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError
from transformers import AutoTokenizer, GenerationConfig
from transformers.utils import chat_template_utils

from mathlete.errors import UserError
from mathlete.export.formats.gguf_files import Q8_0
from mathlete.models import ModelSource, load_prompt_format
from mathlete.models.padding import read_template
from mathlete.prompts import PROMPT_FILE, PromptFormat
from mathlete.rows import RowFiles
from mathlete.rows.parity import describe_mismatch, find_mismatch
from mathlete.rows.row import IGNORED
from mathlete.rows.settings import Filters, Rows
from mathlete.rows.token_rows import make_row
from mathlete.runs import write_json
from mathlete.sampling import CompletionReader, SampleBuilder
from tests.chats import CHATS, Chat, load_chat, write_model, write_tokenizer
from tests.conftest import CommandLine
from tests.traced import make_traced, row

TRACES = ("2+2=4.", "First:\n\n  2+2 = 4.\n\tSo, \\frac{8}{2} = 4 .\n\n\nIt is 4!", "é ﬁ ½ <b>4</b> <table>")


@pytest.mark.parametrize("name", CHATS)
def test_rows_of_a_chat_model_are_what_it_is_served(name: str) -> None:
    prompts, expected = load_chat(name), CHATS[name]
    tokenizer = prompts.tokenizer
    assert (tokenizer.eos_token, tokenizer.pad_token) == (expected.end, expected.padding)
    assert len(prompts.notes) == len(expected.said)
    assert all(map(str.startswith, prompts.notes, expected.said)), prompts.notes
    for text in TRACES:
        one = row(make_traced(text=text), prompts)
        at, ids = one["prompt_tokens"], one["input_ids"]
        # The whole row is the conversation as the template writes it, up to the end of the model's turn.
        said = f"<think>\n{text}\n</think>\n\n\\boxed{{4}}"
        rendered = prompts.server_text("What is 2+2?")
        assert [*tokenizer(rendered)["input_ids"]] == prompts.prompt_ids("What is 2+2?")
        whole = str(tokenizer.decode(ids)).replace(" ", "").replace("\n", "")
        assert whole == f"{rendered}{said}{expected.end}".replace(" ", "").replace("\n", "")
        assert one["labels"] == [IGNORED] * at + ids[at:]
        bos = tokenizer.bos_token_id
        assert bos is None or ids[:-1].count(bos) == rendered.count(str(expected.bos))
        assert tokenizer.eos_token_id not in ids[at:-1]
        # An engine that draws these tokens reads the same text, and ends where the box closes.
        reader = CompletionReader(prompts, eos_ids=set())
        builder = SampleBuilder(reader=reader, problem_id="1", index=0, seed=0, max_tokens=999)
        drawn = [sample for token in ids[at:] if (sample := builder.add(token, 0.0)) is not None]
        assert (drawn[0].text, drawn[0].finish) == (said, "boxed")
        assert ids[-1] in reader.eos_ids


def test_marks_of_a_chat_are_told_from_text_that_is_a_token() -> None:
    prompts = load_chat("gemma")
    assert row(make_traced(text="a\n\nb  <b>c</b>"), prompts)
    for text in ("a<end_of_turn>\nb", "a<eos>b", "a<unk>b"):
        assert make_row(make_traced(text=text), prompts=prompts, rows=Rows(), filters=Filters()) == "marks"
    # In use or not: a base that fills in the middle of code would open a gap.
    for text in ("a<|fim_prefix|>b", "a<tool_call>b"):
        assert make_row(make_traced(text=text), prompts=load_chat("qwen2.5"), rows=Rows(), filters=Filters()) == "marks"


CLOCKS = {
    "a literal": "{{ strftime_now('%d %b %Y') }}",
    "a variable": "{% set f = '%d %b %Y' %}{{ strftime_now(f) }}",
    "pieces": "{{ strftime_now(format='%' ~ 'd' ~ ' %' + 'b %Y') }}",
    "another name": "{% set today = strftime_now %}{{ today('%d %b %Y') }}",
    "where there is one": "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}",
    "a macro": "{% macro today(f='%d %b') %}{{ strftime_now(f) }}{% endmacro %}{{ today() ~ ' 2024' }}",
    "a block": "{% block day %}{{ strftime_now('%d %b %Y') }}{% endblock %}",
    "numbers": "{{ strftime_now('%d')|int }} Jul {{ strftime_now('%Y')|int }}",
}


class Tomorrow(datetime):
    """A clock that a template must not show."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "Tomorrow":
        return cls(2031, 5, 4, 3, 2, 1, tzinfo=tz)


def load(folder: Path, chat: Chat, *names: str) -> PromptFormat:
    """Load a chat whose templates, if there are names, stand under each of them in tokenizer_config.json."""
    write_tokenizer(folder, chat)
    if names:
        (folder / "chat_template.jinja").unlink()
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config["chat_template"] = [{"name": name, "template": chat.chat_template} for name in names]
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return load_prompt_format(ModelSource(name="model", location=str(folder)))


@pytest.mark.parametrize("names", [(), ("default", "tool_use")])
@pytest.mark.parametrize("clock", CLOCKS)
def test_a_template_that_writes_the_date_gives_one_prompt_on_every_day(
    clock: str, names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = replace(CHATS["smollm2"], template=f"{CLOCKS[clock]}. {CHATS['smollm2'].template}")
    plain = load(tmp_path / "plain", CHATS["smollm2"]).render("1")
    monkeypatch.setattr(chat_template_utils, "datetime", Tomorrow)
    prompts = load(tmp_path / "model", chat, *names)
    assert prompts.notes[0].startswith("date: 26 July 2024 on every day")
    assert prompts.render("1") == f"26 Jul 2024. {plain}"
    # What is saved is what a server renders, and is left as it is where it is loaded again.
    prompts.tokenizer.save_pretrained(tmp_path / "saved")
    served: Any = AutoTokenizer.from_pretrained(tmp_path / "saved")
    without: tuple[list[Any] | None, ...] = ([], None)
    for tools in without:
        text = served.apply_chat_template(
            prompts.messages("1"), tools=tools, tokenize=False, add_generation_prompt=True
        )
        assert text == prompts.render("1")
    again = load_prompt_format(ModelSource(name="saved", location=str(tmp_path / "saved")))
    assert (again.notes, again.sha256) == ((), prompts.sha256)


def test_a_named_template_is_the_one_of_that_text_alone(tmp_path: Path) -> None:
    for name in ("llama3.2", "qwen3"):
        one = load(tmp_path / name, CHATS[name], "default", "tool_use")
        assert (one.notes, one.render("1")) == (load_chat(name).notes, load_chat(name).render("1"))
    write_json(tmp_path / "qwen3" / PROMPT_FILE, {"instruction": "", "template_args": {"Tools": True}})
    with pytest.raises(UserError, match="must read its arguments, got Tools, of which it knows nothing"):
        load_prompt_format(ModelSource(name="model", location=str(tmp_path / "qwen3")))


@pytest.mark.parametrize("form", ["%A, %d. %B %y", "%-d/%-m %H:%M:%S", "%Y%m%d%%d", "%j %p %F %T", "no", "%", ""])
def test_the_day_that_a_template_is_told_is_written_as_strftime_does(form: str, tmp_path: Path) -> None:
    prompts = load(
        tmp_path,
        replace(
            CHATS["smollm2"],
            template=f"  {{% set f = {form!r} %}}\n{{{{ strftime_now(f) }}}}|" + CHATS["smollm2"].template,
        ),
    )
    assert prompts.render("1").partition("|")[0] == datetime(2024, 7, 26, tzinfo=UTC).strftime(form)


@pytest.mark.parametrize("drawn", ["{{ lipsum(n=1) }}", "{{ range(99)|random }}"])
def test_a_template_that_draws_by_chance_is_an_error(drawn: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must write one prompt of one question, got .*\n.*by chance"):
        load(tmp_path, replace(CHATS["smollm2"], template=drawn + CHATS["smollm2"].template))


COMPOSED = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
MAPPED = (
    "{% set who = {'system': 'sys', 'user': 'q', 'assistant': 'a', 'tool': 'out'} %}{% for m in messages %}"
    "{{ '<|' ~ who[m.role] ~ '|>' }}{% if m.reasoning_content %}{{ '<|' ~ 'mind' ~ '|>' }}{% endif %}"
    "{{ m.content }}{% endfor %}{% if tools %}{{ '<|' ~ 'can' ~ '|>' }}{% endif %}"
    "{% if add_generation_prompt %}{{ '<|a|>' }}{% endif %}"
)
CHATML = ("<|im_start|>", "<|im_end|>")
GLM = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
OWN = ("<|endoftext|>", "<|sys|>", "<|q|>", "<|a|>", "<|out|>", "<|mind|>", "<|can|>")


@pytest.mark.parametrize(
    ("template", "marks", "spare"),
    [
        (COMPOSED, (*GLM, "<|critic|>"), None),  # any role makes its mark
        (COMPOSED, ("[MASK]", *GLM), "[MASK]"),
        (COMPOSED, ("<|dummy_0|>", "[MASK]", *GLM), "<|dummy_0|>"),
        (COMPOSED, ("<unused0>", *GLM, "<|fim_pad|>"), "<|fim_pad|>"),
        (MAPPED, OWN, None),
        (MAPPED, ("<|x|>", *OWN), "<|x|>"),
        (CHATS["smollm2"].template, (*CHATML, "<x>", "<|user|>"), "<x>"),
        (CHATS["smollm2"].template, (*CHATML, "<|user|>"), "<|user|>"),
    ],
)
def test_no_conversation_has_the_token_that_is_chosen_to_pad_with(
    template: str, marks: tuple[str, ...], spare: str | None, tmp_path: Path
) -> None:
    end = "<|im_end|>" if "<|im_end|>" in marks else "<|endoftext|>"
    chat = replace(CHATS["smollm2"], template=template, marks=marks, bos=None, eos=end, pad=end, unk=None)
    if spare is None:
        with pytest.raises(UserError, match="no special token that the chat template does not use"):
            load(tmp_path, chat)
    else:
        assert load(tmp_path, chat).tokenizer.pad_token == spare


@pytest.mark.parametrize("name", ["r1-distill-llama", "r1-distill-qwen"])
def test_no_conversation_has_the_token_that_a_real_model_is_padded_with(
    name: str, load_real: Callable[[str], PromptFormat]
) -> None:
    tokenizer = load_real(name).tokenizer
    used = read_template(tokenizer)
    assert tokenizer.pad_token not in used
    assert all(mark in used for mark in ("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "14760"))


def test_a_mark_that_the_template_makes_of_a_role_needs_an_embedding(tmp_path: Path) -> None:
    chat = replace(CHATS["smollm2"], template=COMPOSED, marks=("<pad>", *GLM), bos=None, eos="<|endoftext|>", unk=None)
    size = len(load(tmp_path, replace(chat, pad="<pad>")).tokenizer)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": size - 1}))
    with pytest.raises(UserError, match=r"must have an embedding, got 1 without, the first '<\|observation\|>'"):
        load_prompt_format(ModelSource(name="model", location=str(tmp_path)))


def write_doubled(name: str, folder: Path) -> None:
    """A model whose template writes bos twice where it begins."""
    write_tokenizer(folder, CHATS[name])
    file = folder / "chat_template.jinja"
    file.write_text("{{ bos_token }}" + file.read_text())


@pytest.mark.parametrize("name", ["smollm2", "llama3", "mistral"])
def test_a_second_bos_is_told_from_one_of_every_turn(name: str, tmp_path: Path) -> None:
    write_doubled(name, tmp_path)
    prompts = load_prompt_format(ModelSource(name=name, location=str(tmp_path)))
    assert make_row(make_traced(), prompts=prompts, rows=Rows(), filters=Filters()) == "parity: bos"
    assert load_chat(name).bos_marks_turns == (name == "smollm2")


def test_an_eos_that_ends_no_served_turn_is_no_parity(tmp_path: Path) -> None:
    # What a tokenizer that was not loaded here would do: Llama 3's own eos ends a text, and no turn.
    write_tokenizer(tmp_path, CHATS["llama3"])
    prompts = PromptFormat(tokenizer=AutoTokenizer.from_pretrained(tmp_path))
    one = make_traced()
    assert make_row(one, prompts=prompts, rows=Rows(), filters=Filters()) == "parity: eos"
    made: Any = row(one, load_chat("llama3")) | {"input_ids": prompts.completion_ids(trace="2+2=4.", answer="4")}
    made["input_ids"] = [*prompts.prompt_ids(one.problem.statement), *made["input_ids"]]
    text = prompts.completion(trace="2+2=4.", answer="4")
    assert find_mismatch(made, completion=text, prompts=prompts) == "eos"
    told = describe_mismatch(made, completion=text, prompts=prompts)
    assert re.fullmatch(r"the row ends with \d+ '<.end_of_text.>', and a turn ends with \d+ '<.eot_id.>'", told)


def test_a_template_without_a_mark_leaves_the_tokenizers_eos(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, CHATS["mistral"])
    plain = (
        "{% for message in messages %}{{ '### ' + message['role'] + ':\n' + message['content'] + '\n\n' }}{% endfor %}"
    )
    (tmp_path / "chat_template.jinja").write_text(plain + "### assistant:\n")
    prompts = load_prompt_format(ModelSource(name="plain", location=str(tmp_path)))
    assert (prompts.turn_end, prompts.tokenizer.eos_token) == (None, "</s>")
    assert row(make_traced(), prompts)["input_ids"][-1] == prompts.tokenizer.eos_token_id


def test_a_padding_token_without_an_embedding_is_not_used(tmp_path: Path) -> None:
    # Added to a tokenizer, as some recipes do, but not to the model: its embedding would be looked up past the end.
    write_tokenizer(tmp_path, CHATS["llama3"])
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "pad_token": "[PAD]"}))
    source = ModelSource(name="padded", location=str(tmp_path))
    assert load_prompt_format(source).tokenizer.pad_token == "[PAD]"
    size = len(AutoTokenizer.from_pretrained(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": size - 1}))
    prompts = load_prompt_format(source)
    assert prompts.tokenizer.pad_token == "<|reserved_special_token_0|>"
    assert prompts.notes[-1].endswith("the tokenizer's own, [PAD], has no embedding")


def test_a_template_that_refuses_the_question_is_an_error(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, CHATS["mistral"])
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('A system message must come first') }}")
    with pytest.raises(UserError, match=r"must render a question on its own, got .*A system message must come first"):
        load_prompt_format(ModelSource(name="strict", location=str(tmp_path))).prompt_ids("2+2?")


def test_an_error_of_pythons_own_in_a_template_is_the_templates(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, CHATS["mistral"])
    rendered = "{{ messages[0].content }}{% if messages|length > 1 %}{{ messages[1].content + 1 }}{% endif %}"
    (tmp_path / "chat_template.jinja").write_text(rendered)
    prompts = load_prompt_format(ModelSource(name="odd", location=str(tmp_path)))
    assert prompts.prompt_ids("2+2?")
    assert prompts.turn_end is None
    with pytest.raises(TemplateError, match="TypeError: can only concatenate str"):
        prompts.render_turns([{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}])


FORMAT = ("--source", "pocket", "--limit", 20, "--until", "format", "--keep-dropped")


def test_a_chat_models_rows_are_made_and_its_choices_said(workdir: Path, train: CommandLine) -> None:
    write_tokenizer(Path("smol"), CHATS["smollm2"])
    done = train("math", "--tokenizer", "smol", *FORMAT, "--run", "r", "--json")
    assert (done.result["kept"], done.result["parity"]) == (20, {"rows": 20, "mismatches": 0})
    assert (
        "padding: <empty_output>, a special token that no text has; the tokenizer's own, <|im_end|>, is eos"
        in done.stderr
    )
    head = RowFiles(Path("r/data")).read_head(1)[0]
    assert head.prompt.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert head.trained.startswith("<think>\n")
    assert head.trained.endswith("}<|im_end|>")


def test_rows_that_are_not_what_is_served_are_told_with_the_first_difference(workdir: Path, train: CommandLine) -> None:
    write_doubled("smollm2", Path("smol"))
    refusal = train("math", "--tokenizer", "smol", *FORMAT, "--run", "r").refusal
    assert re.search(
        r"0 of 20 is left, got parity: bos: 20; the first that is not as served, \S+: bos \d+ '<.im_start.>' ", refusal
    )
    assert (
        "is there 4 times in the row, 4 times in the served prompt; a template writes it once, or once a turn"
        in refusal
    )
    assert "Fix: take the second bos_token out of the chat template" in refusal


def test_one_row_that_is_not_what_is_served_is_told_everywhere(workdir: Path, train: CommandLine) -> None:
    # A vocabulary that puts a blank before each text puts one into what follows a program's output.
    write_tokenizer(Path("phi"), CHATS["phi3"])
    ran = "Count.\n```python\nprint(2+2)\n```\n```output\n4\n```\nSo 4."
    lines = [{"problem": f"What is {n}+2?", "trace": f"It is {n + 2}.", "answer": str(n + 2)} for n in range(9)]
    lines.append({"problem": "What is 2+2, with a program?", "trace": ran, "answer": "4"})
    rows = [
        {"id": str(at), "statement": line.pop("problem"), "gold": line["answer"], **line}
        for at, line in enumerate(lines)
    ]
    Path("t.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    words = ("--source", "t.jsonl", "--filters.tool-output", "mask", "--until", "format", "--keep-dropped")
    done = train("math", "--tokenizer", "phi", *words, "--run", "r", "--json")
    first = (
        "9: character 39 of the completion reads ' \\n```output\\n4\\n```\\n S', "
        "and must read '\\n```output\\n4\\n```\\nSo '"
    )
    assert done.result["drops"] == {"parity: completion": 1}
    assert done.result["parity"] == {"rows": 9, "mismatches": 1, "first": first}
    assert f"not what is served, and left out: 1 row; the first, {first}" in done.stderr
    (dropped,) = RowFiles(Path("r/data")).read_dropped()
    assert f"9: {dropped.difference}" == first
    assert first in Path("r/data/README.md").read_text()
    shown = train("data", "show", "r", "--json")
    assert shown.result["parity"]["first"] == first
    assert "the first that is not as served, 9: character 39" in shown.stderr


FEW = (
    "--source",
    "pocket",
    "--limit",
    60,
    "--rows.max-tokens",
    512,
    "--survival.max-tokens",
    16,
    "--survival.greedy",
    0,
)
STEPS = ("--tune.batch", 8, "--tune.accumulate", 1, "--tune.steps", 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHATS)
def test_a_chat_model_is_trained_exported_and_served(
    name: str, workdir: Path, train: CommandLine, evaluate: CommandLine
) -> None:
    expected = CHATS[name]
    formats = ("int8", "q8_0") if expected.pieces == "bytes" and expected.kind in ("qwen2", "llama") else ("int8",)
    write_model(Path("model"), expected)
    done = train("math", "--model", "model", *FEW, *STEPS, "--export.formats", *formats, "--run", "r", "--json")
    assert (done.result["kept"], done.result["parity"]) == (60, {"rows": 60, "mismatches": 0})
    assert all(note in done.stderr for note in expected.said)
    # What was chosen is in every folder that is served, and read back as it is by whoever reads the folder.
    for folder in (Path("r/merged"), *Path("r").glob("export*")):
        tokenizer, settings = AutoTokenizer.from_pretrained(folder), GenerationConfig.from_pretrained(folder)
        eos, pad = map(tokenizer.get_vocab().__getitem__, (expected.end, expected.padding))
        assert (tokenizer.eos_token_id, tokenizer.pad_token_id, settings.pad_token_id) == (eos, pad, pad)
        assert eos in (settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id])
        source = ModelSource(name="served", location=str(folder))
        assert (load_prompt_format(source).notes, eos in source.eos_ids()) == ((), True)
    if "q8_0" in formats:
        gguf = pytest.importorskip("gguf")
        fields = gguf.GGUFReader(Path("r/export-q8_0") / Q8_0.file).fields
        ids = {key: int(fields[f"tokenizer.ggml.{key}_token_id"].contents()) for key in ("eos", "padding")}
        assert ids == {"eos": eos, "padding": pad}
    words = ("--limit", 2, "--n", 2, "--sampling.max-tokens", 24)
    served = evaluate("pocket_val", "--model", "r/export", *words, "--run", "e", "--json")
    assert (served.result["problems"], served.result["samples"]) == (2, 4)
