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

from mathlete.models import Device, Shape
from mathlete.tune.ranks import Ranks
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
    ranks: Ranks = Ranks()  # noqa: RUF009 - frozen

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
        rows = math.ceil(self.tune.batch / self.ranks.size) * (2 if self.recipe.method == "dpo" else 1)
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
        shares, quantized = self.ranks.shards, self.recipe.quantized
        adapter = math.ceil(4 * self.trained_parameters / shares)
        base = nf4_bytes(self.shape) if quantized else 0
        dense = self.device.activation_bytes * self.shape.dense_parameters if quantized else 0
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
        read = (base + dense + trained) * (self.ranks.shards - 1) // self.ranks.shards
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
        width, hidden, layers = self.device.activation_bytes, self.shape.hidden, self.shape.layers
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
        width = self.device.activation_bytes
        casts = 0 if width == 4 else width * self.trained_parameters // self.shape.layers
        return self.tokens * self._block_a_token + self._masks + self._scores + casts

    @property
    def _block_a_token(self) -> int:
        shape, width = self.shape, self.device.activation_bytes
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
        shape, width, method = self.shape, self.device.activation_bytes, self.recipe.method
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
        width, adapted = self.device.activation_bytes, self._adapted
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
        return self.device.activation_bytes * side * self.tokens

    @property
    def _scores(self) -> int:
        """Attention's scores, where they are kept: fp32, a square for each head.

        Without a mask transformers lets heads share keys. Flash attention takes that, and needs capability 8.0; the
        memory-efficient kernel does not, and torch falls back to plain arithmetic (seen on an H200 with flash barred).
        """
        materialised = self.device.capability is not None and not self.device.has_bf16 and not self._masked
        if not materialised or self.shape.heads == self.shape.kv_heads:
            return 0
        return 4 * self.shape.heads * self.longest * self.tokens

    @property
    def _logits(self) -> int:
        """The loss's tile of logits and the gradient of the hidden states, in fp32 and as handed on."""
        tile = min(self.tokens, _TILE_TOKENS) * min(self.shape.vocabulary, _TILE_WORDS)
        width = self.device.activation_bytes
        # Without Triton's kernels, torch makes some fp32 copies of the tile.
        copies = 4 * 5 * tile if self.device.capability is None else 0
        return width * tile + copies + self.tokens * self.shape.hidden * (4 + width)

    @property
    def _backward(self) -> int:
        """What walking back through one block needs: a dequantised layer, gradients, and the block computed again."""
        largest = max(inputs * outputs for inputs, outputs in self.shape.linears.values())
        again = self._block if self.checkpointing else 0
        gradients = self.tokens * 3 * self.shape.intermediate
        return again + 2 * self._scores + self.device.activation_bytes * (largest + gradients)

    @property
    def cure(self) -> str:
        """What to change so that the plan fits: the flags of the first change that does; "" where it fits already."""
        if self.fits:
            return ""
        for flags, plan in self._cheaper():
            if plan.fits:
                return f"use {flags}"
        return "use a GPU with more memory, a smaller model, or a lower --lora.rank: what is trained fills this one"

    def _cheaper(self) -> "Iterator[tuple[str, Plan]]":
        """Yield plans that need less, with their flags: those that change no result first."""
        plan, flags = self, ""
        if not plan.checkpointing and plan.recomputable:
            plan = replace(plan.with_tune(checkpointing="on"), checkpointing=True)
            yield "--tune.checkpointing auto", plan
        if plan.tune.batch > plan.ranks.size:
            rows = plan.tune.batch * plan.tune.accumulate
            # GRPO compares the samples of one problem, which must be in one batch.
            group = plan.recipe.grpo.generations if plan.recipe.method == "grpo" else 1
            least = math.lcm(group, plan.ranks.size)
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

    def summary(self) -> str:
        """Say the plan in a line."""
        parts = ", ".join(f"{name} {gib(count):.2f}" for name, count in self.parts.items() if gib(count) >= 0.01)
        recomputed = "computed twice" if self.checkpointing else "kept"
        return (
            f"memory: {gib(self.peak):.2f} GiB of {self.device.memory_gib:.1f} on {self.device.name} for batches of "
            f"{self.tokens} tokens, activations {recomputed}" + (f" ({parts})" if parts else "")
        )

    def to_json(self) -> dict[str, object]:
        """Return the plan as a line of JSON: {"peak_gib", "parts", "fits", "cure", …}, GiB."""
        return {
            "peak_gib": round(gib(self.peak), 3),
            "parts": {name: round(gib(count), 4) for name, count in self.parts.items()},
            "fits": self.fits,
            "cure": self.cure,
            "device": self.device.name,
            "device_gib": round(self.device.memory_gib, 2),
            "checkpointing": self.checkpointing,
            "tokens": self.tokens,
            "dtype": self.device.dtype,
            "dtype_reason": self.device.dtype_reason,
        }

    def table(self) -> "Table":
        """Return a table for a person: each part, the sum beside the device's memory, the cure where it doesn't fit."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        device = self.device
        recomputed = "computed twice" if self.checkpointing else "kept"
        caption = f"activations {recomputed}; {device.dtype}: {device.dtype_reason}"
        title = f"{device.name}, batches of {self.tokens} tokens"
        table = Table(box=SIMPLE_HEAD, title=title, caption=caption, caption_justify="left", show_footer=True)
        table.add_column("part", footer="peak")
        verdict = f"of {device.memory_gib:.2f}" if self.fits else f"too much for {device.memory_gib:.2f}"
        table.add_column("GiB", footer=f"{gib(self.peak):.3f} {verdict}", justify="right")
        for name, count in self.parts.items():
            table.add_row(name, f"{gib(count):.3f}")
        if cure := self.cure:
            table.caption = f"{caption}\nFix: {cure}"
        return table


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


def gib(count: int) -> float:
    """Convert bytes to GiB."""
    return count / 2**30
