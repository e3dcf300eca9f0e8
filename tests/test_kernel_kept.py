"""What the ladder's steps keep of a build: what its weights need to load, and the room that a context needs."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mathlete.kaggle_image import vllm_facts
from mathlete.kernel import KernelConfig
from mathlete.kernel.steps import EngineStep, plan_steps
from mathlete.models import Device
from mathlete.sampling.served import VllmSettings
from mathlete.submission.vllm_fit import find_wrong_setting
from tests.test_kernel_steps import CAUSES, DENSE, KERNEL, LOW_RANK, NCCL, OTHER, OUT_OF_MEMORY, walk
from tests.test_submit_schemes import QWEN3
from tests.test_vllm_shapes import QWEN_32B

MAIN_MEMORY = "main memory: Cannot allocate memory"
BLOCKS = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
EXPERTS: dict[str, object] = {**QWEN3, "quantization_config": BLOCKS}
"""Qwen3-30B-A3B-FP8's: in four parts their columns are no whole blocks."""
WINDOWS: dict[str, object] = {
    **{"model_type": "gpt_oss", "num_hidden_layers": 36, "num_attention_heads": 64, "num_key_value_heads": 8},
    **{"head_dim": 64, "hidden_size": 2880, "intermediate_size": 2880, "num_local_experts": 128},
    **{"layer_types": ["sliding_attention", "full_attention"] * 18, "max_position_embeddings": 131072},
    "quantization_config": {"quant_method": "mxfp4"},
}
"""gpt-oss-120b's."""
BUILDS: list[Mapping[str, object]] = [
    *(EXPERTS, QWEN_32B, WINDOWS, QWEN3, DENSE, {**LOW_RANK, "model_type": "glm4_moe_lite"}),
    {**DENSE, "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}},
    {**DENSE, "quantization_config": {"quant_method": "bitsandbytes"}},
]
WORDS = [
    ("enable_expert_parallel", "true"),
    ("pipeline_parallel_size", "2"),
    ("pipeline_parallel_size", "4"),
    ("data_parallel_size", "2"),
    ("data_parallel_size", "4"),
    ("quantization", "fp8"),
    ("quantization", "bitsandbytes"),
    ("cpu_offload_gb", "8"),
    ("block_size", "64"),
    ("moe_backend", "triton"),
    ("max_num_batched_tokens", "512"),
    ("enable_chunked_prefill", "false"),
    ("speculative_config", '{"method": "ngram", "num_speculative_tokens": 4}'),
    ("disable_custom_all_reduce", "true"),
]


def plan(
    vllm: VllmSettings, *, gpus: int, model: Mapping[str, object], gib: float = 0.0, memory: float = 0.0
) -> list[EngineStep]:
    config = KernelConfig(engine="vllm", vllm=vllm, embedded=not memory)
    return plan_steps(config, gpus=gpus, model=model, weights=int(gib * 2**30), memory=int(memory * 2**30))


def tell_wrong(vllm: VllmSettings, *, gpu: str, gpus: int, model: Mapping[str, object]) -> str:
    wrong = find_wrong_setting(KernelConfig(vllm=vllm), gpu=Device.find(gpu)[0], gpus=gpus, model=model)
    return f"{wrong.rule}: {wrong.value}" if wrong else ""


def check_steps(vllm: VllmSettings, *, gpu: str, gpus: int, model: Mapping[str, object], causes: list[str]) -> None:
    for step in walk(plan(vllm, gpus=gpus, model=model), *causes):
        if step.engine == "vllm":
            assert not tell_wrong(step.vllm, gpu=gpu, gpus=gpus, model=model), step


@given(
    model=st.sampled_from(BUILDS),
    machine=st.sampled_from([("t4", 2), ("l4", 4), ("h100", 1)]),
    parallel=st.sampled_from([None, 1, 2, 4]),
    extra=st.lists(st.sampled_from(WORDS), max_size=3),
    causes=st.lists(st.sampled_from([*CAUSES, MAIN_MEMORY]), min_size=3, max_size=3),
)
def test_what_a_build_may_ask_for_each_of_its_steps_may_ask_for(
    model: Mapping[str, object], machine: tuple[str, int], parallel: int | None, extra: list[tuple[str, str]],
    causes: list[str],
) -> None:  # fmt: skip
    gpu, gpus = machine
    vllm = VllmSettings(tensor_parallel=parallel, extra=dict(extra))
    assume(not tell_wrong(vllm, gpu=gpu, gpus=gpus, model=model))
    check_steps(vllm, gpu=gpu, gpus=gpus, model=model, causes=causes)


SPREAD = [
    (EXPERTS, VllmSettings(extra={"enable_expert_parallel": "true"})),
    (EXPERTS, VllmSettings(tensor_parallel=2, extra={"pipeline_parallel_size": "2"})),
    (EXPERTS, VllmSettings(tensor_parallel=1, extra={"data_parallel_size": "4", "enable_expert_parallel": "true"})),
    (QWEN_32B, VllmSettings(tensor_parallel=1, extra={"pipeline_parallel_size": "4"})),
]


@pytest.mark.parametrize(("model", "vllm"), SPREAD, ids=range(len(SPREAD)))
def test_weights_stay_where_they_are_unless_the_gpus_do_not_join(
    model: Mapping[str, object], vllm: VllmSettings
) -> None:
    for pair in product([OUT_OF_MEMORY, KERNEL, NCCL, OTHER], repeat=2):
        check_steps(vllm, gpu="l4", gpus=4, model=model, causes=list(pair))
    for cause in (OUT_OF_MEMORY, KERNEL, OTHER):
        path = walk(plan(vllm, gpus=4, model=model, gib=15, memory=22.5), cause)
        assert path[1].name == "vllm with safer settings"
        assert (path[1].vllm.tensor_parallel, path[1].vllm.extra) == (vllm.tensor_parallel, vllm.extra)
    alone = walk(plan(vllm, gpus=4, model=model), NCCL, NCCL, NCCL)[-2]
    assert (alone.name, alone.vllm.tensor_parallel) == ("vllm on one GPU", 1)
    assert alone.vllm.extra.keys() <= {"enable_expert_parallel"}
    # A machine that lost GPUs has none for parts and replicas.
    fewer = walk(plan(vllm, gpus=1, model=model), OTHER)[1].vllm
    assert (fewer.tensor_parallel, fewer.count_stages(), fewer.count_replicas()) == (None, 1, 1) or not vllm.extra


def test_replicas_of_a_dense_model_are_for_speed() -> None:
    vllm = VllmSettings(tensor_parallel=1, extra={"data_parallel_size": "4", "stream_interval": "4"})
    assert walk(plan(vllm, gpus=4, model=DENSE), OTHER)[1].vllm.extra == {}


ROOMS = [
    # model, GiB of its weights, of a GPU and of the keys and values of 8448 tokens on it, GPUs, settings
    (WINDOWS, 61.0, 79.6, 0.6, 1, VllmSettings()),
    (EXPERTS, 61.0, 22.5, 0.19, 4, VllmSettings(extra={"enable_expert_parallel": "true"})),
    (EXPERTS, 30.0, 22.5, 0.38, 4, VllmSettings(tensor_parallel=2)),
    (QWEN_32B, 34.0, 44.0, 2.06, 1, VllmSettings()),
    (QWEN_32B, 34.0, 44.0, 2.06, 1, VllmSettings(kv_gib=3.0)),
]


@pytest.mark.parametrize(("model", "gib", "memory", "context", "gpus", "vllm"), ROOMS, ids=range(len(ROOMS)))
@pytest.mark.parametrize("cause", [OUT_OF_MEMORY, KERNEL, OTHER])
def test_a_step_with_less_memory_leaves_a_context_room(
    model: Mapping[str, object], gib: float, memory: float, context: float, gpus: int, vllm: VllmSettings, cause: str
) -> None:
    path = walk(plan(vllm, gpus=gpus, model=model, gib=gib, memory=memory), cause, OUT_OF_MEMORY)
    assert [step.name.removeprefix("vllm with ") for step in path[1:]] == ["safer settings", "half the context"]
    sizes = []
    for step in path:
        own = gib / step.vllm.choose_parallel(gpus=gpus, heads=None)
        left = step.vllm.gpu_memory_utilization * memory - own - 1.75
        said = step.vllm.kv_gib
        assert (left if said is None else said) >= context * (step.vllm.max_model_len or 8448) / 8448 - 1e-3
        sizes.append(step.vllm.gpu_memory_utilization if said is None else said)
    assert sizes == sorted({*sizes}, reverse=True)


def test_more_weights_on_a_gpu_than_before_need_room_for_a_context_too() -> None:
    model, vllm = {**DENSE, "dtype": "bfloat16"}, VllmSettings(eager=True)
    for gib, name in ((15.0, "vllm on one GPU"), (17.0, "vllm again")):
        assert walk(plan(vllm, gpus=4, model=model, gib=gib, memory=22.5), NCCL, NCCL)[2].name == name


def test_what_steps_keep_may_be_asked_for() -> None:
    offered = vllm_facts().offered
    kept = replace(VllmSettings(), extra=dict.fromkeys(offered, "1"))
    (safer,) = (step for step in walk(plan(kept, gpus=1, model=EXPERTS), OTHER) if step.name.endswith("safer settings"))
    assert safer.vllm.extra.keys() == {
        *("quantization", "cpu_offload_gb", "pipeline_parallel_size", "data_parallel_size"),
        *("enable_expert_parallel", "load_format", "mamba_ssm_cache_dtype", "disable_custom_all_reduce"),
    }
