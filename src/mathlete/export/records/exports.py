"""What every hop to an export cost, and what the export left of each layer: the records of `survival.json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mathlete.export.records.intervals import change_from_json, change_to_json
from mathlete.gates import SURVIVAL, Gates
from mathlete.metrics import PairedChange
from mathlete.runs import read_record


@dataclass(frozen=True, kw_only=True)
class Hop:
    """One model on the way from the base to what serves, beside the model as it was trained."""

    name: str
    """base, trained, merged, or an export format's name."""
    engine: str
    """What read it: transformers, llama.cpp or vllm."""
    kl: float | None
    """KL(trained || this model), nats a token; None where the engine gives no distributions."""
    top1: float | None
    """Top-1 agreement: share of tokens with the same likeliest next token, 0 to 1; None as above."""
    problems: int
    answered: int
    """Problems that this model or the trained one answers."""
    unchanged: float | None
    """Unchanged greedy answers as a share of the answered problems; None where there are none."""
    right: int
    change: PairedChange
    """Right answers, this model - trained, as a share of the problems, with its paired 95% interval."""
    bytes: int
    """Of its weights in files."""
    seconds: float
    """To load and to measure it."""
    beyond_noise: PairedChange | None = None
    """Changed greedy answers, this model - the noise of computing, as a share of the problems that any of them answers,
    with its paired 95% interval; None in a file of an earlier version."""

    def to_json(self) -> dict[str, object]:
        """Return the hop as `effect.json` and `survival.json` hold it."""
        rest = {key: value for key, value in asdict(self).items() if key not in ("name", "beyond_noise")}
        beyond = {} if self.beyond_noise is None else {"beyond_noise": change_to_json(self.beyond_noise)}
        return {"hop": self.name, **rest, "change": change_to_json(self.change), **beyond}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Hop":
        """Read what `to_json` gives."""
        rest = {key: item for key, item in value.items() if key not in ("hop", "change", "beyond_noise")}
        beyond = change_from_json(value["beyond_noise"]) if "beyond_noise" in value else None
        return cls(**rest, name=value["hop"], change=change_from_json(value["change"]), beyond_noise=beyond)


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """What was trained into one linear layer, and what an export lost of it.

    With W the weights it was trained on, M the merged and Q the exported ones, and norms Frobenius'.
    """

    layer: str
    signal: float
    """|M - W| / |M|: the change by training."""
    noise: float
    """|Q - M| / |M|: what the export's numbers lose."""
    kept: float
    """<Q - W, M - W> / |M - W|²: the share of the change that is still in the export; 1 where none is lost."""

    @property
    def signal_to_noise(self) -> float:
        """The change by training over what the export loses."""
        return self.signal / max(self.noise, 1e-12)


@dataclass(frozen=True, kw_only=True)
class SurvivalFigures:
    """What an export cost against the model as it was trained."""

    tokens: int
    """Held-out tokens of the KL."""
    hops: tuple[Hop, ...]
    layers: tuple[LayerCost, ...]
    gates: Gates | None = None
    """What the hops may cost, and what was broken; None in a file of an earlier version."""

    @property
    def export(self) -> Hop:
        """The export itself as transformers reads it: the last such hop, for an engine of its own comes after it."""
        return [hop for hop in self.hops if hop.engine == "transformers"][-1]

    @property
    def summary(self) -> dict[str, object]:
        """The main figures, flat: those of the model card and of the step's manifest."""
        kls: dict[str, object] = {f"kl_{hop.name}": hop.kl for hop in self.hops if hop.kl is not None}
        return {
            **kls,
            "kl_tokens": self.tokens,
            "top1": self.export.top1,
            "greedy_problems": self.export.problems,
            "greedy_answered": self.export.answered,
            "greedy_unchanged": self.export.unchanged,
            "greedy_right": self.export.right,
            "bytes": self.export.bytes,
        }

    @property
    def weakest_layer(self) -> LayerCost | None:
        """The layer whose change by training is smallest beside its noise; None where no layer was trained."""
        return min(self.layers, key=lambda layer: layer.signal_to_noise, default=None)

    def to_json(self) -> dict[str, object]:
        """Return the content of `survival.json`."""
        hops, layers = [hop.to_json() for hop in self.hops], [asdict(layer) for layer in self.layers]
        gates = {} if self.gates is None else self.gates.to_json()
        return {**self.summary, **gates, "hops": hops, "layers": layers}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "SurvivalFigures":
        """Read what `to_json` gives; the summary is made of the hops again."""
        return cls(
            tokens=value["kl_tokens"],
            hops=tuple(Hop.from_json(hop) for hop in value["hops"]),
            layers=tuple(LayerCost(**layer) for layer in value["layers"]),
            gates=Gates.from_json(value) if "limits" in value else None,
        )

    @classmethod
    def read(cls, export: Path) -> "SurvivalFigures":
        """Read the figures in an export's folder.

        Raises:
            UserError: no survival.json, or not one that an export wrote.
        """
        return read_record(export / SURVIVAL, cls.from_json)
