"""What every command line shares: how it is read, where output goes, how far a piece of work is, exit codes.

`run_command_line` carries out one of several `Command`s. `console` is where a person reads. `progress` and `busy` show
how far the work is: a bar on a terminal, a line now and then in a file or a pipe.

>>> from dataclasses import dataclass
>>> @dataclass(frozen=True, kw_only=True)
... class Draws:
...     n: int = 8
>>> def draw(settings: Draws) -> dict[str, object]:
...     print(f"{settings.n} samples")
...     return {}
>>> commands = {"draw": Command(settings=Draws, run=draw, help="Draws samples.")}
>>> run_command_line(["draw", "--n", "3"], prog="python -m example", commands=commands)
3 samples
0
"""

from mathlete.command.bars import busy, console, progress
from mathlete.command.command_line import (
    Command,
    LeadingFlags,
    note_on_stop,
    run_command_line,
    tell_mistake,
    tell_version,
)
from mathlete.command.planned_device import PlannedDevice

__all__ = [
    "Command",
    "LeadingFlags",
    "PlannedDevice",
    "busy",
    "console",
    "note_on_stop",
    "progress",
    "run_command_line",
    "tell_mistake",
    "tell_version",
]
