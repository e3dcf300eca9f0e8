"""Ways to hold a weight matrix in 8 or 4 bits, each as the matrix that comes back: formulas in docs/quantization.md.

Integers by absmax (symmetric) or affine, with one scale for the tensor, a row, or a group of a row; what the scale must
cover is found by min-max, a percentile, the squared error, or the entropy; NF4 is bitsandbytes' own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["symmetric", "affine", "nf4", "nf4-double"]
Per = Literal["tensor", "channel", "group", "block"]
Calibration = Literal["minmax", "percentile", "mse", "entropy"]
GROUP = 64
"""Weights of a group; 64 is also the block of NF4 (arXiv 2305.14314, section 3)."""
PERCENTILE = 0.999
_SHRINKS = 40
"""Clipping ranges tried for the squared error and the entropy: 1.000, 0.980 … 0.220 of the whole range."""
_SCALE_BITS = 16


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """One way."""

    kind: Kind
    bits: int
    per: Per = "block"
    calibration: Calibration = "minmax"

    @property
    def name(self) -> str:
        """As in the table: int4/affine/group/mse, or nf4."""
        if self.kind.startswith("nf4"):
            return self.kind
        return f"int{self.bits}/{self.kind}/{self.per}/{self.calibration}"

    def bits_a_weight(self, rows: int, columns: int) -> float:
        """Bits a weight of a matrix of this shape takes, scales and zero points among them."""
        if self.kind == "nf4":
            return 4 + 32 / GROUP
        if self.kind == "nf4-double":  # scales in 8 bits, and one fp32 for each 256 of them
            return 4 + 8 / GROUP + 32 / (GROUP * 256)
        size = {"tensor": rows * columns, "channel": columns}.get(self.per, _group(columns))
        return self.bits + (_SCALE_BITS + (self.bits if self.kind == "affine" else 0)) / size


def schemes() -> Iterator[Scheme]:
    """All ways, the integers' first."""
    for bits, kind, per, calibration in product(
        (8, 4), ("symmetric", "affine"), ("tensor", "channel", "group"), get_args(Calibration)
    ):
        yield Scheme(kind=kind, bits=bits, per=per, calibration=calibration)  # type: ignore[arg-type]
    yield Scheme(kind="nf4", bits=4)
    yield Scheme(kind="nf4-double", bits=4)


def requantized(weight: "Tensor", scheme: Scheme) -> "Tensor":
    """The matrix (rows, columns) as it comes back from the scheme, in fp32."""
    if scheme.kind.startswith("nf4"):
        return _nf4(weight, double=scheme.kind == "nf4-double")
    rows, columns = weight.shape
    size = {"tensor": rows * columns, "channel": columns}.get(scheme.per, _group(columns))
    slices = weight.float().reshape(-1, size)
    low, high = _ranges(slices, scheme)
    return _rounded(slices, low, high, bits=scheme.bits).reshape(rows, columns)


def _group(columns: int) -> int:
    return GROUP if columns % GROUP == 0 else columns


def _nf4(weight: "Tensor", *, double: bool) -> "Tensor":
    import bitsandbytes.functional as functional

    packed, state = functional.quantize_4bit(
        weight.float().contiguous(), blocksize=GROUP, quant_type="nf4", compress_statistics=double
    )
    back: Tensor = functional.dequantize_4bit(packed, state)
    return back.float()


def _rounded(slices: "Tensor", low: "Tensor", high: "Tensor", *, bits: int) -> "Tensor":
    """Each slice (n, size) rounded to the levels of its range; a symmetric range has an odd number of them, with 0."""
    import torch

    symmetric = torch.equal(low, -high)
    levels = 2**bits - (2 if symmetric else 1)
    scale = ((high - low) / levels).clamp(min=torch.finfo(torch.float32).tiny)
    zero = torch.zeros_like(low) if symmetric else (-low / scale).round()
    least = -(levels // 2) if symmetric else 0
    found: Tensor = ((slices / scale).round().add(zero).clamp(least, least + levels) - zero) * scale
    return found


def _ranges(slices: "Tensor", scheme: Scheme) -> "tuple[Tensor, Tensor]":
    """(low, high), each (n, 1), that the levels cover."""
    import torch

    if scheme.calibration == "percentile":
        # Counted, not interpolated: torch.quantile takes at most 2**24 values.
        kept = max(1, round(PERCENTILE * slices.shape[1]))
        if scheme.kind == "symmetric":
            high = slices.abs().kthvalue(kept, dim=1, keepdim=True).values
            return -high, high
        high = slices.kthvalue(kept, dim=1, keepdim=True).values
        low = -(-slices).kthvalue(kept, dim=1, keepdim=True).values
    else:
        low, high = slices.amin(1, keepdim=True), slices.amax(1, keepdim=True)
    # Zero must stay zero: the range holds it.
    low, high = low.clamp(max=0), high.clamp(min=0)
    if scheme.kind == "symmetric":
        high = torch.maximum(-low, high)
        low = -high
    if scheme.calibration in ("minmax", "percentile"):
        return low, high
    return _best(slices, low, high, scheme)


def _best(slices: "Tensor", low: "Tensor", high: "Tensor", scheme: Scheme) -> "tuple[Tensor, Tensor]":
    """The share of the range that costs least, for each slice."""
    import torch

    best, share = torch.full_like(high, torch.inf), torch.ones_like(high)
    histogram = _histogram(slices, low, high, bits=scheme.bits) if scheme.calibration == "entropy" else None
    for step in range(_SHRINKS):
        part = 1 - 0.02 * step
        if histogram is None:
            error = slices - _rounded(slices, low * part, high * part, bits=scheme.bits)
            cost = error.square().sum(1, keepdim=True)
        else:
            cost = _divergence(histogram, low, high, part=part, bits=scheme.bits)
        better = cost < best
        best, share = torch.where(better, cost, best), torch.where(better, part, share)
    return low * share, high * share


def _histogram(slices: "Tensor", low: "Tensor", high: "Tensor", *, bits: int) -> "Tensor":
    """Counts (n, 8 bins a level) of each slice over its range."""
    import torch

    bins = 8 * 2**bits
    at = ((slices - low) / (high - low).clamp(min=1e-30) * bins).long().clamp(0, bins - 1)
    return torch.zeros(len(slices), bins).scatter_add_(1, at, torch.ones_like(slices))


def _divergence(counts: "Tensor", low: "Tensor", high: "Tensor", *, part: float, bits: int) -> "Tensor":
    """KL(P || Q), (n, 1), of the clipped histogram P and what its levels keep of it, Q.

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
