"""The commands of `python -m eval` by name, and the one without a name."""

from eval.check import CHECK_COMMAND
from eval.compare import COMPARE_COMMAND, TABLE_COMMAND
from eval.evaluate import EVALUATE
from eval.imports import IMPORT_COMMAND
from eval.losses import LOSSES_COMMAND
from eval.replay import REPLAY_COMMAND
from eval.report import INSPECT_COMMAND, REPORT_COMMAND

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
