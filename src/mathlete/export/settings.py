"""The settings of merge and export, and the limits on what they may cost."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mathlete.errors import require
from mathlete.export.formats.table import DEFAULT_FORMAT, EXPORT_FORMATS, ServingEngine
from mathlete.models import GpuName

MergeBase = Literal["dequant", "original"]
"""What the adapter is merged into: the dequantised 4-bit weights it was trained on · the model's own weights."""


@dataclass(frozen=True, kw_only=True)
class Survival:
    """Limits on what merge and export cost, measured on the held-out rows against the model as it was trained."""

    kl_merged: float = 1e-4
    """Largest KL(trained || merged), nats a token."""
    kl_int8: float = 1e-3
    """Largest KL(trained || int8), nats a token."""
    greedy: float = 0.99
    """Least share of greedy answers that an export leaves unchanged, 0 to 1."""
    max_tokens: int = 256
    """Cap on a greedy completion, tokens."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        require(
            ("survival.kl-merged", self.kl_merged, self.kl_merged > 0, "above 0"),
            ("survival.kl-int8", self.kl_int8, self.kl_int8 > 0, "above 0"),
            ("survival.greedy", self.greedy, 0 <= self.greedy <= 1, "0 to 1"),
            ("survival.max-tokens", self.max_tokens, self.max_tokens >= 1, "at least 1"),
        )


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """Limits on what tuning costs on other problems than it trained on, measured before the merge."""

    source: str | None = None
    """Source of those problems with their traces, as for --source; pocket-easy: unseen ones of the pocket generator."""
    problems: int = 200
    """How many of its first problems are used, 1 or more."""
    accuracy: float = 0.05
    """Largest fall of greedy accuracy, as a share of the problems, 0 to 1; ignored where its 95% interval holds 0."""
    loss: float = 0.1
    """Largest rise of the loss on their traces, nats a token, 0 or above; ignored where its 95% interval holds 0."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        require(
            ("forgetting.problems", self.problems, self.problems >= 1, "at least 1"),
            ("forgetting.accuracy", self.accuracy, 0 <= self.accuracy <= 1, "0 to 1"),
            ("forgetting.loss", self.loss, self.loss >= 0, "0 or above"),
        )


if TYPE_CHECKING:
    FormatName = str
else:
    # The command line's choices are the table's names.
    FormatName = Literal[tuple(EXPORT_FORMATS)]


@dataclass(frozen=True, kw_only=True)
class Export:
    """The 8-bit formats the merged model is written in."""

    formats: tuple[FormatName, ...] = (DEFAULT_FORMAT,)
    """Formats to write: int8 always, to the run's `export`, which other commands read; each other to `export-NAME`."""
    gpu: GpuName | None = None
    """The GPU that will serve the export: a format it can't run is refused, its 16-bit type is used (fp16 on a T4)."""
    engines: tuple[ServingEngine, ...] = ("llama.cpp",)
    """Engines that read their formats too: llama.cpp (q8_0, if installed) · vllm (others, beside this process)."""
    threshold: float = 6.0
    """Activations from which LLM.int8 keeps a column in 16 bits, 0 or above; 0: none is kept."""

    @property
    def others(self) -> list[str]:
        """The formats beside int8, each once."""
        return [name for name in dict.fromkeys(self.formats) if name != DEFAULT_FORMAT]

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        require(
            ("export.formats", "none", bool(self.formats), "at least one format"),
            ("export.threshold", self.threshold, 0 <= self.threshold < math.inf, "0 or above"),
        )
