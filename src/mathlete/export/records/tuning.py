"""What the training changed, and what the merge cost: the records of `effect.json` and of the merge's manifest."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mathlete.export.records.exports import Hop
from mathlete.export.records.intervals import change_from_json, change_to_json
from mathlete.export.settings import MergeBase
from mathlete.gates import GateOutcome, Noise
from mathlete.metrics import PairedChange
from mathlete.runs import read_record

EFFECT, ANSWERS = "effect.json", "answers.json"
"""Files of an effect step: its figures, and the greedy answers that they are of."""


@dataclass(frozen=True, kw_only=True)
class TuningChange:
    """What the training changed on some problems: (before, after), and after - before with its paired 95% interval."""

    source: str | None
    """Where the problems come from; None: the run's own held-out rows."""
    problems: int
    loss: tuple[float, float]
    """On their traces, nats a token."""
    loss_change: PairedChange
    accuracy: tuple[float, float]
    """Share of right greedy answers, 0 to 1."""
    accuracy_change: PairedChange

    def to_json(self) -> dict[str, object]:
        """Return the change as `effect.json` holds it."""
        return {
            **({} if self.source is None else {"source": self.source}),
            "problems": self.problems,
            "loss": [*self.loss],
            "loss_change": change_to_json(self.loss_change),
            "accuracy": [*self.accuracy],
            "accuracy_change": change_to_json(self.accuracy_change),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "TuningChange":
        """Read what `to_json` gives."""
        return cls(
            source=value.get("source"),
            problems=value["problems"],
            loss=tuple(value["loss"]),
            loss_change=change_from_json(value["loss_change"]),
            accuracy=tuple(value["accuracy"]),
            accuracy_change=change_from_json(value["accuracy_change"]),
        )


@dataclass(frozen=True, kw_only=True)
class EffectFigures:
    """What the training changed, before anything is merged."""

    hops: tuple[Hop, ...]
    """The base and the trained model."""
    heldout: TuningChange
    general: TuningChange | None
    """On problems of another kind; None where that was not measured."""
    noise: Noise | None = None
    """How far the trained model is from itself; None in a file of an earlier version."""
    outcome: GateOutcome = field(default_factory=GateOutcome)
    """Of the gate against forgetting."""

    @property
    def summary(self) -> dict[str, object]:
        """Losses and accuracies, flat: the figures of the step's manifest."""
        changes = {"heldout": self.heldout, "general": self.general}
        return {
            f"{name}_{key}": [*getattr(change, key)]
            for name, change in changes.items()
            if change is not None
            for key in ("loss", "accuracy")
        }

    def to_json(self) -> dict[str, object]:
        """Return the content of `effect.json`."""
        general = {} if self.general is None else {"general": self.general.to_json()}
        noise = {} if self.noise is None else {"noise": self.noise.to_json()}
        hops = [hop.to_json() for hop in self.hops]
        return {"hops": hops, "heldout": self.heldout.to_json(), **general, **noise, **self.outcome.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "EffectFigures":
        """Read what `to_json` gives."""
        return cls(
            hops=tuple(Hop.from_json(hop) for hop in value["hops"]),
            heldout=TuningChange.from_json(value["heldout"]),
            general=TuningChange.from_json(value["general"]) if "general" in value else None,
            noise=Noise.from_json(value["noise"]) if "noise" in value else None,
            outcome=GateOutcome.from_json(value),
        )

    @classmethod
    def read(cls, folder: Path) -> "EffectFigures":
        """Read the figures in an effect step's folder.

        Raises:
            UserError: no effect.json, or not one that the step wrote.
        """
        return read_record(folder / EFFECT, cls.from_json)


@dataclass(frozen=True, kw_only=True)
class BaseFigures:
    """How good one base of the merge is."""

    kl: float
    """KL(trained || merged into it), nats a token."""
    loss: float
    """On the held-out rows, nats a token."""


@dataclass(frozen=True, kw_only=True)
class BaseComparison:
    """The two weights an adapter can be merged into, side by side."""

    bases: Mapping[MergeBase, BaseFigures]
    loss_difference: PairedChange
    """original - dequant."""
    proposed: MergeBase
    """The better one."""

    def to_json(self) -> dict[str, object]:
        """Return the comparison as the merge's manifest holds it."""
        return {
            "bases": {base: asdict(figures) for base, figures in self.bases.items()},
            "loss_difference": change_to_json(self.loss_difference),
            "proposed": self.proposed,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "BaseComparison":
        """Read what `to_json` gives."""
        return cls(
            bases={base: BaseFigures(**figures) for base, figures in value["bases"].items()},
            loss_difference=change_from_json(value["loss_difference"]),
            proposed=value["proposed"],
        )


@dataclass(frozen=True, kw_only=True)
class MergeFigures:
    """What the merge made and what it cost: the figures of its manifest."""

    comparison: BaseComparison | None
    """None where only one base is at hand."""
    base: MergeBase
    """What the adapter was merged into."""
    dtype: str
    """torch's name of the type that the merged weights are saved in."""
    parameters: int
    kl: float
    """KL(trained || merged), nats a token."""
    tokens: int
    """Held-out tokens of the KL."""
    noise: float | None = None
    """KL of the trained model from itself in fp32; None, as the two below, in a file of an earlier version."""
    limit: float | None = None
    """Largest KL(trained || merged), nats a token."""
    outcome: GateOutcome = field(default_factory=GateOutcome)

    def to_json(self) -> dict[str, object]:
        """Return the figures as the manifest holds them."""
        return {
            **({} if self.comparison is None else self.comparison.to_json()),
            "base": self.base,
            "dtype": self.dtype,
            "parameters": self.parameters,
            "kl_merged": self.kl,
            "kl_tokens": self.tokens,
            **({} if self.noise is None else {"noise": self.noise, "limit": self.limit}),
            **self.outcome.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "MergeFigures":
        """Read what `to_json` gives."""
        return cls(
            comparison=BaseComparison.from_json(value) if "bases" in value else None,
            base=value["base"],
            dtype=value["dtype"],
            parameters=value["parameters"],
            kl=value["kl_merged"],
            tokens=value["kl_tokens"],
            noise=value.get("noise"),
            limit=value.get("limit"),
            outcome=GateOutcome.from_json(value),
        )
