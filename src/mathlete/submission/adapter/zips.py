"""The zip of an adapter that is handed in: the same bytes from the same adapter, on every machine."""

import json
import shutil
import zipfile
from contextlib import ExitStack
from pathlib import Path

from mathlete.adapters import ADAPTER_CONFIG, WEIGHTS, AdapterFiles
from mathlete.competitions import AdapterRules
from mathlete.errors import UserError
from mathlete.files import replace_when_done, require_space
from mathlete.submission.refusal import Refusal
from mathlete.temporary import TemporaryFolder

_BEGINNING = (1980, 1, 1, 0, 0, 0)
"""The first time that a zip can hold: the files' own would make other bytes each time."""


def write_adapter_zip(file: Path, adapter: AdapterFiles, *, base: str, dtype: str | None = None) -> None:
    """Write the zip: settings and weights at its top, stored as they are, for weights hardly shrink.

    Args:
        file: the zip.
        adapter: what goes in, a folder or another zip.
        base: OWNER/NAME of the base, which the settings then name in place of a path of this machine.
        dtype: torch's name of the type that the weights are cast to; None: they are copied byte for byte.
    """
    config = json.dumps({**adapter.config, "base_model_name_or_path": base}, indent=2, sort_keys=True) + "\n"
    with ExitStack() as stack:
        weights = adapter.where / WEIGHTS
        if adapter.where.is_file():
            weights = extract_adapter(adapter.where, into=stack.enter_context(TemporaryFolder("adapter"))) / WEIGHTS
        if dtype is not None:
            cast = stack.enter_context(TemporaryFolder("adapter")) / WEIGHTS
            _cast(weights, cast, dtype=dtype)
            weights = cast
        _require_finite(weights)
        file.parent.mkdir(parents=True, exist_ok=True)
        require_space(file.parent, needed_bytes=weights.stat().st_size)
        with replace_when_done(file) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            archive.writestr(_member(ADAPTER_CONFIG), config)
            with archive.open(_member(WEIGHTS), "w", force_zip64=True) as into, weights.open("rb") as numbers:
                shutil.copyfileobj(numbers, into, 2**20)


def extract_adapter(file: Path, *, into: Path) -> Path:
    """Write the two files of a zip into a folder, as the organiser's program does; return the folder."""
    with zipfile.ZipFile(file) as archive:
        for name in (ADAPTER_CONFIG, WEIGHTS):
            with (
                archive.open(name) as source,
                replace_when_done(into / name) as temporary,
                temporary.open("wb") as target,
            ):
                shutil.copyfileobj(source, target, 2**20)
    return into


def find_size_refusal(file: Path, rules: AdapterRules) -> Refusal | None:
    """Return why a zip is too large; None where it is not, or the rules name no limit."""
    size = file.stat().st_size / 2**20
    if rules.max_mib is None or size <= rules.max_mib:
        return None
    cure = "build it with --adapter.dtype bfloat16, or train at a lower rank or for fewer layers"
    return Refusal(rule=f"the zip must have at most {rules.max_mib} MiB", value=f"{size:.1f} MiB", cure=cure)


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, date_time=_BEGINNING)
    member.external_attr, member.create_system = 0o644 << 16, 3  # a plain file of Unix, wherever it is made
    return member


def _require_finite(weights: Path) -> None:
    """Check every number of the weights, a tensor at a time: vLLM serves whatever is there.

    Raises:
        UserError: one is not finite.
    """
    from safetensors import safe_open

    with safe_open(weights, framework="pt") as file:
        names = [*file.keys()]
        broken = next((name for name in names if not bool(file.get_tensor(name).isfinite().all())), None)
    if broken is not None:
        rule, cure = "an adapter must hold finite numbers", "take an earlier checkpoint: this training has diverged"
        raise UserError(rule, value=broken, cure=cure)


def _cast(weights: Path, into: Path, *, dtype: str) -> None:
    """Write the weights in another type.

    Raises:
        UserError: a number is beyond what the type holds.
    """
    import torch
    from safetensors.torch import load_file, save_file

    tensors = {name: tensor.to(getattr(torch, dtype)).contiguous() for name, tensor in load_file(weights).items()}
    if broken := [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
        cure = "use --adapter.dtype bfloat16, or float32 where the rules take it"
        raise UserError(f"an adapter's numbers must fit {dtype}", value=broken[0], cure=cure)
    save_file(tensors, into, metadata={"format": "pt"})
