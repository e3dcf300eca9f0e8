"""`mathlete` as a program: beside files of the user's own that have the names of modules."""

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mathlete.own_path import find_hiding_files

SCRIPT = "import sys; from mathlete.__main__ import main; sys.exit(main())"
"""What a console script is; -P, for its own folder is none of these."""


def run(folder: Path, *words: str, module: bool = False) -> subprocess.CompletedProcess[str]:
    start = ["-m", *words[:1]] if module else ["-P", "-c", SCRIPT, *words[:1]]
    variables = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    command = [sys.executable, *start, *words[1:]]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of a user's own: scripts named as our packages, and as modules of Python."""
    folder = tmp_path_factory.mktemp("crowded")
    for name in ("train.py", "submit.py", "random.py", "select.py", "threading.py", "statistics.py"):
        (folder / name).write_text(f"raise SystemExit('the user's own {name}')\n")
    return folder


def test_the_console_script_is_declared(root: Path) -> None:
    scripts = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, _, name = scripts["mathlete"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_a_users_own_files_are_told_apart(crowded: Path) -> None:
    done = run(crowded, "train", "pocket-problems", "--out", "problems.jsonl", "--count", "3")
    assert done.returncode == 0, done.stderr
    assert len((crowded / "problems.jsonl").read_text().splitlines()) == 3
    refused = run(crowded, "train", "math", "--lora_r", "8")
    assert refused.returncode == 2
    assert "use --lora.rank 8" in refused.stderr


def test_a_users_random_py_is_not_pythons(crowded: Path) -> None:
    done = run(crowded, "eval", "compare", "a", "b", module=True)
    assert "the user's own" not in done.stderr
    assert "there is no such folder" in done.stderr


def test_version_and_programs(tmp_path: Path) -> None:
    assert run(tmp_path, "--version").stdout.startswith("mathlete 0.")
    assert all(f"\n  {name} " in run(tmp_path, "--help").stdout for name in ("train",))
    unknown = run(tmp_path, "tarin")
    assert unknown.returncode == 2
    assert "did you mean train?" in unknown.stderr


def test_only_what_hides_a_module_is_named(tmp_path: Path) -> None:
    for name in ("train.py", "random.py", "notes.py", "runs", "eval"):
        (tmp_path / name).mkdir()
    assert find_hiding_files(str(tmp_path)) == ["eval", "random.py", "train.py"]
