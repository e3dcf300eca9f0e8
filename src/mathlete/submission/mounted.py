"""A model of somebody else's on Kaggle that a notebook mounts and serves: nothing of it is uploaded.

Its tokenizer and config are read here, from a folder without weights or from the hub; so all checks but those of the
weights themselves are made before anything is pushed.
"""

from dataclasses import dataclass
from pathlib import Path

from mathlete.errors import UserError
from mathlete.folders import list_weights
from mathlete.licences import name_licence
from mathlete.runs import read_json

_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, kw_only=True)
class MountedWeights:
    """What is known here of weights that are on Kaggle only."""

    size: int
    """Bytes."""
    licence: str
    """Kaggle's name of it."""


def describe_weights(model: Path, *, gib: float | None, licence: str) -> MountedWeights:
    """Return size and licence of the weights that belong to a folder of tokenizer and config.

    Args:
        model: the folder.
        gib: their size as the user says it; None: by the files, or by their index.
        licence: as the user names it; "": by the model's card.

    Raises:
        UserError: nothing here tells the size or the licence.
    """
    size = _read_size(model) if gib is None else int(gib * 2**30)
    if not size:
        raise UserError(
            "the size of weights that are mounted must be known: the GPUs must hold them",
            value=f"neither weights nor {_INDEX} in {model}",
            cure=f"copy {_INDEX} beside config.json, or say it with --model-gib",
        )
    named = licence or name_licence(model)
    if not named:
        raise UserError(
            "the licence of a model that is mounted must be known: the rules ask for it",
            value=f"no card with a licence in {model}",
            cure="name it with --kaggle.licence, by Kaggle's name of it, such as 'Apache 2.0'",
        )
    return MountedWeights(size=size, licence=named)


def _read_size(model: Path) -> int:
    if files := list_weights(model):
        return sum(file.stat().st_size for file in files)
    index = model / _INDEX
    metadata: object = read_json(index).get("metadata") if index.is_file() else None
    size = metadata.get("total_size") if isinstance(metadata, dict) else None
    return int(size) if isinstance(size, int | float) and size > 0 else 0
