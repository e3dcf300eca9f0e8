"""One writer a folder, whatever ends it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mathlete.errors import UserError
from mathlete.locks import LOCK, hold

HOLDER = """
import os, sys, time
from pathlib import Path
from mathlete.locks import hold
with hold(Path(sys.argv[1])):
    if sys.argv[2] == "forked" and os.fork() == 0:
        print("held", flush=True)
        time.sleep(20)
    if sys.argv[2] != "forked":
        print("held", flush=True)
    time.sleep(20)
"""


def start(folder: Path, kind: str = "alone") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), kind], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_is_told_who_holds_it_and_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with start(folder) as process:
        told = rf"{folder}, held since 2.* by process {process.pid} on .*: python.* -c .*import os"
        with pytest.raises(UserError, match=told), hold(folder):
            pass
        assert (folder / LOCK).exists()
        process.kill()
    with hold(folder):
        assert str(os.getpid()) in (folder / LOCK).read_text()
    assert not (folder / LOCK).exists()


def test_a_child_that_outlives_its_parent_still_holds(tmp_path: Path) -> None:
    with start(tmp_path, "forked") as process:
        process.kill()
        process.wait()
        with pytest.raises(UserError, match="one process at a time"), hold(tmp_path):
            pass
        os.killpg(process.pid, signal.SIGKILL)
    ends = time.monotonic() + 30
    while True:
        try:
            with hold(tmp_path):
                return
        except UserError:
            assert time.monotonic() < ends
            time.sleep(0.01)


def test_only_empty_folders_that_it_made_are_removed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("mine", "a/b"):
        with hold(tmp_path / name):
            pass
    with hold(tmp_path / "c" / "d"):
        (tmp_path / "c" / "d" / "samples.jsonl").touch()
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "c",
        "c/d",
        "c/d/samples.jsonl",
        "mine",
    ]


def test_a_file_system_without_locks_is_used_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refuse(file: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with hold(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
