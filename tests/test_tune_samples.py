"""What learns from own samples: a teacher's probabilities at their tokens, and which teachers and vLLMs are refused."""

import json
import shutil
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from peft import get_peft_model
from trl.generation.vllm_generation import VLLMGeneration

from mathlete.errors import UserError
from mathlete.models import Shape, find_model, load_prompt_format
from mathlete.rows import RowFiles
from mathlete.runs import read_json, write_json
from mathlete.tune import load_4bit_base, plan_training
from mathlete.tune import recipe as recipes
from mathlete.tune.base_weights import BaseWeights
from mathlete.tune.methods import make_lora_config
from mathlete.tune.objectives import TrainingData, learn_from_rewards
from mathlete.tune.recipe import Recipe
from mathlete.tune.settings import Distill, Dpo, Grpo, Lora, Tune
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


def test_a_base_that_an_adapter_was_merged_into_and_taken_out_of_is_put_back_bit_for_bit() -> None:
    torch.manual_seed(0)
    base: Any = load_4bit_base(find_model("pocket"), dense=True, computing="bfloat16")
    model: Any = get_peft_model(base, make_lora_config(Lora(), Shape.of(find_model("pocket"))))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight), alpha=0.02)

    def read_base() -> dict[str, torch.Tensor]:
        return {name: one.detach().clone() for name, one in model.named_parameters() if "base_layer.weight" in name}

    kept, before = BaseWeights(model), read_base()
    model.merge_adapter()
    model.unmerge_adapter()
    assert any(not torch.equal(one, before[name]) for name, one in read_base().items())
    kept.restore()
    assert before
    assert all(torch.equal(one, before[name]) for name, one in read_base().items())


def test_an_engine_that_draws_samples_is_handed_a_dense_base_and_the_plan_counts_it() -> None:
    recipe = Recipe(method="grpo", tune=Tune(batch=8), grpo=Grpo(vllm=True, vllm_memory=0.3))
    source = find_model("r1-qwen-1.5b")
    plan, plain = (
        plan_training(source, recipe=one, longest=1024, gpu="h100") for one in (recipe, replace(recipe, grpo=Grpo()))
    )
    assert (plan.dense, plain.dense) == (True, False)
    assert plan.parts.base_dense == 2 * plan.shape.parameters
    assert plan.parts.base_4bit == 0 < plain.parts.base_4bit


@pytest.mark.parametrize(
    ("installed", "message"),
    [
        (None, "0.22.0 to 0.31.0, got not installed"),
        ("0.19.1", "takes, 0.22.0 to 0.31.0, got 0.19.1"),
        ("0.33.0", "got 0.33.0"),
        ("0.31.0+cu129", ""),
        ("0.24.0", ""),
    ],
)
def test_a_vllm_that_trl_does_not_take_is_refused_before_a_sample_is_drawn(
    installed: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr(recipes, "version", lambda name: installed)
    if not message:
        return recipes.require_vllm()
    with pytest.raises(UserError, match=message) as error:
        recipes.require_vllm()
    assert 'pip install "vllm>=0.22.0,<=0.31.0"' in str(error.value)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated")
def test_trls_settings_of_vllm_are_those_that_it_knows(data: Path) -> None:
    rows, prompts = datasets.load_from_disk(RowFiles(data).train), load_prompt_format(find_model("pocket"))
    grpo = Grpo(vllm=True, vllm_memory=0.4, max_tokens=16)
    given = TrainingData(folder=data, rows=rows, prompts=prompts, tune=Tune(), dpo=Dpo(), grpo=grpo, distill=Distill())
    task = learn_from_rewards(given)
    config: Any = task.config(output_dir=str(data), use_cpu=True, bf16=False, **task.settings)
    assert (config.use_vllm, config.vllm_mode, config.vllm_gpu_memory_utilization) == (True, "colocate", 0.4)
    assert config.vllm_max_model_length == task.longest
    assert callable(VLLMGeneration.sync_weights)  # what `restore_after_sync` goes on from


def test_a_sample_that_no_position_is_left_for_is_refused(data: Path, tmp_path: Path) -> None:
    recipe = Recipe(method="grpo", tune=Tune(steps=1, batch=8), grpo=Grpo(max_tokens=2000))
    source = find_model("pocket")
    with pytest.raises(UserError, match=r"must fit the 1024 positions of pocket, got 20\d\d tokens"):
        prepare_trainer(tmp_path, data=data, source=source, recipe=recipe, seed=0, say=lambda _: None)
