"""`python -m train launch-config`: where accelerate's configurations are that ship with the project."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from mathlete.command import Command, console
from mathlete.shipped import data_folder
from mathlete.tune import require_launcher


@dataclass(frozen=True, kw_only=True)
class LaunchSettings:
    """Which configuration."""

    kind: Annotated[tyro.conf.Positional[Literal["ddp", "fsdp"]], tyro.conf.arg(metavar="{ddp,fsdp}")] = "ddp"
    """ddp: the whole model on each GPU, the rows of a step shared out. fsdp: the model's weights shared out too."""
    json: bool = False
    """End with one line of JSON on stdout."""


def launch_config(settings: LaunchSettings) -> dict[str, object]:
    """Print the file's path, for `accelerate launch --config_file`; return it."""
    file = data_folder() / "launch" / f"{settings.kind}.yaml"
    console(json=settings.json).print(str(file))
    return {"file": str(file)}


def require_launched(until: str, *, method: str) -> None:
    """Check that several visible GPUs come with a launcher that fits, where anything is trained.

    Raises:
        UserError: they do not.
    """
    if until != "format":
        require_launcher(method)


LAUNCH_COMMAND = Command(
    settings=LaunchSettings,
    run=launch_config,
    help="Prints the path of a configuration for accelerate launch, for several GPUs.\n\n"
    "Examples:\n\npython -m train launch-config fsdp\n\n"
    'accelerate launch --config_file "$(python -m train launch-config ddp)" -m train math --model r1-qwen-7b',
)
