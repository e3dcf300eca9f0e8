"""How long a training may take, as a range: its arithmetic over a share of the GPU's peak.

Per token, a matrix product of a forward pass takes two operations a weight, the gradient of its input two more, that of
its weight two more where it is trained, and a block that is computed again its forward pass once more (Kaplan et al.
2020, arXiv 2001.08361, section 2.1; Chowdhery et al. 2022, arXiv 2204.02311, appendix B, for attention). What is not
counted: norms, dequantising of 4-bit weights, reading data, saving. They are why the share of the peak is low.
"""

from dataclasses import dataclass

from mathlete.models import Shape

UTILISATION = (0.15, 0.40)
"""Shares of the peak that training reaches, low and high: with 4-bit weights and short rows less, with long rows and
16-bit weights more. An assumption, and said with every figure that rests on it."""
ROWS = 1000
"""Rows for which hours are told where the settings do not say how many there will be."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """The arithmetic of a training."""

    shape: Shape
    trained: int
    """Parameters that get a gradient."""
    beside: int
    """Those of them that stand beside the model's own: an adapter's."""
    recomputed: bool
    """Whether blocks are computed again in the backward pass."""
    row: int
    """Tokens of the longest row."""
    step_rows: int
    """Rows of a step, all sequences of them."""
    steps: int | None
    """None: as many as make `ROWS` rows."""
    peak_tflops: float | None
    """One GPU's; None where it is not known."""
    gpus: int

    @property
    def token_flops(self) -> float:
        """Operations of one token's forward and backward pass."""
        shape, again = self.shape, int(self.recomputed)
        weights = (4 + 2 * again) * (shape.parameters + self.beside) + 2 * self.trained
        # Causal: a token looks at half of its row on average, in two products.
        attention = 2 * self.row * shape.heads * shape.head_width * shape.layers
        return weights + (3 + again) * attention

    @property
    def rows(self) -> int:
        """Rows that hours are told for."""
        return ROWS if self.steps is None else self.steps * self.step_rows

    @property
    def hours(self) -> tuple[float, float] | None:
        """(Least, most); None where the GPU's peak is not known."""
        if self.peak_tflops is None:
            return None
        operations = self.rows * self.row * self.token_flops / self.gpus
        most, least = (operations / (self.peak_tflops * 1e12 * share) / 3600 for share in UTILISATION)
        return least, most

    @property
    def hours_of(self) -> str:
        """What they are told for."""
        steps = "" if self.steps is None else f" ({self.steps:,} steps)"
        return f"{self.rows:,} rows of {self.row:,} tokens{steps}"

    def describe(self) -> str:
        """Return the range in a sentence; "" where the GPU's peak is not known."""
        if self.hours is None:
            return ""
        least, most = self.hours
        low, high = UTILISATION
        of = "the GPU" if self.gpus == 1 else f"each of {self.gpus} GPUs"
        peak = f"{self.peak_tflops:g} TFLOPS of {of}"
        return f"hours: {least:.2g} to {most:.2g} for {self.hours_of}, at {low:.0%} to {high:.0%} of the {peak}"
