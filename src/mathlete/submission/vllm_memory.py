"""Whether a model has room on the GPUs of a machine in vLLM: weights, what computing takes, and a whole context."""

from collections.abc import Mapping

from mathlete.errors import UserError
from mathlete.kernel import KernelConfig
from mathlete.models import Device
from mathlete.sampling.served import VllmShape
from mathlete.submission.vllm_attention import choose_cache_type

_COMPUTING = 2**30
"""Bytes of activations and CUDA graphs on each GPU, of a small model: large ones take 1 to 3 GiB for the graphs alone
(the message of vLLM 0.6 before it captured them, worker/model_runner.py)."""


def find_crowding(
    config: KernelConfig, *, gpu: Device, shared: int, weights: int, model: Mapping[str, object]
) -> UserError | None:
    """Return why not even one sample of the whole context has room beside the weights; None where it may have.

    Args:
        config: how the notebook answers.
        gpu: what the model is on.
        shared: how many GPUs share it.
        weights: their bytes; those of a draft, which are on Kaggle only, are not known here.
        model: the model's config.json. Nothing is said of layers that keep other than all keys and values.
    """
    vllm, shape, stages = config.vllm, VllmShape.of(model), config.vllm.count_stages()
    computing = gpu.context_bytes + _COMPUTING
    own = max(0.0, weights / shared - vllm.read_offloaded())
    # `determine_available_memory` of v1/worker/gpu_worker.py: the share is of all memory, a size is taken as it is.
    total = gpu.memory if vllm.kv_gib is not None else vllm.gpu_memory_utilization * gpu.memory
    free = total - own - computing
    if vllm.kv_gib is not None and vllm.kv_gib * 2**30 > free:
        value = f"{vllm.kv_gib:g}, beside {own / 2**30:.1f} GiB of weights and {computing / 2**30:.1f} for computing"
        most = f"{free / 2**30 - 0.05:.1f} at most, or " if free > 2**30 else ""
        rule = f"--vllm.kv-gib must fit into a GPU of {gpu.memory_gib:.1f} GiB with the weights"
        return UserError(rule, value=value, cure=f"{most}leave it out for what they leave")
    left = free if vllm.kv_gib is None else vllm.kv_gib * 2**30
    fp8 = choose_cache_type(vllm, model=model).startswith("fp8")
    token = shape.count_token_bytes(shared=shared // stages, number=1 if fp8 else 2)
    tokens = vllm.choose_context(context=shape.longest or 2**31, max_tokens=config.policy.longest_tokens)
    needed = tokens * token / stages if token and tokens else 0.0
    if needed <= left:
        return None
    most_tokens = max(0, int(left * stages // token)) if token else 0
    value = f"{tokens or 0:,} tokens, {needed / 2**30:.1f} GiB, where {max(0.0, left) / 2**30:.1f} are left"
    return UserError(
        "the keys and values of a whole context must fit beside the weights in vLLM",
        value=value,
        cure=f"build with --sampling.max-tokens {most_tokens // 2} --vllm.max-model-len {most_tokens}, with more GPUs "
        "or fewer bits"
        if most_tokens > 2
        else "export with fewer bits, take a smaller model, or leave --vllm.kv-gib out",
    )
