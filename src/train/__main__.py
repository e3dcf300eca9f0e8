"""`python -m train`: from problems with traces to an 8-bit model, and the pocket model from nothing."""

import sys

from mathlete.own_path import forget_working_folder


def main() -> int:
    """Carry out the command that the process was given; return its exit code."""
    # Imported here: a stop is heard from the first moment on.
    from mathlete.command import run_command_line
    from train.commands import COMMANDS

    return run_command_line(sys.argv[1:], prog="python -m train", commands=COMMANDS)


if __name__ == "__main__":
    forget_working_folder()
    from mathlete.signals import run_stoppably

    sys.exit(run_stoppably(main, prog="python -m train"))
