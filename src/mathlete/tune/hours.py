"""How long a training may take, as a range: its arithmetic over a share of the GPU's peak.

Per token, a matrix product of a forward pass takes two operations a weight, the gradient of its input two more, that of
its weight two more where it is trained, and a block that is computed again its forward pass once more (Kaplan et al.
2020, arXiv 2001.08361, section 2.1; Chowdhery et al. 2022, arXiv 2204.02311, appendix B, for attention). What is not
counted: norms, dequantising of 4-bit weights, reading data, saving. They are why the share of the peak is low.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mathlete.tune.plan import Plan

UTILISATION = (0.15, 0.40)
"""Shares of the peak that training reaches, low and high: with 4-bit weights and short rows less, with long rows and
16-bit weights more. An assumption, and said with every figure that rests on it."""
ROWS = 1000
"""Rows for which hours are told where the settings do not say how many there will be."""
PEAK_TFLOPS: Mapping[str, float] = MappingProxyType(
    {
        "t4": 65, "p100": 18.7, "v100": 125, "l4": 121, "a10g": 70, "rtx3090": 71, "a6000": 155, "rtx4090": 165,
        "l40s": 362, "a100-40": 312, "a100-80": 312, "h100": 989, "h200": 989, "rtx5090": 210, "b200": 2250,
        "rtx-pro-6000": 504,
    }
)  # fmt: skip
"""16-bit matrix products with sums in fp32, TFLOPS, without sparsity (NVIDIA's data sheets and architecture papers)."""


def count_token_flops(plan: "Plan") -> float:
    """Return the operations of one token's forward and backward pass."""
    shape, again = plan.shape, 1 if plan.checkpointing else 0
    extra = plan.trained_parameters if plan.spec.quantized else 0
    weights = (4 + 2 * again) * (shape.parameters + extra) + 2 * plan.trained_parameters
    # Causal: a token looks at half of its row on average, in two products.
    row = plan.tune.pack or plan.longest
    attention = 2 * row * shape.heads * shape.head_width * shape.layers
    return weights + (3 + again) * attention


def estimate_hours(plan: "Plan") -> tuple[float, float, str] | None:
    """Return (least hours, most, of what); None where the device's peak is not known."""
    peak = PEAK_TFLOPS.get(plan.device.name)
    if peak is None:
        return None
    row, steps = plan.tune.pack or plan.longest, plan.tune.steps
    rows = ROWS if steps is None else steps * plan.tune.batch * plan.tune.accumulate
    operations = rows * row * plan.spec.sequences * count_token_flops(plan)
    most, least = (operations / (peak * 1e12 * share * plan.ranks.size) / 3600 for share in UTILISATION)
    of = f"{rows:,} rows of {row:,} tokens" + ("" if steps is None else f" ({steps:,} steps)")
    return least, most, of


def describe_hours(plan: "Plan") -> str:
    """Return the range in a sentence; "" where the device's peak is not known."""
    told = estimate_hours(plan)
    if told is None:
        return ""
    low, high = UTILISATION
    gpus = f" each of {plan.ranks.size} GPUs" if plan.ranks.size > 1 else ""
    return (
        f"hours: {told[0]:.2g} to {told[1]:.2g} for {told[2]}, at {low:.0%} to {high:.0%} of the "
        f"{PEAK_TFLOPS[plan.device.name]:g} TFLOPS of{gpus or ' the GPU'}"
    )
