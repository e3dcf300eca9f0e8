"""Makes data/config_defaults.json, of the transformers that is here: `python tests/config_defaults.py`."""

import json
from typing import Any

import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from mathlete.shipped import data_folder

FILE = data_folder() / "config_defaults.json"
SOURCE = "tests/config_defaults.py: what a config.json that leaves a number out means, of its part for texts"
WORDS = (
    *("max_position_embeddings", "num_attention_heads", "num_key_value_heads", "head_dim", "num_hidden_layers"),
    *("hidden_size", "intermediate_size", "vocab_size"),
)


def find_defaults() -> dict[str, dict[str, int]]:
    """Return {model_type: {word: the number that transformers takes where config.json has none}}."""
    found = dict[str, dict[str, int]]()
    for kind in sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES}):
        whole: Any = CONFIG_MAPPING[kind]
        text: Any = whole.sub_configs.get("text_config", whole)
        # Of AutoConfig the part for texts names its own kind.
        names = getattr(text, "attribute_map", {})
        numbers = {word: getattr(text, names.get(word, word), None) for word in WORDS}
        if given := {word: value for word, value in numbers.items() if type(value) is int and value > 0}:
            found[kind] = given
    return found


def main() -> None:
    kinds = (f"    {json.dumps(kind)}: {json.dumps(numbers)}" for kind, numbers in find_defaults().items())
    said = {"transformers": transformers.__version__, "source": SOURCE}
    head = json.dumps(said, indent=2).removesuffix("\n}")
    FILE.write_text(f'{head},\n  "kinds": {{\n' + ",\n".join(kinds) + "\n  }\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
