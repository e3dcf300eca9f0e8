"""`mathlete kaggle push`: a run's model as a version of one of Kaggle's models."""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from mathlete.command import Command, busy, console
from mathlete.delivery import Asking, Kaggle, Waiting
from mathlete.delivery.hub import choose_kaggle_upload, push_to_kaggle
from mathlete.errors import require
from mathlete.locks import hold


@dataclass(frozen=True, kw_only=True)
class KagglePushSettings:
    """What to push, and where to."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A run of `train math`."""
    model: str
    """The model on Kaggle, OWNER/MODEL, or OWNER/MODEL/transformers/VARIATION; one that is not there is made,
    private. Default variation: the weights' format."""
    part: str | None = None
    """Its folder with the model: export, merged, adapter, export-FORMAT; default: the first of these that is there."""
    licence: str = ""
    """The model's, by Kaggle's name of it; default: as its card says."""
    yes: bool = False
    """Push; without it nothing is sent and nobody is asked."""
    accept_refused: str = ""
    """Why a model may be pushed that the gates of its run refused; empty: it may not."""
    wait_max_s: float = 3600.0
    """Seconds until the version must appear, and until a request that gets no answer is given up."""
    json: bool = False
    """End with one line of JSON on stdout."""


def push_command(settings: KagglePushSettings) -> dict[str, object]:
    """Say what would be pushed, and with --yes push it; return it."""
    require(("wait-max-s", settings.wait_max_s, settings.wait_max_s > 0, "above 0"), cure="leave it out")
    say = partial(console(json=settings.json).print, markup=False, highlight=False)
    with busy("hashes"):
        upload = choose_kaggle_upload(
            settings.run,
            name=settings.model,
            part=settings.part,
            licence=settings.licence,
            accept_refused=settings.accept_refused,
        )
        lines, digest = [*upload.describe()], upload.model.hash
    for line in lines:
        say(line)
    result = {"run": str(settings.run), "part": upload.model.part, "model": upload.instance, "hash": digest}
    if not settings.yes:
        say("dry run: nothing was sent; push with --yes")
        return {**result, "pushed": False, "files": [file.as_posix() for file in upload.model.files]}
    seconds = settings.wait_max_s
    waiting = Waiting(poll_s=seconds / 120, upload_max_s=seconds, run_max_s=seconds, settle_s=seconds / 60)
    asking = Asking(waiting=waiting, say=say)
    with hold(settings.run), busy("uploading to Kaggle"):
        kaggle = asking.once(Kaggle, rule="Kaggle must let you in")
        pushed = push_to_kaggle(upload, kaggle, asking=asking)
    say(f"on Kaggle: {pushed.source}, as `submit build --model-source` takes it")
    return {**result, "pushed": True, **asdict(pushed)}


KAGGLE = {
    "push": Command(
        settings=KagglePushSettings,
        run=push_command,
        help="Pushes a run's export, merged model or adapter to Kaggle's models, as the next version. Dry run by "
        "default, private.\n\nExamples:\n\nmathlete kaggle push runs/demo-train --model alice/mathlete-model\n\n"
        "mathlete kaggle push runs/demo-train --model alice/mathlete-model/transformers/int8 --yes",
    )
}
