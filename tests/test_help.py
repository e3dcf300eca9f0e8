"""--help: word for word what is kept in golden/, and quick, for nothing heavy is loaded."""

import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from io import BytesIO, TextIOWrapper

import pytest

from eval.commands import COMMANDS as EVAL
from mathlete.__main__ import run_program
from mathlete.command import Command, run_command_line
from mathlete.programs import DOCTOR, HUB, KAGGLE
from submit.commands import COMMANDS as SUBMIT
from tests.conftest import GOLDEN, CommandLine, sample
from train.commands import COMMANDS as TRAIN

TABLES: dict[str, Mapping[str, Command]] = {"train": TRAIN, "eval": EVAL, "submit": SUBMIT}
OWN: dict[str, tuple[Mapping[str, Command], str]] = {
    "hub": (HUB, "mathlete hub"),
    "kaggle": (KAGGLE, "mathlete kaggle"),
    "doctor": (DOCTOR, "mathlete"),
}
"""Commands of the console script alone: their table, and what stands before their names."""
LONG = [("train", "math")]
"""Commands whose --help shows the flags that people need; the others are in --help-all."""
EVERY = [
    *((name, command) for name, table in TABLES.items() for command in ("", *table)),
    *((name, command) for name, (table, _) in OWN.items() for command in table),
]


def golden_name(name: str, command: str) -> str:
    return f"help_{'_'.join([name, *command.split()])}.txt"


@pytest.mark.parametrize(("name", "command"), EVERY)
def test_help_is_golden(name: str, command: str) -> None:
    _, prog = OWN.get(name, (None, f"python -m {name}"))
    shown = CommandLine(name).help(*command.split())
    file = GOLDEN / golden_name(name, command)
    assert shown == file.read_text(), (
        f"if it is meant: COLUMNS=100 NO_COLOR=1 {prog} {command} --help > tests/golden/{file.name}"
    )
    assert shown.count(prog) >= (3 if command else 2)


@pytest.mark.parametrize(("name", "command"), LONG)
def test_help_shows_twenty_flags_and_help_all_every_one(name: str, command: str) -> None:
    entry = re.compile(r"^│ (--[\w.-]+)", re.M)
    short = (GOLDEN / golden_name(name, command)).read_text()
    few, every = entry.findall(short), entry.findall(CommandLine(name).help(*command.split(), "--help-all"))
    assert len(few) == 20
    assert {*few} < {*every}
    assert f"{len(every) - 20} more flags: --help-all" in short


def test_the_help_of_one_model_shows_its_own_defaults() -> None:
    assert "(default: 0.0002)" in CommandLine("train").help("math", "--model", "r1-qwen-7b")


def test_no_golden_help_is_of_a_command_that_is_gone() -> None:
    assert {file.name for file in GOLDEN.glob("help_*.txt")} == {golden_name(*one) for one in EVERY}


class Terminal(TextIOWrapper):
    """A stream that takes itself for a terminal."""

    def __init__(self) -> None:
        super().__init__(BytesIO(), encoding="utf-8", write_through=True)

    def isatty(self) -> bool:
        return True

    def read_lines(self) -> list[str]:
        assert isinstance(self.buffer, BytesIO)
        return re.sub(r"\x1b\[[\d;]*m", "", self.buffer.getvalue().decode()).splitlines()


def call(program: str, *words: str) -> tuple[int, list[str]]:
    """Call `mathlete PROGRAM` on a terminal of 80 columns; return the exit code and the lines."""
    table = {**TABLES, **{name: table for name, (table, _) in OWN.items()}}[program]
    terminal = Terminal()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(terminal), redirect_stderr(terminal):
        patch.setenv("COLUMNS", "80")
        code = run_command_line([*words], prog=f"mathlete {program}", commands=table)
    return code, terminal.read_lines()


SAMPLE = [("train", ""), ("submit", ""), ("hub", ""), ("train", "math"), ("train", "quantize-lab")]


@pytest.mark.parametrize(
    ("program", "command"), sample(*SAMPLE, slow=[one for one in EVERY if one not in SAMPLE and one != ("eval", "")])
)
def test_help_fits_80_columns_and_its_examples_name_the_console_script(program: str, command: str) -> None:
    code, lines = call(program, *command.split(), "--help")
    assert code == 0
    assert not [line for line in lines if len(line) > 80]
    # Only a box's words may name the module: they are no command to copy.
    assert not [line for line in lines if "python -m" in line and not line.startswith(("│", "accelerate"))]


def test_the_programs_fit_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["mathlete", "--help"])
    with redirect_stdout(Terminal()) as terminal:
        assert run_program() == 0
    assert len(lines := terminal.read_lines()) == 11
    assert max(map(len, lines)) <= 80


def test_an_error_breaks_no_word_on_a_terminal() -> None:
    code, lines = call("train", "maths")
    assert code == 2
    assert lines[0] == "error: the command must be a known one, got 'maths'."
    assert lines[1].startswith("  Fix: did you mean math? Known: math, pocket-base, ")
    assert len(lines) > 2
    assert all(len(line) <= 80 for line in lines)
    assert all(line.startswith("  ") for line in lines[1:])
    assert " ".join(" ".join(lines[1:]).split()).endswith("data overlap")


LIGHT = """
import sys
from importlib import import_module
from mathlete.command import run_command_line

heavy = {"torch", "transformers", "datasets", "sympy", "numpy", "peft", "trl", "kaggle", "matplotlib", "pandas"}
for name in ("train", "eval", "submit"):
    room = import_module(f"{name}.commands")
    for command in ("", *room.COMMANDS):
        words = [*command.split(), "--help"]
        otherwise = getattr(room, "EVALUATE", None)
        assert run_command_line(words, prog=name, commands=room.COMMANDS, otherwise=otherwise) == 0
        assert not heavy & set(sys.modules), (name, command, heavy & set(sys.modules))
from mathlete.programs import DOCTOR, HUB, KAGGLE

assert run_command_line(["push", "--help"], prog="mathlete kaggle", commands=KAGGLE) == 0
assert run_command_line(["doctor", "--help"], prog="mathlete", commands=DOCTOR) == 0
assert run_command_line(["push", "--help"], prog="mathlete hub", commands=HUB) == 0
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert "tyro" in sys.modules
"""


def test_help_loads_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
