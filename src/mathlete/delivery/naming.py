"""The names that a build leaves open: the Kaggle account, and the version of the model that the notebook mounts."""

import json
import os
from dataclasses import replace
from pathlib import Path

from mathlete.delivery.uploads import Uploads
from mathlete.runs import sha256_json, sha256_tree
from mathlete.submission import Names


def complete_names(names: Names, *, model: Path, folder: Path) -> tuple[Names, str]:
    """Fill in what the names leave open: the account, from the credentials, and the version of the model's weights.

    Args:
        names: as given.
        model: the export.
        folder: the build's, with the record of uploads.

    Returns:
        The names, and where the account was read; "" where it was given.
    """
    reason = ""
    if not names.has_owner:
        owner, reason = owner_of_credentials()
        names = replace(names, owner=owner)
    if names.model_version == 0:
        weights = sha256_json(sha256_tree(model))
        names = replace(names, model_version=next_model_version(names, weights=weights, folder=folder))
    return names, reason


def owner_of_credentials() -> tuple[str, str]:
    """Return (Kaggle account, where it stands); a placeholder where there are no credentials. Reads no key."""
    if name := os.environ.get("KAGGLE_USERNAME"):
        return name, "KAGGLE_USERNAME"
    folders = [os.environ.get("KAGGLE_CONFIG_DIR"), Path.home() / ".kaggle", Path.home() / ".config" / "kaggle"]
    for folder in folders:
        file = Path(folder) / "kaggle.json" if folder else None
        if file is not None and file.is_file():
            owner = json.loads(file.read_text(encoding="utf-8")).get("username")
            if owner:
                return str(owner), str(file)
    return Names().owner, "no Kaggle credentials here; set it with --names.owner"


def next_model_version(names: Names, *, weights: str, folder: Path) -> int:
    """Return the version of the model that these weights have: the one they were uploaded as, or else the next."""
    last = Uploads(folder).last(names.model_instance)
    if last is None or last.version is None:
        return 1
    return last.version + int(last.hash != weights)
