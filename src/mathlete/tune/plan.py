"""The memory plan: what training will need at its peak, part by part, before anything is loaded.

Counted from the shape of the model, not measured. Weights, adapter, gradients and optimizer are exact to the byte but
for the allocator's rounding. Activations are the tensors that autograd keeps for the backward pass of a Qwen2 or Llama
block as transformers, peft and bitsandbytes write it (a frozen 4-bit layer keeps nothing, its adapter keeps its input):
tests count the saved tensors of real models against this. Not covered: fragmentation, and whatever else is on the GPU.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mathlete.errors import UserError, nearest
from mathlete.models import capability, dtype_for
from mathlete.tune.settings import Lora, Tune
from mathlete.tune.shapes import Shape

if TYPE_CHECKING:
    from rich.table import Table

_TILE_TOKENS, _TILE_WORDS = 4096, 32768
"""The loss is computed in tiles of so many tokens and vocabulary entries (TRL 1.16, `kernels/chunked_logprob.py`)."""
_CONTEXT_BYTES = 600 * 2**20
"""CUDA's own share of a GPU: context, kernels and cuBLAS workspaces, not in torch's counts."""
_IN_FLIGHT = 5
"""Tensors that TRL has on the GPU while it moves activations away (`max_fwd_stash_size`)."""
_QUIET_SHARE = 0.95
"""Share of a device's memory a plan may fill: the allocator's gaps need the rest."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """Where training runs."""

    name: str
    memory: int
    """Bytes that are there for it."""
    capability: float | None
    """CUDA compute capability; None: a CPU."""

    @property
    def width(self) -> int:
        """Bytes of an activation."""
        return 4 if self.capability is None else 2


def _gpu(name: str, mib: int, of: float) -> Device:
    return Device(name=name, memory=mib * 2**20, capability=of)


DEVICES: dict[str, Device] = {
    "t4": _gpu("t4", 15360, 7.5),
    "p100": _gpu("p100", 16280, 6.0),
    "v100": _gpu("v100", 16160, 7.0),
    "l4": _gpu("l4", 23034, 8.9),
    "a10g": _gpu("a10g", 23028, 8.6),
    "rtx4090": _gpu("rtx4090", 24564, 8.9),
    "a100-40": _gpu("a100-40", 40960, 8.0),
    "a100-80": _gpu("a100-80", 81920, 8.0),
    "h100": _gpu("h100", 81559, 9.0),
    "h200": _gpu("h200", 143771, 9.0),
}
"""Memory as nvidia-smi names it, MiB, and NVIDIA's table of compute capabilities."""


def device_named(name: str | None) -> Device:
    """A known GPU, or this machine's device where none is named."""
    if name is None:
        return this_device()
    if name not in DEVICES:
        raise UserError("--device must be a known one", value=repr(name), cure=nearest(name, [*DEVICES]))
    return DEVICES[name]


def this_device() -> Device:
    """This machine's GPU with the memory that is free there now, or its CPU with the free main memory."""
    import torch

    if torch.cuda.is_available():
        return Device(name=torch.cuda.get_device_name(), memory=torch.cuda.mem_get_info()[0], capability=capability())
    return Device(name="cpu", memory=_free_memory(), capability=None)


def _free_memory() -> int:
    """Main memory that is free or can be freed, bytes; a container's own limit is not seen."""
    linux = Path("/proc/meminfo")
    if not linux.is_file():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    (line,) = (line for line in linux.read_text().splitlines() if line.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one training step needs at its peak."""

    shape: Shape
    device: Device
    lora: Lora
    tune: Tune
    longest: int
    """Tokens of the longest row."""
    checkpointing: bool
    """Whether a block's activations are computed again in the backward pass instead of kept."""

    @property
    def tokens(self) -> int:
        """Tokens of the largest batch."""
        return self.tune.batch * (self.tune.pack or self.longest)

    @cached_property
    def parts(self) -> dict[str, int]:
        """{part: bytes} at the peak, where the backward pass begins or, if that needs more, within its first block.

        `backward` is what the latter needs beyond the buffers of the loss, which are gone by then.
        """
        adapter = 4 * self._adapter_parameters
        gpu = self.device.capability is not None
        return {
            "base_4bit": nf4_bytes(self.shape),
            "base_dense": self.device.width * self.shape.dense_parameters,
            "adapter": adapter,
            "gradients": adapter,
            "optimizer": 2 * adapter,
            "activations": self._kept,
            "logits": self._logits,
            "backward": max(0, self._backward - self._logits),
            "cuda_context": _CONTEXT_BYTES if gpu else 0,
        }

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
    def _adapter_parameters(self) -> int:
        return self.shape.layers * self.lora.rank * sum(map(sum, self._adapted.values()))

    @property
    def _kept(self) -> int:
        """Bytes that the forward pass leaves for the backward pass."""
        width, hidden, layers = self.device.width, self.shape.hidden, self.shape.layers
        # What the last norm and the loss keep.
        end = self.tokens * (4 + width) * hidden
        if self.checkpointing:
            # Moved to the machine's memory, only the last few are still here (TRL 1.16, `OffloadActivations`).
            blocks = min(layers, _IN_FLIGHT) if self.tune.offload else layers
            return blocks * self.tokens * width * hidden + end
        return layers * self._block + end

    @property
    def _block(self) -> int:
        """Bytes that one block keeps for the backward pass."""
        # Under autocast each adapter matrix is kept in 16 bits too.
        casts = 0 if self.device.width == 4 else self.device.width * self._adapter_parameters // self.shape.layers
        return self.tokens * self._block_a_token + self._masks + casts

    @property
    def _block_a_token(self) -> int:
        shape, width = self.shape, self.device.width
        queries, keys = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
        # With a mask, transformers repeats keys and values for every head.
        attention = width * (2 * queries + 2 * (queries if self._masked else keys)) + 4 * shape.heads
        gated = width * 3 * shape.intermediate  # gate, its activation, up
        norms = 2 * (4 * shape.hidden + 4)  # in fp32
        return attention + gated + norms + self._adapter_inputs

    @property
    def _adapter_inputs(self) -> int:
        """Bytes a token that the adapters of one block keep: their inputs and what comes out of their first matrix."""
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
        return self.tune.batch > 1 or self.tune.pack is not None

    @property
    def _masks(self) -> int:
        # Each block keeps its own additive copy; a packed batch is one long row, a padded one a square for each row.
        if not self._masked:
            return 0
        side = self.tokens if self.tune.pack else self.longest
        return self.device.width * side * self.tokens

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
        return again + self.device.width * (largest + self.tokens * 3 * self.shape.intermediate)


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


def plan_for(shape: Shape, *, device: Device, lora: Lora, tune: Tune, longest: int) -> Plan:
    """The plan, with activation checkpointing as the settings say, or only where it would not fit otherwise."""
    checkpointing = tune.checkpointing == "on" or tune.offload
    plan = Plan(shape=shape, device=device, lora=lora, tune=tune, longest=longest, checkpointing=checkpointing)
    if tune.checkpointing == "auto" and not plan.fits:
        return replace(plan, checkpointing=True)
    return plan


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
    tune = plan.tune
    if not plan.checkpointing:
        plan = replace(plan, checkpointing=True, tune=replace(tune, checkpointing="on"))
        yield "--tune.checkpointing auto", plan
    flags = ""
    if tune.batch > 1:
        rows = tune.batch * tune.accumulate
        flags = f"--tune.batch 1 --tune.accumulate {rows} "
        plan = replace(plan, tune=replace(plan.tune, batch=1, accumulate=rows))
        yield flags.strip(), plan
    if plan.tune.pack and plan.tune.pack > plan.longest:
        flags += f"--tune.pack {plan.longest} "
        plan = replace(plan, tune=replace(plan.tune, pack=plan.longest))
        yield flags.strip(), plan
    if plan.device.capability is not None and not plan.tune.offload:
        flags += "--tune.offload "
        plan = replace(plan, tune=replace(plan.tune, offload=True))
        yield flags.strip(), plan
    for longest in range(plan.longest // 256 * 256, 255, -256):
        pack = None if plan.tune.pack is None else longest
        shorter = replace(plan, longest=longest, tune=replace(plan.tune, pack=pack))
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


def gib(count: int) -> float:
    """Bytes in GiB."""
    return count / 2**30


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
