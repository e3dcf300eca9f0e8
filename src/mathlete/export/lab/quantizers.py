"""Quantisation schemes of 8 and 4 bits, each applied to a weight matrix and undone: formulas in docs/quantization.md.

Integers by absmax (symmetric) or affine, with one scale for the tensor, a row, or a group of a row. The range that a
scale covers is chosen by min-max, a percentile, the squared error, or the entropy. fp8 is by absmax alone, as its
export writes it. NF4 is bitsandbytes' own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["symmetric", "affine", "fp8", "nf4", "nf4-double"]
Per = Literal["tensor", "channel", "group", "block"]
Calibration = Literal["minmax", "percentile", "mse", "entropy"]
Part = Literal[
    "and activations",
    "and activations but qkv",
    "and activations but down",
    "and tables",
    "but first",
    "but last",
    "but ends",
    "but qkv",
    "but attention",
    "but down",
    "but mlp",
]
"""What a scheme rounds besides the weights of linear layers, or leaves as it is."""
GROUP = 64
"""Weights of a group; 64 is also the block of NF4 (arXiv 2305.14314, section 3)."""
PERCENTILE = 0.999
_SHRINKS = 40
"""Clipping ranges tried for the squared error and the entropy: 1.000, 0.980 … 0.220 of the whole range."""
_SCALE_BITS = 16


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """A quantisation scheme."""

    kind: Kind
    bits: int
    per: Per = "block"
    """The weights that share a scale."""
    calibration: Calibration = "minmax"
    """How the range is chosen that the levels cover."""
    part: Part | None = None
    """What is rounded besides, or left as it is; None: all linear layers but the output's, and nothing else."""

    @property
    def name(self) -> str:
        """The scheme in the lab's table: int4/affine/group/mse, fp8/channel, int8/symmetric/channel/minmax but down."""
        if self.kind.startswith("nf4"):
            return self.kind
        how = f"int{self.bits}/{self.kind}/{self.per}/{self.calibration}"
        name = f"fp8/{self.per}" if self.kind == "fp8" else how
        return name if self.part is None else f"{name} {self.part}"

    def bits_a_weight(self, rows: int, columns: int) -> float:
        """Return the bits of one weight of a matrix of this shape, its part of scales and zero points included."""
        if self.kind == "nf4":
            return 4 + 32 / GROUP
        if self.kind == "nf4-double":  # scales in 8 bits, and one fp32 for each 256 of them
            return 4 + 8 / GROUP + 32 / (GROUP * 256)
        size = _slice_size(self.per, rows, columns)
        return self.bits + (_SCALE_BITS + (self.bits if self.kind == "affine" else 0)) / size


def list_schemes() -> Iterator[Scheme]:
    """Yield all schemes of weights alone, the integers' first."""
    for bits, kind, per, calibration in product(
        (8, 4), ("symmetric", "affine"), ("tensor", "channel", "group"), get_args(Calibration)
    ):
        yield Scheme(kind=kind, bits=bits, per=per, calibration=calibration)  # type: ignore[arg-type]
    for slices in ("tensor", "channel", "group"):
        yield Scheme(kind="fp8", bits=8, per=slices)
    yield Scheme(kind="nf4", bits=4)
    yield Scheme(kind="nf4-double", bits=4)


def list_part_schemes() -> Iterator[Scheme]:
    """Yield 8 bits by row and by group, of all layers, and by row with one part after the other rounded or left.

    fp8 is by row alone, of weights and with activations.
    """
    for per in ("channel", "group"):
        yield Scheme(kind="symmetric", bits=8, per=per)
    for part in get_args(Part):
        yield Scheme(kind="symmetric", bits=8, per="channel", part=part)
    yield Scheme(kind="fp8", bits=8, per="channel")
    yield Scheme(kind="fp8", bits=8, per="channel", part="and activations")


def requantize(weight: "Tensor", scheme: Scheme) -> "Tensor":
    """Quantise a matrix, (rows, columns), and return it dequantised, in fp32."""
    if scheme.kind.startswith("nf4"):
        return _nf4(weight, double=scheme.kind == "nf4-double")
    rows, columns = weight.shape
    slices = weight.float().reshape(-1, _slice_size(scheme.per, rows, columns))
    if scheme.kind == "fp8":
        return round_to_fp8(slices).reshape(rows, columns)
    low, high = _ranges(slices, scheme)
    return _round_to_levels(slices, low, high, bits=scheme.bits).reshape(rows, columns)


def round_to_fp8(slices: "Tensor") -> "Tensor":
    """Round each slice, (…, size), to the numbers of float8_e4m3fn, 448 being its largest, as the fp8 export does."""
    import torch

    scale = (slices.abs().amax(-1, keepdim=True) / torch.finfo(torch.float8_e4m3fn).max).clamp(min=1e-8)
    rounded: Tensor = (slices / scale).to(torch.float8_e4m3fn).float() * scale
    return rounded


def _slice_size(per: Per, rows: int, columns: int) -> int:
    """Return how many weights share a scale; a row that is no whole number of groups is one group."""
    group = GROUP if columns % GROUP == 0 else columns
    return {"tensor": rows * columns, "channel": columns}.get(per, group)


def _nf4(weight: "Tensor", *, double: bool) -> "Tensor":
    import bitsandbytes.functional as functional

    packed, state = functional.quantize_4bit(
        weight.float().contiguous(), blocksize=GROUP, quant_type="nf4", compress_statistics=double
    )
    dequantized: Tensor = functional.dequantize_4bit(packed, state)
    return dequantized.float()


def _round_to_levels(slices: "Tensor", low: "Tensor", high: "Tensor", *, bits: int) -> "Tensor":
    """Round each slice, (n, size), to the levels of its range, `low` to `high`, (n, 1).

    A symmetric range has an odd number of levels, one of which is 0; an affine one has all 2**bits, and a zero point.
    """
    import torch

    symmetric = torch.equal(low, -high)
    levels = 2**bits - (2 if symmetric else 1)
    # A slice of zeros has an empty range, and must come back as zeros.
    scale = ((high - low) / levels).clamp(min=torch.finfo(torch.float32).tiny)
    # The zero point is a whole number, so that the weight 0 has a level and comes back exactly.
    zero = torch.zeros_like(low) if symmetric else (-low / scale).round()
    least = -(levels // 2) if symmetric else 0
    rounded: Tensor = ((slices / scale).round().add(zero).clamp(least, least + levels) - zero) * scale
    return rounded


def _ranges(slices: "Tensor", scheme: Scheme) -> "tuple[Tensor, Tensor]":
    """Return (low, high), each (n, 1): the range of each slice that the levels cover."""
    import torch

    if scheme.calibration == "percentile":
        # By rank, not interpolated: torch.quantile takes at most 2**24 values.
        kept = max(1, round(PERCENTILE * slices.shape[1]))
        if scheme.kind == "symmetric":
            high = slices.abs().kthvalue(kept, dim=1, keepdim=True).values
            return -high, high
        high = slices.kthvalue(kept, dim=1, keepdim=True).values
        low = -(-slices).kthvalue(kept, dim=1, keepdim=True).values
    else:
        low, high = slices.amin(1, keepdim=True), slices.amax(1, keepdim=True)
    # Zero must stay zero, so the range includes it.
    low, high = low.clamp(max=0), high.clamp(min=0)
    if scheme.kind == "symmetric":
        high = torch.maximum(-low, high)
        low = -high
    if scheme.calibration in ("minmax", "percentile"):
        return low, high
    return _shrink_ranges(slices, low, high, scheme)


def _shrink_ranges(slices: "Tensor", low: "Tensor", high: "Tensor", scheme: Scheme) -> "tuple[Tensor, Tensor]":
    """Shrink the range of each slice to the share of it that costs least.

    A smaller range has finer levels and clips the largest weights: the squared error or the entropy weighs the two.
    """
    import torch

    least, share = torch.full_like(high, torch.inf), torch.ones_like(high)
    # One histogram for all shares: the counts don't change, only the levels that they fall to.
    histogram = _histogram(slices, low, high, bits=scheme.bits) if scheme.calibration == "entropy" else None
    for step in range(_SHRINKS):
        part = 1 - 0.02 * step
        if histogram is None:
            error = slices - _round_to_levels(slices, low * part, high * part, bits=scheme.bits)
            cost = error.square().sum(1, keepdim=True)
        else:
            cost = _divergence(histogram, low, high, part=part, bits=scheme.bits)
        better = cost < least
        least, share = torch.where(better, cost, least), torch.where(better, part, share)
    return low * share, high * share


def _histogram(slices: "Tensor", low: "Tensor", high: "Tensor", *, bits: int) -> "Tensor":
    """Return the counts, (n, 8 bins a level), of each slice over its range."""
    import torch

    bins = 8 * 2**bits
    index = ((slices - low) / (high - low).clamp(min=1e-30) * bins).long().clamp(0, bins - 1)
    return torch.zeros(len(slices), bins).scatter_add_(1, index, torch.ones_like(slices))


def _divergence(counts: "Tensor", low: "Tensor", high: "Tensor", *, part: float, bits: int) -> "Tensor":
    """Return KL(P || Q), (n, 1), of the clipped histogram P, (n, bins), and the histogram Q of its levels.

    S. Migacz, "8-bit Inference with TensorRT" (GTC 2017), slides 26-28: what is clipped falls to the edges of P, and a
    level's mass is spread evenly over those of its bins that are not empty.
    """
    import torch

    bins = counts.shape[1]
    centres = low + (high - low) * (torch.arange(bins) + 0.5) / bins
    start, end = low * part, high * part
    inside = (centres >= start) & (centres <= end)
    clipped_low = (counts * (centres < start)).sum(1, keepdim=True)
    clipped_high = (counts * (centres > end)).sum(1, keepdim=True)
    kept = counts * inside
    # The first and the last bin inside, where the clipped weights end up.
    first = inside.float().argmax(1, keepdim=True)
    last = bins - 1 - inside.float().flip(1).argmax(1, keepdim=True)
    p = kept.scatter_add(1, first, clipped_low).scatter_add(1, last, clipped_high)
    level = ((centres - start) / (end - start).clamp(min=1e-30) * (2**bits - 1)).round().long().clamp(0, 2**bits - 1)
    mass = torch.zeros(len(counts), 2**bits).scatter_add_(1, level, kept)
    filled = torch.zeros_like(mass).scatter_add_(1, level, (kept > 0).float())
    q = torch.where(kept > 0, (mass / filled.clamp(min=1)).gather(1, level), 0.0)
    p, q = p / p.sum(1, keepdim=True).clamp(min=1), q / q.sum(1, keepdim=True).clamp(min=1)
    # Smoothed where Q is empty, as a divergence must not be infinite for one clipped weight.
    return torch.where(p > 0, p * (p.clamp(min=1e-12).log() - q.clamp(min=1e-6).log()), 0.0).sum(1, keepdim=True)
