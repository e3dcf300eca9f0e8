"""The build: what `submit build` makes of an export, where its parts are, and their hashes."""

from dataclasses import asdict, dataclass
from pathlib import Path

from mathlete.errors import UserError
from mathlete.gates import require_passed
from mathlete.kernel import KernelConfig, config_from
from mathlete.runs import read_json, sha256_file, sha256_json, sha256_tree, verify_if_made, write_json
from mathlete.submission.metadata import INSTANCE_FILE, KERNEL_FILE, NOTEBOOK, Names, write_metadata
from mathlete.submission.mounts import MountedNotebook, read_mounted
from mathlete.submission.notebook import require_as_built, write_notebook
from mathlete.submission.weights import wheels_for
from mathlete.submission.wheelhouse import build_wheelhouse

BUILD_FILE = "build.json"
_METADATA = ("dataset-metadata.json", "model-metadata.json", "model-instance-metadata.json")


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

    @property
    def notebook(self) -> Path:
        """The notebook's file."""
        return self.kaggle / NOTEBOOK

    @property
    def machine(self) -> str:
        """Kaggle's machine shape, as the metadata names it."""
        return str(read_json(self.kaggle / KERNEL_FILE).get("machine_shape"))

    @property
    def licence(self) -> str:
        """The model's licence, by Kaggle's name of it."""
        return str(read_json(self.kaggle / INSTANCE_FILE)["licenseName"])

    def hashes(self) -> Hashes:
        """Hash every file of the build: as slow as reading the weights."""
        wheels = sha256_tree(self.wheels)
        (code,) = [digest for name, digest in wheels.items() if name.startswith("mathlete-")] or [""]
        kernel = read_json(self.kaggle / KERNEL_FILE)
        metadata = {name: sha256_file(self.kaggle / name) for name in (KERNEL_FILE, *_METADATA)}
        return Hashes(
            notebook=sha256_file(self.notebook),
            code=code,
            weights=sha256_json(sha256_tree(self.model)),
            wheels=sha256_json({name: value for name, value in wheels.items() if name.endswith(".whl")}),
            metadata=sha256_json(metadata),
            image=str(kernel.get("docker_image", "")),
        )

    def read_notebook(self) -> MountedNotebook:
        """Read the notebook as it lies there, and what is mounted with it.

        Raises:
            UserError: a file is missing or broken.
        """
        return read_mounted(self.kaggle)

    def save(self, folder: Path) -> None:
        """Write build.json, from which `load_build` reads the parts."""
        paths = {name: str(getattr(self, name)) for name in ("kaggle", "model", "wheels")}
        accepted = {"accept_refused": self.accept_refused} if self.accept_refused else {}
        content = {**paths, "names": asdict(self.names), "config": self.config.to_json(), **accepted}
        write_json(folder / BUILD_FILE, content)


def load_build(folder: Path) -> Build:
    """Read the build that `submit build` recorded in a folder.

    Raises:
        UserError: there is none, or one of its parts is gone.
    """
    file = folder / BUILD_FILE
    if not file.is_file():
        raise UserError("there must be a build", value=f"no {file}", cure="run `python -m submit build --model EXPORT`")
    value = read_json(file)
    names, config = value["names"], value["config"]
    assert isinstance(names, dict)
    assert isinstance(config, dict)
    paths = {name: Path(str(value[name])) for name in ("kaggle", "model", "wheels")}
    for name, path in paths.items():
        if not path.is_dir():
            raise UserError(f"the build's {name} must be there", value=str(path), cure="run `submit build` again")
    accepted = str(value.get("accept_refused", ""))
    return Build(**paths, names=Names(**names), config=config_from(config), accept_refused=accepted)


def build_submission(
    *,
    model: Path,
    config: KernelConfig,
    names: Names,
    kaggle: Path,
    wheels: Path,
    machine: str | None = None,
    image: str = "",
    licence: str = "Apache 2.0",
    requirements: tuple[str, ...] = (),
    find_links: Path | None = None,
    overwrite: bool = False,
    accept_refused: str = "",
) -> Build:
    """Write notebook, metadata and wheelhouse of an export; its card says why it is used though it was refused.

    Raises:
        Refused: the gates of its training did not pass, and there is no reason to accept that.
        UserError: the export is no model or has changed since it was made, a setting is out of range, the wheels have
            no solution, or the folder's notebook is not one that was built.
    """
    if not (model / "config.json").is_file():
        raise UserError("--model must be an export", value=str(model), cure="name the folder that holds config.json")
    verify_if_made(model)
    config.check()
    outcome = require_passed(model, reason=accept_refused)
    if not overwrite:
        require_as_built(kaggle / NOTEBOOK)
    build_wheelhouse(wheels, (*wheels_for(model), *requirements), find_links=find_links, overwrite=overwrite)
    write_notebook(kaggle / NOTEBOOK, config, names)
    write_metadata(kaggle, names, rules=config.competition, machine=machine, image=image, licence=licence)
    outcome.note_in_card(model)
    return Build(kaggle=kaggle, model=model, wheels=wheels, names=names, config=config, accept_refused=outcome.reason)
