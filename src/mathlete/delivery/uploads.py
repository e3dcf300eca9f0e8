"""The record of uploads in a build's folder: what was sent to Kaggle from here, so that nothing is sent twice."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mathlete.runs import read_record, write_json

UPLOADS = "uploads.json"


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
