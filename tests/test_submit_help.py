"""What the commands of submit say of themselves, and that the commands in the docs are real ones."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from submit.__main__ import COMMANDS

GOLDEN = Path(__file__).parent / "golden"
DOCS = ("docs/submit.md", "docs/rehearsal.md")


ALL = """
from mathlete.command import run_command_line
from submit.__main__ import COMMANDS
for name in ["", *COMMANDS]:
    run_command_line([*name.split(), "--help"], prog="python -m submit", commands=COMMANDS)
    print(end=chr(12))
"""


@pytest.fixture(scope="module")
def helps(root: Path) -> dict[str, str]:
    """{command: its help}, all from one process; one in which stdout is no terminal, as in a pipe."""
    variables = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", ALL], cwd=root, env=variables, capture_output=True, check=True)
    return dict(zip(["", *COMMANDS], done.stdout.decode().split(chr(12)), strict=False))


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_is_golden(name: str, helps: dict[str, str]) -> None:
    golden = GOLDEN / f"help_submit{f'_{name}' if name else ''}.txt"
    assert helps[name] == golden.read_text()
    assert not name or helps[name].count("python -m submit") >= 3


@pytest.mark.parametrize("doc", DOCS)
def test_every_command_in_the_docs_is_understood(doc: str, root: Path) -> None:
    text = (root / doc).read_text()
    lines = re.findall(r"python -m submit ((?:[^`\n]|\n(?=[^`\n]))+?)(?:`|\n)", text)
    assert len(lines) >= 4
    for name, *words in map(shlex.split, lines):
        assert isinstance(tyro.cli(COMMANDS[name].settings, args=words), COMMANDS[name].settings)
