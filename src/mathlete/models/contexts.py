"""How many tokens a model attends to, by its config.json, and what one that leaves a number out means."""

import functools
import json
from collections.abc import Mapping

from mathlete.shipped import data_folder

_LONGEST = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length", "seq_len")
"""Words of a config.json for the context, of which the smallest counts."""
_STRETCHED = ("su", "longrope", "llama3")
"""Ways to stretch positions whose `max_position_embeddings` has the factor in it."""
_MOST_FACTOR = 1e6
"""Beyond any model."""
_TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config")
"""The part for texts in the configuration of a model that sees or hears too."""


def find_default(kind: object, word: str) -> int | None:
    """Return the number that transformers takes where a config.json has none; None: it has none either.

    Args:
        kind: the model_type; of a model that sees or hears too it stands for the part for texts.
        word: the number's name.

    >>> find_default("gemma3", "max_position_embeddings"), find_default("llama", "head_dim")
    (131072, None)
    """
    return _read_defaults().get(str(kind), {}).get(word)


@functools.cache
def _read_defaults() -> dict[str, dict[str, int]]:
    kinds: dict[str, dict[str, int]] = json.loads((data_folder() / "config_defaults.json").read_text(encoding="utf-8"))[
        "kinds"
    ]
    return kinds


def find_context(config: Mapping[str, object]) -> int | None:
    """Return the tokens of a model's longest context, prompt and completion together; None: its config does not say.

    As vLLM 0.19.1 reads them (`_get_and_verify_max_len` of config/model.py), and so for every engine: positions that
    the configuration stretches, as YaRN does (arXiv 2309.00071), are stretched in transformers too.

    >>> yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    >>> find_context({"max_position_embeddings": 40960, "rope_scaling": yarn})
    131072
    >>> find_context({"thinker_config": {"text_config": {"max_position_embeddings": 8192}}})
    8192
    >>> find_context({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}})
    131072
    """
    numbers = {name: value for name, value in config.items() if type(value) is int and value > 0}
    longest = numbers.get("model_max_length") or min(
        [numbers[name] for name in _LONGEST if name in numbers], default=None
    )
    if longest is None:
        parts = [part for name in _TEXT_PARTS if isinstance(part := config.get(name), Mapping)]
        kind = config.get("model_type")
        said = next(filter(None, (find_context({"model_type": kind, **part}) for part in parts)), None)
        longest = None if parts else find_default(kind, _LONGEST[0])
        if longest is None:
            return said
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    # Gemma 3's positions are stretched already.
    if not isinstance(rope, Mapping) or "gemma3" in str(config.get("model_type")):
        return longest
    # Of each kind of layer, or of all of them.
    kinds = [one for one in rope.values() if isinstance(one, Mapping)] or [rope]
    return max(_stretch(longest, kind) for kind in kinds)


def _stretch(longest: int, rope: Mapping[str, object]) -> int:
    kind, factor = rope.get("rope_type", rope.get("type")), rope.get("factor")
    if kind in _STRETCHED or not isinstance(factor, int | float) or not 0 < factor < _MOST_FACTOR:
        return longest
    original = rope.get("original_max_position_embeddings")
    return int(factor * (original if kind == "yarn" and isinstance(original, int) else longest))
