"""Distillation: a teacher's probabilities at the tokens of a model's own samples, and which teachers are refused."""

import json
import shutil
from contextlib import chdir
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from mathlete.errors import UserError
from mathlete.models import find_model, load_prompt_format
from mathlete.rows import RowFiles
from mathlete.runs import read_json, write_json
from mathlete.tune.recipe import Recipe
from mathlete.tune.settings import Distill, Grpo, Tune
from mathlete.tune.trainers import prepare_trainer
from tests.conftest import POCKET, CommandLine


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, train: CommandLine) -> Path:
    """The rows of twenty problems."""
    folder = tmp_path_factory.mktemp("distill")
    with chdir(folder):
        words = ("--model", "pocket", "--source", "pocket", "--limit", 20, "--rows.heldout", 2, "--until", "format")
        assert train("math", *words, "--run", "rows").code == 0
    return folder / "rows" / "data"


def test_a_larger_teacher_is_learned_from_at_the_tokens_of_own_samples(data: Path, tmp_path: Path) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config: dict[str, Any] = {
        **read_json(POCKET / "config.json"),
        "hidden_size": 192,
        "num_hidden_layers": 5,
        "layer_types": None,
    }
    larger: Any = Qwen2ForCausalLM(Qwen2Config(**config))
    larger.save_pretrained(tmp_path / "teacher")
    source, said = find_model("pocket"), list[str]()
    prompts = load_prompt_format(source)
    prompts.tokenizer.save_pretrained(tmp_path / "teacher")
    distill = Distill(teacher=str(tmp_path / "teacher"), max_tokens=8)
    recipe = Recipe(method="distill", tune=Tune(steps=1, batch=2), distill=distill)
    recipe.require_teacher(source)
    training = prepare_trainer(tmp_path / "a", data=data, source=source, recipe=recipe, seed=0, say=said.append)
    assert 4 * larger.num_parameters() < int(training.plan.parts.teacher or 0)
    assert training.figures["teacher"] == "teacher"
    trainer: Any = training.trainer
    served = {tuple(prompts.prompt_ids(row["statement"])) for row in datasets.load_from_disk(RowFiles(data).train)}
    assert {*map(tuple, trainer.train_dataset["prompt"])} == served
    (told,) = [line for line in trainer.train().metrics.items() if line[0] == "train_loss"]
    # A teacher of random numbers is far from the pocket model: about the logarithm of its 576 tokens.
    assert 2 < told[1] < 20


def test_a_teacher_with_other_tokens_is_refused(tmp_path: Path) -> None:
    shutil.copytree(POCKET, tmp_path / "teacher")
    tokenizer = json.loads((tmp_path / "teacher/tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {"x": tokenizer["model"]["vocab"]["y"], "y": tokenizer["model"]["vocab"]["x"]}
    write_json(tmp_path / "teacher/tokenizer.json", tokenizer)
    recipe = Recipe(method="distill", distill=Distill(teacher=str(tmp_path / "teacher")))
    with pytest.raises(UserError, match=r"must have the model's own tokens, got token \d+ is 'y', the model's 'x'"):
        recipe.require_teacher(find_model("pocket"))


def test_a_sample_that_no_position_is_left_for_is_refused(data: Path, tmp_path: Path) -> None:
    recipe = Recipe(method="grpo", tune=Tune(steps=1, batch=8), grpo=Grpo(max_tokens=2000))
    source = find_model("pocket")
    with pytest.raises(UserError, match=r"must fit the 1024 positions of pocket, got 20\d\d tokens"):
        prepare_trainer(tmp_path, data=data, source=source, recipe=recipe, seed=0, say=lambda _: None)
