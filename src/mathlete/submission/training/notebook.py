"""The two notebooks: Kaggle's mounts what it needs, Colab's downloads it and keeps the run on Drive."""

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mathlete.errors import UserError
from mathlete.kernel import PASTED
from mathlete.runs import write_atomically, write_json
from mathlete.submission.lint import require_sound_training
from mathlete.submission.metadata import KERNEL_FILE
from mathlete.submission.notebook import require_as_built, write_cells
from mathlete.submission.training import cells
from mathlete.submission.training.records import TrainingMachine, TrainingNames

Place = Literal["kaggle", "colab"]
FILES: dict[Place, str] = {"kaggle": "train.ipynb", "colab": "colab.ipynb"}
_INPUT, _WORKING, _DRIVE = "/kaggle/input", "/kaggle/working", "/content/drive/MyDrive/mathlete"
_WIDTH = 120
"""Of a line, as the formatter has it."""
_FILE = re.compile(r"[^/\s]+/[^/\s]+/\S+")


@dataclass(frozen=True, kw_only=True)
class TrainingNotebook:
    """What the notebooks train, and where it comes from."""

    words: tuple[str, ...]
    """Of `train math`, without run, session, base and traces."""
    names: TrainingNames
    url: str
    """The repository that git clones."""
    commit: str
    base: str = ""
    """A model of Kaggle's to begin from, OWNER/MODEL/FRAMEWORK/VARIATION/VERSION; empty: the words name it."""
    traces: str = ""
    """A file of a data set, OWNER/SLUG/FILE; empty: the words name the source."""
    resume: bool = False
    """Whether Kaggle mounts the data set of an earlier session, which must be there then."""
    push: bool = False
    """Whether the export is pushed as a model's version without asking again."""
    machine: TrainingMachine = field(default_factory=TrainingMachine)

    def check(self) -> None:
        """Raise UserError where a value is none that git or Kaggle takes."""
        self.machine.check()
        if not re.fullmatch(r"[0-9a-f]{40}", self.commit):
            cure = "name all 40 digits, as `git rev-parse HEAD` prints them: a branch moves"
            raise UserError("--commit must be a commit", value=repr(self.commit), cure=cure)
        if re.search(r"://[^/]*@", self.url):
            cure = "use the address without it, of a repository that anybody may read"
            raise UserError("--url must hold no password or token: the notebook shows it", value="one", cure=cure)
        if self.traces and not _FILE.fullmatch(self.traces):
            raise UserError("--traces must be OWNER/SLUG/FILE", value=repr(self.traces), cure="write it so")

    @property
    def metadata(self) -> dict[str, object]:
        """The content of kernel-metadata.json: internet on, and what is mounted."""
        names, machine = self.names, self.machine
        traces = "/".join(self.traces.split("/")[:2])
        return {
            "id": names.kernel_id,
            "title": names.kernel.replace("-", " "),
            "code_file": FILES["kaggle"],
            "language": "python",
            "kernel_type": "notebook",
            "is_private": True,
            "enable_gpu": True,
            "enable_tpu": False,
            "enable_internet": True,
            "machine_shape": machine.machine,
            "docker_image": machine.image,
            "docker_image_pinning_type": "original",
            "keywords": ["gpu"],
            "dataset_sources": [*([traces] if traces else []), *([names.earlier_id] if self.resume else [])],
            "competition_sources": [],
            "kernel_sources": [],
            "model_sources": [self.base] if self.base else [],
        }


def notebook_for(place: Place, made: TrainingNotebook) -> str:
    """Return the notebook as JSON text; it is deterministic."""
    find_input = inspect.getsource(PASTED["find_input"])
    on_kaggle = place == "kaggle"
    return write_cells(
        [
            ("markdown", "", _title(place, made)),
            ("code", "parameters", "\n".join(_settings(place, made))),
            ("code", "secrets", cells.KAGGLE_SECRETS if on_kaggle else cells.COLAB_SECRETS),
            ("code", "install", cells.INSTALL),
            ("code", "find", cells.KAGGLE_FIND.format(find_input=find_input) if on_kaggle else cells.COLAB_FIND),
            ("code", "train", cells.TRAIN),
            ("code", "keep", cells.KEEP),
        ]
    )


def _title(place: Place, made: TrainingNotebook) -> str:
    copy = f"`{_DRIVE}/{made.names.kernel}`"
    words = {
        "kaggle": {
            "where": "on Kaggle",
            "run": "Save & Run All: the output is kept, of an interactive session it is not.",
            "resume": "Make a data set of the output, or a new version of it, "
            f"`{made.names.earlier_id}`; add it to the inputs and run again.",
        },
        "colab": {
            "where": "on Colab",
            "run": "Choose a GPU as the runtime's hardware, then Runtime, Run all.",
            "resume": f"The copy on Drive, {copy}, is what the next session goes on from: run all again.",
        },
    }
    return cells.TITLE.format(title=made.names.kernel.replace("-", " "), url=made.url, **words[place])


def _settings(place: Place, made: TrainingNotebook) -> Iterator[str]:
    """Yield the lines of the first cell."""
    names, machine = made.names, made.machine
    kept, work = (_WORKING, "/tmp/mathlete") if place == "kaggle" else (_DRIVE, "/content/mathlete")
    earlier, meaning = (
        (names.earlier_id, "The data set with the output of an earlier session")
        if place == "kaggle"
        else (f"{kept}/{names.kernel}", "The copy that an earlier session kept")
    )
    values = {
        **{"url": made.url, "commit": made.commit, "base": made.base, "traces": made.traces, "earlier": earlier},
        **{
            "model": names.instance,
            "licence": names.licence,
            "input": _INPUT,
            "kept": f"{kept}/{names.kernel}",
            "work": work,
        },
    }
    texts = {name: json.dumps(value) for name, value in values.items()}
    numbers = {"hours": machine.hours, "reserve_min": machine.reserve_min, "processes": machine.processes}
    text = cells.SETTINGS.format(
        **texts, **numbers, push=made.push, words=_list_of(made.words, after="TRAIN = "), earlier_is=meaning
    )
    yield from (line for line in text.splitlines() if place == "kaggle" or not line.startswith("INPUT"))


def _list_of(words: tuple[str, ...], *, after: str) -> str:
    """Return a list as the formatter writes it: in one line where it fits, else a line for each."""
    text = json.dumps([*words])
    if len(after) + len(text) <= _WIDTH:
        return text
    return "[\n" + "".join(f"    {json.dumps(word)},\n" for word in words) + "]"


def write_training(folder: Path, made: TrainingNotebook, *, overwrite: bool = False) -> list[Path]:
    """Write both notebooks and kernel-metadata.json; return the files.

    Raises:
        UserError: a value is none that git or Kaggle takes, or a notebook was edited by hand and may not be lost.
    """
    made.check()
    notebooks = {folder / file: notebook_for(place, made) for place, file in FILES.items()}
    if not overwrite:
        for file in notebooks:
            require_as_built(file)
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in notebooks.items():
        write_atomically(file, text)
    write_json(folder / KERNEL_FILE, made.metadata)
    require_sound_training(folder)
    return [*notebooks, folder / KERNEL_FILE]
