"""Licences of models: Kaggle's names of them, and what a model's card says.

>>> from tempfile import mkdtemp
>>> model = Path(mkdtemp())
>>> _ = (model / "README.md").write_text("---\\nlicense: mit\\n---\\n# A model\\n")
>>> name_licence(model)
'MIT'
"""

from pathlib import Path

HUB_LICENCES = {
    "apache-2.0": "Apache 2.0",
    "mit": "MIT",
    "cc-by-4.0": "CC BY 4.0",
    "cc0-1.0": "CC0 1.0",
    "llama3": "Llama 3 Community License",
    "gemma": "Gemma",
    "other": "Other",
}
"""{licence as a model's card on the hub names it: Kaggle's name of it}."""


def name_licence(model: Path) -> str:
    """Return the licence on a model's card by Kaggle's name of it, where one is known; "" where the card has none."""
    named = str(read_card(model).get("license") or "").lower()
    return HUB_LICENCES.get(named, named)


def read_card(model: Path) -> dict[str, object]:
    """Return the metadata of a model's card; nothing where there is no card, or none that can be read."""
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    card = model / "README.md"
    try:
        return dict(metadata_load(card) or {}) if card.is_file() else {}
    except (ValueError, YAMLError):
        return {}
