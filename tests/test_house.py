"""What the wheel holds, that commands run from it, and that our folder hides no package."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import CommandLine


def test_kaggle_folder_does_not_hide_the_kaggle_package(root: Path) -> None:
    assert not (root / "kaggle" / "__init__.py").exists()
    code = "import importlib.util as u; print(u.find_spec('kaggle').origin)"
    printed = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert Path(printed.stdout.strip()).parent != root / "kaggle"
    assert "site-packages" in printed.stdout


@pytest.fixture(scope="module")
def wheel(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, unpacked."""
    (file,) = (built / "runs" / "wheels").glob("mathlete-*.whl")
    unpacked = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(unpacked)
    return unpacked


def test_wheel_holds_the_packages_and_the_pocket_model(wheel: Path) -> None:
    tops = {path.name for path in wheel.iterdir() if path.suffix != ".dist-info"}
    assert tops == {"mathlete", "train", "eval", "submit"}
    assert (wheel / "mathlete/_data/pocket/model/model.safetensors").is_file()
    assert (wheel / "mathlete/_data/sources.toml").is_file()
    assert {path.parent.name for path in wheel.rglob("py.typed")} == {"mathlete", "train", "eval", "submit"}
    assert (wheel / "mathlete/_data/recordings/pocket/samples.jsonl").is_file()
    for name in (
        "html/report.html.j2",
        "html/reader.js",
        "html/report.css",
        "assets/katex.LICENSE",
        "assets/chart.LICENSE",
    ):
        assert (wheel / "mathlete/report" / name).is_file()


def test_packages_are_imported_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    code = "import train, eval, submit, mathlete; print(*[m.__file__ for m in (train, eval, submit, mathlete)])"
    variables = {**os.environ, "PYTHONPATH": str(wheel)}
    where = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert where.stdout.count(str(wheel)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "eval", "submit"])
def test_commands_run_from_the_wheel(wheel: Path, tmp_path: Path, command: str) -> None:
    done = CommandLine(command).process("--help", folder=tmp_path, PYTHONPATH=str(wheel))
    assert done.code == 0, done.stderr
    assert f"python -m {command}" in done.stdout
