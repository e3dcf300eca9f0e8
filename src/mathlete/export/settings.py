"""The settings of merge and export, and the limits on what they may cost."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mathlete.errors import require
from mathlete.export.formats.table import DEFAULT_FORMAT, EXPORT_FORMATS, ServingEngine
from mathlete.export.formats.weights import Calibration
from mathlete.models import GPUS, GpuName

if TYPE_CHECKING:
    from mathlete.gates import Noise

MergeBase = Literal["dequant", "original"]
"""What the adapter is merged into: the dequantised 4-bit weights it was trained on · the model's own weights."""


_TIMES_EXACT = 10.0
"""A merge may cost so many times the noise of fp32, which is 1e-12 or so: that limit holds only on a broken device."""


@dataclass(frozen=True, kw_only=True)
class Survival:
    """Limits on what merge and export cost, measured on the held-out rows against the model as it was trained.

    Each is the larger of an absolute one and a multiple of the measured noise of computing (docs/training.md).
    """

    kl_merged: float = 1e-5
    """Largest KL(trained || merged), nats a token, both computed in fp32."""
    kl_int8: float = 1e-3
    """Largest KL(trained || export), nats a token, of a format of 8 or 16 bits."""
    kl_4bit: float = 5e-2
    """The same of a format of 4 bits; answers may change more in it by the root of what this is to the limit above."""
    times_noise: float = 10.0
    """An export's KL may also be so many times that of computing in 16 bits, its changed answers the root of that."""
    greedy: float = 0.99
    """Least share of greedy answers that an export leaves unchanged, 0 to 1; fewer are excused where that is chance."""
    max_tokens: int = 256
    """Cap on a greedy completion, tokens."""
    trial_rows: int = 4
    """Held-out rows on which merge and formats are tried before the training, with a random adapter; 0: not tried."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        require(
            ("survival.kl-merged", self.kl_merged, self.kl_merged > 0, "above 0"),
            ("survival.kl-int8", self.kl_int8, self.kl_int8 > 0, "above 0"),
            ("survival.kl-4bit", self.kl_4bit, self.kl_4bit > 0, "above 0"),
            ("survival.times-noise", self.times_noise, 0 <= self.times_noise < math.inf, "0 or above"),
            ("survival.greedy", self.greedy, 0 <= self.greedy <= 1, "0 to 1"),
            ("survival.max-tokens", self.max_tokens, self.max_tokens >= 1, "at least 1"),
            ("survival.trial-rows", self.trial_rows, self.trial_rows >= 0, "at least 0"),
        )

    def merge_limit(self, noise: float) -> float:
        """Return the largest KL(trained || merged), where the trained model is `noise` from itself in fp32.

        >>> Survival().merge_limit(1e-13), Survival().merge_limit(1e-3)
        (1e-05, 0.01)
        """
        return max(self.kl_merged, _TIMES_EXACT * noise)

    def export_limit(self, noise: "Noise | None", *, bits: int = 8) -> float:
        """Return the largest KL(trained || export) in so many bits; without a measured noise the absolute one."""
        absolute = self.kl_4bit if bits < 8 else self.kl_int8
        return max(absolute, self.times_noise * noise.kl) if noise else absolute

    def unchanged_limit(self, noise: "Noise | None", *, bits: int = 8) -> float:
        """Return the least share of unchanged greedy answers.

        >>> round(Survival().unchanged_limit(None, bits=4), 2)
        0.93
        """
        return max(0.0, 1 - self.changed_limit(noise.changed_share if noise else 0.0, bits=bits))

    def changed_limit(self, noise: float, *, bits: int = 8) -> float:
        """Return the largest share of changed greedy answers, where so large a share changes by noise; may be above 1.

        The KL grows with the square of what is changed in the weights, the share of other answers with that itself.

        >>> round(Survival().changed_limit(0.1), 2)
        0.32
        """
        coarser = math.sqrt(max(1.0, self.kl_4bit / self.kl_int8)) if bits < 8 else 1.0
        return max(coarser * (1 - self.greedy), math.sqrt(self.times_noise) * noise)


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
    """The formats the merged model is written in."""

    formats: tuple[FormatName, ...] = (DEFAULT_FORMAT,)
    """Formats to write: int8 always, to the run's `export`, which other commands read; each other to `export-NAME`. The
    run is refused for those that are named here, and not for an int8 that is not."""
    gpu: GpuName | None = None
    """The GPU that will serve the export: a format it can't run is refused, its 16-bit type is used (fp16 on a T4)."""
    engines: tuple[ServingEngine, ...] = ("llama.cpp",)
    """Engines that read their formats too: llama.cpp (GGUF, if installed) · vllm (others, beside this process)."""
    threshold: float = 6.0
    """Activations from which LLM.int8 keeps a column in 16 bits, 0 or above; 0: none is kept."""
    group: Literal[32, 64, 128] | None = None
    """Weights of a row that share a scale in w8a16 and w4a16; default: w8a16 the row, w4a16 as many as divide it."""
    calibration_rows: int = 128
    """Training rows that formats by gptq and awq are made for, drawn by the run's seed, 1 or more."""
    calibration_tokens: int = 2048
    """Tokens after which such a row is cut, 1 or more."""

    @property
    def named(self) -> list[str]:
        """The formats that are asked for, each once, int8 first."""
        return sorted(dict.fromkeys(self.formats), key=lambda name: name != DEFAULT_FORMAT)

    @property
    def written(self) -> list[str]:
        """Those that are written: int8 too, but for a GPU that can't run it."""
        default = EXPORT_FORMATS[DEFAULT_FORMAT]
        fits = self.gpu is None or default.fits(GPUS[self.gpu].capability or 0.0)
        return self.named if DEFAULT_FORMAT in self.formats or not fits else [DEFAULT_FORMAT, *self.named]

    def calibrate(self, rows: Path, *, seed: int) -> Calibration:
        """Return what calibrated formats look at: some of the rows in a datasets folder."""
        return Calibration(rows=rows, count=self.calibration_rows, tokens=self.calibration_tokens, seed=seed)

    def settings_of(self, name: str, *, seed: int) -> dict[str, object]:
        """Return what the weights of a format depend on, beside the merged model."""
        made: dict[str, object] = {"gpu": self.gpu, "threshold": self.threshold, "engines": self.engines}
        # Left out where it says nothing: an export of an earlier version is then still what is asked for.
        if self.group is not None and EXPORT_FORMATS[name].layout == "pack-quantized":
            made["group"] = self.group
        if EXPORT_FORMATS[name].is_calibrated:
            made |= {"calibration_rows": self.calibration_rows, "calibration_tokens": self.calibration_tokens}
            made |= {"seed": seed}
        return made

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        require(
            ("export.formats", "none", bool(self.formats), "at least one format"),
            ("export.threshold", self.threshold, 0 <= self.threshold < math.inf, "0 or above"),
            ("export.calibration-rows", self.calibration_rows, self.calibration_rows >= 1, "at least 1"),
            ("export.calibration-tokens", self.calibration_tokens, self.calibration_tokens >= 1, "at least 1"),
        )
