"""One model sharded over the processes (FSDP2): each holds a part of every weight, and fetches a block to compute it.

Started by `accelerate launch` with `data/launch/fsdp.yaml`. The result is what one process would train: the same rows,
the same first weights, which each process draws from the same seed, and sums of gradients in fp32.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.errors import UserError
from mathlete.models import Device
from mathlete.tune.methods import METHODS

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, Trainer, TrainingArguments

_SHARD_FOLDER = "pytorch_model_fsdp_0"
"""Folder of a checkpoint whose weights were written by all processes (accelerate's `FSDP_MODEL_NAME`)."""


def is_sharded(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether each process holds a shard of the model's weights, as the launcher says."""
    return environment.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def require_shardable(method: str, environment: Mapping[str, str] = os.environ) -> None:
    """Check that a launcher that starts FSDP starts a version and a method that can be sharded.

    Raises:
        UserError: there is only one process, or FSDP's first version, whose flat weights mix 4-bit and trained ones,
            or virtual tokens, which peft 0.21 looks up outside of the model's own forward pass, or a teacher, with
            which it was not tried.
    """
    if not is_sharded(environment):
        return
    if not METHODS[method].shardable:
        kept = "a teacher" if METHODS[method].taught else "virtual tokens"
        cure = f'use --config_file "$(python -m train launch-config ddp)": {kept} and the base stay whole on each GPU'
        raise UserError(f"FSDP can't shard {kept} here", value=f"--method {method}", cure=cure)
    if int(environment.get("WORLD_SIZE", 1)) < 2:
        rule = "FSDP shards a model over several processes"
        raise UserError(
            rule,
            value="one process",
            cure="use `accelerate launch --num_processes 2` or more, or no launcher",
        )
    if environment.get("FSDP_VERSION") != "2":
        cure = 'use the configuration that ships: --config_file "$(python -m train launch-config fsdp)"'
        raise UserError("fsdp_version must be 2", value=environment.get("FSDP_VERSION"), cure=cure)


def require_same_sharding(checkpoint: Path) -> None:
    """Check that a run goes on with or without FSDP, as it began: neither reads the other's checkpoints.

    Raises:
        UserError: it does not.
    """
    written_sharded = (checkpoint / _SHARD_FOLDER).is_dir()
    if written_sharded != is_sharded():
        launcher = "fsdp.yaml" if written_sharded else "ddp.yaml or without a launcher, not with fsdp.yaml"
        raise UserError(
            "a run that was stopped goes on with or without FSDP, as it began",
            value=f"{checkpoint.name}, written {'with' if written_sharded else 'without'} FSDP",
            cure=f"launch it with {launcher}, or delete {checkpoint.parent}",
        )


def find_4bit_layers(model: "nn.Module") -> "Iterator[Any]":
    """Yield bitsandbytes' 4-bit linear layers, whose classes have no type hints."""
    return (module for module in model.modules() if type(module).__name__ == "Linear4bit")


def make_shardable(model: "PreTrainedModel") -> "PreTrainedModel":
    """Return the model with the bytes of its 4-bit weights viewed as numbers of the computing dtype, none changed.

    FSDP2 shards floating-point weights alone, for only such can have gradients, and it casts them to the dtype that is
    computed in: bytes are not sharded (accelerate 1.15), any other dtype would be garbled. The same as
    `bnb_4bit_quant_storage`, but also for models whose files are 4-bit.
    """
    dtype = Device.current().torch_dtype
    for layer in find_4bit_layers(model):
        layer.weight.data = layer.weight.data.view(-1).view(dtype).view(-1, 1)
        layer.weight.quant_storage = layer.quant_storage = dtype
    return model


def shard_on_cpus(arguments: "TrainingArguments") -> None:
    """Let accelerate 1.15 shard where there is no GPU: it silently takes DDP there, though torch can shard."""
    from accelerate import DistributedType

    state: Any = arguments.distributed_state
    if is_sharded() and state.distributed_type is DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU


def sum_in_fp32(trainer: "Trainer") -> None:
    """Make gradients add up in fp32 and leave the loss as it is; accelerate does both in 16 bits."""
    import torch
    from torch.distributed.fsdp import MixedPrecisionPolicy

    plugin: Any = trainer.accelerator.state.fsdp_plugin
    if plugin.mixed_precision_policy is not None:
        plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=plugin.mixed_precision_policy.param_dtype, reduce_dtype=torch.float32
        )


def gather_state(model: "nn.Module") -> "dict[str, torch.Tensor]":
    """Return the trained weights, gathered in the first process's memory; all must call it. Empty in the others."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    state: Any = get_model_state_dict(model, options=options)
    # Drop the second name of tied weights: gathered copies no longer share storage, which transformers would look for.
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)} - dict(model.named_parameters()).keys()
    return {name: weight for name, weight in state.items() if name not in tied}


def describe_shards(model: "nn.Module") -> str:
    """Say in a line how much of the model's weights this process holds."""
    from torch.distributed.tensor import DTensor

    weights = list(model.parameters())
    local = [weight.to_local() if isinstance(weight, DTensor) else weight for weight in weights]
    held, whole = (sum(weight.nbytes for weight in tensors) / 2**20 for tensors in (local, weights))
    return f"weights: {held:.2f} MiB of {whole:.2f} here"
