import json
import shutil
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path

import pytest

from mathlete.errors import UserError
from mathlete.kernel import KernelConfig, config_from
from mathlete.models import ModelSource, find_model, load_prompt_format
from mathlete.problems import Problem
from mathlete.prompts import INSTRUCTION, PromptFormat, PromptSettings, SavedPrompt
from mathlete.rows import Filters, Rows
from mathlete.rows.token_rows import make_row
from mathlete.runs import write_json
from mathlete.traces import Trace, TracedProblem

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
    assert SavedPrompt.read(tmp_path) == SavedPrompt(instruction=INSTRUCTION)
    PromptFormat(tokenizer=prompts.tokenizer, instruction="Box it.").save(tmp_path)
    assert (tmp_path / "mathlete_prompt.json").read_text() == '{\n  "instruction": "Box it."\n}\n'
    assert SavedPrompt.read(tmp_path).instruction == "Box it."


def test_no_chat_template_is_an_error(prompts: PromptFormat) -> None:
    with pytest.raises(UserError, match="needs a chat template"):
        rewrite(prompts, None).prompt_ids(STATEMENT)


@pytest.fixture(scope="module")
def switched(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    """A copy of the pocket model whose template has switches, as Qwen3's and gpt-oss's have."""
    folder = tmp_path_factory.mktemp("switched") / "model"
    shutil.copytree(find_model("pocket").location, folder)
    template = folder / "chat_template.jinja"
    own = template.read_text(encoding="utf-8")
    effort = "{% if effort is defined %}Effort {{ effort }}. {% endif %}"
    off = "{% if enable_thinking is defined and not enable_thinking %}</think>\n\n{% endif %}"
    template.write_text(effort + own + off, encoding="utf-8")
    return ModelSource(name="switched", location=str(folder))


def with_args(source: ModelSource, *arguments: str) -> PromptFormat:
    return load_prompt_format(replace(source, prompt=PromptSettings(template_args=arguments)))


def test_arguments_reach_the_template_and_the_hash(switched: ModelSource) -> None:
    plain, high = load_prompt_format(switched), with_args(switched, "effort=high")
    assert high.render("1+1") == f"Effort high. {plain.render('1+1')}"
    assert high.prompt_ids("1+1") != plain.prompt_ids("1+1")
    assert len({plain.sha256, high.sha256, with_args(switched, "effort=low").sha256}) == 3
    assert not plain.answers_at_once
    off = with_args(switched, "enable_thinking=false")
    assert off.answers_at_once
    with pytest.raises(UserError, match="must leave the reasoning to the model") as error:
        _ = off.opening
    assert error.value.cure == "use --prompt.template-args enable_thinking=true"


def test_a_template_without_a_switch_for_its_reasoning_names_no_argument(prompts: PromptFormat) -> None:
    closed = rewrite(prompts, f"{prompts.tokenizer.chat_template}</think>{{# enable_thinking #}}")
    with pytest.raises(UserError, match="must leave the reasoning to the model") as error:
        _ = closed.opening
    assert "enable_thinking" not in error.value.cure


def test_arguments_travel_in_the_model_folder_and_can_be_named_otherwise(switched: ModelSource, tmp_path: Path) -> None:
    shutil.copytree(switched.location, tmp_path / "model")
    trained = ModelSource(name="trained", location=str(tmp_path / "model"))
    with_args(switched, "effort=high", "enable_thinking=true").save(tmp_path / "model")
    served = load_prompt_format(trained)
    assert served.sha256 == with_args(switched, "effort=high", "enable_thinking=true").sha256
    assert with_args(trained, "effort=low").template_args == {"effort": "low", "enable_thinking": True}
    asked = replace(trained, prompt=PromptSettings(instruction="Box it."))
    assert load_prompt_format(asked).instruction == "Box it."


def test_a_row_is_proved_with_the_same_arguments_as_it_is_made(switched: ModelSource) -> None:
    problem = Problem(id="p", statement="What is 2 + 2?", gold="4")
    trace = Trace(problem_id="p", text="2 + 2 = 4.", answer="4", generator="me", verified=True)
    rows, filters = Rows(max_tokens=200), Filters(min_tokens=1)
    high = with_args(switched, "effort=high")
    row = make_row(TracedProblem(problem=problem, trace=trace), prompts=high, rows=rows, filters=filters)
    assert not isinstance(row, str), row
    assert row["input_ids"][: row["prompt_tokens"]] == high.prompt_ids(problem.statement)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("effort", "must be KEY=VALUE, got 'effort'"),
        ("=high", "must be KEY=VALUE"),
        ("effort=high effort=low", "must be given once, got effort"),
        ("efort=high", "must read its arguments, got efort, of which it knows nothing.\n  Fix: did you mean effort"),
        ("messages=1", "got messages, of which it knows nothing.\n  Fix: .*effort, enable_thinking"),
    ],
)
def test_an_argument_that_the_template_would_pass_over_is_refused(
    argument: str, message: str, switched: ModelSource
) -> None:
    with pytest.raises(UserError, match=message):
        with_args(switched, *argument.split())


FOREIGN = [
    ("enable_thinking=False", "must be spelled as JSON spells it, got False.\n  Fix: write false"),
    ("enable_thinking=TRUE", "Fix: write true"),
    ("effort=None", "Fix: leave it out, or write null"),
    ("effort=[high]", """a text that begins so is written '"[high]"'"""),
    ('effort="[high]"', ""),
    ("tools={'a': False}", "template-args tools must be spelled as JSON"),
    ("tools=[1, 2", "template-args tools must be spelled as JSON"),
    *(
        (f"enable_thinking={word}", f"must be true or false, got {word}")
        for word in ("0", "off", "no", '"false"', "null")
    ),
    ("thinking=off", "Fix: write thinking=true or thinking=false"),
    ("effort=none", ""),
    ("effort=high", ""),
    ("effort=0", ""),
    ("thinking=true", ""),
    ('tools={"a": false}', ""),
]


@pytest.mark.parametrize(("argument", "says"), FOREIGN)
def test_an_argument_is_never_true_by_its_spelling(argument: str, says: str) -> None:
    settings = PromptSettings.from_json(PromptSettings(template_args=(argument,)).to_json())
    if not says:
        settings.check()
        return
    with pytest.raises(UserError) as refused:
        settings.check()
    assert says in str(refused.value)


def add_to_template(source: ModelSource, text: str, *, folder: Path) -> ModelSource:
    shutil.copytree(source.location, folder)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8") + text, encoding="utf-8")
    return ModelSource(name="tested", location=str(folder))


SWITCHED = [
    ("think is defined and think is false", "0 off False", ""),
    ("think is sameas false", "0 off", ""),
    ("think|default(true) is false", "0 no", ""),
    ("think is defined and think == false", "off no", "0"),
    ("false == think|d(true)", "off", "0"),
    ("think is defined and not think", "off no", "0"),
    ("not think|default(true)", "off", "0"),
]


@pytest.mark.parametrize(("asked", "refused", "taken"), SWITCHED)
def test_what_a_template_takes_for_false_is_no_word_for_it(
    switched: ModelSource, tmp_path: Path, asked: str, refused: str, taken: str
) -> None:
    tag = "{% if false %}{%- generation %}{% endgeneration -%}{% endif %}"  # transformers' own
    off = f"{{% if {asked} %}}</think>\n\n{{% endif %}}{tag}"
    model = add_to_template(switched, off, folder=tmp_path / "model")
    for word in refused.split():
        with pytest.raises(UserError, match="compares think with true and false"):
            with_args(model, f'think="{word}"' if word == "False" else f"think={word}")
    for word in ("false", *taken.split()):
        assert with_args(model, f"think={word}").answers_at_once
    assert not with_args(model, "think=deep").answers_at_once


@pytest.mark.parametrize("text", ["{% if not effort %}{% set effort = 1 %}{% endif %}{{ effort }}", "{{ effort }}"])
def test_a_text_that_is_written_may_be_no_or_off(switched: ModelSource, tmp_path: Path, text: str) -> None:
    model = add_to_template(switched, text, folder=tmp_path / "model")
    assert with_args(model, "effort=off").render("1+1").startswith("Effort off.")


def test_a_text_that_an_earlier_version_saved_for_false_is_refused_and_cured(
    switched: ModelSource, tmp_path: Path
) -> None:
    off = "{% if think is defined and think is false %}</think>\n\n{% endif %}"
    model = add_to_template(switched, off, folder=tmp_path / "model")
    for name, value in (("think", "False"), ("think", 0), ("enable_thinking", "False"), ("enable_thinking", None)):
        saved = {"instruction": "", "template_args": {name: value}}
        write_json(tmp_path / "model" / "mathlete_prompt.json", saved)
        cure = rf"mathlete_prompt\.json there has another(?s:.*)name --prompt\.template-args {name}=true or"
        with pytest.raises(UserError, match=cure):
            load_prompt_format(model)
        assert with_args(model, f"{name}=false").answers_at_once


def test_an_argument_that_the_template_cannot_render_is_named(switched: ModelSource, tmp_path: Path) -> None:
    text = '{% if level is defined %}{{ "Level " + level }}{% endif %}'
    model = add_to_template(switched, text, folder=tmp_path / "model")
    assert with_args(model, "level=high").render("1+1").endswith("Level high")
    for _ in range(2):
        with pytest.raises(
            UserError, match=r"with its arguments, got level=null, effort=3: .*TypeError(?s:.*)leave out"
        ):
            with_args(model, "level=null", "effort=3")


def test_a_prompt_of_the_folder_leaves_runs_and_notebooks_as_they_were() -> None:
    pocket = find_model("pocket")
    assert pocket.identity == {"name": "pocket", "location": pocket.location, "revision": None}
    settings = PromptSettings(instruction="", template_args=("effort=high",))
    assert replace(pocket, prompt=settings).identity["prompt"] == settings.to_json()
    assert PromptSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    config = KernelConfig(prompt=settings)
    assert config_from(json.loads(json.dumps(config.to_json()))) == config


def test_qwen_padding_is_an_unused_special_token(load_real: Callable[[str], PromptFormat]) -> None:
    tokenizer = load_real("r1-distill-qwen").tokenizer
    assert tokenizer.pad_token == "<|vision_pad|>"
