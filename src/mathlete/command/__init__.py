"""What every command line shares: how it is read, where output goes, how far a piece of work is, exit codes.

`run_command_line` carries out one of several `Command`s. `console` is where a person reads. `progress` and `busy` show
how far the work is: a bar on a terminal, a line now and then in a file or a pipe.

>>> read_leading_flags(["--model", "pocket", "--n", "3"], ["model"]).last("model")
'pocket'
"""

from mathlete.command.bars import busy, console, progress
from mathlete.command.command_line import (
    Command,
    LeadingFlags,
    note_on_stop,
    read_leading_flags,
    run_command_line,
    tell_mistake,
    tell_version,
)

__all__ = [
    "Command",
    "LeadingFlags",
    "busy",
    "console",
    "note_on_stop",
    "progress",
    "read_leading_flags",
    "run_command_line",
    "tell_mistake",
    "tell_version",
]
