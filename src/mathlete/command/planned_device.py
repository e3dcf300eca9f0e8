"""`--device`, which every command has that can plan for a machine before it does anything."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from mathlete.errors import UserError
from mathlete.models import Device


@dataclass(frozen=True, kw_only=True)
class PlannedDevice:
    """What a plan is made for."""

    device: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="GPU",
            help=f"What to plan for, with --plan: {', '.join(Device.names())}; default: this machine's device.",
        ),
    ] = None

    def check(self, *, plan: bool) -> None:
        """Raise UserError where a device is named and nothing is planned."""
        if self.device is not None and not plan:
            raise UserError("--device is what to plan for", value=self.device, cure="add --plan, or leave it out")
