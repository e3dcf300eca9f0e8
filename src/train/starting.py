"""What a training starts from, as its gates left it."""

from mathlete.gates import GateOutcome, require_passed
from mathlete.models import ModelSource
from train.settings import MathSettings


def require_start(settings: MathSettings, model: ModelSource) -> GateOutcome:
    """Return what gates said of the model, the teacher and the adapter that a training starts from.

    Raises:
        Refused: one did not pass, and there is no reason to accept that.
    """
    after, teacher = settings.after, settings.recipe.teacher
    folders = (model.folder, teacher.folder if teacher else None, after.adapter)
    return GateOutcome.join([require_passed(folder, reason=after.accept_refused) for folder in folders if folder])
