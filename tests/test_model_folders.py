"""A stranger's model folder: what is broken in it is told before anything is made, in one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mathlete.errors import UserError
from mathlete.models import find_model, load_model, load_prompt_format
from mathlete.templates import Rendering, try_template
from tests.conftest import POCKET, POCKET_VAL, CommandLine, sample

LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
PRINTS = "{% for a in range(99999) %}{% for b in range(99999) %}{{ messages[0].content }}{% endfor %}{% endfor %}"
Spoil = Callable[[Path], object]


def template(text: str) -> Spoil:
    return lambda folder: (folder / "chat_template.jinja").write_text(text)


def write(name: str, text: str) -> Spoil:
    return lambda folder: (folder / name).write_text(text)


def change(name: str, **values: object) -> Spoil:
    return lambda folder: (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **values}))


def pickle_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def make_folder(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return spoil


BROKEN: list[tuple[Spoil, str]] = [
    (
        pickle_weights,
        "others can run code when they are read, got pytorch_model.bin in model",
    ),
    (
        template("{{ raise_exception('no system message') }}"),
        "must render a question on its own, got TemplateErr",
    ),
    (template("{{ 'Hello!' }}"), "the chat template must write the question, got a prompt of model without '7919'"),
    (
        template("{% for part in messages[0].content %}{{ part['text'] }}{% endfor %}"),
        "the chat template must take a message's content as text, got a list of parts in that of model",
    ),
    (write("tokenizer.json", "{"), "must be a readable JSON file"),
    (write("config.json", "[]"), "must hold a JSON object"),
    (
        write("mathlete_prompt.json", "{}"),
        "prompt.json must be as it was written, got KeyError",
    ),
    (write("model.safetensors", "nothing"), "can load, with whole weights, got model.safetensors: "),
]
SLOW: list[tuple[Spoil, str]] = [
    (
        template("{{ messages[0].content[0]['text'] + '' }}"),
        "must take a message's content as text, got a list of parts",
    ),
    (make_folder("model.safetensors"), "can load, with whole weights, got model.safetensors: "),
    (template("{% for x in %}"), "the chat template must render a question on its own, got TemplateSyntaxError"),
    (template("{{ messages[0].content.nothing.more }}"), "must render a question on its own, got UndefinedError"),
    (template("{{ messages[0].content * 9999 * 9999 * 9999 }}"), "the chat template must"),
    (write("tokenizer.json", '{"version": "1.0"}'), "must be a model folder transformers can load"),
    (write("tokenizer_config.json", "[1]"), "must hold a JSON object, got model/tokenizer_config.json"),
    (write("config.json", "{'a': 1}"), "must be a readable JSON file"),
    (write("config.json", "{}"), "must be a model folder transformers can load"),
    (change("config.json", max_position_embeddings="long"), "must be a model folder transformers can load"),
    (write("mathlete_prompt.json", '{"instruction": 3}'), "the instruction must be a text, and is 3"),
    (write("mathlete_prompt.json", '{"instruction"'), "must be a readable JSON file"),
    (write("generation_config.json", "{"), "must be a readable JSON file"),
    (template(LOOP), "the chat template must render a question within 10 s of computing, got that of model, which was"),
    (template(PRINTS), "the chat template must render a question"),
]


@pytest.mark.parametrize(("spoil", "told"), sample(*BROKEN, slow=SLOW))
def test_what_is_broken_is_told_before_anything_is_made(
    workdir: Path, evaluate: CommandLine, spoil: Spoil, told: str
) -> None:
    shutil.copytree(POCKET, "model")
    spoil(Path("model"))
    before = sorted(Path().rglob("*"))
    assert told in evaluate(POCKET_VAL, "--model", "model", "--n", 1, "--limit", 1, "--run", "r").refusal
    assert sorted(Path().rglob("*")) == before


def test_generation_settings_are_saved_as_their_maker_wrote_them(tmp_path: Path) -> None:
    """transformers refuses a temperature without do_sample where a special token was changed (Llama 2, Vicuna)."""
    shutil.copytree(POCKET, tmp_path / "model")
    values = {"eos_token_id": 2, "pad_token_id": 0, "temperature": 0.9, "top_p": 0.6}
    write("generation_config.json", json.dumps(values))(tmp_path / "model")
    model = load_model(find_model(str(tmp_path / "model")))
    model.generation_config.eos_token_id = [570, 2]
    model.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    assert saved.items() >= {**values, "eos_token_id": [570, 2]}.items()
    assert "do_sample" not in saved


@pytest.mark.parametrize(
    ("render", "told"),
    [
        (lambda: "x" * 10**7, "must write at most 2000000 characters, got 10000000"),
        (lambda: "x" * 10**11, "must render a question in 1 GiB of memory"),
        (lambda: 1 / 0, "must render a question on its own, got ZeroDivisionError"),
    ],
)
def test_a_template_is_tried_within_limits(render: Callable[[], str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        try_template([Rendering(lambda: "first"), Rendering(render)], where="a model")
    if told.startswith("must render a question on its own"):
        try_template([Rendering(render, may_fail=True)], where="a model")


def test_nothing_is_unpickled_from_a_folder_of_parts(tmp_path: Path) -> None:
    from mathlete.corpus import open_source
    from mathlete.rows.parts import split_into_parts
    from mathlete.rows.ray_parts import read_batch, write_batch

    (batch,) = split_into_parts(open_source("pocket", limit=5), 5)
    file = tmp_path / "00000.given"
    write_batch(file, batch)
    assert read_batch(file) == [[*traces] for traces in batch]
    for text in ("\x80\x04K.", "{}\n", '[{"problem": {}}]\n', "[3]\n"):
        file.write_bytes(text.encode("latin-1"))
        with pytest.raises(UserError):
            read_batch(file)


def test_pickled_weights_are_read_by_nobody(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(POCKET, tmp_path / "model"))
    pickle_weights(folder)
    source = find_model(str(folder))
    assert load_prompt_format(source).prefilled in (True, False)
    with pytest.raises(UserError, match="safetensors"):
        load_model(source)


@pytest.mark.parametrize(
    ("command", "spoil", "told"),
    [
        ("train", write("config.json", "{}"), "must describe a decoder as Qwen2's and Llama's are, got KeyError"),
        ("train", write("config.json", "[]"), "must hold a JSON object, got model/config.json"),
        ("submit", change("config.json", max_position_embeddings="long"), "can load (Validation error for field"),
        ("submit", write("config.json", "[]"), "must hold a JSON object, got model/config.json"),
        ("submit", pickle_weights, "others can run code when they are read"),
    ],
)
def test_other_commands_tell_too(
    workdir: Path, train: CommandLine, submit: CommandLine, command: str, spoil: Spoil, told: str
) -> None:
    shutil.copytree(POCKET, "model")
    spoil(Path("model"))
    done = train("math", "--plan", "--model", "model") if command == "train" else submit("build", "--model", "model")
    assert told in done.refusal
    assert not Path("runs").exists()
