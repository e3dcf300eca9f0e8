"""Vocabulary files that a model's library would download when it is first used, which a notebook cannot.

They travel as a wheel among the others: it is hashed, uploaded and installed as these are, and the engine's process
finds it (`mathlete.kernel.vocabularies`).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from mathlete.errors import UserError
from mathlete.kaggle_image import VOCABULARIES
from mathlete.runs import read_json, sha256_file

VERSION = "1"
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The first moment that a ZIP file can name: the same files give the same bytes."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """A file that a library downloads."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]

    @property
    def cache_name(self) -> str:
        """Its name in tiktoken's cache: the address's SHA-1 (tiktoken/load.py)."""
        return hashlib.sha1(self.url.encode(), usedforsecurity=False).hexdigest()


_O200K = Vocabulary(
    url="https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken",
    sha256="446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
)
"""Address and hash as in tiktoken_ext/openai_public.py of tiktoken 0.14."""
NEEDED: dict[str, tuple[Vocabulary, ...]] = {"gpt_oss": (_O200K,)}
"""{a model's type: what openai-harmony, through which vLLM reads its channels, downloads}."""


def find_vocabularies(model: Path, folder: Path | None) -> list[Path]:
    """Return the files that the library of a model would download, from a folder of such files.

    Raises:
        UserError: one is not there, or is another file.
    """
    needed = NEEDED.get(str(read_json(model / "config.json").get("model_type")), ())
    return [_find(one, folder) for one in needed]


def _find(one: Vocabulary, folder: Path | None) -> Path:
    file = (folder or Path()) / one.name
    digest = sha256_file(file) if folder is not None and file.is_file() else ""
    if digest != one.sha256:
        missing = f"no {file}" if folder else "no --vocabularies"
        raise UserError(
            f"the notebook must carry {one.name}, which this model's library would download there",
            value=f"{file} with SHA-256 {digest[:16]}…" if digest else missing,
            cure=f"fetch {one.url} (SHA-256 {one.sha256}) into a folder, and name that with --vocabularies",
        )
    return file


def write_wheel(files: Sequence[Path], into: Path) -> Path:
    """Write the wheel that carries vocabulary files, each under its own name and under that of tiktoken's cache."""
    by_name = {one.name: one for needed in NEEDED.values() for one in needed}
    contents = {f"{VOCABULARIES}/__init__.py": b'"""Vocabulary files."""\n'}
    for file in files:
        data = file.read_bytes()
        contents |= {f"{VOCABULARIES}/{name}": data for name in (file.name, by_name[file.name].cache_name)}
    info = f"{VOCABULARIES}-{VERSION}.dist-info"
    contents[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {VOCABULARIES}\nVersion: {VERSION}\n".encode()
    contents[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: mathlete\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    names = [*sorted(contents), f"{info}/RECORD"]
    contents[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in names).encode()
    wheel = into / f"{VOCABULARIES}-{VERSION}-py3-none-any.whl"
    with ZipFile(wheel, "w", ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(ZipInfo(name, _EPOCH), contents[name], compress_type=ZIP_DEFLATED)
    return wheel
