"""The loss curve of a training: its points, and the tokens and seconds that they come with."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import accumulate
from typing import Any

METRICS = "metrics.jsonl"
"""The curve's file in the adapter's folder, a line of JSON a point."""


def _declare(key: str) -> Any:
    """Declare a figure that the trainer logs by another name than the field's."""
    return field(default=None, metadata={"key": key})


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """What was logged after one of the steps; figures that the trainer does not log are None."""

    step: int
    loss: float
    """Mean since the point before."""
    learning_rate: float | None = None
    grad_norm: float | None = None
    """Before clipping."""
    entropy: float | None = None
    mean_token_accuracy: float | None = None
    reward: float | None = None
    completion_length: float | None = _declare("completions/mean_length")
    preference_accuracy: float | None = _declare("rewards/accuracies")
    preference_margin: float | None = _declare("rewards/margins")
    tokens: int | None = None
    """Trained on so far."""
    tokens_per_s: float | None = None
    seconds: float | None = None
    """Of training so far."""

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "CurvePoint":
        """Return the point in an entry of the trainer's history, or in a line of the curve's file."""
        return cls(**{name: entry[key] for name, key in _KEYS.items() if key in entry})

    def to_json(self) -> dict[str, float]:
        """Return {figure: value} by the trainer's names."""
        figures = {key: getattr(self, name) for name, key in _KEYS.items()}
        return {key: value for key, value in figures.items() if value is not None}


_KEYS = {field.name: field.metadata.get("key", field.name) for field in fields(CurvePoint)}


def read_curve(history: Sequence[Mapping[str, Any]]) -> list[CurvePoint]:
    """Return the points of the loss curve in the trainer's history; it also has entries of other kinds."""
    return [CurvePoint.from_json(entry) for entry in history if "loss" in entry]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training has come."""

    seconds: float = 0.0
    tokens: int = 0
    tokens_per_s: float = 0.0
    """Since the point before."""


class Meter:
    """Counts tokens and seconds of training; after a resume it goes on from the checkpoint's."""

    def __init__(self, lengths: Sequence[int], *, rows: int) -> None:
        """Take the tokens of each row in training order, and the rows of a step."""
        self._rows, self._tokens = rows, [0, *accumulate(lengths)]
        self._last, self._began, self._started, self._first = Progress(), 0.0, 0.0, 0

    def start(self, curve: Sequence[CurvePoint], *, step: int = 0) -> None:
        """Begin to count, after the step and the points that a checkpoint brought."""
        self._started, self._first = time.monotonic(), step
        if curve:
            last = curve[-1]
            self._last = Progress(seconds=last.seconds or 0.0, tokens=last.tokens or 0)
        self._began = time.monotonic() - self._last.seconds

    def describe(self, step: int) -> list[str]:
        """Return seconds a step and, where the rows are known, tokens a second since the start, in words."""
        steps, seconds = step - self._first, time.monotonic() - self._started
        if steps <= 0:
            return []
        words = [f"{seconds / steps:.3g} s/step"]
        if len(self._tokens) > 1:
            words.append(f"{(self._count(step) - self._count(self._first)) / max(1e-9, seconds):,.0f} tokens/s")
        return words

    def _count(self, step: int) -> int:
        return self._tokens[min(step * self._rows, len(self._tokens) - 1)]

    def read(self, step: int, entry: Mapping[str, Any]) -> Progress:
        """Return the progress at a step; where TRL draws the rows, the tokens are those in its log entry."""
        seconds = time.monotonic() - self._began
        known = len(self._tokens) > 1
        tokens = self._count(step) if known else int(entry["num_tokens"])
        rate = (tokens - self._last.tokens) / max(1e-9, seconds - self._last.seconds)
        self._last = Progress(seconds=round(seconds, 3), tokens=tokens, tokens_per_s=round(rate, 1))
        return self._last
