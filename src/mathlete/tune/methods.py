"""The one table of training methods: what is trained, from what it learns, its peft configuration, its memory.

Most methods differ from `lora` in a few fields only; a new one is one more entry of `METHODS`.

>>> METHODS["full"].quantized, METHODS["prefix"].mergeable, METHODS["dora"].rate_factor
(False, False, 1.0)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from mathlete.models import Shape
from mathlete.tune.objectives import (
    Objective,
    learn_from_rewards,
    learn_from_teacher,
    learn_preferences,
    learn_rows,
)
from mathlete.tune.optimizers import Trained
from mathlete.tune.settings import Lora
from mathlete.tune.trained import (
    find_adapted_layers,
    find_layer,
    find_scaled_layers,
    list_all_tensors,
    list_dora_tensors,
    list_ia3_tensors,
    list_lora_tensors,
    list_prefix_tensors,
    list_prompt_tensors,
)

if TYPE_CHECKING:
    from peft import PeftConfig


def make_lora_config(lora: Lora, _: Shape, *, rslora: bool = False, dora: bool = False) -> "PeftConfig":
    """Return peft's configuration of low-rank updates."""
    import peft

    return peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        bias=lora.bias,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
        use_rslora=rslora,
        use_dora=dora,
        init_lora_weights=True if lora.init == "default" else lora.init,
        # rho 1: the same rank everywhere, as the settings and the memory plan say.
        eva_config=peft.EvaConfig(rho=1.0) if lora.init == "eva" else None,
    )


def _make_ia3_config(_: Lora, shape: Shape) -> "PeftConfig":
    import peft

    # Keys, values and the inner activations of the feed-forward layers (arXiv 2205.05638, section 3.3).
    scaled, last = find_scaled_layers(shape)
    return peft.IA3Config(task_type="CAUSAL_LM", target_modules=[*scaled, last], feedforward_modules=[last])


def _make_prefix_config(lora: Lora, _: Shape) -> "PeftConfig":
    import peft

    return peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=lora.virtual_tokens)


def _make_prompt_config(lora: Lora, _: Shape) -> "PeftConfig":
    import peft

    # Vectors of the vocabulary are a better start than random ones (arXiv 2104.08691, section 3.2).
    return peft.PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=lora.virtual_tokens, prompt_tuning_init="SAMPLE_VOCAB"
    )


def count_lora_bytes(shape: Shape, lora: Lora, width: int) -> int:
    """Return the bytes a token of the adapters' inputs in one block, and of what comes out of their first matrix."""
    adapted = find_adapted_layers(shape, lora)
    inner = width * lora.rank * len(adapted)
    if lora.dropout:
        # Each keeps its own dropped input and the mask, a byte.
        return inner + (width + 1) * sum(inputs for inputs, _ in adapted.values())
    # Shared: q, k, v read one tensor, gate and up another; o reads what attention keeps already.
    roles = (("o_proj",), ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("down_proj",))
    readers = [adapted.keys() & {find_layer(shape, name) for name in names} for names in roles]
    readers += [{name} for name in adapted if not any(name in known for known in readers)]
    return inner + width * sum(adapted[min(names)][0] for names in readers[1:] if names)


def _count_dora_bytes(shape: Shape, lora: Lora, width: int) -> int:
    # The outputs of both the layer and its adapter are scaled, in fp32.
    outputs = sum(outputs for _, outputs in find_adapted_layers(shape, lora).values())
    return count_lora_bytes(shape, lora, width) + 4 * 2 * outputs


def _count_ia3_bytes(shape: Shape, _lora: Lora, _width: int) -> int:
    # What is scaled, in fp32: keys, values, and what goes into the last feed-forward layer.
    scaled, last = find_scaled_layers(shape)
    return 4 * (sum(shape.linears[name][1] for name in scaled) + shape.linears[last][0])


def _count_full_bytes(shape: Shape, _: Lora, width: int) -> int:
    # Each layer's input, and what each norm scales.
    return width * (2 * shape.hidden + shape.intermediate) + width * 2 * shape.hidden


def _count_no_bytes(_shape: Shape, _lora: Lora, _width: int) -> int:
    return 0


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way of training; the defaults are those of LoRA on rows of traces."""

    rate_factor: float = 1.0
    """Learning rate in terms of the preset's, which is LoRA's. Full tuning's best is a tenth of that ("LoRA Without
    Regret"). The others are starting points, not searched for: few trained numbers take larger steps, preferences and
    rewards smaller ones."""
    objective: Objective = learn_rows
    """Makes the trainer."""
    configure: "Callable[[Lora, Shape], PeftConfig | None]" = make_lora_config
    """Makes peft's configuration for a base; None where every weight is trained."""
    quantized: bool = True
    """Whether the base is held in 4 bits."""
    mergeable: bool = True
    """Whether what is trained can become part of the weights."""
    takes_init: bool = True
    """Whether `--lora.init` applies."""
    takes_bias: bool = True
    """Whether `--lora.bias` does."""
    packable: bool = True
    """Whether rows can be packed."""
    shardable: bool = True
    """Whether FSDP can shard it."""
    recomputable: bool = True
    """Whether activations can be computed twice."""
    wants_wrong_traces: bool = False
    """Whether it also reads the traces that the format step dropped as wrong."""
    grouped: bool = False
    """Whether a batch holds groups of `--grpo.generations` samples."""
    taught: bool = False
    """Whether it learns from another model, `--distill.teacher`."""
    group: str | None = None
    """Its own group of settings in a `Recipe`, which are nothing to other methods."""

    tensors: Callable[[Shape, Lora], Sequence[Trained]] = list_lora_tensors
    """What gets a gradient."""
    kept_bytes: Callable[[Shape, Lora, int], int] = count_lora_bytes
    """Bytes a token, for numbers of so many bytes, that one block keeps for the backward pass of what is trained."""
    sequences: int = 1
    """Sequences that a row becomes in a batch."""
    prompt_tokens: Callable[[Lora], int] = lambda _: 0
    """Tokens that each sequence gets in addition."""
    masked: bool = False
    """Whether attention gets a mask even for a batch of one row."""
    gate_width: int | None = None
    """Bytes of a number within the feed-forward layers; None: those of an activation."""


METHODS: dict[str, Method] = {
    "lora": Method(),
    "rslora": Method(configure=partial(make_lora_config, rslora=True)),
    "dora": Method(
        configure=partial(make_lora_config, dora=True),
        tensors=list_dora_tensors,
        kept_bytes=_count_dora_bytes,
    ),
    "full": Method(
        rate_factor=0.1,
        configure=lambda _, _shape: None,
        quantized=False,
        takes_init=False,
        tensors=list_all_tensors,
        takes_bias=False,
        kept_bytes=_count_full_bytes,
    ),
    "prefix": Method(
        rate_factor=5.0,
        configure=_make_prefix_config,
        mergeable=False,  # virtual tokens before the prompt: no weight of the model holds them
        takes_init=False,
        packable=False,
        shardable=False,
        recomputable=False,  # the prefix is the KV cache that the second forward pass would need
        tensors=list_prefix_tensors,
        takes_bias=False,
        kept_bytes=_count_no_bytes,
        masked=True,
    ),
    "prompt": Method(
        rate_factor=10.0,
        configure=_make_prompt_config,
        mergeable=False,
        takes_init=False,
        packable=False,
        shardable=False,
        tensors=list_prompt_tensors,
        takes_bias=False,
        kept_bytes=_count_no_bytes,
        prompt_tokens=lambda lora: lora.virtual_tokens,
    ),
    "ia3": Method(
        rate_factor=5.0,
        configure=_make_ia3_config,
        takes_init=False,
        tensors=list_ia3_tensors,
        takes_bias=False,
        kept_bytes=_count_ia3_bytes,
        gate_width=4,  # its scales are fp32, and so is all that they scale
    ),
    "dpo": Method(
        rate_factor=0.05,
        objective=learn_preferences,
        packable=False,
        takes_bias=False,  # its reference is the base without adapter, whose biases would be trained ones
        wants_wrong_traces=True,
        sequences=2,
        masked=True,
        group="dpo",
    ),
    "grpo": Method(
        rate_factor=0.25,
        objective=learn_from_rewards,
        packable=False,
        takes_bias=False,  # as for dpo, with --grpo.beta
        grouped=True,
        group="grpo",
    ),
    "distill": Method(
        objective=learn_from_teacher,
        packable=False,
        shardable=False,  # TRL would shard the teacher too: not tried
        taught=True,
        group="distill",
    ),
}
"""peft's own names for what is trained on traces; full: every weight; dpo, grpo and distill train a LoRA adapter."""

if TYPE_CHECKING:
    MethodName = str
else:
    # The command line's choices are the table's.
    MethodName = Literal[*METHODS]
