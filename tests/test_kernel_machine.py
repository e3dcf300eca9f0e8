"""What the notebook says of its machine, its mounts and its build before the first question."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mathlete.kernel import JOURNAL, read_facts, read_journal
from mathlete.kernel.machine import Gpu, find_difference, list_gpus
from mathlete.kernel.mounts import find_changes
from mathlete.kernel.server import RERUN, tell_machine
from mathlete.submission import Build
from mathlete.submission.stamps import compute_stamp, read_stamp, with_stamp

H100 = "NVIDIA H100 80GB HBM3, 81559, 9.0, 570.124.06"
T4 = "Tesla T4, 15360, 7.5, 535.1"
SEEN = [
    ([H100], "NvidiaH100", True),
    ([T4, T4], "NvidiaTeslaT4", True),
    (["NVIDIA L4, 23034, 8.9, 1"] * 4, "NvidiaL4", True),
    (["NVIDIA A100-SXM4-40GB, 40960, 8.0, 1"], "NvidiaTeslaA100", True),
    (["Tesla T4, 15360, [N/A], 418.1"], "NvidiaTeslaT4", True),
    ([T4, T4], "NvidiaH100", False),
    (["NVIDIA A100-SXM4-80GB, 81920, 8.0, 1"], "NvidiaH100", False),
    (["NVIDIA A100-SXM4-80GB, 81920, 8.0, 1"], "NvidiaTeslaA100", False),
    ([], "NvidiaH100", False),
    (["Failed to initialize NVML: Driver/library version mismatch"], "NvidiaTeslaT4", False),
    ([], "", True),
    ([T4], "TpuV6E8", True),
]
"""(what nvidia-smi prints, the machine of the build, whether it is that one)."""


def smi(folder: Path, lines: list[str]) -> Path:
    """Make a program that prints what nvidia-smi would."""
    file = folder / "nvidia-smi"
    printed = "".join(f"echo '{line}'\n" for line in lines)
    file.write_text(f"#!/bin/sh\n{printed}")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize(("lines", "shape", "good"), SEEN)
def test_a_gpu_that_is_not_the_builds_is_an_error_in_the_commit_run_and_told_in_a_rerun(
    lines: list[str],
    shape: str,
    good: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    smi(tmp_path, lines)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    built: dict[str, object] = {"build": "0123456789ab", "machine": shape}
    monkeypatch.delenv(RERUN, raising=False)
    if good:
        tell_machine(built, working=tmp_path)
    else:
        with pytest.raises(RuntimeError, match=f"built for {shape} with .* this machine has"):
            tell_machine(built, working=tmp_path)
    monkeypatch.setenv(RERUN, "1")
    tell_machine(built, working=tmp_path)
    assert ("!!!!" in capsys.readouterr().err) == (not good)
    # Either way the journal's first line tells build and machine, and counts as no question.
    facts = read_facts(tmp_path / JOURNAL)
    assert facts.build == "0123456789ab"
    assert {"gpus", "cores", "memory_gib", "disk_free_gib", "python", "packages"} == {*facts.machine}
    assert read_journal(tmp_path / JOURNAL) == []


def test_a_machine_without_the_program_has_no_gpu() -> None:
    assert list_gpus(("no-such-program",)) == []
    assert find_difference([Gpu(name="x", memory_mib=15000, capability=7.5)], "NvidiaTeslaT4") == ""


def as_built(folder: Path) -> None:
    """Leave all as it is."""


def change(name: str, content: bytes | None) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        file = folder / name
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_bytes(content)

    return edit


MOUNTED: list[tuple[Callable[[Path], None], list[str]]] = [
    (as_built, []),
    (change("a-1-py3-none-any.whl", b"other"), ["a-1-py3-none-any.whl is another"]),
    (change("a-1-py3-none-any.whl", None), ["a-1-py3-none-any.whl is missing"]),
    (change("b-1-py3-none-any.whl", b"new"), ["b-1-py3-none-any.whl is new"]),
    (change("config.json", b"[]"), ["config.json is another"]),
    (change("config.json", None), ["config.json is missing"]),
    (change("model.safetensors", b"123"), ["model.safetensors is another"]),
    (change("model.safetensors", None), ["model.safetensors is missing"]),
    # Of weights only the sizes are compared: to read them would take minutes.
    (change("model.safetensors", b"4321"), []),
]


@pytest.mark.parametrize(("edit", "says"), MOUNTED)
def test_mounts_are_compared_with_the_build(edit: Callable[[Path], None], says: list[str], tmp_path: Path) -> None:
    (tmp_path / "a-1-py3-none-any.whl").write_bytes(b"wheel")
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "model.safetensors").write_bytes(b"1234")
    sums = {"a-1-py3-none-any.whl": hashlib.sha256(b"wheel").hexdigest()}
    config = hashlib.sha256(b"{}").hexdigest()
    edit(tmp_path)
    assert find_changes(tmp_path, tmp_path, sums=sums, config=config, weights={"model.safetensors": 4}) == says


def test_an_edited_notebook_gets_a_hash_of_its_own_and_nothing_else_changes(build: Build) -> None:
    text = build.notebook.read_text()
    assert read_stamp(text) == compute_stamp(text) == build.stamp
    assert build.restamp() == ""
    assert build.notebook.read_text() == text
    edited = text.replace("from mathlete.kernel import serve", "from mathlete.kernel import serve  # mine")
    build.notebook.write_text(edited)
    stamp = build.restamp()
    assert stamp == build.stamp == compute_stamp(edited)
    assert stamp != read_stamp(text)
    assert build.notebook.read_text() == with_stamp(edited, stamp)
    assert json.loads(build.notebook.read_text())["metadata"] == json.loads(text)["metadata"]
