"""SkyPilot's task files: read, and their commands understood; by SkyPilot itself where it is installed."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tyro
import yaml

from mathlete.models import data_folder
from train.__main__ import MathSettings, defaults

FILES = sorted((data_folder() / "launch").glob("*.sky.yaml"))


def task(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_a_task_uses_is_set_and_kept_in_the_bucket(file: Path) -> None:
    found = task(file)
    used = set(re.findall(r"\$\{?([A-Z]+)\}?", str(found["run"]) + str(found["file_mounts"])))
    assert used <= found["envs"].keys()
    assert found["file_mounts"]["/runs"]["source"] == "${BUCKET}"
    assert "/runs/$MODEL" in found["run"]


def test_the_training_command_is_understood() -> None:
    found = task(data_folder() / "launch" / "train.sky.yaml")
    line = found["run"]
    for name, value in found["envs"].items():
        line = line.replace(f"${name}", value)
    words = shlex.split(line.partition("-m train math")[2])
    settings = tyro.cli(MathSettings, args=words, default=defaults(words))
    settings.check()
    assert settings.run == Path("/runs/r1-qwen-7b")


@pytest.mark.skipif(find_spec("sky") is None, reason="needs SkyPilot, in an environment of its own")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_skypilot_takes_the_task(file: Path) -> None:
    import sky

    found = sky.Task.from_yaml(str(file))
    assert found.name == task(file)["name"]
    assert (found.service is None) == (file.name == "train.sky.yaml")
