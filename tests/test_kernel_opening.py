"""The notebook's first server: it takes its port before anything else can, and finds the competition's module."""

import importlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import pytest

from mathlete.competitions import Competition, competition
from mathlete.errors import UserError
from mathlete.kernel.opening import open_server
from mathlete.rehearsal import real_package
from mathlete.rehearsal.gateway.behaviours import PACKAGES
from mathlete.rehearsal.real_package import find_real_package
from mathlete.rehearsal.stand_in import write_stand_in
from submit.making import GatewaySettings

AIMO_3 = competition("aimo-3")
MODULE, NAME = AIMO_3.notebook.gateway.module, str(AIMO_3.notebook.gateway.server)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """The first port of every version, which is 50051 on Kaggle; a second one follows it."""
    first, second = free_port(), free_port()
    for name, package in PACKAGES.items():
        monkeypatch.setitem(PACKAGES, name, replace(package, ports=(first, second)[: len(package.ports)]))
    return first


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Callable[[str, Competition], Path]]:
    """Makes a competition's data with a stand-in of some version, of which nothing stays imported."""
    path, before = [*sys.path], {*sys.modules}

    def make(version: str, rules: Competition = AIMO_3) -> Path:
        write_stand_in(tmp_path / "data", rules, version=version)
        return tmp_path / "data"

    yield make
    sys.path[:] = path
    for name in {*sys.modules} - before:
        if name.startswith("kaggle_evaluation"):
            del sys.modules[name]


@pytest.mark.parametrize("version", PACKAGES)
def test_the_server_is_found_wherever_its_module_lies(version: str, data: Any, port: int) -> None:
    folder = data(version)
    flat = (folder / "kaggle_evaluation" / f"{MODULE}.py").is_file()
    assert flat == (version < "1.4")
    server, listeners = open_server(folder, MODULE, NAME, port=port)
    listeners.append(lambda *columns: len(columns))
    assert type(server).__name__ == NAME
    assert importlib.import_module("kaggle_evaluation").__version__ == version
    assert getattr(server, "port", port) == port
    # It is bound from now on, though nothing is served yet.
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("", port))


def test_a_module_named_with_its_package_is_found_at_the_top_too(data: Any, port: int) -> None:
    server, _ = open_server(data("0.9.0"), f"aimo_3_123456.{MODULE}", NAME, port=port)
    assert type(server).__name__ == NAME


def test_a_package_without_the_module_says_what_it_holds(data: Any) -> None:
    folder = data("1.4.0")
    with pytest.raises(
        FileNotFoundError, match=r"no module cup_inference_server; it holds \[.*aimo_3_inference_server"
    ):
        open_server(folder, "cup_inference_server", NAME)


@pytest.mark.parametrize("version", ["1.4.0", "1.7.0"])
@pytest.mark.parametrize("rerun", [False, True])
def test_a_taken_port_fails_the_commit_run_and_is_told_in_the_rerun(
    version: str, rerun: bool, data: Any, port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KAGGLE_IS_COMPETITION_RERUN", raising=False)
    if rerun:
        monkeypatch.setenv("KAGGLE_IS_COMPETITION_RERUN", "")
    folder, told = data(version), f"port {port} is taken"
    with socket.create_server(("localhost", port)):
        if rerun:
            open_server(folder, MODULE, NAME, port=port)
            assert told in capsys.readouterr().err
            return
        with pytest.raises(RuntimeError, match=told):
            open_server(folder, MODULE, NAME, port=port)


def test_the_stand_in_needs_nothing_of_the_project(data: Any) -> None:
    """The notebook imports it before it installs the project's wheel."""
    folder = data("1.4.0")
    assert not [file for file in folder.rglob("*.py") if "mathlete" in file.read_text().replace("mathlete_gateway", "")]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = f"import sys; sys.modules['mathlete'] = None; import kaggle_evaluation.aimo_3_000000.{MODULE}"
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, check=True, timeout=60)


def test_every_behaviour_may_be_named_on_the_command_line() -> None:
    hint = get_type_hints(GatewaySettings)["behaviour"]
    (literal,) = [option for option in get_args(hint) if getattr(option, "__origin__", None) is Literal]
    assert get_args(literal) == tuple(PACKAGES)


def lay_out(folder: Path, *files: str, version: str = "1.4.0") -> Path:
    """Write a package as a download holds it: the named files, all empty but the version."""
    for name in ("__init__.py", "core/relay.py", *files):
        file = folder / "kaggle_evaluation" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"__version__ = '{version}'\n" if name == "__init__.py" else "")
    return folder


STUBS = "core/generated/kaggle_evaluation_pb2.py"
FLAT = ("aimo_3_gateway.py", "aimo_3_inference_server.py", STUBS)
NESTED = ("aimo_3_123456/aimo_3_gateway.py", "aimo_3_123456/aimo_3_inference_server.py", STUBS)


def test_the_real_package_is_found_in_each_layout(tmp_path: Path) -> None:
    flat, nested = lay_out(tmp_path / "flat", *FLAT, version="0.9.0"), lay_out(tmp_path / "nested", *NESTED)
    real = find_real_package(flat, AIMO_3)
    assert (real.version, real.module, real.gateway) == ("0.9.0", "aimo_3_gateway", "AIMO3Gateway")
    real = find_real_package(nested / "kaggle_evaluation", AIMO_3)
    assert (real.version, real.module) == ("1.4.0", "aimo_3_123456.aimo_3_gateway")


def test_a_wrong_folder_of_the_real_package_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_package, "find_spec", lambda name: None)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test.csv").touch()
    other = lay_out(tmp_path / "other", "jed_1/jed_gateway.py", STUBS)
    bare = lay_out(tmp_path / "bare", *FLAT[:2], version="1.7.0")
    for folder, rules, words in (
        (tmp_path / "none", AIMO_3, "none, which is no folder"),
        (tmp_path / "data", AIMO_3, "data, which holds test.csv"),
        (other, AIMO_3, "of version 1.4.0, which has jed_1/jed_gateway.py"),
        (bare, AIMO_3, "kaggle_evaluation 1.7.0 compiles its stubs as it is imported, which needs grpcio-tools"),
        (lay_out(tmp_path / "one", *FLAT), competition("aimo-1"), "needs to know which gateway to run"),
    ):
        with pytest.raises(UserError) as refused:
            find_real_package(folder, rules)
        assert words in str(refused.value)
