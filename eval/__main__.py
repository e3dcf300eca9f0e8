"""`python -m eval`: evaluate a model on a suite of problems, with intervals, and work with finished runs."""

import sys

from eval.check import CHECK_COMMAND
from eval.compare import COMPARE_COMMAND, TABLE_COMMAND
from eval.evaluate import EVALUATE
from eval.imports import IMPORT_COMMAND
from eval.losses import LOSSES_COMMAND
from eval.replay import REPLAY_COMMAND
from eval.report import INSPECT_COMMAND, REPORT_COMMAND
from mathlete.command import run_command_line

__all__ = ["COMMANDS", "EVALUATE"]

COMMANDS = {
    "check": CHECK_COMMAND,
    "compare": COMPARE_COMMAND,
    "import": IMPORT_COMMAND,
    "inspect": INSPECT_COMMAND,
    "losses": LOSSES_COMMAND,
    "replay": REPLAY_COMMAND,
    "report": REPORT_COMMAND,
    "table": TABLE_COMMAND,
}

if __name__ == "__main__":
    sys.exit(run_command_line(sys.argv[1:], prog="python -m eval", commands=COMMANDS, otherwise=EVALUATE))
