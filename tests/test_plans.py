"""Plans of trainings and of drawing: each process for itself, machines, hours, and what is no dense decoder."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.plan import PROMPT_TOKENS, plan_engines
from mathlete.errors import UserError
from mathlete.models import GPUS, Device, Shape, find_model
from mathlete.models.shapes import SHAPES
from mathlete.tune.fitting import make_plan
from mathlete.tune.hours import ROWS, UTILISATION
from mathlete.tune.methods import METHODS
from mathlete.tune.plan import Plan
from mathlete.tune.ranks import Ranks
from mathlete.tune.recipe import Recipe
from mathlete.tune.settings import Lora, Tune
from tests.conftest import CommandLine

CONFIG = {
    "vocab_size": 1000, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip


def _plan(*, shape: str, gpu: str, batch: int, longest: int, ranks: Ranks, **more: object) -> Plan:
    recipe = Recipe(lora=Lora(rank=32, targets=("all-linear",)), tune=Tune(batch=batch), **more)  # type: ignore[arg-type]
    return make_plan(SHAPES[shape], device=GPUS[gpu], recipe=recipe, longest=longest, ranks=ranks)


@given(
    shape=st.sampled_from([*SHAPES]),
    gpu=st.sampled_from([*GPUS]),
    processes=st.integers(2, 8),
    rows=st.integers(1, 4),
    longest=st.sampled_from([256, 4096, 8192]),
    method=st.sampled_from([name for name, entry in METHODS.items() if not entry.grouped]),
)
def test_each_of_k_processes_needs_what_one_with_its_rows_does(
    shape: str, gpu: str, processes: int, rows: int, longest: int, method: str
) -> None:
    alone = _plan(shape=shape, gpu=gpu, batch=rows, longest=longest, ranks=Ranks(), method=method)
    shared = _plan(
        shape=shape, gpu=gpu, batch=rows * processes, longest=longest, ranks=Ranks(size=processes), method=method
    )
    assert shared.parts == alone.parts
    assert (shared.fits, shared.checkpointing) == (alone.fits, alone.checkpointing)


def test_what_one_t4_is_refused_two_are_too(train: CommandLine) -> None:
    words = ("math", "--model", "r1-qwen-7b", "--plan", "--json")
    one = train(*words, "--device", "t4", "--tune.batch", 1, "--tune.accumulate", 16)
    two = train(*words, "--device", "t4x2", "--tune.batch", 2, "--tune.accumulate", 8)
    assert (one.code, two.code) == (1, 1)
    told = [json.loads(one.stdout), json.loads(two.stdout)]
    assert [part["processes"] for part in told] == [1, 2]
    assert told[0]["peak_gib"] == told[1]["peak_gib"]
    assert told[0]["hours"] == pytest.approx([2 * hours for hours in told[1]["hours"]], rel=1e-2)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("t4x2", ("t4", 2)),
        ("l4x4", ("l4", 4)),
        *((name, (name, 1)) for name in ("rtx3090", "a6000", "l40s", "rtx-pro-6000")),
    ],
)
def test_machines_and_gpus_are_found_by_name(name: str, expected: tuple[str, int]) -> None:
    gpu, count = Device.find(name)
    assert (gpu.name, count) == expected
    assert Device.names() == sorted(Device.names())


def test_a_name_that_is_none_is_answered_with_the_nearest(train: CommandLine) -> None:
    assert (
        "did you mean rtx-pro-6000?" in train("math", "--model", "pocket", "--plan", "--device", "rtxpro6000").refusal
    )


def test_hours_are_arithmetic_over_a_share_of_the_peak() -> None:
    assert all(gpu.peak_tflops for gpu in GPUS.values())
    plan = _plan(shape="r1-qwen-1.5b", gpu="h100", batch=1, longest=1024, ranks=Ranks())
    assert plan.work.hours is not None
    least, most = plan.work.hours
    assert plan.work.hours_of == "1,000 rows of 1,024 tokens"
    assert most / least == pytest.approx(UTILISATION[1] / UTILISATION[0])
    assert least * 3600 * 989e12 * UTILISATION[1] == pytest.approx(ROWS * 1024 * plan.work.token_flops)
    # Two forward, two for the gradient of the input, two where blocks are computed again; attention adds.
    weights = plan.shape.parameters * (6 if plan.checkpointing else 4)
    assert weights < plan.work.token_flops < 1.2 * weights
    steps = replace(plan, recipe=replace(plan.recipe, tune=replace(plan.tune, steps=10, accumulate=3)))
    assert steps.work.hours_of == "30 rows of 1,024 tokens (10 steps)"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"text_config": {"hidden_size": 8}}, "a decoder behind other parts, such as one for images (text_config)"),
        ({"kv_lora_rank": 512}, "keys and values of low rank (kv_lora_rank)"),
        ({"hybrid_override_pattern": "M*M"}, "layers of several kinds (hybrid_override_pattern)"),
        ({"full_attention_interval": 4}, "linear attention (full_attention_interval)"),
        ({"attn_layer_period": 8, "mamba_d_state": 16}, "layers of state (mamba_d_state)"),
        ({"layer_types": ["full_attention", "conv"]}, "conv (layer_types)"),
    ],
)
def test_layers_of_another_kind_are_refused(more: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"got {words} in config.json")):
        Shape.from_config({**CONFIG, **more})


@pytest.mark.parametrize("key", ["num_experts", "num_local_experts", "n_routed_experts"])
def test_a_mixture_of_experts_is_refused(key: str) -> None:
    assert Shape.from_config({**CONFIG, key: 0}).layers == 2
    with pytest.raises(UserError, match="128 experts a layer"):
        Shape.from_config({**CONFIG, key: 128})


def test_drawing_is_planned_by_weights_and_kv_cache() -> None:
    shape, gpu = SHAPES["r1-qwen-7b"], GPUS["h100"]
    embedded, vllm = plan_engines(
        shape, device=gpu, gpus=1, weights=2 * shape.parameters, n=16, max_tokens=16384, vllm_share=0.9
    )
    # 28 layers of 4 heads of 128, keys and values of two bytes: 56 KiB a token.
    assert shape.kv_bytes(2) == 56 * 1024
    assert embedded.kv_gib == pytest.approx(16 * (16384 + PROMPT_TOKENS) * 56 / 2**20, abs=1e-3)
    assert (embedded.fits, vllm.fits, vllm.at_once) == (True, True, 16)


@given(n=st.integers(1, 256), cap=st.integers(256, 65536), gpus=st.sampled_from([1, 2, 4]))
def test_what_fits_of_more_fits_of_less(n: int, cap: int, gpus: int) -> None:
    shape = SHAPES["r1-qwen-7b"]
    known = {"device": GPUS["l4"], "weights": 2 * shape.parameters, "vllm_share": 0.9}
    more = plan_engines(shape, n=n + 1, max_tokens=cap + 256, gpus=gpus, **known)  # type: ignore[arg-type]
    less = plan_engines(shape, n=n, max_tokens=cap, gpus=gpus, **known)  # type: ignore[arg-type]
    for one, other in zip(less, more, strict=True):
        assert one.fits or not other.fits
        assert one.at_once >= min(n, other.at_once)


def test_a_plan_of_drawing_is_printed_and_ends_with_1_where_it_does_not_fit(evaluate: CommandLine) -> None:
    words = ("aimo_val", "--model", "r1-qwen-7b", "--plan", "--n", 16, "--sampling.max-tokens", 16384, "--device")
    done = evaluate(*words, "t4")
    assert done.code == 1
    assert "transformers: does not fit" in done.stdout
    told = evaluate(*words, "l4x4", "--engine", "vllm", "--json").result
    assert told["fits"]
    assert [room["engine"] for room in told["engines"]] == ["transformers", "vllm, each of 4 GPUs"]
    assert "add --plan" in evaluate("aimo_val", "--model", "pocket", "--device", "t4").refusal


def test_a_plan_is_made_of_no_quantised_weights_that_are_not_there(evaluate: CommandLine, tmp_path: Path) -> None:
    for file in Path(find_model("pocket").location).glob("*.json"):
        shutil.copy(file, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq", "bits": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    words = ("aimo_val", "--model", tmp_path, "--plan", "--device", "t4x2")
    assert "a plan takes the size of quantised weights from their files" in evaluate(*words).refusal
    index = {"metadata": {"total_size": 2**30}, "weight_map": {}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "weights 1.0" in evaluate(*words).stdout


def test_the_preset_is_split_and_what_was_named_is_kept(train: CommandLine) -> None:
    words = ("math", "--model", "r1-qwen-7b", "--plan", "--device", "l4")
    done = train(*words)
    assert done.code == 0
    assert "rows a pass: 2, not 8, as many as fit of 8192 tokens in 22 GiB of l4" in done.stdout
    named = train(*words, "--tune.batch", "4", "--json")
    assert (named.code, json.loads(named.stdout)["tokens"]) == (1, 4 * 8192)  # it does not fit
