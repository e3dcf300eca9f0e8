"""What of a folder is sent, and the record of what was, so that nothing is sent twice: to Kaggle and to the hub alike.

The record lies in the folder of the build, or of the run.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mathlete.delivery.asking import Asking
from mathlete.errors import UserError
from mathlete.runs import read_record, write_json

UPLOADS = "uploads.json"
NOT_UPLOADED = ["manifest.json", "started.json", ".lock", "logs/*", "trackio/*", "checkpoint-*/*"]
"""Files of a step's folder that say nothing elsewhere, or hold paths of this machine, in wildcards of fnmatch."""
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


def send_once(
    name: str,
    digest: str,
    *,
    uploads: Uploads,
    asking: Asking,
    newest: Callable[[], int],
    upload: Callable[[], int | None],
) -> Upload:
    """Upload the next version of a data set, a model or a repository, unless a push that was killed has done so.

    Args:
        name: what the record calls it.
        digest: the hash of what is uploaded.
        uploads: the record.
        asking: how the server is asked.
        newest: looks for the newest version; 0 where there is none.
        upload: the act; returns the version that it made, None where that is the next one.

    Returns:
        The record's entry.
    """
    rule, last = f"{name} must be uploaded", uploads.last(name)
    version = asking.once(newest, rule=rule)

    def put() -> int:
        made = upload()
        return version + 1 if made is None else made

    def shown() -> int | None:
        return version + 1 if newest() > version else None

    is_there = last is not None and last.hash == digest and last.version is not None and last.version <= version
    noted = last if is_there and last is not None else Upload(hash=digest, version=version + 1, done=False)
    if not is_there:
        # Noted before the upload: a push that is killed after it finds its version there, and goes on.
        uploads.note(name, noted)
        noted = replace(noted, version=asking.act(put, shown, rule=rule))
    uploads.note(name, replace(noted, done=True))
    asking.say(f"{'found' if is_there else 'uploaded'} {name}, version {noted.version}")
    return noted


def list_sent(folder: Path) -> list[Path]:
    """Return the files of a folder that are sent, relative to it.

    Raises:
        UserError: there is something that is no file: a link that leads nowhere, a pipe.
    """
    inside = sorted(path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    sent = [
        path
        for path in inside
        if path.parts[0] not in _HIDDEN and not any(fnmatch(path.as_posix(), pattern) for pattern in NOT_UPLOADED)
    ]
    if broken := [str(path) for path in sent if not (folder / path).is_file()]:
        rule = "what is uploaded must be files: no link that leads nowhere, no pipe"
        raise UserError(rule, value=f"{', '.join(broken[:5])} in {folder}", cure="delete it, or copy the folder again")
    return sent


def require_few_files(folder: Path) -> None:
    """Raise UserError where a folder has more files than kagglehub uploads as they are, or something that is none."""
    sent = list_sent(folder)
    if len(sent) > FILES_MAX:
        rule = f"an upload must have at most {FILES_MAX} files: more become one archive"
        raise UserError(rule, value=f"{len(sent)} in {folder}", cure="leave some out, or merge the weights' shards")
