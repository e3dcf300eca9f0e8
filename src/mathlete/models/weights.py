"""Whether a folder's weights are whole, how large they are, and what the numbers in them are: all numbers, or not."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mathlete.errors import UserError
from mathlete.files import choose_cure, read_pointer
from mathlete.folders import list_weights, measure_file
from mathlete.runs import read_json

_WHOLE = "model.safetensors"
_INDEX = f"{_WHOLE}.index.json"
_SHARD = re.compile(r"(.+-)(\d{5,})-of-(\d{5,})(\.safetensors)")
_UNFINISHED = ("*.incomplete", ".cache/huggingface/download/*.incomplete")
"""Where `hf download` keeps what has not come whole yet, by another name in each process: one that was killed leaves it
for ever, beside a model that another has made whole."""
_AGAIN = "download or copy the model again"


def require_whole_files(folder: Path, *, by_vllm: bool = False) -> None:
    """Check that each safetensors file of a folder is whole, and that all are there that belong together.

    An index says which files and tensors belong together, without one the numbers of the files do. What an index does
    not name is no error: many models hold a second copy of their weights.

    Args:
        folder: the model's.
        by_vllm: whether vLLM alone reads them, which takes all files there are; transformers takes model.safetensors,
            else what the index names.

    Raises:
        UserError: a file or a tensor is missing, or a file is cut.
    """
    try:
        _require_all(folder, by_vllm=by_vllm)
    except UserError as error:
        raise UserError(error.rule, value=f"{error.value}{tell_unfinished(folder)}", cure=error.cure) from error


def tell_unfinished(folder: Path) -> str:
    """Return words on what a download has left in a model's folder, to stand behind what is missing; "" for nothing."""
    unfinished = sorted(file for pattern in _UNFINISHED for file in folder.glob(pattern))
    return f"; a download has not ended: {unfinished[0]}" if unfinished else ""


def _require_all(folder: Path, *, by_vllm: bool) -> None:
    held = {file.name: _read_names(file) for file in sorted(folder.glob("*.safetensors"))}
    index = folder / _INDEX
    wanted = _list_wanted(folder, held)
    if not (by_vllm or index.is_file() or _WHOLE in held):
        wanted[_INDEX if wanted else _WHOLE] = frozenset()
    if missing := sorted(wanted.keys() - held.keys()):
        other = f", with {_INDEX}, without which vLLM alone reads numbered files" if _INDEX in missing else ""
        other = f", or remove {_INDEX} if it belongs to other weights" if index.is_file() else other
        raise UserError(
            "a model must have all files of its weights",
            value=f"{len(missing)} of {len(wanted)} missing in {folder}: {', '.join(missing[:3])}",
            cure=f"{_AGAIN}{other}",
        )
    for name, tensors in wanted.items():
        if lost := sorted(tensors - held[name]):
            raise UserError(
                f"a file of weights must hold the tensors that {_INDEX} says",
                value=f"{len(lost)} missing in {folder / name}: {', '.join(lost[:3])}",
                cure=f"{_AGAIN}: the file and {_INDEX} from the same place",
            )


def _list_wanted(folder: Path, held: Mapping[str, object]) -> dict[str, frozenset[str]]:
    """Return {file: its tensors} of what an index names; without one {file: none} by the numbers of those held."""
    index = folder / _INDEX
    return _read_index(index) if index.is_file() else dict.fromkeys(_list_shards(held), frozenset[str]())


@dataclass(frozen=True, kw_only=True)
class KnownSize:
    """How large the weights are that belong to a folder, which may be elsewhere, in part or all."""

    size: int
    """Bytes; 0: nothing here tells."""
    source: str
    """What tells it, or what is lacking, in words."""
    whole: bool
    """Whether all files are in the folder themselves."""


def measure_weights(folder: Path) -> KnownSize:
    """Return how large the weights are that belong to a folder: by their files, else by their index.

    Files count where all are there; one may be git-lfs' pointer, which names the size of the file that it stands for.

    Raises:
        UserError: a file is cut, or an index does not name the file of each tensor.
    """
    held = {file.name: read_pointer(file) for file in sorted(folder.glob("*.safetensors"))}
    for name in (name for name, pointed in held.items() if pointed is None):
        try:
            _read_names(folder / name)
        except UserError as error:
            cure = f"{error.cure}, or remove it where the weights are elsewhere"
            raise UserError(error.rule, value=error.value, cure=cure) from error
    wanted = _list_wanted(folder, held) if held else {}
    if held.get(_WHOLE, 0) != 0 and _WHOLE not in wanted and (folder / _INDEX).is_file():
        # transformers takes this file before an index that is of other weights, vLLM what the index names: the larger.
        if (total := _read_total(folder / _INDEX)) > measure_file(folder / _WHOLE):
            return KnownSize(size=total, source=f"{_INDEX}, which names other files than {_WHOLE}", whole=False)
        held, wanted = {_WHOLE: held[_WHOLE]}, {}
    # A pointer that was cut says nothing of what it stands for.
    told = {name for name, pointed in held.items() if pointed != 0}
    if held and not (missing := wanted.keys() - told) and told == held.keys():
        whole = set(held.values()) == {None}
        source = "its files" if whole else "git-lfs' pointers in place of its files"
        counted = list_weights(folder) if len(held) > 1 else [folder / name for name in held]
        return KnownSize(size=sum(map(measure_file, counted)), source=source, whole=whole)
    size = _read_total(folder / _INDEX)
    part = f"{len(missing)} of {len(wanted)} files of its weights are not in {folder}" if held else ""
    if not size:
        other = next(
            (f"no safetensors, but {file.name}," for file in sorted(folder.glob("pytorch_model*.bin"))), "no weights"
        )
        return KnownSize(size=0, source=f"{part or f'{other} in {folder}'}, and no {_INDEX} that says it", whole=False)
    return KnownSize(size=size, source=f"{_INDEX}{part and f': {part}'}", whole=False)


def _read_total(index: Path) -> int:
    metadata: object = read_json(index).get("metadata") if index.is_file() else None
    size = metadata.get("total_size") if isinstance(metadata, dict) else None
    return int(size) if isinstance(size, int | float) and size > 0 else 0


def _read_names(file: Path) -> frozenset[str]:
    """Return the names of a file's tensors; raise UserError where it has no whole header, or ends before they do."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as weights:
            return frozenset(weights.keys())
    except (SafetensorError, OSError) as error:  # of a folder, or a link that leads nowhere
        cure = choose_cure(file, otherwise="copy it again, or export the model again")
        rule = f"{file.parent} must be a model folder transformers can load, with whole weights"
        raise UserError(rule, value=f"{file.name}: {error}", cure=cure) from error


def _read_index(index: Path) -> dict[str, frozenset[str]]:
    """Return {file: its tensors}; raise UserError where the index does not say them."""
    weight_map: object = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise UserError("an index of weights must name the file of each tensor", value=str(index), cure=_AGAIN)
    files = dict[str, set[str]]()
    for tensor, file in weight_map.items():
        files.setdefault(file, set()).add(tensor)
    return {file: frozenset(tensors) for file, tensors in sorted(files.items())}


def _list_shards(held: Mapping[str, object]) -> list[str]:
    """Return the files that those which are there say by their numbers.

    Mistral's own copy of the weights, `consolidated`, is none that anything reads beside a whole file.

    >>> _list_shards({"model.safetensors": 0, "model-00002-of-00003.safetensors": 0})
    ['model-00001-of-00003.safetensors', 'model-00002-of-00003.safetensors', 'model-00003-of-00003.safetensors']
    >>> _list_shards({"model.safetensors": 0, "consolidated-00001-of-00002.safetensors": 0})
    []
    >>> _list_shards({"model-00002-of-000002.safetensors": 0})  # DeepSeek's
    ['model-00001-of-000002.safetensors', 'model-00002-of-000002.safetensors']
    """
    read = [name for name in held if _WHOLE not in held or not name.startswith("consolidated")]
    shards = sorted({(kept[1], len(kept[2]), kept[3], kept[4]) for name in read if (kept := _SHARD.fullmatch(name))})
    return [
        f"{head}{number:0{width}}-of-{count}{end}"
        for head, width, count, end in shards
        for number in range(1, int(count) + 1)
    ]


def require_finite_file(file: Path) -> None:
    """Check that no floating-point number of a safetensors file is NaN or infinite.

    Raises:
        UserError: one is.
    """
    from safetensors import safe_open

    with safe_open(file, framework="pt") as weights:
        for name in weights.keys():  # noqa: SIM118 - no mapping
            tensor = weights.get_tensor(name)
            if not tensor.is_floating_point() or not tensor.numel():
                continue
            # Of 8-bit floats torch finds no extremes.
            least, most = (tensor if tensor.element_size() > 1 else tensor.float()).aminmax()
            if not (bool(least.isfinite()) and bool(most.isfinite())):
                raise UserError(
                    "a model's weights must be finite numbers",
                    value=f"NaN or infinity in {name} of {file}",
                    cure="take a whole copy of the model, or one that was saved before its training failed",
                )
