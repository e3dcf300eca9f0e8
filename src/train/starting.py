"""What a training starts from, as its gates left it."""

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
