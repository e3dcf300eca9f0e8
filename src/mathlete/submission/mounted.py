"""A model of somebody else's on Kaggle that a notebook mounts and serves: nothing of it is uploaded.

Its tokenizer and config are read here, from a folder without weights or from the hub; so all checks but those of the
weights themselves are made before anything is pushed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mathlete.errors import UserError
from mathlete.licences import name_licence
from mathlete.models import find_model


@dataclass(frozen=True, kw_only=True)
class MountedWeights:
    """What is known here of weights that are on Kaggle only."""

    size: int
    """Bytes."""
    licence: str
    """Kaggle's name of it."""


def describe_weights(
    model: Path, *, gib: float | None, licence: str, say: Callable[[str], None] = lambda text: None
) -> MountedWeights:
    """Return size and licence of the weights that belong to a folder of tokenizer and config.

    A part of the weights here is never taken for the whole: that is on Kaggle.

    Args:
        model: the folder.
        gib: their size as the user says it; None: by the files, or by their index.
        licence: as the user names it; "": by the model's card.
        say: called with the size and what tells it.

    Raises:
        UserError: nothing here tells the size or the licence, or a file of weights here is cut.
    """
    known = find_model(str(model)).measure_weights()
    size = known.size if gib is None else int(gib * 2**30)
    if not size:
        raise UserError(
            "the size of weights that are mounted must be known: the GPUs must hold them",
            value=known.source,
            cure="copy model.safetensors.index.json beside config.json, or say it with --model-gib",
        )
    say(f"weights of {size / 2**30:.1f} GiB on Kaggle: by {known.source if gib is None else '--model-gib'}")
    named = licence or name_licence(model)
    if not named:
        raise UserError(
            "the licence of a model that is mounted must be known: the rules ask for it",
            value=f"no card with a licence in {model}",
            cure="name it with --kaggle.licence, by Kaggle's name of it, such as 'Apache 2.0'",
        )
    return MountedWeights(size=size, licence=named)
