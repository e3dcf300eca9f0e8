"""The settings of an adapter and of its training."""

import math
from dataclasses import dataclass
from typing import Literal

from mathlete.errors import require

Target = Literal["all-linear", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""A linear layer of each block, as Qwen2 and Llama name them; all-linear: every one but the output layer."""

Init = Literal["default", "gaussian", "eva", "pissa", "olora", "loftq", "corda", "orthogonal"]
"""First weights of an adapter, by peft's names; default: zero in effect."""


@dataclass(frozen=True, kw_only=True)
class Lora:
    """The adapter (arXiv 2106.09685): low-rank updates of linear layers."""

    rank: int = 16
    """Rank of each update, 1 or more."""
    alpha: int = 32
    """The update is scaled by alpha / rank."""
    dropout: float = 0.0
    """Share of the adapter's inputs dropped while training, 0 to below 1."""
    targets: tuple[Target, ...] = ("all-linear",)
    """Layers that get one; all of them is what matches full tuning (arXiv 2305.14314, section 4)."""

    init: Init = "default"
    """First weights: default, gaussian, eva (from the first rows' activations, arXiv 2410.07170); the others do not
    work on a 4-bit base."""
    virtual_tokens: int = 16
    """Tokens before the prompt that --method prefix and prompt train, 1 or more."""

    @property
    def target_modules(self) -> str | list[str]:
        """The targets as peft takes them."""
        return "all-linear" if "all-linear" in self.targets else list(self.targets)

    def check(self) -> None:
        """Raises UserError where a value is out of its range."""
        alone = "all-linear" not in self.targets or len(self.targets) == 1
        require(
            ("lora.targets", " ".join(self.targets) or "none", bool(self.targets) and alone, "layers, or all-linear"),
            ("lora.rank", self.rank, self.rank >= 1, "at least 1"),
            ("lora.virtual-tokens", self.virtual_tokens, self.virtual_tokens >= 1, "at least 1"),
            ("lora.alpha", self.alpha, self.alpha >= 1, "at least 1"),
            ("lora.dropout", self.dropout, 0 <= self.dropout < 1, "0 to below 1"),
        )


@dataclass(frozen=True, kw_only=True)
class Tune:
    """How the adapter is trained: AdamW, a warm-up, then a cosine to 0."""

    rate: float = 2e-3
    """Peak learning rate, above 0."""
    epochs: float = 1.0
    """Passes over the rows, above 0."""
    steps: int | None = None
    """Optimizer steps; None: as many as the epochs give."""
    batch: int = 32
    """Rows of one forward pass, 1 or more."""
    pack: int | None = None
    """Put rows into shared sequences of so many tokens, at least the longest row's; None: pad each to its batch. A
    batch is then so many sequences: 1 is best, for where there is no FlashAttention its mask is quadratic."""
    accumulate: int = 1
    """Forward passes of one optimizer step, 1 or more."""
    warmup: float = 0.05
    """Share of the steps in which the rate rises, 0 to 1."""
    clip: float = 1.0
    """Largest norm of the gradient, above 0."""
    checkpointing: Literal["auto", "on", "off", "offload"] = "auto"
    """Compute activations twice instead of keeping them; auto: where the memory plan fits only so; offload: and move
    what is still kept into the machine's memory, which needs a GPU."""
    compile: bool = False
    """Compile the model's graph first (torch.compile): minutes that only a long run on a GPU makes good."""
    save_every: int = 50
    """Steps between checkpoints, 1 or more: what a kill can cost."""
    log_every: int = 10
    """Steps between points of the loss curve, 1 or more."""

    def check(self) -> None:
        """Raises UserError where a value is out of its range."""
        require(
            ("tune.rate", self.rate, self.rate > 0, "above 0"),
            ("tune.epochs", self.epochs, 0 < self.epochs < math.inf, "above 0"),
            ("tune.steps", self.steps, self.steps is None or self.steps >= 1, "at least 1"),
            ("tune.batch", self.batch, self.batch >= 1, "at least 1"),
            ("tune.pack", self.pack, self.pack is None or self.pack >= 16, "at least 16"),
            ("tune.accumulate", self.accumulate, self.accumulate >= 1, "at least 1"),
            ("tune.warmup", self.warmup, 0 <= self.warmup <= 1, "0 to 1"),
            ("tune.clip", self.clip, self.clip > 0, "above 0"),
            ("tune.save-every", self.save_every, self.save_every >= 1, "at least 1"),
            ("tune.log-every", self.log_every, self.log_every >= 1, "at least 1"),
        )

    def steps_for(self, rows: int) -> int:
        """Optimizer steps over so many rows.

        >>> Tune(batch=4, epochs=2.0).steps_for(10)
        5
        """
        return self.steps or math.ceil(self.epochs * rows / (self.batch * self.accumulate))
