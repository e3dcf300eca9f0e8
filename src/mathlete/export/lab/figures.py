"""What the schemes cost a model: the records of `lab.json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mathlete.runs import read_json

LAB = "lab.json"


@dataclass(frozen=True, kw_only=True)
class SchemeCost:
    """What one quantisation scheme costs."""

    scheme: str
    bits: float
    """A weight, scales and zero points among them."""
    error: float | None
    """Frobenius norm of what is lost over that of the weights; None: AWQ's, which moves factors between layers."""
    kl: float
    """KL(original || quantised), nats a token."""
    top1: float
    """Top-1 agreement, 0 to 1."""
    mib: float
    """Of the quantised layers."""


@dataclass(frozen=True, kw_only=True)
class LabFigures:
    """What all schemes cost one model."""

    model: str
    tokens: int
    """Of the KL."""
    layers: int
    """Linear layers that are quantised."""
    weights: int
    """Of those layers."""
    schemes: tuple[SchemeCost, ...]
    not_run: Mapping[str, str] = field(default_factory=dict)
    """{scheme: why it was not measured, and the cure}."""

    @property
    def summary(self) -> dict[str, object]:
        """The figures of the step's manifest."""
        return {"tokens": self.tokens, "layers": self.layers, "weights": self.weights}

    def to_json(self) -> dict[str, object]:
        """Return the content of `lab.json`."""
        schemes = [asdict(scheme) for scheme in self.schemes]
        return {"model": self.model, **self.summary, "schemes": schemes, "not_run": dict(self.not_run)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "LabFigures":
        """Read what `to_json` gives."""
        return cls(**{**value, "schemes": tuple(SchemeCost(**scheme) for scheme in value["schemes"])})

    @classmethod
    def read(cls, folder: Path) -> "LabFigures":
        """Read the figures in a lab's folder.

        Raises:
            UserError: no readable lab.json.
        """
        return cls.from_json(read_json(folder / LAB))
