"""One model shared out between processes (FSDP2): each holds a share of every weight, and fetches a block to compute.

Started by `accelerate launch` with `data/launch/fsdp.yaml`. What is trained is what one process would train: the same
rows, the same first weights, which each process draws from the same seed, and sums of gradients in fp32.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.errors import UserError
from mathlete.models import compute_dtype

if TYPE_CHECKING:
    import torch

_SHARES = "pytorch_model_fsdp_0"
"""Folder of a checkpoint whose weights were written by all processes (accelerate's `FSDP_MODEL_NAME`)."""


def sharded(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether each process holds a share of the model's weights, as the launcher says."""
    return environment.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def require_shares(method: str, environment: Mapping[str, str] = os.environ) -> None:
    """Checks that a launcher that asks for shares asks for what can be shared.

    Raises:
        UserError: there is one process alone, or FSDP's first version, whose flat weights mix 4-bit and trained ones,
            or virtual tokens, which peft 0.21 looks up outside of the model's own forward pass.
    """
    if not sharded(environment):
        return
    if method in ("prefix", "prompt"):
        cure = 'use --config_file "$(python -m train launch-config ddp)"; virtual tokens need no more than a whole base'
        raise UserError("FSDP can't share virtual tokens", value=f"--method {method}", cure=cure)
    if int(environment.get("WORLD_SIZE", 1)) < 2:
        rule = "FSDP shares a model between processes"
        raise UserError(rule, value="one process", cure="use --num_processes 2 or more, or no launcher")
    if environment.get("FSDP_VERSION") != "2":
        cure = 'use the configuration that ships: --config_file "$(python -m train launch-config fsdp)"'
        raise UserError("fsdp_version must be 2", value=environment.get("FSDP_VERSION"), cure=cure)


def require_same_kind(checkpoint: Path) -> None:
    """Checks that a run goes on as it began: shares can't be read as a whole, nor a whole as shares.

    Raises:
        UserError: it does not.
    """
    shares = (checkpoint / _SHARES).is_dir()
    if shares != sharded():
        cure = f"launch it with {'' if shares else 'ddp.yaml or without, not '}fsdp.yaml, or delete {checkpoint.parent}"
        value = f"{checkpoint.name}, written {'with' if shares else 'without'} FSDP"
        raise UserError("a run that was stopped goes on with or without FSDP, as it began", value=value, cure=cure)


def shareable(model: Any) -> Any:
    """The model, the bytes of its 4-bit weights called numbers of the computing type, none of them changed.

    FSDP2 cuts floating-point weights alone, for only such can have gradients, and it casts them to the type that is
    computed in: bytes are kept whole everywhere (accelerate 1.15), any other type would be garbled. The same as
    `bnb_4bit_quant_storage`, but for models too that come in 4 bits.
    """
    dtype, _ = compute_dtype()
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            weight = module.weight
            weight.data = weight.data.view(-1).view(dtype).view(-1, 1)
            weight.quant_storage = module.quant_storage = dtype
    return model


def shard_on_cpus(arguments: Any) -> None:
    """Lets accelerate 1.15 share where there is no GPU: it takes DDP there, without a word, though torch can share."""
    from accelerate import DistributedType

    state = arguments.distributed_state
    if sharded() and state.distributed_type is DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU


def sum_in_fp32(trainer: Any) -> None:
    """Makes gradients add up in fp32 and leaves the loss as it is; accelerate does both in 16 bits."""
    import torch
    from torch.distributed.fsdp import MixedPrecisionPolicy

    plugin = trainer.accelerator.state.fsdp_plugin
    if plugin.mixed_precision_policy is not None:
        plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=plugin.mixed_precision_policy.param_dtype, reduce_dtype=torch.float32
        )


def whole(model: Any) -> "dict[str, torch.Tensor]":
    """What was trained, gathered in the first process's memory; all must call it. Empty in the others."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    found: Any = get_model_state_dict(model, options=options)
    # A weight in two places is one, and transformers can't see that of copies.
    again = {name for name, _ in model.named_parameters(remove_duplicate=False)} - dict(model.named_parameters()).keys()
    return {name: weight for name, weight in found.items() if name not in again}


def share_words(model: Any) -> str:
    """What of the model's weights this process holds, in a line."""
    from torch.distributed.tensor import DTensor

    weights = list(model.parameters())
    here = [weight.to_local() if isinstance(weight, DTensor) else weight for weight in weights]
    held, whole = (sum(weight.nbytes for weight in of) / 2**20 for of in (here, weights))
    return f"weights: {held:.2f} MiB of {whole:.2f} here"
