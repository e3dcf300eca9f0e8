"""What `submit` makes is replaced by the next of its kind, and nothing else is."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from mathlete.delivery import Ledger
from mathlete.errors import UserError
from mathlete.gates import SURVIVAL, GateOutcome
from mathlete.kaggle_image import PYTHON
from mathlete.kernel import KernelConfig
from mathlete.rehearsal.environments import find_python
from mathlete.rehearsal.image import fetch_image
from mathlete.rehearsal.runner import _delete_earlier
from mathlete.runs import write_json
from mathlete.solve import Policy
from mathlete.submission import Build, build_wheelhouse, wheelhouse
from mathlete.submission.metadata import NOTEBOOK
from mathlete.submission.notebook import require_as_built, write_notebook
from tests.conftest import NAMES, POCKET, CommandLine


def test_a_rehearsal_replaces_an_earlier_one_and_nothing_else(tmp_path: Path) -> None:
    for name in ("stage/notebook.log", "competition/test.csv", "hidden/test.csv", NOTEBOOK, "spoilt-model/x", ".lock"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"must hold nothing else: .*, got notes.txt"):
        _delete_earlier(tmp_path, notebook=NOTEBOOK)
    assert (tmp_path / "stage" / "notebook.log").exists()
    (tmp_path / "notes.txt").unlink()
    _delete_earlier(tmp_path, notebook=NOTEBOOK)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_build_replaces_only_a_notebook_that_was_built(tmp_path: Path) -> None:
    file = tmp_path / NOTEBOOK
    require_as_built(file)
    for seed in range(2):
        write_notebook(file, KernelConfig(policy=Policy(seed=seed)), NAMES)
        require_as_built(file)
    notebook = json.loads(file.read_text())
    notebook["cells"][2]["source"] += ["print('mine')"]
    for text in (json.dumps(notebook), "[]", "{", '{"cells": [{"id": "a", "source": "x = 1", "metadata": {}}]}'):
        file.write_text(text)
        with pytest.raises(UserError, match="which was written or edited by hand"):
            require_as_built(file)


def test_a_build_replaces_only_the_record_of_a_build(build: Build, tmp_path: Path) -> None:
    for _ in range(2):
        build.save(tmp_path)
    (tmp_path / "build.json").write_text('{"name": "my app"}')
    with pytest.raises(UserError, match="must be one that `python -m submit build` wrote"):
        build.save(tmp_path)
    assert (tmp_path / "build.json").read_text() == '{"name": "my app"}'


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheelhouse whose pip makes small wheels: the project's of its source, another of its pins."""

    def write(name: str, into: Path, content: str) -> Path:
        wheel = into / f"{name}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            # With a date of its own, the same source gives the same bytes, as hatchling's.
            archive.writestr(zipfile.ZipInfo("source"), content)
        return wheel

    def build_wheel(root: Path, into: Path) -> Path:
        return write("mathlete-1", into, (root / "source").read_text())

    def pip(*words: str) -> None:
        if words[0] == "download":
            into = Path(words[words.index("-d") + 1])
            if not any(into.glob("needed-*.whl")):  # pip too keeps what is there
                write("needed-1.0", into, "")

    monkeypatch.setattr(wheelhouse, "_build_wheel", build_wheel)
    monkeypatch.setattr(wheelhouse, "_pip", pip)
    monkeypatch.setattr(wheelhouse, "resolve", lambda requirements, options: [f"{one}==1.0" for one in requirements])
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "source").write_text("first")
    return tmp_path / "wheels"


def test_another_state_of_the_project_replaces_its_wheel_alone(house: Path, tmp_path: Path) -> None:
    assert not build_wheelhouse(house, ["needed"], root=tmp_path).skipped
    before = {path.name: path.read_bytes() for path in house.iterdir()}
    assert build_wheelhouse(house, ["needed"], root=tmp_path).skipped
    (tmp_path / "source").write_text("second")
    assert not build_wheelhouse(house, ["needed"], root=tmp_path).skipped
    after = {path.name: path.read_bytes() for path in house.iterdir()}
    assert after.keys() == before.keys()
    assert after["needed-1.0-py3-none-any.whl"] == before["needed-1.0-py3-none-any.whl"]
    assert after["mathlete-1-py3-none-any.whl"] != before["mathlete-1-py3-none-any.whl"]


def test_wheels_for_other_requirements_are_kept_unless_asked(house: Path, tmp_path: Path) -> None:
    build_wheelhouse(house, ["needed"], root=tmp_path)
    with pytest.raises(UserError, match=r"requirements is \["):
        build_wheelhouse(house, [], root=tmp_path)
    assert (house / "needed-1.0-py3-none-any.whl").exists()
    assert not build_wheelhouse(house, [], root=tmp_path, overwrite=True).skipped
    assert not (house / "needed-1.0-py3-none-any.whl").exists()


def test_another_requirement_is_added_to_what_is_there(house: Path, tmp_path: Path) -> None:
    build_wheelhouse(house, [], root=tmp_path)
    assert build_wheelhouse(house, ["needed"], root=tmp_path).figures["locked"] == ["needed==1.0"]
    assert (house / "needed-1.0-py3-none-any.whl").exists()


def test_wheels_added_by_hand_are_carried_by_every_later_build(house: Path, tmp_path: Path) -> None:
    build_wheelhouse(house, ["needed"], root=tmp_path)
    for name in ("mine-2.0-py3-none-any.whl", "needed-1.5-py3-none-any.whl"):
        (house / name).write_bytes(b"by hand")
    for overwrite, source in ((False, "first"), (False, "second"), (True, "third")):
        (tmp_path / "source").write_text(source)
        build_wheelhouse(house, ["needed"], root=tmp_path, overwrite=overwrite)
        # One of the same package from the index would be installed over it.
        assert sorted(path.name for path in house.glob("*.whl")) == [
            "mathlete-1-py3-none-any.whl",
            "mine-2.0-py3-none-any.whl",
            "needed-1.5-py3-none-any.whl",
        ]
        assert (house / "mine-2.0-py3-none-any.whl").read_bytes() == b"by hand"
        wheelhouse.verify_sums(house)
    for wheel in (tmp_path / "wheels-added").iterdir():
        wheel.unlink()
    build_wheelhouse(house, ["needed"], root=tmp_path)
    names = ["mathlete-1-py3-none-any.whl", "needed-1.0-py3-none-any.whl"]
    assert sorted(path.name for path in house.glob("*.whl")) == names


def test_packages_of_another_image_are_kept_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mathlete.rehearsal import image

    monkeypatch.setattr(image, "_pip", lambda into, words: None)
    monkeypatch.setattr(image, "link_packages", lambda names, into: None)
    assert not fetch_image(tmp_path, python="this").skipped
    assert fetch_image(tmp_path).skipped
    monkeypatch.setattr(image, "image_packages", lambda: {"numpy": "9.9"})
    with pytest.raises(UserError, match=r"python -m submit image --run .* --overwrite"):
        fetch_image(tmp_path)
    assert not fetch_image(tmp_path, overwrite=True).skipped


@pytest.mark.parametrize(("python", "needed"), [("this", "1.25"), ("image", "11.00")])
def test_an_image_that_the_disk_has_no_room_for_is_refused_before_anything_is_written(
    python: str, needed: str, workdir: Path, monkeypatch: pytest.MonkeyPatch, submit: CommandLine
) -> None:
    if python == "image" and (sys.version_info[:2] == (3, 12) or find_python(PYTHON) is None):
        pytest.skip("the image's Python must be another one than this, and be there")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))
    refused = submit("image", "--python", python).refusal
    assert f"runs/image needs {needed} GiB of free disk, got 1.00 GiB" in refused
    assert not [*workdir.iterdir()]


def test_what_a_gate_refused_is_not_built(built_wheels: Path, submit: CommandLine) -> None:
    refused = Path(shutil.copytree(POCKET, "m"))
    write_json(refused / "started.json", {"key": "k"})
    write_json(refused / SURVIVAL, GateOutcome(breaches=("int8 is far off",)).to_json())
    words = ("build", "--model", "m", "--names.owner", "alice", "--run", "b")
    assert "a model must have passed the gates of its run, got int8 is far off" in submit(*words).refusal
    assert not Path("b").exists()
    shutil.copytree(built_wheels, "b/wheels")
    assert submit(*words, "--accept-refused", "the best we have").code == 0
    assert Build.load(Path("b")).accept_refused == "the best we have"
    assert Ledger(Path("b")).events()[0].accept_refused == "the best we have"
    assert "- int8 is far off\n- accepted: the best we have" in Path("m/README.md").read_text()


@pytest.mark.slow
def test_a_checkout_and_an_environment_behind_links_rehearse(built: Path, tmp_path: Path, root: Path) -> None:
    for name, target in (("checkout", root), ("environment", Path(sys.prefix))):
        (tmp_path / name).symlink_to(target)
    work = Path(shutil.copytree(built, tmp_path / "work"))
    words = ["-m", "submit", "rehearse", "--image", "none", "--questions", "3", "--runs", "1", "--json"]
    path = os.pathsep.join(str(tmp_path / "checkout" / part) for part in ("src", "."))
    command = [str(tmp_path / "environment" / "bin" / "python"), *words]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["outcome"] == "valid"
