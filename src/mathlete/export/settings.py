"""The settings of merge and export, and the limits on what they may cost."""

import math
from dataclasses import dataclass
from typing import Literal

from mathlete.errors import require
from mathlete.models import GpuName

MergeBase = Literal["dequant", "original"]
"""What the adapter is merged into: the dequantised 4-bit weights it was trained on · the model's own weights."""


@dataclass(frozen=True, kw_only=True)
class Survival:
    """What merge and export may cost, measured on the held-out rows against the model as it was trained."""

    kl_merged: float = 1e-4
    """Largest KL(trained || merged), nats a token."""
    kl_int8: float = 1e-3
    """Largest KL(trained || int8), nats a token."""
    greedy: float = 0.99
    """Least share of greedy answers that int8 leaves unchanged, 0 to 1."""
    max_tokens: int = 256
    """Cap on a greedy completion, tokens."""

    def check(self) -> None:
        """Raises UserError where a value is out of its range."""
        require(
            ("survival.kl-merged", self.kl_merged, self.kl_merged > 0, "above 0"),
            ("survival.kl-int8", self.kl_int8, self.kl_int8 > 0, "above 0"),
            ("survival.greedy", self.greedy, 0 <= self.greedy <= 1, "0 to 1"),
            ("survival.max-tokens", self.max_tokens, self.max_tokens >= 1, "at least 1"),
        )


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """What tuning may cost of another kind of problem, measured on base and trained model before the merge."""

    source: str | None = None
    """Source of such problems with traces, as of --source; pocket-easy: the pocket generator's, unseen ones."""
    problems: int = 200
    """Problems of it, from its beginning, 1 or more."""
    accuracy: float = 0.05
    """Largest fall of greedy accuracy, as a share of the problems, 0 to 1; one that may be chance does not count."""
    loss: float = 0.1
    """Largest rise of the loss on their traces, nats a token, 0 or above; one that may be chance does not count."""

    def check(self) -> None:
        """Raises UserError where a value is out of its range."""
        require(
            ("forgetting.problems", self.problems, self.problems >= 1, "at least 1"),
            ("forgetting.accuracy", self.accuracy, 0 <= self.accuracy <= 1, "0 to 1"),
            ("forgetting.loss", self.loss, self.loss >= 0, "0 or above"),
        )


FormatName = Literal["int8", "w8a16", "w8a8", "q8_0"]
"""8-bit formats: bitsandbytes · compressed-tensors, weights alone · and activations (vLLM) · GGUF (llama.cpp)."""


ServingEngine = Literal["llama.cpp", "vllm"]
"""Engines beside transformers that read exports: llama.cpp q8_0, vllm the others."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """The 8-bit formats the merged model is written in."""

    formats: tuple[FormatName, ...] = ("int8",)
    """int8 is always made, in the run's `export`, for all other commands read it; each other one in `export-NAME`."""
    gpu: GpuName | None = None
    """The GPU that will serve: a format it can't run is refused, and its 16-bit type is taken (fp16 on a T4)."""
    engines: tuple[ServingEngine, ...] = ("llama.cpp",)
    """Engines that must read their formats too: llama.cpp (q8_0, where its package is) · vllm (the others; it must have
    room beside this process)."""
    threshold: float = 6.0
    """Activations from which LLM.int8 keeps a column in 16 bits, 0 or above; 0: none is kept."""

    @property
    def others(self) -> list[str]:
        """The formats beside int8, each once."""
        return [name for name in dict.fromkeys(self.formats) if name != "int8"]

    def check(self) -> None:
        """Raises UserError where a value is out of its range."""
        require(
            ("export.formats", "none", bool(self.formats), "at least one format"),
            ("export.threshold", self.threshold, 0 <= self.threshold < math.inf, "0 or above"),
        )
