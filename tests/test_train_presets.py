"""Presets of the command line, and bases that are quantised before they are loaded."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tyro
from safetensors.torch import load_file

from mathlete.command import run_command_line
from mathlete.models import MODEL_NAMES, data_folder, load_model, model_source
from train.__main__ import COMMANDS, MathSettings, defaults, settings_of
from train.presets import PRESETS

POCKET = data_folder() / "pocket" / "model"


def run(*words: object) -> int:
    return run_command_line([str(word) for word in words], prog="python -m train", commands=COMMANDS)


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_whole_and_within_its_ranges(name: str) -> None:
    found = settings_of(name)
    found.check()
    assert found.tune.steps is None
    assert found.corpus.limit is not None
    assert name in MODEL_NAMES


def test_a_run_on_a_quantised_base_merges_into_it_and_not_into_weights_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("pocket-problems", "p.jsonl", "--count", 60) == 0
    load_model(model_source("pocket"), precision="nf4").save_pretrained("base")
    for file in POCKET.iterdir():
        if file.name not in ("config.json", "model.safetensors", "generation_config.json"):
            shutil.copy(file, "base")
    words = ("--model", "base", "--source", "p.jsonl", "--tune.steps", "2", "--tune.batch", "4",
             "--tune.accumulate", "1", "--until", "merge", "--run", "r", "--json")  # fmt: skip
    assert run("math", *words, "--merge-base", "original") == 2
    assert "--merge-base original needs the model's original weights, got base, which is q" in capsys.readouterr().err
    assert run("math", *words, "--lora.targets", "q_proj", "down_proj") == 0
    assert last_line(capsys)["kl_merged"] < 1e-4
    adapter = json.loads(Path("r/adapter/adapter_config.json").read_text())
    assert adapter["target_modules"] == ["down_proj", "q_proj"]
    assert {name.split(".")[-3] for name in load_file("r/adapter/adapter_model.safetensors")} == {"q_proj", "down_proj"}


def test_every_command_in_the_docs_is_understood(root: Path) -> None:
    """The flags are parsed and go together; the models of the longer ones are not here."""
    text = (root / "docs" / "training.md").read_text(encoding="utf-8")
    blocks = [block.partition("```")[0] for block in text.split("```\n")[1::2]]
    lines = [line.partition("#")[0].split() for block in blocks for line in block.splitlines() if line]
    assert len(lines) >= 8
    for words in lines:
        assert words[:4] == ["python", "-m", "train", "math"]
        settings: Any = tyro.cli(MathSettings, args=words[4:], default=defaults(words[4:]))
        settings.check()


@pytest.mark.slow
def test_the_docs_commands_for_the_pocket_model_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (root / "docs" / "training.md").read_text(encoding="utf-8")
    lines = [line.partition("#")[0].split()[3:] for line in text.splitlines() if line.startswith("python -m train")]
    own = [words for words in lines if "pocket" in words or "--plan" in words]
    assert len(own) >= 6
    for words in own:
        assert run(*words, "--survival.greedy", "0") == 0, capsys.readouterr().err
