"""The commands of `python -m train`, by name."""

from train.lab import LAB_COMMAND
from train.launch import LAUNCH_COMMAND
from train.math_command import MATH_COMMAND
from train.notebook import NOTEBOOK_COMMAND
from train.overlap import OVERLAP_COMMAND
from train.pocket import POCKET_BASE_COMMAND, POCKET_PROBLEMS_COMMAND
from train.show import SHOW_COMMAND

COMMANDS = {
    "math": MATH_COMMAND,
    "pocket-base": POCKET_BASE_COMMAND,
    "pocket-problems": POCKET_PROBLEMS_COMMAND,
    "quantize-lab": LAB_COMMAND,
    "launch-config": LAUNCH_COMMAND,
    "notebook": NOTEBOOK_COMMAND,
    "data show": SHOW_COMMAND,
    "data overlap": OVERLAP_COMMAND,
}
