"""What the parts of a memory plan are, and the bytes of weights that are held as they come."""

import math
from dataclasses import asdict, dataclass

from mathlete.models import ModelSource, Shape


@dataclass(frozen=True, kw_only=True)
class MemoryParts:
    """What makes up the peak of a training step, bytes."""

    base_4bit: int
    base_dense: int
    adapter: int
    gradients: int
    optimizer: int
    gathered: int | None
    """With FSDP, what each process has of unsharded weights while it computes; None without."""
    activations: int
    logits: int
    backward: int
    """What the backward pass needs beyond the loss's buffers."""
    cuda_context: int
    teacher: int | None = None
    """The model that the trained one learns from, with its share of the loss; None without."""

    def by_name(self) -> dict[str, int]:
        """Return {part: bytes} of the parts that there are."""
        return {name: count for name, count in asdict(self).items() if count is not None}

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.by_name().values())

    @property
    def largest(self) -> str:
        """The name of the largest part."""
        parts = self.by_name()
        return max(parts, key=lambda name: parts[name])


def count_nf4_bytes(shape: Shape) -> int:
    """Return the bytes of the blocks' linear layers in NF4 with double quantisation (arXiv 2305.14314, section 3).

    Half a byte a weight; a byte of scale for 64 weights; 4 bytes of scale for 256 of those; the two code books.
    """
    total = 0
    for inputs, outputs in shape.linears.values():
        weights = inputs * outputs
        scales = math.ceil(weights / 64)
        total += math.ceil(weights / 2) + scales + 4 * math.ceil(scales / 256) + 4 * (16 + 256 + 1)
    return shape.layers * total


def to_gib(count: int) -> float:
    """Convert bytes to GiB."""
    return count / 2**30


def count_model_bytes(source: ModelSource, *, width: int) -> int:
    """Return the bytes of a model's weights as its files hold them: dense in numbers of `width` bytes, or quantised."""
    shape = Shape.of(source)
    if source.folder is not None and source.is_quantized():
        return source.weight_bytes
    if source.name.endswith("-4bit"):
        return count_nf4_bytes(shape) + width * shape.dense_parameters
    return width * shape.parameters
