"""A model's config.json, completed by what another file says of how its weights are stored."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mathlete.errors import UserError
from mathlete.runs import read_json

MODELOPT_FILE = "hf_quant_config.json"
"""Where ModelOpt 0.29 and before says how weights are stored, and config.json does not (vLLM 0.19.1, `get_config` of
transformers_utils/config.py)."""


def find_quantization(config: Mapping[str, object]) -> Mapping[str, object] | None:
    """Return how weights are stored, by any model's config.json; None of dense ones.

    Some models that see keep it in the part for texts, and compressed-tensors once called it otherwise (vLLM 0.19.1,
    `get_quant_config` of weight_utils.py).

    >>> find_quantization({"text_config": {"quantization_config": {"quant_method": "awq"}}})
    {'quant_method': 'awq'}
    """
    inner = config.get("text_config")
    parts = (config, inner if isinstance(inner, Mapping) else {})
    said = (part.get(name) for name in ("quantization_config", "compression_config") for part in parts)
    return next((how for how in said if isinstance(how, Mapping)), None)


def name_undescribed(config: Mapping[str, object], *, on_kaggle: bool = False) -> str:
    """Return what alone says how weights are stored, and transformers does not read; "" where it reads that.

    Args:
        config: a model's config.json.
        on_kaggle: whether the transformers of Kaggle's image is asked, else the one that is here.

    >>> name_undescribed({"compression_config": {"quant_method": "compressed-tensors"}})
    'compression_config'
    >>> name_undescribed({"quantization_config": {"quant_method": "awq"}}), name_undescribed({})
    ('', '')
    """
    if find_quantization(config) is None or isinstance(config.get("quantization_config"), Mapping):
        return ""
    inner = config.get("text_config")
    within = isinstance(inner, Mapping) and isinstance(inner.get("quantization_config"), Mapping)
    if not within:
        return "compression_config"
    return "" if not on_kaggle and reads_text_part() else "quantization_config in text_config"


@functools.cache
def reads_text_part() -> bool:
    """Return whether the transformers that is here reads how weights are stored where the part for texts says it.

    5.17 does (`get_hf_quantizer` of quantizers/auto.py); 5.0.0, which Kaggle's image has, looks at the whole alone.
    """
    from transformers.quantizers import auto

    look: Callable[..., object] = auto.get_hf_quantizer
    asked = list[object]()

    class Whole:
        """A model's config that says nothing itself."""

        def get_text_config(self, **how: object) -> "Whole":
            asked.append(how)
            return self

    look(Whole(), None, None, True, {})
    return bool(asked)


def explain_undescribed(
    config: Mapping[str, object], *, beside: bool, location: str, on_kaggle: bool, other: str
) -> UserError | None:
    """Return the error of a model whose weights transformers would take for dense ones; None where it reads of them.

    Args:
        config: the model's own config.json.
        beside: whether the file of ModelOpt alone says how they are stored.
        location: the model's.
        on_kaggle: whether the transformers of Kaggle's image is asked, else the one that is here.
        other: a cure beside another model; empty: there is none.
    """
    if not (where := MODELOPT_FILE if beside else name_undescribed(config, on_kaggle=on_kaggle)):
        return None
    mounted = ", and with --model-source where one is mounted" if on_kaggle else ""
    rename = "" if beside else f"write what {where} says as quantization_config of config.json itself, or "
    return UserError(
        "config.json must say in quantization_config how weights are stored: transformers "
        f"{'of the image ' if on_kaggle else ''}would take them for dense ones",
        value=f"{where} of {location} alone",
        cure=f"{rename}name the original model with --model{mounted}{other and f'; {other}'}",
    )


def complete_config(config: dict[str, Any], *, read: Callable[[str], Mapping[str, object] | None]) -> dict[str, Any]:
    """Return a config.json with how the weights are stored, where the file of ModelOpt alone says that.

    Args:
        config: as it was read.
        read: reads another file of the model; None: there is none.

    >>> stored = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}
    >>> complete_config({}, read=lambda name: stored)["quantization_config"]["quant_method"]
    'modelopt'
    >>> complete_config({}, read=lambda name: {"quantization": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}})
    {}
    >>> complete_config({}, read=lambda name: {})  # of a tool that asked for none
    {}
    """
    if find_quantization(config) is not None or (stored := read(MODELOPT_FILE)) is None:
        return config
    weights = stored.get("quantization", stored)
    if not weights:
        return config
    # A cache in fewer bits may be all that it speaks of.
    if isinstance(weights, Mapping) and weights is not stored and weights.get("quant_algo") is None:
        return config
    return {**config, "quantization_config": {"quant_method": "modelopt", **stored}}


def read_folder_config(folder: Path) -> dict[str, Any]:
    """Read the config.json of a model's folder, completed.

    Raises:
        UserError: it is not there, or a file is no JSON.
    """
    return complete_config(
        read_json(folder / "config.json"),
        read=lambda name: read_json(folder / name) if (folder / name).is_file() else None,
    )
