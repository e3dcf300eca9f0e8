"""Presets of the command line, and bases that are quantised before they are loaded."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from mathlete.models import find_model, load_model
from mathlete.models.names import MODEL_NAMES
from tests.conftest import POCKET, CommandLine
from train.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_whole_and_within_its_ranges(name: str) -> None:
    settings = preset(name)
    settings.check()
    assert settings.recipe.tune.steps is None
    assert settings.data.corpus.limit is not None
    assert name in MODEL_NAMES


def test_a_run_on_a_quantised_base_merges_into_it_and_not_into_weights_that_are_not_there(
    workdir: Path, train: CommandLine
) -> None:
    assert train("pocket-problems", "p.jsonl", "--count", 60).code == 0
    load_model(find_model("pocket"), precision="nf4").save_pretrained("base")
    for file in POCKET.iterdir():
        if file.name not in ("config.json", "model.safetensors", "generation_config.json"):
            shutil.copy(file, "base")
    words = ("--model", "base", "--source", "p.jsonl", "--tune.steps", "2", "--tune.batch", "4",
             "--tune.accumulate", "1", "--forgetting.problems", "5", "--survival.max-tokens", "8",
             "--survival.trial-rows", "0", "--rows.heldout", "2", "--until", "merge", "--run", "r",
             "--json")  # fmt: skip
    message = train("math", *words, "--merge-base", "original").refusal
    assert "--merge-base original needs the model's original weights, got base, which is q" in message
    assert train("math", *words, "--lora.targets", "q_proj", "down_proj").result["kl_merged"] < 1e-4
    adapter = json.loads(Path("r/adapter/adapter_config.json").read_text())
    assert adapter["target_modules"] == ["down_proj", "q_proj"]
    assert {name.split(".")[-3] for name in load_file("r/adapter/adapter_model.safetensors")} == {"q_proj", "down_proj"}
