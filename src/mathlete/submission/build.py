"""The build: what `submit build` makes of an export, where its parts are, and their hashes."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mathlete.errors import UserError
from mathlete.files import read_text
from mathlete.folders import list_weights
from mathlete.gates import require_passed
from mathlete.kaggle_image import VLLM_LOCK, vllm_lock
from mathlete.kernel import KernelConfig, config_from
from mathlete.runs import (
    read_json,
    read_record,
    sha256_file,
    sha256_json,
    sha256_tree,
    verify_if_made,
    write_atomically,
    write_json,
)
from mathlete.submission.contents import list_contents
from mathlete.submission.embedded_fit import find_unloadable, settle_steps
from mathlete.submission.engine_choice import EngineChoice, EngineWord, choose_engine, name_other_engine
from mathlete.submission.lint import require_sound
from mathlete.submission.metadata import (
    DATASET_FILE,
    DOWNLOADS,
    DOWNLOADS_FOLDER,
    INSTANCE_FILE,
    KERNEL_FILE,
    MODEL_FILE,
    NOTEBOOK,
    MountedNames,
    Names,
    VllmFrom,
    write_metadata,
)
from mathlete.submission.mounted import MountedWeights, describe_weights
from mathlete.submission.mounts import MountedNotebook, read_mounted
from mathlete.submission.notebook import require_as_built, write_notebook
from mathlete.submission.release import check_release, read_day
from mathlete.submission.serving import check_serving
from mathlete.submission.stamps import compute_stamp, read_stamp, with_stamp
from mathlete.submission.vllm_notebook import write_downloads
from mathlete.submission.vllm_wheels import choose_bringer
from mathlete.submission.vocabularies import find_vocabularies
from mathlete.submission.weights import list_needed, name_format
from mathlete.submission.wheelhouse import build_wheelhouse

BUILD_FILE = "build.json"
_LICENCE = "Apache 2.0"
"""Of a model that is uploaded, where none is named."""


@dataclass(frozen=True, kw_only=True)
class Hashes:
    """SHA-256 of each part of a build, and the image it is for."""

    notebook: str
    code: str
    """Of the project's own wheel."""
    weights: str
    wheels: str
    metadata: str
    image: str
    """The Docker image as the metadata pins it; empty where it pins none."""

    @property
    def id(self) -> str:
        """Twelve hex digits of all parts but the notebook: two submissions with one id are the same."""
        parts = {part: value for part, value in asdict(self).items() if part != "notebook"}
        return sha256_json(parts)[:12]


@dataclass(frozen=True, kw_only=True)
class Build:
    """One submission, ready for a rehearsal."""

    kaggle: Path
    """Folder with notebook and metadata."""
    model: Path
    """The export."""
    wheels: Path
    """The wheelhouse."""
    names: Names
    config: KernelConfig
    accept_refused: str = ""
    """Why it may be submitted though the gates of its training refused it; empty where they did not."""
    need: tuple[str, ...] = ()
    """Requirements that its wheels hold beside those of the weights; the next build keeps to them."""
    find_links: Path | None = None
    """Folder from which the wheels were taken instead of the package index; the next build keeps to it."""
    mounted: MountedWeights | None = None
    """What is known of weights that are somebody's on Kaggle, and not in the model's folder; None: they are there."""
    released: str = ""
    """Day the base model was released, YYYY-MM-DD, as the user said it; empty: known by the model's name."""
    vllm: VllmFrom | None = None
    """What brings vLLM's wheels; None where the embedded engine is the first."""
    vllm_wheels: Path | None = None
    """Folder of vLLM's wheels that is sent as a data set; None: there is none."""
    find_unloadable = staticmethod(find_unloadable)

    @property
    def downloads(self) -> Path:
        """Folder of the notebook that downloads vLLM's wheels, where one does."""
        return self.kaggle / DOWNLOADS_FOLDER

    @property
    def notebook(self) -> Path:
        """The notebook's file: the one that kernel-metadata.json names, since that one is pushed and run."""
        file = self.kaggle / KERNEL_FILE
        named = read_json(file).get("code_file") if file.is_file() else None
        return self.kaggle / (named if isinstance(named, str) and named else NOTEBOOK)

    @property
    def machine(self) -> str:
        """Kaggle's machine shape, as the metadata names it."""
        return str(read_json(self.kaggle / KERNEL_FILE).get("machine_shape"))

    @property
    def weight_format(self) -> str:
        """What its weights are stored in, as int8, or that they are somebody's on Kaggle."""
        return "mounted" if self.mounted else name_format(self.model)

    @property
    def licence(self) -> str:
        """The model's licence, by Kaggle's name of it."""
        own = {} if self.mounted else read_json(self.kaggle / INSTANCE_FILE)
        return self.mounted.licence if self.mounted else str(own.get("licenseName", ""))

    @property
    def weight_bytes(self) -> int:
        """Size of the model's weights, bytes, or what is known of one that is mounted."""
        return self.mounted.size if self.mounted else _size_of(self.model)

    @property
    def stamp(self) -> str:
        """The hash that the notebook carries, and with it the output of its run; empty where it carries none."""
        return read_stamp(read_text(self.notebook))

    def restamp(self) -> str:
        """Give a notebook that was edited by hand its own stamp; return it, empty where the one it has is right.

        Raises:
            UserError: it is no notebook.
        """
        text = read_text(self.notebook)
        stamp = compute_stamp(text)
        if read_stamp(text) in ("", stamp):
            return ""
        write_atomically(self.notebook, with_stamp(text, stamp))
        return stamp

    def check_serving(self) -> None:
        """Raise UserError where the engine could not draw with the model: of tokenizer, context, attention, types."""
        check_serving(self.model, self.config, weights=not self.mounted, machine=self.machine, size=self.weight_bytes)

    def hashes(self) -> Hashes:
        """Hash every file of the build: as slow as reading the weights.

        Raises:
            UserError: a file is missing, or kernel-metadata.json is broken.
        """
        return Hashes(notebook=_hash_file(self.notebook), **self.hash_parts())

    @staticmethod
    def load(folder: Path) -> "Build":
        """Read the build that `submit build` recorded in a folder.

        Raises:
            UserError: there is none, or one of its parts is gone.
        """
        file = folder / BUILD_FILE
        if not file.is_file():
            cure = "run `python -m submit build --model EXPORT`"
            raise UserError("there must be a build", value=f"no {file}", cure=cure)
        build = read_record(file, _build_of)
        for name in ("kaggle", "model", "wheels"):
            if not (part := getattr(build, name)).is_dir():
                raise UserError(f"the build's {name} must be there", value=str(part), cure="run `submit build` again")
        return build

    @staticmethod
    def read_wishes(folder: Path) -> tuple[tuple[str, ...], Path | None]:
        """Return what the last build in a folder was asked to carry, and from where; nothing where there was none."""
        file = folder / BUILD_FILE
        value = read_json(file) if file.is_file() else {}
        need, links = value.get("need", []), str(value.get("find_links", ""))
        return tuple(map(str, need)) if isinstance(need, list) else (), Path(links) if links else None

    @staticmethod
    def choose_engine(word: EngineWord, *, model: Path, machine: str, config: KernelConfig) -> EngineChoice:
        """Return what draws with the weights in a folder, and why.

        Raises:
            UserError: vLLM is asked for and cannot serve that model there, or nothing serves weights stored so.
        """
        weights = _size_of(model)
        choice = choose_engine(word, model=model, machine=machine, config=config, weights=weights)
        other = name_other_engine(model=model, machine=machine, config=config, weights=weights)
        list_needed(model, engine=choice.engine, vllm=config.vllm, other=other)
        return choice

    def hash_parts(self) -> dict[str, str]:
        """Hash every file but the notebook."""
        wheels = sha256_tree(self.wheels)
        code = " ".join(digest for name, digest in wheels.items() if name.startswith("mathlete-"))
        kernel = read_json(self.kaggle / KERNEL_FILE)
        names = [KERNEL_FILE, DATASET_FILE, *((MODEL_FILE, INSTANCE_FILE) if self.names.uploads_model else ())]
        if self.vllm == "notebook":
            names += [f"{DOWNLOADS_FOLDER}/{name}" for name in (DOWNLOADS, KERNEL_FILE)]
        metadata = {name: _hash_file(self.kaggle / name) for name in names}
        if self.vllm_wheels is not None:
            metadata[VLLM_LOCK] = _hash_file(self.vllm_wheels / VLLM_LOCK)
        return {
            "code": code,
            "weights": sha256_json(sha256_tree(self.model)),
            "wheels": sha256_json({name: value for name, value in wheels.items() if name.endswith(".whl")}),
            "metadata": sha256_json(metadata),
            "image": str(kernel.get("docker_image", "")),
        }

    def read_notebook(self) -> MountedNotebook:
        """Read the notebook as it lies there, and what is mounted with it.

        Raises:
            UserError: a file is missing or broken.
        """
        return read_mounted(self.kaggle)

    def save(self, folder: Path) -> None:
        """Write build.json, from which `load` reads the parts.

        Raises:
            UserError: there is a file of that name which another program wrote.
        """
        file = folder / BUILD_FILE
        if file.is_file() and b'"kaggle"' not in file.read_bytes():
            rule = f"{BUILD_FILE} must be one that `python -m submit build` wrote"
            raise UserError(rule, value=str(file), cure="move it, or choose another --run")
        paths = {name: str(getattr(self, name)) for name in ("kaggle", "model", "wheels")}
        wishes = {"need": list(self.need), "find_links": str(self.find_links) if self.find_links else ""}
        said = {"accept_refused": self.accept_refused, "released": self.released}
        others = {**said, "mounted": asdict(self.mounted) if self.mounted else None}
        vllm = {"vllm": self.vllm, "vllm_wheels": str(self.vllm_wheels) if self.vllm_wheels else ""}
        more = {name: value for name, value in {**others, **wishes, **vllm}.items() if value}
        content = {**paths, "names": asdict(self.names), "config": self.config.to_json(), **more}
        write_json(file, content)


def _build_of(value: dict[str, Any]) -> Build:
    return Build(
        kaggle=Path(value["kaggle"]),
        model=Path(value["model"]),
        wheels=Path(value["wheels"]),
        names=(MountedNames if "source" in value["names"] else Names)(**value["names"]),
        config=config_from(value["config"]),
        accept_refused=str(value.get("accept_refused", "")),
        released=str(value.get("released", "")),
        need=tuple(map(str, value.get("need", ()))),
        find_links=Path(value["find_links"]) if value.get("find_links") else None,
        mounted=MountedWeights(**value["mounted"]) if value.get("mounted") else None,
        vllm=value.get("vllm"),
        vllm_wheels=Path(value["vllm_wheels"]) if value.get("vllm_wheels") else None,
    )


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in list_weights(folder) or folder.rglob("*") if path.is_file())


def _hash_file(file: Path) -> str:
    if not file.is_file():
        raise UserError(f"a build must have {file.name}", value=f"no {file}", cure="run `submit build` again")
    return sha256_file(file)


def build_submission(
    *,
    model: Path,
    config: KernelConfig,
    names: Names,
    kaggle: Path,
    wheels: Path,
    machine: str | None = None,
    image: str = "",
    licence: str = "",
    requirements: tuple[str, ...] = (),
    find_links: Path | None = None,
    model_gib: float | None = None,
    vocabularies: Path | None = None,
    overwrite: bool = False,
    accept_refused: str = "",
    released: str = "",
    engine: EngineWord = "embedded",
    vllm_wheels: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Build:
    """Write notebook, metadata and wheelhouse of an export, or of a model that is mounted.

    An export's card says why it is used though it was refused. Of a mounted model (`Names.mounting`) the folder holds
    tokenizer and config; `model_gib` is the size of its weights where nothing there tells it. `vocabularies` is a
    folder of files that the model's library would download.

    Args:
        model: the export.
        config: how the notebook answers.
        names: on Kaggle.
        kaggle: where notebook and metadata go.
        wheels: where the wheels go.
        machine: Kaggle's machine shape; None: the competition's.
        image: Docker image, pinned by its digest; empty: none.
        licence: the model's, by Kaggle's name of it.
        requirements: what the wheels hold beside what the weights need.
        find_links: take wheels from this folder instead of the package index.
        overwrite: whether other wheels and a notebook that was edited are replaced.
        accept_refused: why a model that its gates refused is used.
        released: day the base model was released, YYYY-MM-DD; empty: known by the model's name.
        engine: what draws the samples.
        vllm_wheels: folder of vLLM's wheels to send as a data set; None: a notebook on Kaggle downloads them.
        say: called with the engine and why it was chosen, and with what preflight will ask for.

    Raises:
        Refused: the gates of its training did not pass, and there is no reason to accept that.
        UserError: the export is no model, has changed since it was made or is one that the engine would refuse, a
            setting is out of range, a name or a word is none of Kaggle's, the wheels have no solution, or the folder's
            notebook is not one that was built.
    """
    if not (model / "config.json").is_file():
        raise UserError("--model must be an export", value=str(model), cure="name the folder that holds config.json")
    verify_if_made(model)
    config.check()
    read_day(released)
    mounted = None if names.uploads_model else describe_weights(model, gib=model_gib, licence=licence, say=say)
    shape, size = machine or config.competition.notebook.machine, mounted.size if mounted else _size_of(model)
    choice = choose_engine(engine, model=model, machine=shape, config=config, weights=size)
    say(f"engine {choice.engine}: {choice.reason}")
    if vllm_wheels is not None and choice.engine != "vllm":
        say("--vllm-wheels not used: the engine is another one")
    config = replace(config, engine=choice.engine, vllm=choice.vllm)
    other = name_other_engine(model=model, machine=shape, config=config, weights=size)
    needed = (*list_needed(model, engine=config.engine, vllm=config.vllm, other=other), *requirements)
    tight = check_serving(model, config, weights=names.uploads_model, machine=shape, size=size)
    config, told = settle_steps(config, model=model, machine=shape, weights=size)
    for line in filter(None, (tight, told)):
        say(line)
    vllm = choose_bringer(vllm_wheels) if choice.engine == "vllm" else None
    outcome = require_passed(model, reason=accept_refused)
    names = names.name_variation(model)
    if not overwrite:
        require_as_built(kaggle / NOTEBOOK)
    carried = find_vocabularies(model, vocabularies)
    build_wheelhouse(wheels, needed, find_links=find_links, vocabularies=carried, overwrite=overwrite)
    outcome.note_in_card(model)
    write_metadata(
        kaggle,
        names,
        rules=config.competition,
        machine=machine,
        image=image,
        licence=licence or _LICENCE,
        weights=name_format(model),
        vllm=vllm,
        say=say,
    )
    if vllm == "notebook":
        write_downloads(kaggle, names, lock=vllm_lock().read_text(encoding="utf-8"), image=image)
    made = Build(
        kaggle=kaggle,
        model=model,
        wheels=wheels,
        names=names,
        config=config,
        accept_refused=outcome.reason,
        released=released,
        need=requirements,
        find_links=find_links,
        mounted=mounted,
        vllm=vllm,
        vllm_wheels=vllm_wheels if vllm == "dataset" else None,
    )
    _write_stamped(made)
    try:
        check_release(model, names, rules=config.competition, released=released)
    except UserError as error:
        # The rehearsal does not depend on it.
        say(f"preflight will ask: {error.rule}, got {error.value}. Fix: {error.cure}")
    return made


def _write_stamped(made: Build) -> None:
    """Write the notebook: last, because it carries the hashes of all the rest."""
    parts = Hashes(notebook="", **made.hash_parts()).id
    lock = sha256_file(vllm_lock()) if made.vllm else ""
    contents = list_contents(made.model, made.wheels, parts=parts, machine=made.machine, vllm=lock)
    write_notebook(made.kaggle / NOTEBOOK, made.config, made.names, contents, vllm=made.vllm)
    require_sound(made.kaggle, uploads_model=made.names.uploads_model, downloads=made.vllm == "notebook")
