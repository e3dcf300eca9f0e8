"""The memory plan: what a training step needs at its peak, part by part, before anything is loaded.

Counted from the shape of the model, not measured. Weights, adapter, gradients and optimizer are exact to the byte but
for the allocator's rounding. Activations are the tensors that autograd keeps for the backward pass of a Qwen2 or Llama
block as transformers, peft and bitsandbytes write it (a frozen 4-bit layer keeps nothing, its adapter keeps its input):
tests count the saved tensors of real models against this. Not covered: fragmentation, and whatever else is on the GPU.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mathlete.models import Device, Shape
from mathlete.tune.chunks import BLOCK_BYTES, count_chunk_tokens
from mathlete.tune.hours import Work
from mathlete.tune.memory import MemoryParts, count_model_bytes, count_nf4_bytes, to_gib
from mathlete.tune.methods import Method
from mathlete.tune.optimizers import OPTIMIZERS, count_parameters
from mathlete.tune.ranks import Ranks
from mathlete.tune.recipe import Recipe
from mathlete.tune.settings import Lora, Tune

if TYPE_CHECKING:
    from rich.table import Table

_TILE_TOKENS, _TILE_ENTRIES = 4096, 32768
"""The loss is computed in tiles of so many tokens and vocabulary entries (TRL 1.16, `kernels/chunked_logprob.py`)."""
_IN_FLIGHT = 5
"""Tensors that TRL has on the GPU while it moves activations away (`max_fwd_stash_size`)."""


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
    dense: bool = False
    """Whether the base's 4-bit weights are held dequantised: on a CPU, where each pass would do that again."""
    ranks: Ranks = field(default_factory=Ranks)

    @property
    def lora(self) -> Lora:
        """The adapter's settings."""
        return self.recipe.lora

    @property
    def tune(self) -> Tune:
        """The training's settings."""
        return self.recipe.tune

    @property
    def spec(self) -> Method:
        """The method's entry in the table."""
        return self.recipe.spec

    @property
    def dtype(self) -> str:
        """Type of activations and dense weights, by torch's name."""
        return self._computing[0]

    @property
    def dtype_reason(self) -> str:
        """Why it is computed in that type."""
        return self._computing[1]

    @property
    def _computing(self) -> tuple[str, str]:
        if self.ranks.sharded:
            return self.device.dtype, self.device.dtype_reason
        return self.device.choose_serving_dtype(self.shape.parameters)

    def with_tune(self, **changed: Any) -> "Plan":
        """Return the plan with other settings of the training."""
        return replace(self, recipe=replace(self.recipe, tune=replace(self.tune, **changed)))

    @property
    def tokens(self) -> int:
        """Tokens of the largest batch in each process."""
        return self._process_batch * self.spec.sequences * (self.tune.pack or self._row)

    @property
    def _row(self) -> int:
        return self.longest + self.spec.prompt_tokens(self.lora)

    @cached_property
    def parts(self) -> MemoryParts:
        """The parts of the peak, which is where the backward pass begins or, if that needs more, in its first block."""
        shards, quantized = self.ranks.shards, self.spec.quantized
        adapter = math.ceil(4 * self.trained_parameters / shards)
        moments = OPTIMIZERS[self.tune.updates.optimizer].count_bytes(self.spec.tensors(self.shape, self.lora))
        # Where every weight is trained, base and adapter are one: it is counted as what is trained.
        in_4bit = quantized and not self.dense
        base = count_nf4_bytes(self.shape) if in_4bit else 0
        others = self.shape.dense_parameters if in_4bit else self.shape.parameters
        dense = self._width * others if quantized else 0
        return MemoryParts(
            base_4bit=math.ceil(base / shards),
            base_dense=math.ceil(dense / shards),
            adapter=adapter,
            gradients=adapter,
            optimizer=math.ceil(moments / shards),
            gathered=self._count_gathered(base=base, dense=dense) if shards > 1 else None,
            activations=self._kept,
            logits=self._logits,
            # The loss's buffers are gone when the backward pass reaches the blocks: only what exceeds them counts.
            backward=max(0, self._backward - self._logits),
            cuda_context=self.device.context_bytes,
            teacher=self._count_teacher(),
        )

    def _count_teacher(self) -> int | None:
        """Return the bytes of the model that is learned from: its weights, one block's work, and both models' logits in
        fp32."""
        if (teacher := self.recipe.teacher) is None:
            return None
        shape = Shape.of(teacher)
        tile = min(self.tokens, _TILE_TOKENS) * min(shape.vocabulary, _TILE_ENTRIES)
        block = self._width * self.tokens * (3 * shape.intermediate + 4 * shape.hidden)
        return count_model_bytes(teacher, width=self._width) + block + 2 * 4 * tile

    def _count_gathered(self, *, base: int, dense: int) -> int:
        """Return the bytes of unsharded weights: while computing, or if that is more, while the model is read."""
        trained = 4 * self.trained_parameters
        # FSDP fetches the next block while one computes; what lies outside of blocks stays gathered.
        computing = 2 * (base + trained) // self.shape.layers + dense
        # Each process reads the whole model before it keeps its shard, but holds no activations yet.
        reading = (base + dense + trained) * (self.ranks.shards - 1) // self.ranks.shards
        return max(computing, reading - self._kept - self._logits)

    @property
    def peak(self) -> int:
        """Bytes in all."""
        return self.parts.total

    @property
    def allocated(self) -> int:
        """Bytes of the peak that torch itself counts (`torch.cuda.max_memory_allocated`)."""
        return self.peak - self.parts.cuda_context

    @property
    def fits(self) -> bool:
        """Whether the device has room for it."""
        return self.peak <= self.device.usable - self.recipe.engine_share * self.device.memory

    @property
    def trained_parameters(self) -> int:
        """Parameters that get a gradient."""
        return count_parameters(self.spec.tensors(self.shape, self.lora))

    @property
    def _width(self) -> int:
        return 4 if self.dtype == "float32" else 2

    @property
    def _kept(self) -> int:
        """Bytes that the forward pass leaves for the backward pass."""
        layers, hidden_states = self.shape.layers, self.tokens * self.shape.hidden
        last_norm_and_loss = hidden_states * (4 + self._width)
        if self.checkpointing:
            # Of each block only its input is kept. Offloaded, only the last few are still on the GPU (TRL 1.16,
            # `OffloadActivations`).
            blocks = min(layers, _IN_FLIGHT) if self.tune.checkpointing == "offload" else layers
            return blocks * hidden_states * self._width + last_norm_and_loss
        return layers * self._block + last_norm_and_loss

    @property
    def _block(self) -> int:
        """Bytes that one block keeps for the backward pass."""
        # Under autocast each adapter matrix is kept in 16 bits too.
        casts = 0 if self._width == 4 else self._width * self.trained_parameters // self.shape.layers
        return self.tokens * self._block_per_token + self._masks + self._scores + casts

    @property
    def _block_per_token(self) -> int:
        shape, width = self.shape, self._width
        queries, keys = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
        # With a mask, transformers repeats keys and values for every head.
        attention = width * (2 * queries + 2 * (queries if self._masked else keys)) + 4 * shape.heads
        # Gate, its activation, up.
        gated = (self.spec.gate_width or width) * 3 * shape.intermediate
        norms = 2 * (4 * shape.hidden + 4)  # in fp32
        return attention + gated + norms + self.spec.kept_bytes(shape, self.lora, width)

    @property
    def _masked(self) -> bool:
        """Whether attention gets a mask: for padded and for packed batches."""
        # What counts is a process's own rows: one row has no padding, however many processes there are.
        return self._process_batch > 1 or self.tune.pack is not None or self.spec.masked

    @property
    def _process_batch(self) -> int:
        """Rows of a pass in each process, before a method makes several sequences of each."""
        return math.ceil(self.tune.batch / self.ranks.size)

    @property
    def _masks(self) -> int:
        # Each block keeps its own additive copy; a packed batch is one long row, a padded one a square for each row.
        if not self._masked:
            return 0
        side = self.tokens if self.tune.pack else self._row
        return self._width * side * self.tokens

    @property
    def _scores(self) -> int:
        """Attention's scores, where they are kept: fp32, a square for each head.

        Without a mask transformers lets heads share keys. Flash attention takes that, and needs the same capability 8.0
        as bf16; the memory-efficient kernel does not, and torch falls back to plain arithmetic (seen on an H200 with
        flash barred).
        """
        plain = self.device.capability is not None and not self.device.has_bf16 and not self._masked
        if not plain or self.shape.heads == self.shape.kv_heads:
            return 0
        return 4 * self.shape.heads * self.longest * self.tokens

    @property
    def _logits(self) -> int:
        """Bytes of the loss: its tile of logits and the gradient of the hidden states, in fp32 and as handed on."""
        states = self.tokens * self.shape.hidden * (4 + self._width)
        if self.device.capability is None:
            chunk = min(self.tokens, count_chunk_tokens(self.shape.vocabulary, self._width))
            block = min(BLOCK_BYTES, 4 * self.tokens * self.shape.vocabulary)
            # Logits, probabilities, and the product of both.
            return self._width * chunk * self.shape.vocabulary + 3 * block + states
        tile = min(self.tokens, _TILE_TOKENS) * min(self.shape.vocabulary, _TILE_ENTRIES)
        return self._width * tile + states

    @property
    def _backward(self) -> int:
        """Bytes of the backward pass in one block: a dequantised layer, gradients, and the block computed again."""
        largest = max(inputs * outputs for inputs, outputs in self.shape.linears.values())
        again = self._block if self.checkpointing else 0
        gradients = self.tokens * 3 * self.shape.intermediate
        return again + 2 * self._scores + self._width * (largest + gradients)

    @property
    def work(self) -> Work:
        """Its arithmetic, of which hours follow."""
        return Work(
            shape=self.shape,
            trained=self.trained_parameters,
            beside=self.trained_parameters if self.spec.quantized else 0,
            recomputed=self.checkpointing,
            row=self.tune.pack or self.longest,
            step_rows=self.tune.batch * self.tune.accumulate * self.spec.sequences,
            steps=self.tune.steps,
            peak_tflops=self.device.peak_tflops,
            gpus=self.ranks.size,
        )

    @property
    def cure(self) -> str:
        """What to change so that the plan fits: the flags of the first change that does; "" where it fits already."""
        if self.fits:
            return ""
        for flags, plan in self._list_cheaper():
            if plan.fits:
                return f"use {flags}"
        return "use a GPU with more memory, a smaller model, or a lower --lora.rank: what is trained fills this one"

    def _list_cheaper(self) -> "Iterator[tuple[str, Plan]]":
        """Yield plans that need less, with their flags: those that change no result first."""
        plan, flags = self, ""
        if not plan.checkpointing and plan.spec.recomputable:
            plan = replace(plan.with_tune(checkpointing="on"), checkpointing=True)
            yield "--tune.checkpointing auto", plan
        if plan.tune.batch > plan.ranks.size:
            rows = plan.tune.batch * plan.tune.accumulate
            # GRPO compares the samples of one problem, which must be in one batch.
            group = plan.recipe.grpo.generations if plan.spec.grouped else 1
            least = math.lcm(group, plan.ranks.size)
            flags = f"--tune.batch {least} --tune.accumulate {max(1, rows // least)} "
            plan = plan.with_tune(batch=least, accumulate=max(1, rows // least))
            yield flags.strip(), plan
        if plan.tune.pack and plan.tune.pack > plan.longest:
            flags += f"--tune.pack {plan.longest} "
            plan = plan.with_tune(pack=plan.longest)
            yield flags.strip(), plan
        if plan.device.capability is not None and plan.spec.recomputable and plan.tune.checkpointing != "offload":
            flags += "--tune.checkpointing offload "
            plan = plan.with_tune(checkpointing="offload")
            yield flags.strip(), plan
        if (
            plan.parts.largest == "optimizer"
            and plan.tune.updates.optimizer.startswith("adamw_torch")
            and plan.ranks.shards == 1
        ):
            flags += "--tune.optimizer adamw_8bit "
            plan = plan.with_tune(updates=replace(plan.tune.updates, optimizer="adamw_8bit"))
            yield flags.strip(), plan
        # Shorter rows are the last resort: they drop traces. Steps of 256 tokens, as a person would try them.
        for longest in range(plan.longest // 256 * 256, 255, -256):
            pack = None if plan.tune.pack is None else longest
            shorter = replace(plan.with_tune(pack=pack), longest=longest)
            yield f"{flags}--rows.max-tokens {longest}" + (f" --tune.pack {longest}" if pack else ""), shorter

    def summary(self) -> str:
        """Say the plan in a line."""
        parts = ", ".join(
            f"{name} {to_gib(count):.2f}" for name, count in self.parts.by_name().items() if to_gib(count) >= 0.01
        )
        recomputed = "computed twice" if self.checkpointing else "kept"
        return (
            f"memory: {to_gib(self.peak):.2f} of {self.device.memory_gib:.1f} GiB on {self.device.name} · "
            f"{self.tokens:,} tokens a pass · activations {recomputed}"
            + (" · 4-bit weights dequantised once" if self.dense else "")
            + (f" · {parts}" if parts else "")
        )

    def to_json(self) -> dict[str, object]:
        """Return the plan as a line of JSON: {"peak_gib", "parts", "fits", "cure", "hours": [least, most], …}, GiB."""
        hours = self.work.hours
        return {
            "peak_gib": round(to_gib(self.peak), 3),
            "parts": {name: round(to_gib(count), 4) for name, count in self.parts.by_name().items()},
            "fits": self.fits,
            "cure": self.cure,
            "device": self.device.name,
            "processes": self.ranks.size,
            "hours": hours and [round(hour, 3) for hour in hours],
            "hours_of": self.work.hours_of,
            "device_gib": round(self.device.memory_gib, 2),
            "checkpointing": self.checkpointing,
            "tokens": self.tokens,
            "dequantised": self.dense,
            "dtype": self.dtype,
            "dtype_reason": self.dtype_reason,
        }

    def table(self) -> "Table":
        """Return a table for a person: each part, the sum beside the device's memory, the cure where it doesn't fit."""
        from mathlete.tables import FittingTable

        device = self.device
        recomputed = "computed twice" if self.checkpointing else "kept"
        caption = f"activations {recomputed}; {self.dtype}: {self.dtype_reason}"
        if hours := self.work.describe():
            caption += f"\n{hours}"
        shared = f"each of {self.ranks.size} processes on one {device.name}" if self.ranks.size > 1 else device.name
        title = f"{shared}, batches of {self.tokens} tokens"
        table = FittingTable(title, columns=("part", "GiB"), left=("part",), caption=caption)
        verdict = f"of {device.memory_gib:.2f}" if self.fits else f"too much for {device.memory_gib:.2f}"
        for name, count in self.parts.by_name().items():
            table.add_row(name, f"{to_gib(count):.3f}")
        table.add_section()
        table.add_row("peak", f"{to_gib(self.peak):.3f} {verdict}")
        if cure := self.cure:
            table.caption = f"{caption}\nFix: {cure}"
        return table
