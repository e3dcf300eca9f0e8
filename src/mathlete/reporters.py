"""`--report-to`: a training is shown, as it runs, by transformers' own integrations of three trackers.

Each keeps its files in the run's folder, where the user's own variables (TENSORBOARD_LOGGING_DIR, TRACKIO_DIR,
WANDB_DIR) name no other place. Where the hub is forbidden (HF_HUB_OFFLINE) none of them reaches for a network: wandb is
put into its offline mode, trackio without a Space is local anyhow.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mathlete.accounts import find_wandb_key, is_offline
from mathlete.errors import UserError

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback

Reporter = Literal["none", "tensorboard", "trackio", "wandb"]
"""An integration by transformers' own name; none: not even what a run else keeps for TensorBoard and trackio."""
PROJECT = "mathlete"
"""What trackers keep the curves under."""
_PLACES = {"tensorboard": "TENSORBOARD_LOGGING_DIR", "trackio": "TRACKIO_DIR", "wandb": "WANDB_DIR"}
_LOCAL = ("offline", "dryrun", "disabled")
"""Values of WANDB_MODE that need no account."""


def check_reporters(names: Sequence[Reporter]) -> None:
    """Check, before a training begins, that what it is to report to can be reported to.

    Raises:
        UserError: a package is missing, credentials are, or what is asked for contradicts itself.
    """
    if "none" in names and len(names) > 1:
        raise UserError("--report-to none must stand alone", value=" ".join(names), cure="leave it out")
    for name in set(names) - {"none"}:
        if find_spec(name) is None:
            cure = f'pip install "mathlete[{name}]" -c constraints.txt, or leave it out'
            raise UserError(f"--report-to {name} needs the package {name}", value="not installed", cure=cure)
    offline = is_offline(os.environ)
    if "trackio" in names and offline:
        for variable in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
            if os.environ.get(variable):
                cure = f"unset {variable}: the run is then kept in its own folder"
                raise UserError("offline, trackio can't send to a Space or a server", value=variable, cure=cure)
    local = offline or os.environ.get("WANDB_MODE", "").lower() in _LOCAL
    if "wandb" in names and not local and not find_wandb_key(os.environ):
        cure = "run `wandb login`, or set WANDB_MODE=offline and send the run later with `wandb sync`"
        raise UserError("--report-to wandb needs a key of Weights & Biases", value="none", cure=cure)


@contextmanager
def report_training(
    names: Sequence[Reporter], trainer: "Trainer", *, adapter: Path, say: Callable[[str], None]
) -> Iterator[None]:
    """Have a training report to transformers' integrations while it runs; in the end, say where it is to be seen.

    Args:
        names: what was asked for, checked.
        trainer: gets the integrations, after the callbacks that it has.
        adapter: the folder that is trained into.
        say: prints a line for a person.

    Raises:
        UserError: Weights & Biases does not take the run.
    """
    chosen: list[str] = [name for name in names if name != "none"]
    if not chosen:
        yield
        return
    from transformers.integrations.integration_utils import get_reporting_integration_callbacks

    trainer.args.report_to, trainer.args.project = chosen, PROJECT
    trainer.args.run_name = adapter.resolve().parent.name
    # They print for people; stdout may be for JSON.
    with _choosing_places(adapter) as places, redirect_stdout(sys.stderr), _explain_wandb(chosen):
        integrations: list[type[TrainerCallback]] = get_reporting_integration_callbacks(chosen)  # type: ignore[no-untyped-call]
        for integration in integrations:
            trainer.add_callback(integration)
        yield
        if "wandb" in chosen and trainer.is_world_process_zero():
            say(f"wandb: {_finish_wandb()}")
    if "tensorboard" in chosen:
        say(f"tensorboard: tensorboard --logdir {places['tensorboard']}")
    if "trackio" in chosen:
        say(f"trackio: TRACKIO_DIR={places['trackio']} trackio show --project {PROJECT}")


@contextmanager
def _choosing_places(adapter: Path) -> Iterator[dict[str, Path]]:
    """Set the variables that say where integrations keep their files, where the user has not; yield the places."""
    # wandb beside the steps: its service may write after the training's manifest, which lists that step's files.
    own = {"tensorboard": adapter / "logs", "trackio": adapter.resolve() / "trackio", "wandb": adapter.resolve().parent}
    wanted = {"WANDB_PROJECT": PROJECT, **{_PLACES[name]: str(place) for name, place in own.items()}}
    if is_offline(os.environ):
        wanted["WANDB_MODE"] = "offline"
    # Taken back in the end: another training of this process has places of its own.
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield {name: Path(os.environ[variable]) for name, variable in _PLACES.items()}
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _finish_wandb() -> str:
    """End wandb's run; return where it is."""
    import wandb

    run = wandb.run
    if run is None:
        return "it kept no run"
    place = f"wandb sync {Path(run.dir).parent}" if run.offline else run.url
    run.finish()
    return str(place)


@contextmanager
def _explain_wandb(chosen: Sequence[str]) -> Iterator[None]:
    """Say what wandb refuses as a user's mistake: a wrong key, a server that is away."""
    if "wandb" not in chosen:
        yield
        return
    from wandb.errors import Error

    try:
        yield
    except Error as error:
        cure = "run `wandb login --relogin`, or set WANDB_MODE=offline and send the run later with `wandb sync`"
        raise UserError("Weights & Biases must take the run", value=str(error).rstrip(".")[:300], cure=cure) from error
