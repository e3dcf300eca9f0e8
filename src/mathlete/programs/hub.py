"""`mathlete hub push`: a run's model to the Hugging Face hub."""

import sys
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from mathlete.command import Command, busy, console
from mathlete.delivery import Asking, Waiting
from mathlete.delivery.hub import Hub, choose_upload, push_to_hub
from mathlete.errors import require
from mathlete.locks import hold


@dataclass(frozen=True, kw_only=True)
class HubPushSettings:
    """What to push, and where to."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A run of `train math`."""
    part: str | None = None
    """Its folder with the model: export, merged, adapter, export-FORMAT; default: the first of these that is there."""
    repo: str | None = None
    """The repository, OWNER/NAME, or NAME in the account of the token; default: the run's name."""
    yes: bool = False
    """Push; without it nothing is sent and nobody is asked."""
    public: bool = False
    """Let anybody see it; without it the repository is made private, and one that is public is refused."""
    overwrite: bool = False
    """Delete weights in the repository that this push does not replace; without it, one that has such is refused."""
    accept_refused: str = ""
    """Why a model may be pushed that the gates of its run refused; empty: it may not."""
    wait_max_s: float = 600.0
    """Seconds until a request that gets no answer is given up."""
    json: bool = False
    """End with one line of JSON on stdout."""


def push_command(settings: HubPushSettings) -> dict[str, object]:
    """Say what would be pushed, and with --yes push it; return it."""
    require(("wait-max-s", settings.wait_max_s, settings.wait_max_s > 0, "above 0"), cure="leave it out")
    out = console(json=settings.json)
    say = partial(out.print, markup=False, highlight=False)
    with busy("hashes"):
        upload = choose_upload(
            settings.run,
            part=settings.part,
            repo=settings.repo,
            public=settings.public,
            overwrite=settings.overwrite,
            accept_refused=settings.accept_refused,
        )
    for line in upload.describe():
        say(line)
    result = {"run": str(settings.run), "part": upload.part, "repo": upload.repo, "hash": upload.hash}
    if not settings.yes:
        say("dry run: nothing was sent; push with --yes")
        return {**result, "pushed": False, "files": [file.as_posix() for file in upload.files]}
    # On a terminal the hub's client draws bars of its own, with what has arrived of each file.
    with hold(settings.run), nullcontext() if sys.stderr.isatty() else busy("uploading to the hub"):
        pushed = push_to_hub(upload, Hub(), asking=Asking(waiting=_wait_at_most(settings.wait_max_s), say=say))
    return {**result, "pushed": True, **asdict(pushed)}


def _wait_at_most(seconds: float) -> Waiting:
    """Return how long to wait: some sixty looks, and a twentieth of the time for an act whose answer was lost."""
    return Waiting(poll_s=seconds / 60, upload_max_s=seconds, run_max_s=seconds, settle_s=seconds / 20)


HUB = {
    "push": Command(
        settings=HubPushSettings,
        run=push_command,
        help="Pushes a run's export, merged model or adapter to the Hugging Face hub. Dry run by default, private by "
        "default.\n\nExamples:\n\nmathlete hub push runs/demo-train\n\n"
        "mathlete hub push runs/demo-train --part adapter --repo alice/math-adapter --yes",
    )
}
