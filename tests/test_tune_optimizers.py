"""Optimizers, schedules, weight decay and biases: transformers' own, planned to the byte, or refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.training_args import OptimizerNames

from mathlete.errors import UserError
from mathlete.models import Shape, find_model, load_model
from mathlete.runs import read_json
from mathlete.tune import Lora, Recipe, Tune
from mathlete.tune.fitting import make_plan
from mathlete.tune.methods import METHODS
from mathlete.tune.optimizers import OPTIMIZERS, count_parameters
from mathlete.tune.settings import Updates
from mathlete.tune.trainers import _SCHEDULES
from tests.conftest import CommandLine, sample
from tests.test_tune_plan import CPU, bytes_of, plan

UNPAGED = [name for name, one in OPTIMIZERS.items() if not one.paged]
WORDS = ("--model", "pocket", "--limit", "60", "--tune.steps", "4", "--tune.batch", "4", "--tune.log-every", "1",
         "--rows.heldout", "2", "--survival.trial-rows", "0", "--forgetting.problems", "2",
         "--survival.max-tokens", "8", "--json")  # fmt: skip
OWN = ("--tune.optimizer", "adamw_8bit", "--tune.weight-decay", "0.01", "--tune.schedule", "linear",
       "--tune.warmup-steps", "1", "--lora.bias", "all")  # fmt: skip


def test_the_names_are_those_of_the_installed_transformers() -> None:
    assert {*OPTIMIZERS} <= {name.value for name in OptimizerNames}


@pytest.mark.parametrize("name", sample("adamw_torch_fused", "adamw_8bit", "adafactor", slow=UNPAGED))
@pytest.mark.parametrize("method", sample("lora", slow=["full", "prompt", "ia3", "dora", "prefix"]))
def test_what_an_optimizer_keeps_is_planned_to_the_byte(method: str, name: Any, tmp_path: Path) -> None:
    from peft import get_peft_model

    recipe = Recipe(method=method, lora=Lora(bias="all" if METHODS[method].takes_bias else "none"))
    recipe = Recipe(method=method, lora=recipe.lora, tune=Tune(updates=Updates(optimizer=name), batch=1))
    source = find_model("pocket")
    config, base = recipe.spec.configure(recipe.lora, Shape.of(source)), load_model(source, dtype="float32")
    model: Any = base if config is None else get_peft_model(base, config)
    arguments = TrainingArguments(output_dir=str(tmp_path), optim=name, use_cpu=True, report_to="none")
    optimizer: Any = Trainer(model=model, args=arguments).create_optimizer()
    model(input_ids=torch.arange(20)[None]).logits.sum().backward()
    optimizer.step()
    kept = {
        one.data_ptr(): one
        for state in optimizer.state.values()
        for key, one in state.items()
        if isinstance(one, torch.Tensor) and key not in ("step", "RMS")
    }
    planned = make_plan(Shape.of(source), device=CPU, recipe=recipe, longest=64)
    assert planned.parts.optimizer == bytes_of(kept.values())
    assert planned.trained_parameters == sum(one.numel() for one in model.parameters() if one.requires_grad)


def test_paged_moments_leave_the_gpu_and_small_ones_stay() -> None:
    shape = Shape.of(find_model("r1-qwen-7b"))
    parts = {
        name: plan(shape, tune=Tune(updates=Updates(optimizer=name), batch=1)).parts.optimizer for name in OPTIMIZERS
    }
    assert parts["paged_adamw_8bit"] < parts["adamw_8bit"] < parts["paged_adamw_32bit"] < parts["adamw_torch_fused"]
    assert parts["lion_32bit"] * 2 == parts["adamw_torch"] == parts["adamw_torch_fused"]
    assert parts["sgd"] == 0
    assert count_parameters(METHODS["full"].tensors(shape, Lora())) == shape.parameters


def test_the_plan_names_8_bit_moments_where_those_of_32_fill_the_gpu() -> None:
    shape = Shape.of(find_model("r1-qwen-1.5b"))
    recipe = Recipe(method="full", tune=Tune(batch=1))
    whole = make_plan(shape, device=CPU, recipe=recipe, longest=512)
    device = type(CPU)(name="gpu", memory=int(whole.peak * 0.8), capability=9.0)
    assert "--tune.optimizer adamw_8bit" in make_plan(shape, device=device, recipe=recipe, longest=512).cure


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tune.optimizer", "paged_adamw_8bit"], "paged_adamw_8bit moves its moments off a GPU, got no GPU"),
        (["--tune.optimizer", "paged_adamw_32bit"], "Fix: use adamw_torch_fused"),
        (["--tune.optimizer", "adamw"], "invalid choice 'adamw'"),
        (["--tune.schedule", "polynomial"], "invalid choice 'polynomial'"),
        (["--tune.weight-decay", "-1"], "--tune.weight-decay must be 0 or above, got -1.0"),
        (["--tune.warmup-steps", "-1"], "--tune.warmup-steps must be at least 0, got -1"),
        (["--tune.steps", "4", "--tune.warmup-steps", "5"], "--tune.warmup-steps must be at most the 4 steps, got 5"),
        (["--lora.bias", "all", "--method", "dpo"], "--lora.bias is not for --method dpo, got all"),
    ],
)
def test_what_can_not_be_is_refused_before_anything_is_made(
    words: list[str], message: str, workdir: Path, train: CommandLine
) -> None:
    assert message in train("math", "--model", "pocket", "--run", "run", *words).refusal
    assert not (workdir / "run").exists()


def test_8_bit_moments_are_not_sharded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match="FSDP shards torch's own optimizers alone, got"):
        Recipe(tune=Tune(updates=Updates(optimizer="adamw_8bit"))).require_device()


def test_a_run_trains_as_it_is_told_and_its_biases_are_merged(workdir: Path, train: CommandLine) -> None:
    assert train("math", *WORDS, *OWN, "--until", "merge", "--run", "run").result["steps"] == 4
    assert train("math", *WORDS, *OWN, "--until", "merge", "--run", "run").result["skipped"][-1] == "merge"
    manifest: dict[str, Any] = read_json(Path("run/adapter/manifest.json"))
    tune = manifest["settings"]["tune"]
    assert (tune["optimizer"], tune["weight_decay"], tune["schedule"], tune["warmup_steps"]) == (
        "adamw_8bit", 0.01, "linear", 1,
    )  # fmt: skip
    assert manifest["settings"]["lora"]["bias"] == "all"
    lines = Path("run/adapter/metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line)["learning_rate"] for line in lines]
    assert rates == pytest.approx([0.0, 2e-3, 2e-3 * 2 / 3, 2e-3 / 3])
    biases = {key: one for key, one in load_file("run/adapter/adapter_model.safetensors").items() if "bias" in key}
    base = load_file(str(find_model("pocket").folder) + "/model.safetensors")
    merged = load_file("run/merged/model.safetensors")
    assert len(biases) == 3 * 4
    for key, one in biases.items():
        name = key.removeprefix("base_model.model.").replace(".base_layer", "")
        assert not torch.equal(one, base[name].float())
        assert torch.allclose(merged[name].float(), one, atol=1e-3)
    refused = train("math", *WORDS, "--until", "merge", "--run", "run").refusal
    assert "optimizer" in refused
    assert "bias" in refused


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [0, 1, 1, 1]), ("cosine", [0, 1, 0.75, 0.25]), ("linear", [0, 1, 2 / 3, 1 / 3])],
)
def test_a_schedule_warms_up_and_goes_on_as_it_says(schedule: str, expected: list[float]) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    made: Any = get_scheduler(_SCHEDULES[schedule], optimizer, num_warmup_steps=1, num_training_steps=4)
    assert [made.lr_lambdas[0](step) for step in range(4)] == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw_8bit", "lion_8bit", "adafactor"])
def test_a_run_that_goes_on_from_a_checkpoint_gives_the_same_weights(
    name: str, workdir: Path, train: CommandLine
) -> None:
    words = ("math", *WORDS, "--tune.optimizer", name, "--tune.save-every", "2", "--until", "tune", "--run", "run")
    assert train(*words).code == 0
    adapter = Path("run/adapter")
    whole = load_file(adapter / "adapter_model.safetensors")
    # What a kill after the second step leaves.
    shutil.rmtree(adapter / "checkpoint-4")
    for file in ("adapter_model.safetensors", "adapter_config.json", "manifest.json"):
        (adapter / file).unlink()
    done = train(*words)
    assert done.result["skipped"] == ["format"]
    assert "going on from checkpoint-2" in done.stderr
    again = load_file(adapter / "adapter_model.safetensors")
    assert all(torch.equal(again[key], one) for key, one in whole.items())
