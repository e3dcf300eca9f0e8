"""Temporary folders: gone with their process, or removed by the next, and nobody else's."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mathlete.temporary import TemporaryFolder, remove_abandoned

MAKER = """
import os, sys
from mathlete.temporary import TemporaryFolder, remove_own
kept = TemporaryFolder("test")
(kept.path / "file").touch()
print(kept.path, flush=True)
if sys.argv[1] == "fork" and (child := os.fork()) == 0:
    sys.exit()  # as any process ends: it runs what its parent has registered
if sys.argv[1] == "fork":
    os.waitpid(child, 0)
    print((kept.path / "file").exists(), flush=True)
if sys.argv[1] == "wait":
    sys.stdin.read()
if sys.argv[1] == "at once":
    remove_own()
    os._exit(0)
if sys.argv[1] == "error":
    raise ValueError
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def make(kind: str) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", MAKER, kind], stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize("kind", ["end", "error", "at once", "fork"])
def test_an_end_of_the_process_leaves_nothing(place: Path, kind: str) -> None:
    said, _ = make(kind).communicate()
    assert said.startswith(str(place / "mathlete-test-"))
    assert kind != "fork" or said.endswith("True\n")
    assert [*place.iterdir()] == []


def test_what_a_killed_process_leaves_goes_with_the_next_start_and_nothing_else_does(place: Path) -> None:
    for name in ("mathlete-test-1.held.txt", "mathlete-tir-old", "other.held"):
        (place / name).mkdir()
    (place / "mathlete-file.held").touch()
    (place / "mathlete-link.held").symlink_to("other.held")
    before = {*place.iterdir()}
    with make("wait") as lives, make("wait") as killed:
        held, left = (Path(next(iter(one.stdout or [])).strip()) for one in (lives, killed))
        remove_abandoned()
        assert {*place.iterdir()} == {*before, held, left}
        killed.kill()
        killed.wait()
        with TemporaryFolder("next") as own:
            assert {*place.iterdir()} == {*before, held, own}
        lives.communicate("")
    assert {*place.iterdir()} == before


def test_a_disk_without_locks_keeps_what_may_be_held(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    one, two = TemporaryFolder("one"), TemporaryFolder("two")
    assert {*place.iterdir()} == {one.path, two.path}
    one.close()
    two.close()
    assert [*place.iterdir()] == []


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to make another user's folder")
def test_another_users_folder_stays(place: Path) -> None:
    (place / "mathlete-test-x.held").mkdir()
    os.chown(place / "mathlete-test-x.held", 65534, 65534)
    remove_abandoned()
    assert len([*place.iterdir()]) == 1
