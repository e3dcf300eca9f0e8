"""Whether vLLM takes its settings on a machine of Kaggle's, and the model with them, before anything is pushed.

What is refused here would end every step of vLLM's on Kaggle, or its first one. The facts are those of data/vllm.json.
"""

import math
from collections.abc import Iterator, Mapping

from mathlete.errors import UserError, nearest
from mathlete.kaggle_image import vllm_facts
from mathlete.kernel import KernelConfig
from mathlete.models import Device, Shape
from mathlete.sampling.served import VllmSettings, VllmShape
from mathlete.submission.vllm_attention import find_wrong_attention
from mathlete.submission.vllm_extra import find_wrong_extra
from mathlete.submission.vllm_schemes import WeightRoom, find_wrong_scheme

QUESTION_TOKENS = 2048
"""Tokens beside a whole completion in which any competition's question fits, with its template."""
_MARLIN_GROUPS = (-1, 32, 64, 128)
"""Weights with a scale in common, of which its kernels have one (marlin_utils.py); -1: a whole column."""
_ONLINE = ("fp8", "mxfp8", "bitsandbytes")
"""Ways to hold weights that need no files made for them (0.19.1, `get_quant_config` of weight_utils.py)."""
_CONTEXT_GIB = 0.3
"""Of a GPU for CUDA's context when vLLM asks what is free, before it loads anything. On cards of an L4's size it
was 0.19 ("Free memory on device (21.84/22.03 GiB) on startup", in public logs of vLLM's)."""
_LEAVE_OUT = "leave it out"


def find_wrong_setting(
    config: KernelConfig,
    *,
    gpu: Device,
    gpus: int,
    model: Mapping[str, object],
    room: WeightRoom | None = None,
) -> UserError | None:
    """Return what is wrong with vLLM's settings for a machine and a model; None where nothing is.

    Args:
        config: how the notebook answers.
        gpu: the machine's kind.
        gpus: how many it has.
        model: the model's config.json.
        room: what of the machine has room for the weights; None: everything has.
    """
    shares = VllmShape.of(model).shares
    checks = (
        find_wrong_extra(config, model=model),
        _check_quantization(config.vllm, gpu=gpu, model=model),
        _check_shares(config.vllm, gpus=gpus, heads=shares),
        _check_memory(config.vllm, gpu=gpu),
        find_wrong_scheme(
            gpu=gpu,
            shared=config.vllm.choose_parallel(gpus=gpus, heads=shares),
            model=model,
            replicas=config.vllm.count_replicas(),
            whole_experts=config.vllm.read_extra().get("enable_expert_parallel") is True,
            room=room,
        ),
        find_wrong_attention(config.vllm, gpu=gpu, model=model),
        _check_type(gpu, model=model),
        _check_context(config, model=model),
    )
    return next((wrong for check in checks for wrong in check), None)


def _check_quantization(vllm: VllmSettings, *, gpu: Device, model: Mapping[str, object]) -> Iterator[UserError]:
    facts, word = vllm_facts(), vllm.read_extra().get("quantization")
    if word is None:
        return
    how, stored = str(word), Shape.read_quantization(model) or {}
    if (least := facts.quantizations.get(how, math.inf)) > (gpu.capability or 0):
        known = [name for name, needed in facts.quantizations.items() if needed <= (gpu.capability or 0)]
        needs = f"which needs {least:g}" if least < math.inf else "which it does not know"
        rule = f"vLLM {facts.version} must have kernels for --vllm.extra quantization on {gpu.capability:g}"
        yield UserError(rule, value=f"{how}, {needs}", cure=f"{nearest(how, known)}; or {_LEAVE_OUT}")
    method = str(stored.get("quant_method", ""))
    # Dense weights are made smaller as they are loaded.
    if how not in (_ONLINE if not method else (method, *_list_converted(stored))):
        rule = "--vllm.extra quantization must be how the weights are stored, or make them smaller as they are loaded"
        value = f"{how} for {method or 'dense'} weights"
        yield UserError(
            rule, value=value, cure=f"{_LEAVE_OUT}: it is read from config.json; dense: {', '.join(_ONLINE)}"
        )


def _list_converted(stored: Mapping[str, object]) -> Iterator[str]:
    """Yield other kernels that 0.19.1 takes for weights as they are stored (`is_…_compatible` of its classes)."""
    method, bits, symmetric = stored.get("quant_method"), stored.get("bits"), stored.get("sym")
    grouped = stored.get("group_size") in _MARLIN_GROUPS
    if method == "awq" and bits == 4:
        yield "moe_wna16"
        if grouped and isinstance(stored.get("zero_point"), bool):
            yield "awq_marlin"
    if method == "gptq" and bits in (4, 8):
        if not stored.get("desc_act"):
            yield "moe_wna16"
        if grouped and symmetric is True and "desc_act" in stored:
            yield "gptq_marlin"


def _check_shares(vllm: VllmSettings, *, gpus: int, heads: int | None) -> Iterator[UserError]:
    shared = vllm.choose_parallel(gpus=gpus, heads=heads)
    if shared > gpus:
        rule = "--vllm.tensor-parallel must not be more than the machine's GPUs"
        yield UserError(rule, value=f"{shared} of {gpus}", cure="leave it out for all of them")
    if heads is not None and heads % shared:
        rule = (
            "--vllm.tensor-parallel must divide the model's attention heads and layers, and be 1 for weights of "
            "bitsandbytes"
        )
        yield UserError(rule, value=f"{shared} for {heads}", cure=_LEAVE_OUT)
    stages, replicas = vllm.count_stages(), vllm.count_replicas()
    if stages * replicas > 1 and stages * replicas * shared > gpus:
        rule = "--vllm.extra must ask for the machine's GPUs, or for fewer"
        value = f"pipeline_parallel_size {stages} and data_parallel_size {replicas}, each with {shared}, of {gpus}"
        yield UserError(rule, value=value, cure=f"{_LEAVE_OUT}, or give a smaller --vllm.tensor-parallel")


def _check_memory(vllm: VllmSettings, *, gpu: Device) -> Iterator[UserError]:
    """Yield why vLLM would not find as much memory free as it is told to take (`request_memory` of worker/utils.py)."""
    if vllm.gpu_memory_utilization > (most := 1 - _CONTEXT_GIB / gpu.memory_gib):
        rule = f"--vllm.gpu-memory-utilization must leave CUDA its own {_CONTEXT_GIB:g} GiB of each GPU"
        value = f"{vllm.gpu_memory_utilization:g} of {gpu.memory_gib:.1f} GiB"
        yield UserError(rule, value=value, cure=f"give {math.floor(100 * most) / 100:g} at most")


def _check_type(gpu: Device, *, model: Mapping[str, object]) -> Iterator[UserError]:
    text = model.get("text_config")
    kinds = [one.get("model_type") for one in (model, text) if isinstance(one, Mapping)]
    if gpu.dtype == "float16" and (kind := next((one for one in kinds if one in vllm_facts().no_float16), None)):
        rule = f"vLLM {vllm_facts().version} must serve the kind of model in float16, which {gpu.name} has alone"
        yield UserError(rule, value=str(kind), cure="choose a machine of compute capability 8 or later")


def _check_context(config: KernelConfig, *, model: Mapping[str, object]) -> Iterator[UserError]:
    asked, room, longest = config.vllm.max_model_len, config.policy.longest_tokens, VllmShape.of(model).longest
    if asked is None:
        return
    # How much the prompt takes is held where the tokenizer is read, `check_serving`; of a model that attends to less,
    # its whole context is.
    if asked < min(longest or 2**31, room + 1):
        rule, value = (
            "--vllm.max-model-len must hold a whole completion and a question",
            f"{asked} for completions of {config.policy.longest_words}",
        )
        cure = f"{_LEAVE_OUT}, give {min(longest or 2**31, room + QUESTION_TOKENS)}, or a smaller --sampling.max-tokens"
        yield UserError(rule, value=value, cure=cure)
    if longest is not None and asked > longest:
        rule = "--vllm.max-model-len must be within the model's context"
        yield UserError(rule, value=f"{asked} of {longest}", cure=_LEAVE_OUT)
