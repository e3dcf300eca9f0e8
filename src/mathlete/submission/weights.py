"""How a model's weights are stored, and what a notebook needs to load them: from the table of export formats.

>>> WeightNeeds.of("int8").wheels
('bitsandbytes>=0.49',)
"""

from dataclasses import dataclass
from pathlib import Path

from mathlete.export import EXPORT_FORMATS
from mathlete.runs import read_json


@dataclass(frozen=True, kw_only=True)
class WeightNeeds:
    """What weights stored in one way need."""

    capability: float
    """Compute capability from which the engines have kernels for them."""
    wheels: tuple[str, ...] = ()
    """Requirements beyond Kaggle's image."""

    @staticmethod
    def known() -> "dict[str, WeightNeeds]":
        """Return the needs of all that an engine can load, by the word that `stored_as` gives."""
        needs: dict[str, WeightNeeds] = {}
        for entry in EXPORT_FORMATS.values():
            # Formats stored in one way can't be told apart by their files: the least demanding one counts.
            if entry.stored_as and (entry.stored_as not in needs or entry.least < needs[entry.stored_as].capability):
                needs[entry.stored_as] = WeightNeeds(capability=entry.least, wheels=entry.wheels)
        return {**needs, **_NOT_EXPORTED}

    @staticmethod
    def of(stored: str) -> "WeightNeeds | None":
        """Return the needs of weights stored so; None where no engine loads them."""
        return WeightNeeds.known().get(stored)


_NOT_EXPORTED = {
    "dense": WeightNeeds(capability=6.0),
    "nf4": WeightNeeds(capability=6.0, wheels=("bitsandbytes>=0.49",)),
    "gptq": WeightNeeds(capability=7.5),
    "awq": WeightNeeds(capability=7.5),
    "fp8": WeightNeeds(capability=8.9),
}
"""What engines load and mathlete does not write: the tables of bitsandbytes and vLLM."""


def stored_as(model: Path) -> str:
    """Return how a model's weights are stored: dense, int8 or nf4 (bitsandbytes), or its config's own word."""
    config = read_json(model / "config.json").get("quantization_config")
    if not isinstance(config, dict):
        return "dense"
    if config.get("quant_method") == "bitsandbytes":
        return "nf4" if config.get("load_in_4bit") else "int8"
    return str(config.get("quant_method"))


def wheels_for(model: Path) -> tuple[str, ...]:
    """Return the requirements beyond Kaggle's image of a model's weights."""
    needs = WeightNeeds.of(stored_as(model))
    return needs.wheels if needs else ()
