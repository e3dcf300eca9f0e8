"""What a training starts from, as its gates left it."""

from mathlete.errors import UserError
from mathlete.export.formats import read_storage
from mathlete.gates import GateOutcome, require_passed, require_run
from mathlete.models import ModelSource
from train.settings import MathSettings


def require_start(settings: MathSettings, model: ModelSource) -> GateOutcome:
    """Return what gates said of the model, the teacher, the adapter and the samples that a training starts from.

    Raises:
        Refused: one did not pass or never ended, and there is no reason to accept that.
        UserError: an unknown source.
    """
    after, teacher = settings.after, settings.recipe.teacher
    folders = (model.folder, teacher.folder if teacher else None, after.adapter)
    models = [require_passed(folder, reason=after.accept_refused) for folder in folders if folder]
    runs = [require_run(folder, reason=after.accept_refused) for folder in settings.data.corpus.runs()]
    return GateOutcome.join([*models, *runs])


def require_unpacked(model: ModelSource) -> None:
    """Check that the base's layers have weights that an adapter can be put beside, or that can be trained.

    Raises:
        UserError: it is an export in compressed-tensors, whose layers hold packed integers and scales.
    """
    if read_storage(model.read_config()) != "compressed-tensors":
        return
    merged = model.folder.parent / "merged" if model.folder else None
    there = merged is not None and (merged / "config.json").is_file()
    raise UserError(
        "a training must start from weights that are not packed by compressed-tensors",
        value=model.location,
        cure=f"use --model {merged}, which it was made of" if there else "use the 16-bit model that it was made of",
    )
