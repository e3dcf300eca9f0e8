"""What a library's error stands for where a model cannot be read: memory, an unknown kind, a broken file, the hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from mathlete.errors import UserError
from mathlete.files import choose_cure
from mathlete.mistakes import explain, find_hub_cure, name_cause
from mathlete.runs import read_json


class ModelPlace(Protocol):
    """Where a model is, as `ModelSource` says it."""

    @property
    def location(self) -> str:
        """Folder or hub id."""

    @property
    def revision(self) -> str | None:
        """Commit on the hub."""

    @property
    def folder(self) -> Path | None:
        """Its folder; None of a hub id."""

    def read_config(self) -> Mapping[str, object]:
        """Return its config.json."""


def explain_unreadable(source: ModelPlace, error: Exception, *, described: bool = False) -> Exception:
    """Return what an error of a library stands for: memory, an unknown kind, a broken file, an unreachable model, or a
    bug; `described` as `explain_unreachable` has it."""
    if mistake := explain(error) or _explain_kind(source, error):
        return mistake
    for file in sorted(source.folder.glob("*.json")) if source.folder else ():
        try:
            read_json(file)
        except UserError as broken:
            cure = choose_cure(file, otherwise="copy it from the base model's folder")
            return UserError(broken.rule, value=broken.value, cure=cure)
    if source.folder or isinstance(error, OSError | ValueError):
        return explain_unreachable(source, error, described=described)
    return error


def _explain_kind(source: ModelPlace, error: Exception) -> UserError | None:
    """Return the error for a model of a kind that transformers knows by the model's own code alone, or not at all."""
    own = "trust_remote_code" in str(error)
    if not own and "does not recognize this architecture" not in str(error):
        return None
    kind = f"model_type {source.read_config().get('model_type')!r} of {source.location}"
    return UserError(
        "transformers must know the kind of a model by itself: code that comes with a model is not run",
        value=f"{kind}, which needs its own code (auto_map)" if own else kind,
        cure="take a model of a known kind, such as llama or qwen3; a newer transformers may know this one",
    )


def explain_unreachable(source: ModelPlace, error: Exception, *, described: bool = False) -> UserError:
    """Return the error for a model that can't be read: a broken folder, or a hub id that isn't on this machine.

    Args:
        source: the model.
        error: the library's.
        described: whether no weights are needed: the download in the cure is one without them.
    """
    if source.folder:
        return UserError(
            f"{source.location} must be a model folder transformers can load ({' '.join(str(error).split())[:300]})",
            cure="export it again, or copy its files from the base model's folder",
        )
    revision = f" --revision {source.revision}" if source.revision else ""
    download = f"`hf download {source.location}{revision} --local-dir DIR`"
    if described:
        download = f"`hf download {source.location}{revision} --exclude '*.safetensors' --local-dir DIR`"
    return UserError(
        f"{source.location} is neither on this machine nor can it be loaded from the hub ({name_cause(error)})",
        cure=f"{find_hub_cure(error)}on a machine with internet run {download}, then use --model DIR here",
    )
