"""A stranger's model folder: what is broken in it is told before anything is made, in one sentence."""

import ast
import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig

from mathlete.adapters.foreign import read_shapes
from mathlete.errors import UserError
from mathlete.models import ModelSource, find_model, load_model, load_prompt_format
from mathlete.models.generation import KeptSettings
from mathlete.submission.embedded_fit import find_unloadable
from mathlete.templates import Rendering, try_template
from tests.conftest import POCKET, POCKET_VAL, CommandLine, sample

LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
PRINTS = "{% for a in range(99999) %}{% for b in range(99999) %}{{ messages[0].content }}{% endfor %}{% endfor %}"
INDEX = "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
MODELOPT = '{"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}'
_ASKS = re.compile(r"(Auto\w+|auto)\.from_(pretrained|config)")
"""Calls of src/ that read a class of transformers' out of a config."""
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9000\n"
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


def split(folder: Path) -> None:
    """Write the weights into two files and an index, as models above 5 GB are written."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = dict(zip(SHARDS, (names[: len(names) // 2], names[len(names) // 2 :]), strict=True))
    for file, held in halves.items():
        save_file({name: tensors[name] for name in held}, folder / file, metadata={"format": "pt"})
    weight_map = {name: file for file, held in halves.items() for name in held}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def lose(*names: str) -> Spoil:
    def spoil(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return spoil


def rename(name: str, to: str) -> Spoil:
    return lambda folder: (folder / name).rename(folder / to)


def add_whole(name: str) -> Spoil:
    return lambda folder: shutil.copyfile(POCKET / "model.safetensors", folder / f"{name}.safetensors")


def all_of(*spoils: Spoil) -> Spoil:
    return lambda folder: [spoil(folder) for spoil in spoils]


def lose_a_file(folder: Path) -> None:
    split(folder)
    (folder / SHARDS[1]).unlink()


def cut_a_file(folder: Path) -> None:
    file = folder / SHARDS[1]
    file.write_bytes(file.read_bytes()[:-1])


def need_own_code(folder: Path) -> None:
    """Make it a model of a kind that transformers does not know, with code that tells on whoever runs it."""
    for name in ("configuration_own", "modeling_own"):
        (folder / f"{name}.py").write_text(
            f"open({str((folder / 'ran').absolute())!r}, 'w')\n"
            "from transformers import Qwen2Config as Own, Qwen2ForCausalLM as OwnModel\n"
        )
    auto_map = {"AutoConfig": "configuration_own.Own", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    change("config.json", model_type="own", auto_map=auto_map)(folder)


def change_index(folder: Path, **more: object) -> None:
    index = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps({**index, "weight_map": {**index["weight_map"], **more}}))


def leave_unfinished(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()

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
    (write("tokenizer.json", POINTER), "Fix: run `git lfs pull --include tokenizer.json` in model"),
    (write("config.json", "[]"), "must hold a JSON object"),
    (
        write("mathlete_prompt.json", "{}"),
        "prompt.json must be as it was written, got KeyError",
    ),
    (write("model.safetensors", "nothing"), "can load, with whole weights, got model.safetensors: "),
    (lose_a_file, "must have all files of its weights, got 1 of 2 missing in model: model-00002-of-00002.safetensors"),
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


def test_settings_are_saved_by_a_transformers_that_knows_no_user_set_attributes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its 5.0 to 5.6, of which Kaggle's image has one."""
    made: Any = KeptSettings  # has no type hints
    seen, settings = [], made(temperature=0.9)
    monkeypatch.setattr(GenerationConfig, "validate", lambda self, strict=False: seen.append(strict))
    settings.validate(strict=True)
    assert not any(seen)
    monkeypatch.setattr(GenerationConfig, "validate", lambda self, strict, user_set_attributes: seen.append(strict))
    settings.validate(strict=True, user_set_attributes={"temperature"})
    assert not any(seen)


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


def test_what_vllm_alone_finds_is_whole_for_vllm_alone(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(POCKET, tmp_path / "model"))
    split(folder)
    source = find_model(str(folder))
    for spoil in (
        change("config.json", compression_config={"quant_method": "compressed-tensors"}),
        lambda one: (one / INDEX).unlink(),
    ):
        source.require_weights(by_vllm=True)
        assert find_unloadable(folder, machine="NvidiaL4", weights=1) == ""
        spoil(folder)
        source.require_weights(by_vllm=True)
        with pytest.raises(UserError):
            source.require_weights()
        assert "must" in find_unloadable(folder, machine="NvidiaL4", weights=1)
        shutil.copyfile(POCKET / "config.json", folder / "config.json")


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
    ("spoil", "told"),
    [
        (lambda folder: None, None),
        # vLLM finds numbered files by themselves, transformers by their index alone.
        (lose(INDEX), f"1 of 3 missing in .*: {INDEX}"),
        (rename(SHARDS[0], "weights.safetensors"), f"1 of 2 missing in .*: {SHARDS[0]}"),
        (lambda folder: shutil.copyfile(folder / SHARDS[0], folder / "consolidated.safetensors"), None),
        (lose(SHARDS[0]), f"1 of 2 missing in .*: {SHARDS[0]}"),
        # Without an index the numbers tell: of a download that was cut before the index came.
        (lose(INDEX, SHARDS[1]), f"2 of 3 missing in .*: {SHARDS[1]}, {INDEX}"),
        (all_of(lose(INDEX, *SHARDS), add_whole("consolidated")), "1 of 1 missing in .*: model.safetensors"),
        (add_whole("model"), None),
        (all_of(lose(INDEX, SHARDS[1]), add_whole("model")), f"1 of 2 missing in .*: {SHARDS[1]}"),
        (
            all_of(
                lose(INDEX, SHARDS[1]), add_whole("model"), rename(SHARDS[0], "consolidated-00001-of-00002.safetensors")
            ),
            None,
        ),
        (
            all_of(lose(INDEX, SHARDS[1]), rename(SHARDS[0], "model-00001-of-000002.safetensors")),
            "2 of 3 missing in .*: model-00002-of-000002.safetensors",
        ),
        (write(SHARDS[0], POINTER), "Fix: run `git lfs pull` in "),
        (cut_a_file, f"with whole weights, got {SHARDS[1]}: "),
        (
            partial(change_index, lost=SHARDS[0]),
            f"must hold the tensors that .* says, got 1 missing in .*{SHARDS[0]}: lost",
        ),
        (partial(change_index, lost="other.safetensors"), "1 of 3 missing in .*: other.safetensors"),
        (partial(change_index, lost=3), "an index of weights must name the file of each tensor"),
        (write(INDEX, "{}"), "an index of weights must name the file of each tensor"),
        (write(INDEX, "{"), "must be a readable JSON file"),
        # A download that was killed leaves it for ever, and the next one makes the model whole beside it.
        (leave_unfinished("model.safetensors.incomplete"), None),
        (leave_unfinished(".cache/huggingface/download/a=.b.incomplete"), None),
        (
            all_of(leave_unfinished("a.incomplete"), lose(SHARDS[0])),
            "must have all files of its weights, got .*; a download has not ended: .*a.incomplete",
        ),
        (
            all_of(leave_unfinished(".cache/huggingface/download/a=.b.incomplete"), lose(*SHARDS)),
            "got none in .*; a download has not ended: .*b.incomplete",
        ),
    ],
)
def test_weights_in_several_files_must_be_all_there(spoil: Spoil, told: str | None, tmp_path: Path) -> None:
    shutil.copytree(POCKET, tmp_path, dirs_exist_ok=True)
    split(tmp_path)
    spoil(tmp_path)
    source = find_model(str(tmp_path))
    if told is None:
        source.require_weights()
        return
    with pytest.raises(UserError, match=told):
        source.require_weights()


@pytest.mark.parametrize(
    ("kind", "own", "told"),
    [
        ("mimo", True, r"got model_type 'mimo' of .*, which needs its own code \(auto_map\)"),
        ("mimo", False, r"got model_type 'mimo' of .*\.\n  Fix: take a model of a known kind"),
        # Copies of Qwen's and DeepSeek's models carry code that nobody needs any more.
        ("qwen2", True, None),
    ],
)
def test_code_that_comes_with_a_model_is_not_run_and_nobody_is_asked(
    kind: str, own: bool, told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*words: object) -> str:
        raise AssertionError("asked")

    folder = Path(shutil.copytree(POCKET, tmp_path / "model"))
    if own:
        need_own_code(folder)
    change("config.json", model_type=kind)(folder)
    monkeypatch.setattr("builtins.input", ask)
    source = find_model(str(folder))
    for read in (ModelSource.load_config, load_model, read_shapes):
        if told is None:
            assert read(source)
            continue
        with pytest.raises(UserError, match=told):
            read(source)
    assert load_prompt_format(source).tokenizer
    assert not (folder / "ran").exists()


def test_every_class_that_could_run_a_models_code_is_told_not_to(root: Path) -> None:
    calls = [
        (file.name, call)
        for file in sorted((root / "src").rglob("*.py"))
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call) and _ASKS.fullmatch(ast.unparse(call.func))
    ]
    assert len(calls) >= 3
    for name, call in calls:
        told = {word.arg: ast.unparse(word.value) for word in call.keywords}
        assert told.get("trust_remote_code") == "False", f"{name}, line {call.lineno}"


@pytest.mark.parametrize(
    ("command", "spoil", "told"),
    [
        ("train", write("config.json", "{}"), "must describe a decoder as Qwen2's and Llama's are, got KeyError"),
        ("train", write("config.json", "[]"), "must hold a JSON object, got model/config.json"),
        ("submit", change("config.json", max_position_embeddings="long"), "can load (Validation error for field"),
        ("submit", write("config.json", "[]"), "must hold a JSON object, got model/config.json"),
        ("submit", pickle_weights, "others can run code when they are read"),
        ("submit", write("hf_quant_config.json", MODELOPT), "got modelopt weights in model"),
        ("submit", lose_a_file, "must have all files of its weights"),
        ("submit", need_own_code, "must know the kind of a model by itself: code that comes with a model is not run"),
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


def test_a_training_on_weights_that_transformers_does_not_read_is_refused_before_rows(
    workdir: Path, train: CommandLine
) -> None:
    shutil.copytree(POCKET, "model")
    write("hf_quant_config.json", MODELOPT)(Path("model"))
    done = train("math", "--model", "model", "--source", "pocket")
    assert "got hf_quant_config.json of model alone" in done.refusal
    assert "name the original model with --model" in done.refusal
    assert not Path("runs").exists()
