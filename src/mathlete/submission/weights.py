"""How a model's weights are stored, and what a notebook needs to load them: from the tables of formats."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mathlete.errors import UserError
from mathlete.export.formats import EXPORT_FORMATS, MOUNTED_FORMATS, StoredFormat, find_formats, read_storage
from mathlete.models import Device, Shape
from mathlete.runs import read_record
from mathlete.sampling.served import VllmSettings

_EXPORT = "export the model that they were made of as"
"""Weights of few bits may be a stranger's: nothing here makes others of them."""
_MOUNT = "or name another of Kaggle's with --model-source"

FEWER_BITS = "export or mount weights of fewer bits, or take a smaller model"
"""Cure where weights have no room: those of another's model on Kaggle are exported by nobody here."""


def name_storage(model: Path) -> str:
    """Return the word for how a model's weights are stored."""
    return read_storage(Shape.read_config(model))


def formats_of(model: Path) -> tuple[StoredFormat, ...]:
    """Return the formats that a model's weights may be of, by its config.json; none where no engine loads them."""
    config = Shape.read_config(model)
    return find_formats(read_storage(config), config)


def name_format(model: Path) -> str:
    """Return the name of the format of a model's weights, as a slug may have it: int8, w8a16, float16, awq."""
    config = Shape.read_config(model)
    stored = read_storage(config)
    if stored == "dense":
        return str(config.get("dtype") or config.get("torch_dtype") or stored).lower()
    if stored == "compressed-tensors":
        return read_record(model / "config.json", _name_compressed)
    return stored.lower()


def _name_compressed(config: dict[str, Any]) -> str:
    groups: Any = (Shape.read_quantization(config) or {}).get("config_groups") or {}
    for group in groups.values():
        if (group["weights"].get("type"), group["weights"]["num_bits"]) == ("float", 8):
            return "fp8"
        # Activations of which nothing is said stay in 16 bits.
        return f"w{group['weights']['num_bits']}a{(group.get('input_activations') or {}).get('num_bits', 16)}"
    return "compressed-tensors"


def list_needed(
    model: Path, *, engine: str = "transformers", vllm: VllmSettings | None = None, other: str = ""
) -> tuple[str, ...]:
    """Return the requirements beyond Kaggle's image of a model's weights, as they are stored and as they are held.

    Args:
        model: the folder.
        engine: what serves it.
        vllm: its settings, where it is vLLM; None: the defaults.
        other: a cure beside other weights, such as an engine that serves them on the machine; "": none.

    Raises:
        UserError: nothing is known by which the engine serves weights that are stored so.
    """
    stored = name_storage(model)
    formats = [one for one in formats_of(model) if one.embedded or engine == "vllm"]
    if not formats:
        raise UserError(
            "the notebook must know how to serve the weights: with which wheels, and by a rehearsal that answered",
            value=f"{stored} weights in {model}",
            cure=f"{_EXPORT} one of {', '.join(list_storage())}, {_MOUNT}{other and f'; {other}'}",
        )
    held = vllm.read_extra().get("quantization") if vllm and engine == "vllm" else None
    # Its lock holds what its other ways need.
    made = find_formats("nf4") if held == "bitsandbytes" else ()
    return tuple(dict.fromkeys(wheel for one in (*formats, *made) for wheel in one.wheels))


def tell_other_weights(gpu: Device, *, model: Mapping[str, object], embedded: bool) -> str:
    """Return the cure where vLLM does not serve weights as they are stored on a kind of GPU.

    Args:
        gpu: the kind.
        model: the model's config.json.
        embedded: whether the embedded engine has room for them.
    """
    stored = find_formats(read_storage(model), model)
    # Its own format is what is refused.
    others = [one for one in EXPORT_FORMATS.values() if one.engine == "vllm" and one not in stored]
    names = [one.name for one in others if one.fits(gpu.capability or 0)]
    read = embedded and any(one.embedded for one in stored)
    export = f"{_EXPORT} {' or '.join(names)}" if names else "take a machine with another GPU"
    return f"{export}, {_MOUNT}{', or use --engine embedded' * read}"


def list_storage(*, embedded: bool = True) -> list[str]:
    """Return the words for all that a notebook's own engine can load, or that either engine can."""
    formats = (*EXPORT_FORMATS.values(), *MOUNTED_FORMATS)
    words = (one.stored_as for one in formats if one.embedded or not embedded)
    return [*dict.fromkeys(word for word in words if word)]
