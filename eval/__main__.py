"""`python -m eval`: evaluate a model on a suite of problems, with intervals, and work with finished runs."""

import sys

from mathlete.own_path import forget_working_folder


def main() -> int:
    """Carry out the command that the process was given; return its exit code."""
    # Imported here: a stop is heard from the first moment on.
    from eval.commands import COMMANDS, EVALUATE
    from mathlete.command import run_command_line

    return run_command_line(sys.argv[1:], prog="python -m eval", commands=COMMANDS, otherwise=EVALUATE)


if __name__ == "__main__":
    forget_working_folder()
    from mathlete.signals import run_stoppably

    sys.exit(run_stoppably(main, prog="python -m eval"))
