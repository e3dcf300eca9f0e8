"""A build: what `submit build` made of an export, where its parts are, and their hashes."""

from dataclasses import asdict, dataclass
from pathlib import Path

from mathlete.competitions import competition
from mathlete.errors import UserError
from mathlete.kernel.config import KernelConfig, config_from
from mathlete.runs import read_json, sha256_file, sha256_json, sha256_tree, write_json
from mathlete.submission.metadata import KERNEL_FILE, NOTEBOOK, Names, write_metadata
from mathlete.submission.notebook import write_notebook
from mathlete.submission.wheelhouse import build_wheelhouse, needed_for

BUILD_FILE = "build.json"
_METADATA = ("dataset-metadata.json", "model-metadata.json", "model-instance-metadata.json")


@dataclass(frozen=True, kw_only=True)
class Build:
    """One submission, ready to be rehearsed."""

    kaggle: Path
    """Folder with notebook and metadata."""
    model: Path
    """The export."""
    wheels: Path
    """The wheelhouse."""
    names: Names
    config: KernelConfig

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each part: notebook, code, weights, wheels, metadata, image."""
        wheels = sha256_tree(self.wheels)
        (code,) = [digest for name, digest in wheels.items() if name.startswith("mathlete-")] or [""]
        kernel = read_json(self.kaggle / KERNEL_FILE)
        metadata = {name: sha256_file(self.kaggle / name) for name in (KERNEL_FILE, *_METADATA)}
        return {
            "notebook": sha256_file(self.kaggle / NOTEBOOK),
            "code": code,
            "weights": sha256_json(sha256_tree(self.model)),
            "wheels": sha256_json({name: value for name, value in wheels.items() if name.endswith(".whl")}),
            "metadata": sha256_json(metadata),
            "image": str(kernel.get("docker_image", "")),
        }

    def save(self, folder: Path) -> None:
        """Writes build.json, from which the other commands find the parts."""
        paths = {name: str(getattr(self, name)) for name in ("kaggle", "model", "wheels")}
        write_json(folder / BUILD_FILE, {**paths, "names": asdict(self.names), "config": asdict(self.config)})


def load_build(folder: Path) -> Build:
    """The build recorded in a folder.

    Raises:
        UserError: none, or one of its parts is gone.
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
    return Build(**paths, names=Names(**names), config=config_from(config))


def precision_of(model: Path) -> str:
    """How an export's weights are held: dense, int8 or nf4 (bitsandbytes), or what else its config names."""
    found = read_json(model / "config.json").get("quantization_config")
    if not isinstance(found, dict):
        return "dense"
    if found.get("quant_method") == "bitsandbytes":
        return "nf4" if found.get("load_in_4bit") else "int8"
    return str(found.get("quant_method"))


def build(
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
) -> Build:
    """Writes notebook, metadata and wheelhouse of an export.

    Raises:
        UserError: the export is no model, a setting is out of range, or the wheels have no solution.
    """
    if not (model / "config.json").is_file():
        raise UserError("--model must be an export", value=str(model), cure="name the folder that holds config.json")
    config.check()
    competition(config.competition)
    build_wheelhouse(wheels, (*needed_for(precision_of(model)), *requirements), find_links=find_links)
    write_notebook(kaggle / NOTEBOOK, config, names)
    write_metadata(kaggle, names, competition_name=config.competition, machine=machine, image=image, licence=licence)
    return Build(kaggle=kaggle, model=model, wheels=wheels, names=names, config=config)
