"""The push of a run's model to Kaggle's models, without a notebook that serves it: sent once, as the next version."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mathlete.delivery.asking import Asking
from mathlete.delivery.hub.models import RunModel, choose_model
from mathlete.delivery.kaggle_client import Kaggle
from mathlete.delivery.uploads import Uploads, require_few_files, send_once
from mathlete.errors import UserError
from mathlete.licences import HUB_LICENCES, name_licence
from mathlete.submission import Names

_NAME = re.compile(r"([a-z0-9_-]+)/([a-z0-9][a-z0-9._-]*)(?:/transformers/([a-z0-9][a-z0-9._-]*))?")
"""OWNER/MODEL, or with framework and variation."""


@dataclass(frozen=True, kw_only=True)
class KaggleUpload:
    """What a push sends, and the model's instance that gets it."""

    model: RunModel
    names: Names
    licence: str
    """By Kaggle's name of it."""

    @cached_property
    def instance(self) -> str:
        """The four parts of its name on Kaggle."""
        return self.names.model_instance

    def describe(self) -> Iterator[str]:
        """Yield what would be sent, a line each."""
        yield from self.model.describe_for(f"on Kaggle   {self.instance}, its next version · licence {self.licence}")


@dataclass(frozen=True, kw_only=True)
class KaggleVersion:
    """A version of a model on Kaggle."""

    source: str
    """As `submit build --model-source` and kernel-metadata.json name it: with the version."""
    sent: bool
    """False where Kaggle had it already."""


def choose_kaggle_upload(
    run: Path, *, name: str, part: str | None = None, licence: str = "", accept_refused: str = ""
) -> KaggleUpload:
    """Return what a push of a run's model would send; Kaggle is not asked.

    Args:
        run: a training run's folder.
        name: OWNER/MODEL or OWNER/MODEL/transformers/VARIATION; by default the variation is the weights' format.
        part: its folder with the model; None: its export, else its merged model, else its adapter.
        licence: by Kaggle's name of it; empty: as the model's card says.
        accept_refused: why a model may be sent that its gates refused; empty: it may not.

    Raises:
        UserError: no such model, or one that is unfinished, changed or refused; a name or licence that is none.
    """
    if (parts := _NAME.fullmatch(name)) is None:
        rule = "--model must be OWNER/MODEL or OWNER/MODEL/transformers/VARIATION, in small letters, digits and - _ ."
        raise UserError(rule, value=repr(name), cure="name it as alice/mathlete-model")
    model = choose_model(run, part=part, accept_refused=accept_refused)
    require_few_files(model.folder)
    named = licence or name_licence(model.folder)
    if named not in HUB_LICENCES.values():
        cure = f"use --licence with one of {', '.join(sorted(HUB_LICENCES.values()))}"
        raise UserError("a model's licence must be one by Kaggle's name", value=repr(named), cure=cure)
    owner, slug, variation = parts.groups()
    names = Names(owner=owner, model=slug, variation=variation or ("adapter" if model.part == "adapter" else ""))
    return KaggleUpload(model=model, names=names.name_variation(model.folder), licence=named)


def push_to_kaggle(upload: KaggleUpload, kaggle: Kaggle, *, asking: Asking) -> KaggleVersion:
    """Send the model as the next version where Kaggle has it not yet; return the version.

    Raises:
        UserError: the credentials are another's, or Kaggle's refusal.
    """
    names, model, instance = upload.names, upload.model, upload.instance
    if kaggle.account.lower() != names.owner.lower():
        value = f"{kaggle.account} in {kaggle.credentials}, the model is {instance}"
        cure = f"use the credentials of {names.owner}, or --model {kaggle.account}/{names.model}"
        raise UserError("the credentials must be those of the model's account", value=value, cure=cure)
    uploads, rule = Uploads(model.run), f"{instance} must be readable"
    last, newest = uploads.last(instance), asking.once(lambda: kaggle.model_version(names), rule=rule)
    if uploads.has_sent(instance, model.hash) and last is not None and (last.version or 0) <= newest:
        asking.say(f"unchanged, not sent: version {last.version} of {instance} is this very model")
        return KaggleVersion(source=f"{instance}/{last.version}", sent=False)

    def send() -> None:
        kaggle.upload_model(names, model.folder, notes=model.hash[:12], licence=upload.licence)

    sent = send_once(
        instance, model.hash, uploads=uploads, asking=asking, newest=lambda: kaggle.model_version(names), upload=send
    )
    version, limit_s = sent.version or 0, asking.waiting.upload_max_s
    appears = f"version {version} of {instance} must appear"
    asking.until(lambda: kaggle.model_version(names) >= version, limit_s=limit_s, rule=appears)
    return KaggleVersion(source=f"{instance}/{version}", sent=True)
