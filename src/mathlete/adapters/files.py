"""The two files of an adapter, in a folder or at the top of a zip, and why other layouts are not read."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from mathlete.adapters.foreign import ADAPTER_CONFIG, WEIGHTS
from mathlete.adapters.tensors import TensorFacts, read_tensor_facts
from mathlete.errors import UserError

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_STATE = ("optimizer", "scheduler", "scaler", "rng_state", "trainer_state", "training_args")
"""How the files of a checkpoint begin that hold the training's state."""
_SAVE = "save it with peft's save_pretrained, which writes safetensors"
_AGAIN = "name the adapter's folder in place of the zip: `python -m submit build` makes a good zip of it"


@dataclass(frozen=True, kw_only=True)
class AdapterFiles:
    """An adapter's settings and what is known of its tensors; no numbers are read."""

    where: Path
    """The folder or the zip."""
    config: Mapping[str, object]
    """adapter_config.json."""
    tensors: Mapping[str, TensorFacts]
    """{name: facts} of adapter_model.safetensors."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read them in a folder, or in a zip that holds nothing else.

        Raises:
            UserError: a file is missing, broken or pickled, lies in a folder within, or others lie beside it.
        """
        return cls._read_zip(path) if path.is_file() else cls._read_folder(path)

    @classmethod
    def _read_folder(cls, folder: Path) -> Self:
        names = [str(file.relative_to(folder)) for file in sorted(folder.glob("*"))] if folder.is_dir() else []
        _require_files(folder, names, nested=[str(file.parent) for file in sorted(folder.glob(f"*/{ADAPTER_CONFIG}"))])
        weights = folder / WEIGHTS
        with weights.open("rb") as file:
            tensors = read_tensor_facts(file, where=weights, size=weights.stat().st_size)
        return cls(where=folder, config=_parse(folder, (folder / ADAPTER_CONFIG).read_bytes()), tensors=tensors)

    @classmethod
    def _read_zip(cls, file: Path) -> Self:
        try:
            with zipfile.ZipFile(file) as archive:
                _require_members(file, [one.filename for one in archive.infolist() if not one.is_dir()])
                if broken := archive.testzip():
                    raise zipfile.BadZipFile(f"{broken} is damaged")
                config, size = _parse(file, archive.read(ADAPTER_CONFIG)), archive.getinfo(WEIGHTS).file_size
                with archive.open(WEIGHTS) as weights:
                    tensors = read_tensor_facts(weights, where=f"{WEIGHTS} in {file}", size=size)
        # RuntimeError: a zip with a password.
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
            raise UserError("an adapter's zip must be whole", value=f"{file}: {error}"[:300], cure=_AGAIN) from error
        return cls(where=file, config=config, tensors=tensors)


def _require_files(folder: Path, names: Sequence[str], *, nested: Sequence[str]) -> None:
    """Check that both files are at the top of a folder.

    Raises:
        UserError: one is not.
    """
    if ADAPTER_CONFIG not in names and nested:
        rule, cure = f"--model must be the folder that holds {ADAPTER_CONFIG} itself", f"name {nested[-1]}"
        raise UserError(rule, value=f"{folder}, with one in {', '.join(nested)}", cure=cure)
    if WEIGHTS not in names and (pickled := [name for name in names if _is_pickled_adapter(name)]):
        raise UserError("an adapter must be stored as safetensors", value=f"{folder / pickled[0]}", cure=_SAVE)
    for name in (ADAPTER_CONFIG, WEIGHTS):
        if name not in names:
            cure = "name the folder that peft's or Unsloth's save_pretrained wrote, or adapter/ of a run"
            raise UserError(f"an adapter's folder must hold {name}", value=str(folder), cure=cure)


def _require_members(file: Path, names: Sequence[str]) -> None:
    """Check that a zip holds the two files at its top and nothing else.

    Raises:
        UserError: it does not; the first reason of these.
    """
    configs = [name for name in names if PurePosixPath(name).name == ADAPTER_CONFIG]
    folders = [name for name in names if "/" in name or "\\" in name]
    pickled = [name for name in names if name.endswith(_PICKLES)]
    others = [name for name in names if name not in (ADAPTER_CONFIG, WEIGHTS)]
    state = [name for name in others if PurePosixPath(name).name.startswith(_STATE)]
    faults = (
        (f"an adapter's zip must hold {ADAPTER_CONFIG}", names or ["nothing"], not configs),
        # The organiser's program takes whichever it sees first.
        ("an adapter's zip must hold one adapter", configs, len(configs) > 1),
        ("an adapter's files must lie at the top of the zip, in no folder", folders, bool(folders)),
        ("an adapter's zip must be without the state of its training", state, bool(state)),
        ("an adapter must be stored as safetensors, in no pickled file", pickled, bool(pickled)),
        (f"an adapter's zip must hold {WEIGHTS}", names, WEIGHTS not in names),
        (
            f"an adapter's zip must hold {ADAPTER_CONFIG} and {WEIGHTS} alone, each once",
            others or names,
            len(names) > 2,
        ),
    )
    for rule, value, broken in faults:
        if broken:
            raise UserError(rule, value=f"{', '.join(value)[:300]} in {file}", cure=_AGAIN)


def _is_pickled_adapter(name: str) -> bool:
    return name.startswith("adapter_model") and name.endswith(_PICKLES)


def _parse(where: Path, content: bytes) -> Mapping[str, object]:
    try:
        config = json.loads(content)
    except ValueError as error:
        rule = f"{ADAPTER_CONFIG} must be readable JSON"
        raise UserError(rule, value=f"{where}: {error}", cure="save the adapter again") from error
    if not isinstance(config, dict):
        raise UserError(f"{ADAPTER_CONFIG} must be an object", value=repr(config)[:80], cure="save the adapter again")
    return config
