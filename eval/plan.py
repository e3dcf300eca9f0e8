"""`python -m eval SUITE --plan`: what a model needs of a GPU to draw its samples, before anything is loaded.

Weights and keys and values are counted from the model's shape. What engines take beside them is an allowance, and said.
The embedded engine draws on one GPU and holds all n samples of a problem; vLLM shares a model over all GPUs, fills what
is left with keys and values, and makes samples wait that have no room.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from eval.settings import EvalSettings
from mathlete.errors import UserError
from mathlete.models import Device, ModelSource, Shape, find_model, pick_default_model

PROMPT_TOKENS = 1024
"""Tokens of a prompt that are planned for."""
_VLLM_BUFFERS = 3 * 2**29
"""Bytes of vLLM's largest forward pass and its CUDA graphs: an allowance."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """What one engine needs and has, GiB."""

    engine: str
    weights_gib: float
    kv_gib: float
    """Keys and values of the samples that are held at once."""
    other_gib: float
    usable_gib: float
    at_once: int
    """Samples of the cap's length that are decoded together; 0 where not even one has room."""
    fits: bool

    def describe(self, *, n: int) -> str:
        """Say it in a line."""
        needed = self.weights_gib + self.kv_gib + self.other_gib
        parts = f"weights {self.weights_gib:.1f}, keys and values {self.kv_gib:.1f}, other {self.other_gib:.1f}"
        if not self.fits:
            return f"{self.engine}: does not fit: {needed:.1f} of {self.usable_gib:.1f} GiB ({parts})"
        many = f"all {n} samples" if self.at_once >= n else f"{self.at_once} of {n} samples"
        room = f"{self.engine}: fits: {needed:.1f} of {self.usable_gib:.1f} GiB ({parts})"
        return f"{room}; {many} of the cap's length at once"


def plan_engines(
    shape: Shape, *, device: Device, gpus: int, weights: int, n: int, max_tokens: int, vllm_share: float
) -> list[Room]:
    """Return what the embedded engine and vLLM need for n samples of so many tokens at most."""
    width = 4 if device.dtype == "float32" else 2
    sample = (PROMPT_TOKENS + max_tokens) * shape.kv_bytes(width)
    logits = n * shape.vocabulary * 4 * 2
    usable = device.usable
    other = logits + device.context_bytes
    held = int(max(0, usable - weights - other) // sample)
    rooms = [
        _room("transformers", weights=weights, kv=n * sample, other=other, usable=usable, at_once=min(n, held), least=n)
    ]
    if device.capability is not None:
        # Each GPU has its part of the weights and of every sample's keys and values.
        usable = vllm_share * device.memory
        left = max(0.0, usable - weights / gpus - _VLLM_BUFFERS)
        held = min(n, int(left // (sample / gpus)))
        name = "vllm" if gpus == 1 else f"vllm, each of {gpus} GPUs"
        kv = max(1, held) * sample / gpus
        rooms.append(
            _room(name, weights=weights / gpus, kv=kv, other=_VLLM_BUFFERS, usable=usable, at_once=held, least=1)
        )
    return rooms


def _room(engine: str, *, weights: float, kv: float, other: float, usable: float, at_once: int, least: int) -> Room:
    parts = (round(count / 2**30, 3) for count in (weights, kv, other, usable))
    weights_gib, kv_gib, other_gib, usable_gib = parts
    return Room(
        engine=engine, weights_gib=weights_gib, kv_gib=kv_gib, other_gib=other_gib, usable_gib=usable_gib,
        at_once=at_once, fits=at_once >= least,
    )  # fmt: skip


def print_plan(settings: EvalSettings, *, say: Callable[[str], None]) -> dict[str, object]:
    """Print what each engine needs on the device; return it, and whether the engine that was asked for fits."""
    source = find_model(settings.model.model or pick_default_model()[0])
    device, gpus = Device.find(name) if (name := settings.planned.device) else (Device.current(free=True), 1)
    shape = Shape.of(source)
    weights, held = count_weights(source, shape, precision=settings.model.precision, device=device)
    n, cap = settings.solving.n, settings.solving.sampling.max_tokens
    rooms = plan_engines(
        shape, device=device, gpus=gpus, weights=weights, n=n, max_tokens=cap,
        vllm_share=settings.model.vllm.gpu_memory_utilization,
    )  # fmt: skip
    say(
        f"{source.name} on {device.name}: {held}; {n} samples of up to {cap:,} tokens after {PROMPT_TOKENS:,} of prompt"
    )
    for room in rooms:
        say(room.describe(n=n))
    asked = next((room for room in rooms if room.engine.startswith(settings.model.engine)), rooms[0])
    return {"device": device.name, "gpus": gpus, "fits": asked.fits, "engines": [asdict(room) for room in rooms]}


def count_weights(source: ModelSource, shape: Shape, *, precision: str, device: Device) -> tuple[int, str]:
    """Return (bytes of the weights, how they are held).

    Raises:
        UserError: a quantised model's folder has no weights, and no index that tells their size.
    """
    if precision == "auto" and source.folder is not None and source.is_quantized():
        known = source.measure_weights()
        if not (size := known.size or source.weight_bytes):
            raise UserError(
                "a plan takes the size of quantised weights from their files",
                value=f"{source.location}: {known.source}",
                cure="download them, or their index alone (model.safetensors.index.json)",
            )
        return size, "weights as its folder has them"
    width = 4 if device.dtype == "float32" else 2
    # An 8-bit weight is a byte, one in NF4 half a byte and an eighth of a bit's scales beside it.
    per_weight = {"int8": 1.0, "nf4": 0.516}.get(precision, float(width))
    blocks = int(shape.linear_parameters * per_weight)
    words = {"int8": "8-bit weights", "nf4": "4-bit weights"}.get(precision, f"{8 * width}-bit weights")
    return blocks + width * shape.dense_parameters, words
