"""A whole export folder: the weights in their format, with what else a model needs to be served."""

from collections.abc import Callable
from pathlib import Path

from mathlete.export.formats.table import EXPORT_FORMATS
from mathlete.export.formats.weights import Calibration, WriteOptions
from mathlete.export.settings import Export
from mathlete.models import GPUS, Device, ModelSource, load_prompt_format
from mathlete.runs import read_json, require_space


def write_format(
    folder: Path,
    *,
    merged: Path,
    name: str,
    settings: Export,
    calibration: Calibration | None = None,
    watch: Callable[[str], None] = lambda _: None,
) -> None:
    """Write the whole folder of a format: weights, tokenizer, chat template, instruction, generation settings.

    Args:
        folder: the export's.
        merged: the merged model's.
        name: the format's.
        settings: of all formats.
        calibration: the rows that a calibrated format is made for.
        watch: told how far such a format is.

    Raises:
        UserError: the format can't hold this model, its package is missing, its GPU can't run it, or the disk is full.
    """
    export_format = EXPORT_FORMATS[name]
    export_format.require(settings.gpu)
    require_space(folder, needed_bytes=export_format.needed_bytes(merged))
    options = WriteOptions(
        dtype=choose_dtype(merged, settings),
        threshold=settings.threshold,
        group=settings.group,
        calibration=calibration,
        watch=watch,
    )
    export_format.write(folder, merged, options)
    prompts = load_prompt_format(ModelSource(name="merged", location=str(merged)))
    prompts.tokenizer.save_pretrained(folder)
    prompts.save(folder)
    if (generation := merged / "generation_config.json").is_file():
        (folder / generation.name).write_bytes(generation.read_bytes())


def choose_dtype(merged: Path, settings: Export) -> str:
    """Return torch's name of the type the export is written for: the named GPU's, this one's, else the merged model's.

    Merged weights may be stored in a finer type than a GPU best computes in. What measures it here computes in this
    device's own, whatever it is stored in.
    """
    if settings.gpu is not None:
        return GPUS[settings.gpu].dtype
    here = Device.current()
    return str(read_json(merged / "config.json")["dtype"]) if here.capability is None else here.dtype
