"""The memory plan: what training will need at its peak, part by part, before anything is loaded.

Counted from the shape of the model, not measured. Weights, adapter, gradients and optimizer are exact to the byte but
for the allocator's rounding. Activations are the tensors that autograd keeps for the backward pass of a Qwen2 or Llama
block as transformers, peft and bitsandbytes write it (a frozen 4-bit layer keeps nothing, its adapter keeps its input):
tests count the saved tensors of real models against this. Not covered: fragmentation, and whatever else is on the GPU.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mathlete.errors import UserError
from mathlete.models import BF16_CAPABILITY, dtype_for
from mathlete.models.shapes import Shape
from mathlete.tune.devices import Device, gib
from mathlete.tune.recipe import Recipe
from mathlete.tune.settings import Lora, Tune

if TYPE_CHECKING:
    from rich.table import Table

_TILE_TOKENS, _TILE_WORDS = 4096, 32768
"""The loss is computed in tiles of so many tokens and vocabulary entries (TRL 1.16, `kernels/chunked_logprob.py`)."""
_CONTEXT_BYTES = 768 * 2**20
"""CUDA's own share of a GPU, not in torch's counts: 0.75 GiB on an H200 with bitsandbytes and Triton loaded."""
_IN_FLIGHT = 5
"""Tensors that TRL has on the GPU while it moves activations away (`max_fwd_stash_size`)."""
_QUIET_SHARE = 0.95
"""Share of a device's memory a plan may fill: the allocator's gaps need the rest."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one training step needs at its peak."""

    shape: Shape
    device: Device
    recipe: Recipe
    longest: int
    """Tokens of the longest row."""
    checkpointing: bool
    """Whether a block's activations are computed again in the backward pass instead of kept."""

    @property
    def lora(self) -> Lora:
        """The adapter's settings."""
        return self.recipe.lora

    @property
    def tune(self) -> Tune:
        """The training's settings."""
        return self.recipe.tune

    @property
    def recomputable(self) -> bool:
        """Whether activations can be computed twice: a prefix is the cache that they would need."""
        return self.recipe.method != "prefix"

    def with_tune(self, **changed: Any) -> "Plan":
        """The plan with other settings of the training."""
        return replace(self, recipe=replace(self.recipe, tune=replace(self.tune, **changed)))

    @property
    def tokens(self) -> int:
        """Tokens of the largest batch in each process; of a pair both traces."""
        rows = math.ceil(self.tune.batch / self.device.processes) * (2 if self.recipe.method == "dpo" else 1)
        return rows * (self.tune.pack or self._row)

    @property
    def _row(self) -> int:
        return self.longest + (self.lora.virtual_tokens if self.recipe.method == "prompt" else 0)

    @cached_property
    def parts(self) -> dict[str, int]:
        """{part: bytes} at the peak, where the backward pass begins or, if that needs more, within its first block.

        `backward` is what the latter needs beyond the buffers of the loss, which are gone by then. Of shared weights
        (FSDP) `gathered` is what each process has whole while it computes.
        """
        shares, quantized = self.device.shares, self.recipe.quantized
        adapter = math.ceil(4 * self.trained_parameters / shares)
        base = nf4_bytes(self.shape) if quantized else 0
        dense = self.device.width * self.shape.dense_parameters if quantized else 0
        gpu = self.device.capability is not None
        return {
            "base_4bit": math.ceil(base / shares),
            "base_dense": math.ceil(dense / shares),
            "adapter": adapter,
            "gradients": adapter,
            "optimizer": 2 * adapter,
            **({"gathered": self._gathered(base=base, dense=dense)} if shares > 1 else {}),
            "activations": self._kept,
            "logits": self._logits,
            "backward": max(0, self._backward - self._logits),
            "cuda_context": _CONTEXT_BYTES if gpu else 0,
        }

    def _gathered(self, *, base: int, dense: int) -> int:
        """A block at work, the next one on its way, and all that is outside of blocks; or the model as it is read."""
        trained = 4 * self.trained_parameters
        at_work = 2 * (base + trained) // self.shape.layers + dense
        read = (base + dense + trained) * (self.device.shares - 1) // self.device.shares
        return max(at_work, read - self._kept - self._logits)

    @property
    def peak(self) -> int:
        """Bytes in all."""
        return sum(self.parts.values())

    @property
    def allocated(self) -> int:
        """Bytes of the peak that torch itself counts (`torch.cuda.max_memory_allocated`)."""
        return self.peak - self.parts["cuda_context"]

    @property
    def fits(self) -> bool:
        """Whether the device has room for it."""
        return self.peak <= _QUIET_SHARE * self.device.memory

    @cached_property
    def _adapted(self) -> dict[str, tuple[int, int]]:
        linears = self.shape.linears
        return linears if "all-linear" in self.lora.targets else {name: linears[name] for name in self.lora.targets}

    @property
    def trained_parameters(self) -> int:
        """Parameters that get a gradient."""
        shape, method = self.shape, self.recipe.method
        keys = shape.kv_heads * shape.head_width
        if method == "full":
            return shape.parameters
        if method == "prompt":
            return self.lora.virtual_tokens * shape.hidden
        if method == "prefix":
            return shape.layers * 2 * keys * self.lora.virtual_tokens
        if method == "ia3":
            return shape.layers * (2 * keys + shape.intermediate)
        magnitudes = sum(outputs for _, outputs in self._adapted.values()) if method == "dora" else 0
        return shape.layers * (self.lora.rank * sum(map(sum, self._adapted.values())) + magnitudes)

    @property
    def _kept(self) -> int:
        """Bytes that the forward pass leaves for the backward pass."""
        width, hidden, layers = self.device.width, self.shape.hidden, self.shape.layers
        # What the last norm and the loss keep.
        end = self.tokens * (4 + width) * hidden
        if self.checkpointing:
            # Moved to the machine's memory, only the last few are still here (TRL 1.16, `OffloadActivations`).
            blocks = min(layers, _IN_FLIGHT) if self.tune.checkpointing == "offload" else layers
            return blocks * self.tokens * width * hidden + end
        return layers * self._block + end

    @property
    def _block(self) -> int:
        """Bytes that one block keeps for the backward pass."""
        # Under autocast each adapter matrix is kept in 16 bits too.
        casts = 0 if self.device.width == 4 else self.device.width * self.trained_parameters // self.shape.layers
        return self.tokens * self._block_a_token + self._masks + self._scores + casts

    @property
    def _block_a_token(self) -> int:
        shape, width = self.shape, self.device.width
        queries, keys = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
        # With a mask, transformers repeats keys and values for every head.
        attention = width * (2 * queries + 2 * (queries if self._masked else keys)) + 4 * shape.heads
        # Gate, its activation, up. IA3's fp32 scales make all that follows them fp32 too.
        gated = (4 if self.recipe.method == "ia3" else width) * 3 * shape.intermediate
        norms = 2 * (4 * shape.hidden + 4)  # in fp32
        return attention + gated + norms + self._adapter_inputs

    @property
    def _adapter_inputs(self) -> int:
        """Bytes a token that what is trained in one block keeps beside the block's own."""
        shape, width, method = self.shape, self.device.width, self.recipe.method
        if method in ("prefix", "prompt"):
            return 0
        if method == "ia3":
            # What is scaled: keys, values, and what goes into the last feed-forward layer.
            return 4 * (2 * shape.kv_heads * shape.head_width + shape.intermediate)
        if method == "full":
            # Each layer's input, and what each norm scales.
            return width * (2 * shape.hidden + shape.intermediate) + width * 2 * shape.hidden
        # DoRA scales the outputs of both the layer and its adapter, in fp32.
        scaled = 4 * 2 * sum(outputs for _, outputs in self._adapted.values()) if method == "dora" else 0
        return scaled + self._lora_inputs

    @property
    def _lora_inputs(self) -> int:
        """Bytes a token of the adapters' inputs and of what comes out of their first matrix."""
        width, adapted = self.device.width, self._adapted
        inner = width * self.lora.rank * len(adapted)
        if self.lora.dropout:
            # Each keeps its own dropped input and the mask: a byte on a GPU, a number on a CPU.
            mask = 1 if width == 2 else width
            return inner + (width + mask) * sum(inputs for inputs, _ in adapted.values())
        # Shared: q, k, v read one tensor, gate and up another; o reads what attention keeps already.
        readers = ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"}, {"down_proj"})
        read = [next(iter(some & adapted.keys())) for some in readers if some & adapted.keys()]
        return inner + width * sum(adapted[name][0] for name in read)

    @property
    def _masked(self) -> bool:
        """Whether attention is given a mask: for padded and for packed batches."""
        return self.tune.batch > 1 or self.tune.pack is not None or self.recipe.method in ("prefix", "dpo")

    @property
    def _masks(self) -> int:
        # Each block keeps its own additive copy; a packed batch is one long row, a padded one a square for each row.
        if not self._masked:
            return 0
        side = self.tokens if self.tune.pack else self._row
        return self.device.width * side * self.tokens

    @property
    def _scores(self) -> int:
        """Attention's scores, where they are kept: fp32, a square for each head.

        Without a mask transformers lets heads share keys. Flash attention takes that, and needs capability 8.0; the
        memory-efficient kernel does not, and torch falls back to plain arithmetic (seen on an H200 with flash barred).
        """
        of = self.device.capability
        if of is None or of >= BF16_CAPABILITY or self._masked or self.shape.heads == self.shape.kv_heads:
            return 0
        return 4 * self.shape.heads * self.longest * self.tokens

    @property
    def _logits(self) -> int:
        """The loss's tile of logits and the gradient of the hidden states, in fp32 and as handed on."""
        tile = min(self.tokens, _TILE_TOKENS) * min(self.shape.vocabulary, _TILE_WORDS)
        width = self.device.width
        # Without Triton's kernels, torch makes some fp32 copies of the tile.
        copies = 4 * 5 * tile if self.device.capability is None else 0
        return width * tile + copies + self.tokens * self.shape.hidden * (4 + width)

    @property
    def _backward(self) -> int:
        """What walking back through one block needs: a dequantised layer, gradients, and the block computed again."""
        largest = max(inputs * outputs for inputs, outputs in self.shape.linears.values())
        again = self._block if self.checkpointing else 0
        return again + 2 * self._scores + self.device.width * (largest + self.tokens * 3 * self.shape.intermediate)


def nf4_bytes(shape: Shape) -> int:
    """Bytes of the blocks' linear layers in NF4 with double quantisation (arXiv 2305.14314, section 3).

    Half a byte a weight; a byte of scale for 64 weights; 4 bytes of scale for 256 of those; the two code books.
    """
    total = 0
    for inputs, outputs in shape.linears.values():
        weights = inputs * outputs
        scales = math.ceil(weights / 64)
        total += math.ceil(weights / 2) + scales + 4 * math.ceil(scales / 256) + 4 * (16 + 256 + 1)
    return shape.layers * total


def plan_for(shape: Shape, *, device: Device, recipe: Recipe, longest: int) -> Plan:
    """The plan, with activation checkpointing as the settings say, or only where it would not fit otherwise."""
    checkpointing = recipe.tune.checkpointing in ("on", "offload")
    plan = Plan(shape=shape, device=device, recipe=recipe, longest=longest, checkpointing=checkpointing)
    if recipe.tune.checkpointing == "auto" and plan.recomputable and not plan.fits:
        return replace(plan, checkpointing=True)
    return plan


def split_to_fit(recipe: Recipe, shape: Shape, *, device: Device, longest: int) -> Recipe:
    """The recipe with as many rows a pass as the device has room for, at most its own; a step's rows stay the same.

    A pass of one long row leaves a large GPU waiting for the CPU (bench/train.py). Where nothing fits, the recipe stays
    as it is, for the plan to be refused with its cure.
    """
    found = recipe
    while not plan_for(shape, device=device, recipe=found, longest=longest).fits:
        if found.tune.batch % (2 * device.processes):
            return recipe
        halved = replace(found.tune, batch=found.tune.batch // 2, accumulate=found.tune.accumulate * 2)
        found = replace(found, tune=halved)
    return found


def cure_for(plan: Plan) -> str:
    """What to change so that the plan fits: the flags of the first change that does, "" where it fits already."""
    if plan.fits:
        return ""
    for words, other in _cheaper(plan):
        if other.fits:
            return f"use {words}"
    return "use a GPU with more memory, a smaller model, or a lower --lora.rank: what is trained fills this one"


def _cheaper(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """Plans that need less, with their flags: those that change no result first."""
    flags = ""
    if not plan.checkpointing and plan.recomputable:
        plan = replace(plan.with_tune(checkpointing="on"), checkpointing=True)
        yield "--tune.checkpointing auto", plan
    if plan.tune.batch > plan.device.processes:
        rows = plan.tune.batch * plan.tune.accumulate
        # A group of samples is one batch's.
        group = plan.recipe.grpo.generations if plan.recipe.method == "grpo" else 1
        least = math.lcm(group, plan.device.processes)
        flags = f"--tune.batch {least} --tune.accumulate {max(1, rows // least)} "
        plan = plan.with_tune(batch=least, accumulate=max(1, rows // least))
        yield flags.strip(), plan
    if plan.tune.pack and plan.tune.pack > plan.longest:
        flags += f"--tune.pack {plan.longest} "
        plan = plan.with_tune(pack=plan.longest)
        yield flags.strip(), plan
    if plan.device.capability is not None and plan.recomputable and plan.tune.checkpointing != "offload":
        flags += "--tune.checkpointing offload "
        plan = plan.with_tune(checkpointing="offload")
        yield flags.strip(), plan
    for longest in range(plan.longest // 256 * 256, 255, -256):
        pack = None if plan.tune.pack is None else longest
        shorter = replace(plan.with_tune(pack=pack), longest=longest)
        yield f"{flags}--rows.max-tokens {longest}" + (f" --tune.pack {longest}" if pack else ""), shorter


def require_room(plan: Plan) -> None:
    """Checks that the plan fits.

    Raises:
        UserError: it does not.
    """
    if not plan.fits:
        largest = max(plan.parts, key=lambda name: plan.parts[name])
        raise UserError(
            f"training needs {gib(plan.peak):.1f} GiB, of which {largest} {gib(plan.parts[largest]):.1f} GiB",
            value=f"{gib(plan.device.memory):.1f} GiB on {plan.device.name}",
            cure=cure_for(plan),
        )


def plan_words(plan: Plan) -> str:
    """The plan in a line."""
    parts = ", ".join(f"{name} {gib(count):.2f}" for name, count in plan.parts.items() if gib(count) >= 0.01)
    recomputed = "computed twice" if plan.checkpointing else "kept"
    return (
        f"memory: {gib(plan.peak):.2f} GiB of {gib(plan.device.memory):.1f} on {plan.device.name} for batches of "
        f"{plan.tokens} tokens, activations {recomputed}" + (f" ({parts})" if parts else "")
    )


def plan_line(plan: Plan) -> dict[str, object]:
    """The plan as a line of JSON: {"peak_gib", "parts", "fits", "cure", …}, GiB."""
    dtype, why = dtype_for(plan.device.capability)
    return {
        "peak_gib": round(gib(plan.peak), 3),
        "parts": {name: round(gib(count), 4) for name, count in plan.parts.items()},
        "fits": plan.fits,
        "cure": cure_for(plan),
        "device": plan.device.name,
        "device_gib": round(gib(plan.device.memory), 2),
        "checkpointing": plan.checkpointing,
        "tokens": plan.tokens,
        "dtype": dtype,
        "dtype_reason": why,
    }


def plan_table(plan: Plan) -> "Table":
    """The plan for a person: each part, the sum beside what there is, and the cure where it does not fit."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    dtype, why = dtype_for(plan.device.capability)
    caption = f"activations {'computed twice' if plan.checkpointing else 'kept'}; {dtype}: {why}"
    title = f"{plan.device.name}, batches of {plan.tokens} tokens"
    table = Table(box=SIMPLE_HEAD, title=title, caption=caption, caption_justify="left", show_footer=True)
    table.add_column("part", footer="peak")
    verdict = f"of {gib(plan.device.memory):.2f}" if plan.fits else f"too much for {gib(plan.device.memory):.2f}"
    table.add_column("GiB", footer=f"{gib(plan.peak):.3f} {verdict}", justify="right")
    for name, count in plan.parts.items():
        table.add_row(name, f"{gib(count):.3f}")
    if cure := cure_for(plan):
        table.caption = f"{caption}\nFix: {cure}"
    return table
