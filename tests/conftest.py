"""Fixtures for all tests: no hub, one thread, the shared folder where there is one."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is no failure.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real problem sets and tokenizers, which are not part of the project."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder of real sets and tokenizers beside the checkout")
    return folder


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Lines of 40 problems, each with its trace, a longer right one and a wrong one."""
    from mathlete.command import run_command_line
    from train.__main__ import COMMANDS

    file = tmp_path_factory.mktemp("pairs") / "one.jsonl"
    words = ["pocket-problems", str(file), "--families", "hard", "easy", "--count", "40"]
    assert run_command_line(words, prog="python -m train", commands=COMMANDS) == 0
    lines = []
    for one in map(json.loads, file.read_text().splitlines()):
        again = f"{one['trace']}\nOnce more, from the beginning.\n{one['trace']}"
        wrong = {"trace": f"{one['trace']}\nOr is it?", "answer": f"{one['gold']}1"}
        lines += [one, {**one, "trace": again}, {**one, **wrong}]
    return "".join(json.dumps(line) + "\n" for line in lines)
