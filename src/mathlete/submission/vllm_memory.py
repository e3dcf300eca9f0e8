"""Whether a model has room on the GPUs of a machine in vLLM: weights, what computing takes, and a whole context."""

from collections.abc import Mapping
from dataclasses import replace

from mathlete.errors import UserError
from mathlete.kernel import KernelConfig
from mathlete.models import Device
from mathlete.sampling.served import PROMPT_ROOM, VllmShape
from mathlete.submission.vllm_attention import choose_cache_type, find_wrong_attention
from mathlete.submission.vllm_fit import QUESTION_TOKENS
from mathlete.submission.weights import FEWER_BITS

_COMPUTING = 2**30
"""Bytes of activations and CUDA graphs on each GPU, of a small model: large ones take 1 to 3 GiB for the graphs alone
(the message of vLLM 0.6 before it captured them, worker/model_runner.py)."""


_MAIN_GIB = {"NvidiaTeslaT4": 31, "NvidiaL4": 192, "NvidiaH100": 234}
"""{machine: GiB of its main memory, at most}: seen on Kaggle, and of Google's only types with four L4 and with one H100
(cloud.google.com/compute/docs/gpus: g2-standard-48, a3-highgpu-1g)."""
_ROOM_STEP = 1024
"""Tokens by which a context gets shorter until it has room."""
_MAIN_KEPT_GIB = 6
"""Of it for the notebook, vLLM's own processes and the system."""


def find_wrong_offload(
    config: KernelConfig, *, machine: str, shared: int, weights: int, model: Mapping[str, object]
) -> UserError | None:
    """Return why a machine's main memory cannot hold the weights that are left there; None where it may.

    Args:
        config: how the notebook answers.
        machine: Kaggle's machine shape; nothing is said of one whose memory is not known here.
        shared: how many GPUs share the model.
        weights: the bytes of the model's weights.
        model: the model's config.json.
    """
    # No GPU leaves more there than it would hold.
    most = VllmShape.count_held(weights, model=model, vllm=config.vllm) / shared
    gpus, main = shared * config.vllm.count_replicas(), _MAIN_GIB.get(machine)
    offloaded = min(config.vllm.read_offloaded(), most) * gpus / 2**30
    if main is not None and offloaded > main - _MAIN_KEPT_GIB:
        rule = f"--vllm.extra cpu_offload_gb must fit into the {main} GiB of the machine's main memory"
        cure = f"give {(main - _MAIN_KEPT_GIB) / gpus:g} at most"
        return UserError(rule, value=f"{offloaded:g} GiB of {gpus} GPUs", cure=cure)
    return None


def find_crowding(
    config: KernelConfig, *, gpu: Device, shared: int, weights: int, model: Mapping[str, object]
) -> UserError | None:
    """Return why not even one sample of the whole context has room beside the weights; None where it may have.

    Args:
        config: how the notebook answers.
        gpu: what the model is on.
        shared: how many GPUs share it.
        weights: their bytes as they are stored.
        model: the model's config.json. Nothing is said of layers that keep other than all keys and values.
    """
    vllm, shape, stages = config.vllm, VllmShape.of(model), config.vllm.count_stages()
    computing = gpu.context_bytes + _COMPUTING
    own = max(0.0, VllmShape.count_held(weights, model=model, vllm=vllm) / shared - vllm.read_offloaded())
    # `determine_available_memory` of v1/worker/gpu_worker.py: the share is of all memory, a size is taken as it is.
    total = gpu.memory if vllm.kv_gib is not None else vllm.gpu_memory_utilization * gpu.memory
    free = total - own - computing
    if vllm.kv_gib is not None and vllm.kv_gib * 2**30 > free:
        value = f"{vllm.kv_gib:g}, beside {own / 2**30:.1f} GiB of weights and {computing / 2**30:.1f} for computing"
        most = f"{free / 2**30 - 0.05:.1f} at most, or " if free > 2**30 else ""
        rule = f"--vllm.kv-gib must fit into a GPU of {gpu.memory_gib:.1f} GiB with the weights"
        return UserError(rule, value=value, cure=f"{most}leave it out for what they leave")
    if free <= 0:
        of = "one GPU" if shared == 1 else f"{shared} GPUs"
        return UserError(
            f"the weights must leave memory for keys and values on {of} of {gpu.memory_gib:.1f} GiB",
            value=f"{own * shared / 2**30:.1f} GiB",
            cure=f"{FEWER_BITS}: of each GPU vLLM has {total / 2**30:.1f} GiB, "
            f"{computing / 2**30:.1f} of them for computing",
        )
    left = free if vllm.kv_gib is None else vllm.kv_gib * 2**30
    fp8 = choose_cache_type(vllm, model=model).startswith("fp8")
    number, block = 1 if fp8 else 2, vllm.read_block()
    token = shape.count_token_bytes(shared=shared // stages, number=number)
    tokens = vllm.choose_context(context=shape.longest or 2**31, max_tokens=config.policy.longest_tokens)
    needed = shape.count_context_bytes(tokens or 0, vllm=vllm, shared=shared, number=number) or 0.0
    if needed <= left:
        return None
    most_tokens = max(0, int(left * stages // token) // block * block) if token else 0
    value = f"{tokens or 0:,} tokens, {needed / 2**30:.1f} GiB, where {left / 2**30:.1f} are left"
    return UserError(
        "the keys and values of a whole context must fit beside the weights in vLLM",
        value=value,
        cure=_tell_shorter(config, most_tokens, gpu=gpu, model=model, fits=needed <= 2 * left and not fp8),
    )


def _tell_shorter(
    config: KernelConfig, most_tokens: int, *, gpu: Device, model: Mapping[str, object], fits: bool
) -> str:
    """Return the cure where a context has no room; `fits`: it would have room in a cache of 8 bits."""
    policy = config.policy
    # What closes a forced answer is said beside the cap.
    closing = policy.longest_tokens - policy.sampling.max_tokens
    if (cap := most_tokens - QUESTION_TOKENS - closing) <= 0:
        given = ", or leave --vllm.kv-gib out" if config.vllm.kv_gib is not None else ""
        return f"{FEWER_BITS}{given}"
    smaller = replace(config.vllm, kv_dtype="fp8")
    served = fits and not [*find_wrong_attention(smaller, gpu=gpu, model=model)]
    shorter = "" if cap >= policy.sampling.max_tokens else f"--sampling.max-tokens {cap} "
    return (
        f"build with {shorter}--vllm.max-model-len {most_tokens}, {'with --vllm.kv-dtype fp8, ' * served}"
        "with more GPUs or fewer bits"
    )


def shorten_context(
    config: KernelConfig, *, gpu: Device, shared: int, weights: int, model: Mapping[str, object]
) -> KernelConfig:
    """Return settings whose context is as long as has room; the same where the usual one has, or the user named one.

    A whole completion and a question of `QUESTION_TOKENS` have room in it; the parameters are those of `find_crowding`.
    """

    def is_crowded(config: KernelConfig) -> bool:
        return find_crowding(config, gpu=gpu, shared=shared, weights=weights, model=model) is not None

    if config.vllm.max_model_len is not None or not is_crowded(config):
        return config
    longest, asked = VllmShape.of(model).longest or 2**31, config.policy.longest_tokens
    lengths = [min(longest, asked + room) for room in range(PROMPT_ROOM, QUESTION_TOKENS - 1, -_ROOM_STEP)]
    shorter = (replace(config, vllm=replace(config.vllm, max_model_len=length)) for length in lengths)
    return next((one for one in shorter if not is_crowded(one)), config)
