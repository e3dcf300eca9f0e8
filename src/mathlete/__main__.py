"""`mathlete`: the commands of `python -m train`, `python -m eval` and `python -m submit` under one name, and some more.

As a console script it never takes a train.py, eval.py or submit.py of the folder that the user works in for its own.
"""

import sys

from mathlete.own_path import forget_working_folder

_PROGRAMS = {
    "train": "from problems with traces to an 8-bit model: math, data, …",
    "eval": "a model on a suite of problems: compare, replay, report, …",
    "submit": "the notebook: build, rehearse, preflight, push, …",
    "hub": "a run's model to the Hugging Face hub: push",
    "kaggle": "a run's model to Kaggle's models: push",
    "doctor": "versions, GPU, image, credentials, room: what an issue needs to know",
}


def main() -> int:
    """Carry out the command that the process was given; return its exit code."""
    forget_working_folder()
    from mathlete.signals import run_stoppably

    return run_stoppably(run_program, prog="mathlete")


def run_program() -> int:
    """Run the program that the first word names, with the words after it; return the exit code."""
    from importlib import import_module

    from mathlete.command import run_command_line, tell_mistake, tell_version
    from mathlete.errors import UserError, nearest

    name, words = sys.argv[1] if sys.argv[1:] else "--help", sys.argv[2:]
    if name in _PROGRAMS:
        # They stand above this room, so that nothing here imports them; who starts them may.
        if name == "doctor":  # a program of one command
            doctor = import_module("mathlete.programs").DOCTOR
            return run_command_line([name, *words], prog="mathlete", commands=doctor)
        if name in ("hub", "kaggle"):
            commands = getattr(import_module("mathlete.programs"), name.upper())
            return run_command_line(words, prog=f"mathlete {name}", commands=commands)
        table = import_module(f"{name}.commands")
        otherwise = getattr(table, "EVALUATE", None)
        return run_command_line(words, prog=f"mathlete {name}", commands=table.COMMANDS, otherwise=otherwise)
    if name in ("-V", "--version"):
        return tell_version()
    if name not in ("-h", "--help"):
        rule = "the first word must be a program of mathlete"
        return tell_mistake(UserError(rule, value=repr(name), cure=nearest(name, [*_PROGRAMS])))
    print("mathlete PROGRAM COMMAND …\n\nprograms:")
    for program, words_of_it in _PROGRAMS.items():
        print(f"  {program:<8}{words_of_it}")
    print("\nmathlete PROGRAM --help lists the commands; --version tells version and commit.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
