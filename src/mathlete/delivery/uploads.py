"""The record of uploads in a build's folder: what was sent to Kaggle from here, so that nothing is sent twice."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mathlete.errors import UserError
from mathlete.runs import read_record, write_json

UPLOADS = "uploads.json"
NOT_UPLOADED = ["manifest.json", "started.json", ".lock"]
"""Files of a step's folder that say nothing on Kaggle."""
_HIDDEN = (".git", ".cache", ".huggingface")
"""Folders that kagglehub leaves out by itself (`DEFAULT_IGNORE_PATTERNS`)."""
FILES_MAX = 50
"""kagglehub uploads more files than this as one archive.zip, in which the notebook would find no wheels."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """The last upload of a data set or a model."""

    hash: str
    version: int | None = None
    """A model's version on Kaggle; None for a data set."""
    done: bool
    """Whether the upload is known to have ended."""

    def to_json(self) -> dict[str, object]:
        """Return the upload as JSON values; `from_json` reads them back."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Upload":
        """Return the upload in a value that `to_json` made."""
        return cls(hash=value["hash"], version=value.get("version"), done=value["done"])


class Uploads:
    """The record of one build's folder."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / UPLOADS

    def last(self, name: str) -> Upload | None:
        """Return the last upload under a name, owner/slug or a model's instance; None where there was none."""
        return self._read().get(name)

    def has_sent(self, name: str, digest: str) -> bool:
        """Return whether what has this hash is on Kaggle under the name."""
        last = self.last(name)
        return last is not None and last.done and last.hash == digest

    def note(self, name: str, upload: Upload) -> None:
        """Write an upload down, in place of the last one of that name."""
        noted = {**self._read(), name: upload}
        write_json(self.file, {name: upload.to_json() for name, upload in noted.items()})

    def _read(self) -> dict[str, Upload]:
        return read_record(self.file, _uploads_of) if self.file.is_file() else {}


def _uploads_of(value: dict[str, Any]) -> dict[str, Upload]:
    return {name: Upload.from_json(upload) for name, upload in value.items()}


def require_few_files(folder: Path) -> None:
    """Raise UserError where a folder has more files than kagglehub uploads as they are, or something that is none."""
    inside = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    sent = [path for path in inside if path.parts[0] not in _HIDDEN and str(path) not in NOT_UPLOADED]
    if broken := [str(path) for path in sent if not (folder / path).is_file()]:
        rule = "what is uploaded must be files: no link that leads nowhere, no pipe"
        raise UserError(rule, value=f"{', '.join(broken[:5])} in {folder}", cure="delete it, or copy the folder again")
    if len(sent) > FILES_MAX:
        rule = f"an upload must have at most {FILES_MAX} files: more become one archive"
        raise UserError(rule, value=f"{len(sent)} in {folder}", cure="leave some out, or merge the weights' shards")
