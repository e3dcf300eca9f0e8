"""The names that a build leaves open: the Kaggle account, and variation and version of the model that is mounted."""

import os
from dataclasses import replace
from pathlib import Path

from mathlete.accounts import find_credentials
from mathlete.delivery.kaggle_client import Kaggle
from mathlete.delivery.uploads import Uploads
from mathlete.errors import UserError
from mathlete.runs import sha256_json, sha256_tree
from mathlete.submission import Names

_ANSWER_MAX_S = 10.0


def complete_names(names: Names, *, model: Path, folder: Path) -> tuple[Names, str]:
    """Fill in what the names leave open: the account, from the credentials, the format of the weights, their version.

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
    names = names.name_variation(model) if names.uploads_model else names
    if names.model_version == 0 and names.uploads_model:
        weights = sha256_json(sha256_tree(model))
        names = replace(names, model_version=next_model_version(names, weights=weights, folder=folder))
    return names, reason


def owner_of_credentials() -> tuple[str, str]:
    """Return (Kaggle account, where it stands); a placeholder and why where it is not known.

    A token does not name its account, so Kaggle is asked for that.

    Raises:
        UserError: a file of credentials can't be read.
    """
    credentials = find_credentials()
    # For a name no key is needed.
    if credentials is None and (name := os.environ.get("KAGGLE_USERNAME")):
        return name, "KAGGLE_USERNAME"
    if credentials is None:
        return Names().owner, "no Kaggle credentials here; set it with --names.owner"
    if credentials.owner:
        return credentials.owner, credentials.where
    try:
        return Kaggle(answer_max_s=_ANSWER_MAX_S).account, f"asked Kaggle whose {credentials.where} is"
    except UserError as error:
        why = f"{credentials.where} names no account, and Kaggle does not tell ({error.value})"
        return Names().owner, f"{why}; set it with --names.owner"


def next_model_version(names: Names, *, weights: str, folder: Path) -> int:
    """Return the version of the model that these weights have: the one they were uploaded as, or else the next."""
    last = Uploads(folder).last(names.model_instance)
    if last is None or last.version is None:
        return 1
    return last.version + int(last.hash != weights)
