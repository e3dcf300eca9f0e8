"""How weights are stored, held against the kernels that vLLM 0.19.1 has for them."""

from pathlib import Path

import pytest

from mathlete.errors import UserError
from mathlete.export.formats import find_formats, read_storage
from mathlete.models import GPUS
from mathlete.submission.vllm_schemes import find_wrong_scheme
from mathlete.submission.weights import list_needed
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


@pytest.mark.parametrize(("gpu", "shared", "shape", "stored", "says"), SCHEMES)
def test_weights_are_held_against_the_kernels_that_vllm_has(
    gpu: str, shared: int, shape: dict[str, object], stored: dict[str, object], says: str
) -> None:
    found = [*find_wrong_scheme(gpu=GPUS[gpu], shared=shared, model={**shape, "quantization_config": stored})]
    assert bool(found) == bool(says), [one.value for one in found]
    if says:
        assert says in str(found[0].value)
        # Fewer GPUs are the cure where the shapes are what is wrong.
        assert ("--vllm.tensor-parallel" in found[0].cure) == (shared == 4)


def test_bits_that_nothing_here_writes_are_for_vllm_alone(tmp_path: Path) -> None:
    for bits, names in ((8, {"w8a16", "w8a16-gptq"}), (4, {"w4a16", "w4a16-gptq", "w4a16-awq"}), (3, set[str]())):
        config = {"quantization_config": packed(bits, strategy="channel")}
        formats = find_formats(read_storage(config), config)
        assert {one.name for one in formats if hasattr(one, "name")} == names
        assert all(one.embedded for one in formats) == bool(names)
    with pytest.raises(UserError, match="the notebook must know how to serve the weights"):
        list_needed(model_of(tmp_path, quantization_config=packed(3, strategy="channel")))
