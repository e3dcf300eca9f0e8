"""Which export of a run the notebook carries, and why: the format that its engine serves best on the machine's GPU.

By compute capability, after vLLM's "Quantization" pages and NVIDIA's table of W8A16 on four L4: from 8.9 on (Ada,
Hopper, Blackwell) 8-bit floating point, below it 8-bit weights with 16-bit activations, which a T4 multiplies in fp16.
The embedded engine multiplies the 8-bit integers of bitsandbytes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mathlete.errors import UserError
from mathlete.export.formats.table import DEFAULT_FORMAT, EXPORT_FORMATS, ExportFormat
from mathlete.gates import is_set_aside
from mathlete.models import Device

_FLOAT_8 = 8.9
"""Compute capability from which a GPU multiplies 8-bit floating-point numbers."""
_EMBEDDED = [DEFAULT_FORMAT, "w8a16", "w8a8", "fp8"]
"""Formats for the embedded engine, the best first: the others it loads as 16 bits."""


@dataclass(frozen=True, kw_only=True)
class ChosenExport:
    """One export of a run."""

    folder: Path
    reason: str


def choose_export(
    run: Path, *, engine: str, machine: str, refuse: Callable[[Path], str] = lambda export: ""
) -> ChosenExport:
    """Return the export of a run for a machine of Kaggle's.

    Args:
        run: a folder that `python -m train math` filled.
        engine: embedded, vllm or auto, which counts as vLLM where the machine has a GPU.
        machine: Kaggle's name of the machine.
        refuse: returns why vLLM does not serve an export there, for `auto`; "" where it does. Where it serves none,
            the embedded engine will draw, and the export is that engine's.

    Raises:
        UserError: it holds no export, or none for that machine.
    """
    there = [one for one in EXPORT_FORMATS.values() if _is_there(run / one.folder)]
    gpu = Device.of_machine(machine)
    capability = None if gpu is None else gpu.capability
    served = engine != "embedded" and capability is not None
    # A machine whose GPU is not known: the default format loads anywhere.
    order = list_best(capability) if served and capability is not None else _EMBEDDED
    fits = [one for one in there if capability is None or one.fits(capability)]
    # By the same kernels, and nearer to the merged model where it was calibrated.
    fits.sort(key=lambda one: not one.is_calibrated)
    ranked = [one for name in order for one in fits if one.family == name]
    if not ranked:
        value = f"{', '.join(one.name for one in there) or 'none'} in {run}, for {machine}"
        # What its gates refused would be refused again.
        made = [name for name in order if not _is_refused(run, name)] or order
        cure = f"make it with --export.formats {made[0]}, or name an export's folder"
        raise UserError(f"a run must hold an export for the machine: {' or '.join(order)}", value=value, cure=cure)
    asks, refused = served and engine == "auto", ""
    for one in ranked:
        why = refuse(run / one.folder) if asks else ""
        if not why:
            lack = "its gates refused" if _is_refused(run, order[0]) else f"the run lacks (--export.formats {order[0]})"
            said = _explain(one, wanted=order[0], lack=lack, machine=machine if served else "")
            reason = f"{one.name}: what vLLM serves of the run's, {refused}" if refused else said
            return ChosenExport(folder=run / one.folder, reason=reason)
        refused = refused or f"not {one.name}: {why}"
    own = choose_export(run, engine="embedded", machine=machine)
    return replace(own, reason=f"{own.reason}, and vLLM serves none of the run's, {refused}")


def _is_there(export: Path) -> bool:
    return (export / "config.json").is_file() and not is_set_aside(export)


def list_best(capability: float) -> list[str]:
    """Return the formats that vLLM serves on a GPU, the best first.

    >>> list_best(9.0), list_best(7.5)
    (['fp8', 'w8a16', 'int8'], ['w8a16', 'w8a8', 'int8'])
    """
    return ["fp8", "w8a16", "int8"] if capability >= _FLOAT_8 else ["w8a16", "w8a8", "int8"]


def _is_refused(run: Path, name: str) -> bool:
    return is_set_aside(run / EXPORT_FORMATS[name].folder)


def _explain(best: ExportFormat, *, wanted: str, lack: str, machine: str) -> str:
    """Return why an export is the best; the machine is "" for the embedded engine."""
    if not machine and best.name == wanted:
        return f"{best.name}: the embedded engine multiplies it"
    if not machine:
        return f"{best.name}: the embedded engine loads it; {wanted} {lack}"
    if best.family == wanted:
        return f"{best.name}: what vLLM serves best on {machine}"
    return f"{best.name}: on {machine} vLLM would serve {wanted} best, which {lack}"
