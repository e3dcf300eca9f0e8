"""How weights are stored, held against the kernels that vLLM 0.19.1 has for them."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mathlete.errors import UserError
from mathlete.export.formats import find_formats, read_storage
from mathlete.kernel import KernelConfig
from mathlete.models import GPUS
from mathlete.sampling import SamplingConfig
from mathlete.sampling.served import VllmSettings
from mathlete.solve import Policy
from mathlete.submission.engine_choice import EngineWord, choose_engine, find_refusal
from mathlete.submission.vllm_schemes import find_wrong_scheme
from mathlete.submission.weights import list_needed
from tests.conftest import CommandLine
from tests.test_submit_vllm import model_of

R1: dict[str, object] = {
    **{"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28},
    **{"num_attention_heads": 12, "num_key_value_heads": 2},
}
"""R1-1.5B's shape: 8960 columns are no multiple of 128 on each of four GPUs."""
ODD: dict[str, object] = {**R1, "hidden_size": 1536 + 32, "head_dim": 128}
TOKEN: dict[str, object] = {"num_bits": 8, "strategy": "token", "dynamic": True}


def packed(bits: int = 8, how: str = "pack-quantized", inputs: object = None, **said: object) -> dict[str, object]:
    group = {"targets": ["Linear"], "weights": {"num_bits": bits, **said}, "input_activations": inputs}
    return {"quant_method": "compressed-tensors", "format": how, "config_groups": {"0": group}, "ignore": ["lm_head"]}


def gptq(bits: int = 4, group: int = 128, *, sym: bool = True, **said: object) -> dict[str, object]:
    return {"quant_method": "gptq", "bits": bits, "group_size": group, "sym": sym, "desc_act": False, **said}


def awq(bits: int = 4, group: int = 128, *, zero: bool = True) -> dict[str, object]:
    return {"quant_method": "awq", "bits": bits, "group_size": group, "zero_point": zero}


def fp8(**said: object) -> dict[str, object]:
    return {"quant_method": "fp8", "activation_scheme": "dynamic", **said}


FP8_TOKEN = {**TOKEN, "type": "float"}
FP4 = {"type": "float", "strategy": "tensor_group", "group_size": 16}
SCHEMES: list[tuple[str, int, dict[str, object], dict[str, object], str]] = [
    ("h100", 1, R1, packed(strategy="channel"), ""),
    ("h100", 1, R1, packed(4, strategy="group", group_size=128), ""),
    ("h100", 1, R1, packed(3, strategy="channel"), "3-bit int by channel, where it takes 4 and 8 bits"),
    ("h100", 1, R1, packed(2, strategy="group", group_size=64), "2-bit int by group of 64, where it takes"),
    ("h100", 1, R1, packed(), "8-bit int by tensor, where it takes 4 and 8 bits, by channel or group"),
    ("l4", 1, R1, packed(4, strategy="group", group_size=256), "4-bit int by group of 256 in qkv_proj"),
    ("l4", 1, {}, packed(4, strategy="group", group_size=256), "4-bit int by group of 256, for which it has none"),
    ("l4", 1, R1, packed(8, strategy="channel", symmetric=False), "in qkv_proj, of 1536 x 2048 on each GPU"),
    ("h100", 1, R1, packed(8, strategy="channel", symmetric=False), ""),
    ("l4", 1, R1, packed(4, strategy="channel", symmetric=False), ""),
    ("l4", 4, R1, packed(4, strategy="channel"), "4-bit int by channel in down_proj, of 2240 x 1536 on each GPU"),
    ("l4", 2, R1, packed(4, strategy="channel"), ""),
    ("l4", 4, R1, packed(strategy="channel"), ""),
    ("l4", 1, ODD, packed(4, strategy="channel"), "in qkv_proj, of 1568 x"),
    ("a100-80", 1, ODD, packed(strategy="channel"), ""),
    ("t4", 2, ODD, packed(4, strategy="group", group_size=32), ""),
    ("t4", 1, ODD, packed(4, strategy="group", group_size=100), "4-bit int by group of 100 in qkv_proj"),
    ("h100", 1, R1, packed(how="int-quantized", strategy="channel", inputs=TOKEN), ""),
    ("h100", 1, R1, packed(how="int-quantized", strategy="group", group_size=64, inputs=TOKEN), "no such scheme"),
    ("h100", 1, R1, packed(how="int-quantized", strategy="channel", symmetric=False, inputs=TOKEN), "no such scheme"),
    ("h100", 1, R1, packed(how="int-quantized", strategy="channel"), "no such scheme"),
    ("l4", 1, R1, packed(4, "int-quantized", strategy="channel", inputs=TOKEN), "no such scheme"),
    ("h100", 1, R1, packed(4, strategy="group", group_size=128, inputs=FP8_TOKEN), ""),
    ("h100", 1, R1, packed(4, strategy="group", group_size=64, inputs=FP8_TOKEN), "where it takes groups of 128"),
    ("l4", 1, R1, packed(4, strategy="group", group_size=128, inputs=FP8_TOKEN), "no such scheme"),
    ("l4", 1, R1, packed(how="float-quantized", type="float", strategy="channel", inputs=FP8_TOKEN), ""),
    ("l4", 1, R1, packed(how="float-quantized", type="float", strategy="tensor"), ""),
    ("l4", 1, R1, packed(how="float-quantized", type="float", strategy="group", group_size=64), "no such scheme"),
    ("l4", 1, R1, packed(4, "nvfp4-pack-quantized", **FP4), ""),
    ("l4", 1, R1, packed(4, "nvfp4-pack-quantized", **{**FP4, "group_size": 32}), "no such scheme"),
    ("t4", 1, R1, packed(4, "mxfp4", type="float", strategy="group", group_size=32), "needs compute capability 8"),
    ("l4", 1, R1, packed(4, "mxfp4", type="float", strategy="group", group_size=32), ""),
    ("l4", 1, R1, packed(how="marlin-24", strategy="channel"), "marlin-24: it has no such scheme"),
    (
        *("h100", 1, R1),
        {**packed(strategy="channel"), "sparsity_config": {"format": "sparse-24-bitmask", "targets": ["Linear"]}},
        "sparse weights (sparse-24-bitmask), which it no longer supports",
    ),
    # Of groups for single layers the shapes are not known, and the bits are.
    ("l4", 4, R1, {**packed(4, strategy="channel"), "ignore": ["re:.*down_proj"]}, ""),
    ("l4", 1, R1, gptq(), ""),
    ("l4", 1, R1, gptq(8), ""),
    ("l4", 1, R1, gptq(3), "3-bit gptq in groups of 128, symmetric, which it serves in float16 alone"),
    ("t4", 1, R1, gptq(3), ""),
    ("t4", 1, R1, gptq(5), "5-bit gptq in groups of 128, where it takes 2, 3, 4 and 8 bits"),
    ("l4", 1, R1, gptq(sym=False), "not symmetric, which it serves in float16 alone"),
    ("t4", 1, R1, gptq(group=100), "4-bit gptq in groups of 100 in qkv_proj"),
    ("l4", 4, R1, gptq(), "4-bit gptq in groups of 128 in down_proj, of 2240 x 1536 on each GPU"),
    ("l4", 1, R1, awq(), ""),
    ("l4", 1, R1, awq(8), "8-bit awq in groups of 128, where it takes 4 bits"),
    ("l4", 1, R1, awq(zero=False), "without zero points, which it serves in float16 alone"),
    ("t4", 1, R1, awq(zero=False), ""),
    ("l4", 4, R1, awq(), "in down_proj, of 2240 x 1536"),
    ("l4", 1, R1, fp8(), ""),
    ("l4", 1, R1, fp8(weight_block_size=[128, 128]), ""),
    ("l4", 4, R1, fp8(weight_block_size=[128, 128]), "fp8 in blocks of 128 x 128 in gate_up_proj"),
    ("l4", 1, R1, fp8(weight_block_size=[128]), "where it takes two sizes and dynamic"),
    ("l4", 1, R1, fp8(activation_scheme="token"), "fp8 with activation_scheme token"),
    ("l4", 1, R1, fp8(fmt="e5m2"), "fp8 of e5m2, where it takes e4m3"),
    ("h100", 1, R1, {"quant_method": "mxfp4"}, "mxfp4 of a model without experts"),
    ("h100", 1, {**R1, "num_local_experts": 32}, {"quant_method": "mxfp4"}, ""),
    ("h100", 1, R1, {"quant_method": "bitsandbytes"}, ""),
]

QWEN3: dict[str, object] = {
    **{"num_experts": 128, "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768},
    **{"num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128},
}
"""Qwen3-30B-A3B's: 192 columns of each expert on each of four GPUs, 384 on each of two."""
MIXTRAL = {**R1, "num_local_experts": 8, "intermediate_size": 14336, "hidden_size": 4096}
SMALL = {**QWEN3, "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632}
"""Qwen1.5-MoE-A2.7B's: 352 on each of four."""
ODDEST = {**QWEN3, "moe_intermediate_size": 704}
"""176 on each of four: groups would be cut down to 16."""
BLOCKS = fp8(weight_block_size=[128, 128])
BLOCKS_TOO = packed(how="float-quantized", type="float", strategy="block", block_structure=[128, 128], inputs=FP8_TOKEN)
GROUPS = packed(4, strategy="group", group_size=128)
EXPERTS: list[tuple[str, dict[str, object], dict[str, object], str]] = [
    ("l4", QWEN3, BLOCKS, "8-bit floats in blocks of 128 x 128 in experts, of 192 columns on each GPU"),
    ("l4", {"text_config": QWEN3}, BLOCKS, "of 192 columns"),
    ("l4", QWEN3, BLOCKS_TOO, "8-bit floats in blocks of 128 x 128 in experts, of 192 columns"),
    ("l4", QWEN3, {**BLOCKS, "modules_to_not_convert": ["lm_head", "model.layers.0.mlp.gate"]}, "of 192 columns"),
    ("l4", QWEN3, {**BLOCKS, "modules_to_not_convert": ["model.layers.47.mlp.experts"]}, ""),
    ("l4", QWEN3, {**BLOCKS_TOO, "ignore": ["re:.*shared_expert.*", "re:.*mlp.gate$"]}, "of 192 columns"),
    ("l4", QWEN3, {**BLOCKS_TOO, "ignore": ["re:.*mlp.*"]}, ""),
    ("l4", QWEN3, {**BLOCKS_TOO, "ignore": ["re:.*block_sparse_moe.*"]}, ""),
    # Nemotron's and Qwen3-VL's names of what has the experts.
    ("l4", QWEN3, {**BLOCKS_TOO, "ignore": [r"re:backbone\.layers\.\d+\.mixer\.experts\..*"]}, ""),
    ("l4", QWEN3, {**BLOCKS_TOO, "ignore": [r"re:model\.language_model\.layers\.\d+\.mlp\.experts\..*"]}, ""),
    ("l4", QWEN3, {**BLOCKS_TOO, "ignore": [r"re:.*mixer\.shared_experts.*", "re:(?!.*experts).*"]}, "of 192 columns"),
    ("l4", {**QWEN3, "moe_intermediate_size": 1536}, BLOCKS, ""),
    ("l4", {**QWEN3, "moe_intermediate_size": [768, 768]}, BLOCKS, ""),
    ("l4", MIXTRAL, BLOCKS, ""),
    ("l4", QWEN3, fp8(), ""),
    ("l4", QWEN3, packed(how="float-quantized", type="float", strategy="channel", inputs=FP8_TOKEN), ""),
    ("l4", QWEN3, packed(how="int-quantized", strategy="channel", inputs=TOKEN), ""),
    ("l4", QWEN3, GROUPS, "4-bit int in groups of 128 in experts, of 192 columns on each GPU"),
    ("l4", QWEN3, packed(4, strategy="group", group_size=64), ""),
    ("l4", QWEN3, packed(4, strategy="channel"), ""),
    ("l4", SMALL, packed(4, strategy="channel"), "4-bit int in experts, of 352 columns"),
    ("l4", SMALL, packed(4, strategy="group", group_size=32), ""),
    ("l4", SMALL, packed(4, strategy="group", group_size=32, actorder="group"), "in groups of 32 in experts"),
    ("l4", QWEN3, packed(4, strategy="group", group_size=64, symmetric=False), "in experts, which must be symmetric"),
    ("h100", QWEN3, packed(4, strategy="group", group_size=128, inputs=FP8_TOKEN), "of 192 columns"),
    ("l4", QWEN3, packed(4, "nvfp4-pack-quantized", **FP4), ""),
    ("l4", QWEN3, gptq(), ""),
    ("l4", SMALL, awq(), ""),
    ("l4", ODDEST, awq(), "awq in groups of 128 in experts, of 176 columns"),
    ("l4", ODDEST, gptq(), "gptq in groups of 128 in experts, of 176 columns"),
    ("l4", ODDEST, gptq(dynamic={"-:.*experts.*": {}}), ""),
    ("t4", ODDEST, awq(group=16), ""),
    ("l4", ODDEST, gptq(group=-1), "gptq in experts, of 176 columns"),
    ("h100", {**R1, "num_local_experts": 32, "intermediate_size": 2880}, {"quant_method": "mxfp4"}, ""),
]


@pytest.mark.parametrize(("gpu", "shape", "stored", "says"), EXPERTS)
def test_experts_on_four_gpus_are_held_against_the_kernels(
    gpu: str, shape: dict[str, object], stored: dict[str, object], says: str
) -> None:
    model = {**shape, "quantization_config": stored}
    faults = [*find_wrong_scheme(gpu=GPUS[gpu], shared=4, model=model)]
    assert bool(faults) == bool(says), [one.value for one in faults]
    if says:
        assert says in str(faults[0].value)
    # On one GPU, or whole on each, experts of these sizes are served where they are symmetric.
    for shared, whole in ((1, False), (4, True)):
        alone = [*find_wrong_scheme(gpu=GPUS[gpu], shared=shared, model=model, whole_experts=whole)]
        assert bool(alone) == ("symmetric" in says), [one.value for one in alone]


def test_experts_that_four_gpus_cannot_share_are_refused_with_what_can(tmp_path: Path) -> None:
    shape = {**QWEN3, "architectures": ["Qwen3MoeForCausalLM"], "max_position_embeddings": 40960}
    model = model_of(tmp_path, **shape, quantization_config=BLOCKS)

    def refuse(**vllm: Any) -> UserError | None:
        return find_refusal(
            model=model, machine="NvidiaL4", config=KernelConfig(vllm=VllmSettings(**vllm)), weights=2**30
        )

    wrong = refuse()
    assert wrong is not None
    assert "--vllm.tensor-parallel 2, or --vllm.extra enable_expert_parallel true, or" in wrong.cure
    # Nothing here makes others of a stranger's weights, and the embedded engine reads none of these.
    assert "or name another of Kaggle's with --model-source" in wrong.cure
    assert "embedded" not in wrong.cure
    assert refuse(tensor_parallel=2) is None
    assert refuse(extra={"enable_expert_parallel": "true"}) is None
    assert refuse(tensor_parallel=2, extra={"data_parallel_size": "2"}) is not None


@pytest.mark.parametrize("stored", [BLOCKS, GROUPS])
def test_a_mixture_that_a_setting_would_have_served_is_not_left_to_the_embedded_engine(
    tmp_path: Path, stored: dict[str, object]
) -> None:
    shape = {**QWEN3, "architectures": ["Qwen3MoeForCausalLM"], "max_position_embeddings": 40960}
    model = model_of(tmp_path, **shape, quantization_config=stored)
    choose = partial(choose_engine, model=model, machine="NvidiaL4", weights=2**34)
    with pytest.raises(UserError, match=r"Fix: --vllm\.tensor-parallel 2"):
        choose("auto", config=KernelConfig())
    assert choose("auto", config=KernelConfig(vllm=VllmSettings(tensor_parallel=2))).engine == "vllm"
    assert choose("embedded", config=KernelConfig()).engine == "transformers"


@pytest.mark.parametrize("word", ["auto", "vllm"])
def test_weights_that_vllm_alone_reads_are_not_left_to_the_embedded_engine(tmp_path: Path, word: EngineWord) -> None:
    config, model = KernelConfig(vllm=VllmSettings(kv_dtype="fp8_e5m2")), model_of(tmp_path, quantization_config=fp8())
    with pytest.raises(UserError, match=r"may bring scales of the cache, got fp8(?s:.*)--vllm\.kv-dtype fp8"):
        choose_engine(word, model=model, machine="NvidiaL4", config=config, weights=2**30)


def test_what_would_have_vllm_serve_stands_beside_the_reason_for_another_engine(tmp_path: Path) -> None:
    config = KernelConfig(vllm=VllmSettings(tensor_parallel=4))
    model = model_of(tmp_path, **R1, model_type="qwen2", quantization_config=packed(4, strategy="channel"))
    chosen = choose_engine("auto", model=model, machine="NvidiaL4", config=config, weights=2**30)
    assert chosen.engine == "transformers"
    assert "; cured for vLLM by --vllm.tensor-parallel 2, or" in chosen.reason


@pytest.mark.parametrize(
    ("gib", "vllm", "cure"),
    [
        # Qwen2.5-72B's columns are no multiple of 128 on two or four GPUs.
        (8, {}, "--vllm.tensor-parallel 1, or "),
        (38.8, {}, "--vllm.tensor-parallel 1 --vllm.extra pipeline_parallel_size 4, or "),
        (38.8, {"extra": {"data_parallel_size": "2"}, "tensor_parallel": 2}, "export the model"),
        (120, {}, "export the model"),
    ],
)
def test_a_cure_that_names_gpus_is_one_that_has_room(
    gib: float, vllm: dict[str, Any], cure: str, tmp_path: Path
) -> None:
    shape = {"hidden_size": 8192, "intermediate_size": 29568, "num_hidden_layers": 80, "num_key_value_heads": 8}
    model = model_of(tmp_path, **shape, num_attention_heads=64, quantization_config=awq())
    ask = partial(choose_engine, "vllm", model=model, machine="NvidiaL4", weights=int(gib * 2**30))
    short = Policy(sampling=SamplingConfig(max_tokens=4096))
    config = KernelConfig(vllm=VllmSettings(max_model_len=8192, **vllm), policy=short)
    with pytest.raises(UserError) as refused:
        ask(config=config)
    assert refused.value.cure.startswith(cure)
    if cure.startswith("--vllm"):
        cut = {"pipeline_parallel_size": "4"} if "extra" in cure else {}
        assert ask(config=replace(config, vllm=replace(config.vllm, tensor_parallel=1, extra=cut))).engine == "vllm"


@pytest.mark.parametrize("gib", [9, 61])
@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["NobodysForCausalLM"]},
        {**R1, "quantization_config": packed(4, strategy="channel")},
    ],
)
def test_a_cure_that_names_the_embedded_engine_is_one_that_has_room(
    gib: int, config: dict[str, object], tmp_path: Path
) -> None:
    asked = KernelConfig(vllm=VllmSettings(tensor_parallel=4))
    wrong = find_refusal(model=model_of(tmp_path, **config), machine="NvidiaL4", config=asked, weights=gib * 2**30)
    assert wrong is not None
    assert ("--engine embedded" in wrong.cure) == (gib == 9)


def test_weights_that_no_engine_serves_are_refused_before_their_tokenizer_is_read(
    tmp_path: Path, submit: CommandLine
) -> None:
    model = model_of(tmp_path / "bare", quantization_config={"quant_method": "auto-round", "bits": 4})
    words = ("--model", model, "--model-source", "o/m/transformers/v/1", "--model-gib", "9", "--kaggle.licence", "MIT")
    assert "got auto-round weights in" in submit("build", *words, "--names.owner", "alice", "--engine", "auto").refusal


@pytest.mark.parametrize(("gpu", "shared", "shape", "stored", "says"), SCHEMES)
def test_weights_are_held_against_the_kernels_that_vllm_has(
    gpu: str, shared: int, shape: dict[str, object], stored: dict[str, object], says: str
) -> None:
    faults = [*find_wrong_scheme(gpu=GPUS[gpu], shared=shared, model={**shape, "quantization_config": stored})]
    assert bool(faults) == bool(says), [one.value for one in faults]
    if says:
        assert says in str(faults[0].value)
        # Fewer GPUs are the cure where the shapes are what is wrong.
        assert ("--vllm.tensor-parallel" in faults[0].cure) == (shared == 4)


def test_bits_that_nothing_here_writes_are_for_vllm_alone(tmp_path: Path) -> None:
    for bits, names in ((8, {"w8a16", "w8a16-gptq"}), (4, {"w4a16", "w4a16-gptq", "w4a16-awq"}), (3, set[str]())):
        config = {"quantization_config": packed(bits, strategy="channel")}
        formats = find_formats(read_storage(config), config)
        assert {one.name for one in formats if hasattr(one, "name")} == names
        assert all(one.embedded for one in formats) == bool(names)
    with pytest.raises(UserError, match="the notebook must know how to serve the weights"):
        list_needed(model_of(tmp_path, quantization_config=packed(3, strategy="channel")))
