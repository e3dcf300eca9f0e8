"""One writer a folder, whatever ends it."""

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mathlete.errors import UserError
from mathlete.locks import LOCK, hold
from mathlete.problems import Problem, write_problems
from mathlete.runs import run_step
from mathlete.sampling import Sample, SampleLog
from mathlete.tir.protection import usable_layers
from tests.conftest import POCKET_VAL, CommandLine, sample

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


NO_LOCKS = """
import ctypes, os, sys
library = ctypes.CDLL("libseccomp.so.2")
library.seccomp_init.restype = ctypes.c_void_p
rules = ctypes.c_void_p(library.seccomp_init(0x7FFF0000))
number = library.seccomp_syscall_resolve_name(b"flock")
assert library.seccomp_rule_add(rules, 0x00050000 | int(sys.argv[1]), number, 0) == 0
assert library.seccomp_load(rules) == 0
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
"""Runs Python where the kernel answers flock(2) as disks without locks do, with that number of an error."""


def start_without_locks(error: int, *words: str) -> "subprocess.Popen[str]":
    if "filter" not in usable_layers():
        pytest.skip("no libseccomp here")
    command = [sys.executable, "-c", NO_LOCKS, str(error), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    "error", sample(errno.ENOLCK, slow=(errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EIO)), ids=os.strerror
)
def test_a_disk_without_locks_tells_of_processes_of_this_machine(tmp_path: Path, error: int) -> None:
    folder = tmp_path / "run"
    with start_without_locks(error, "-c", HOLDER, str(folder), "alone") as one:
        assert next(iter(one.stdout or [])) == "held\n"
        with start_without_locks(error, "-c", HOLDER, str(folder), "alone") as other:
            assert f"folder, got {folder}, held since 2" in (said := other.communicate()[1])
            assert f" by process {one.pid} on {socket.gethostname()}: python" in said
        one.kill()
        one.wait()
        # It is gone, and so is whoever had its number on another machine.
        with start_without_locks(error, "-c", HOLDER, str(folder), "alone") as again:
            assert next(iter(again.stdout or [])) == "held\n"
            again.kill()


def test_a_disk_without_locks_does_not_pass_over_another_machine(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text('{"pid": 1, "host": "node-7", "since": "2026-01-01", "command": "python -m eval"}')
    with start_without_locks(errno.ENOLCK, "-c", HOLDER, str(tmp_path), "alone") as one:
        said = one.communicate()[1]
    assert f"got {tmp_path}, held since 2026-01-01 by process 1 on node-7: python -m eval." in said
    assert f"this disk has no locks, so nobody knows whether that runs: if not, delete {tmp_path / LOCK}" in said
    with hold(tmp_path):  # where there are locks, nobody has it
        pass


@pytest.mark.slow
def test_of_many_that_begin_at_once_on_a_disk_without_locks_one_holds_it(tmp_path: Path) -> None:
    words = ("-c", HOLDER.replace("20", "4"), str(tmp_path / "run"), "alone")
    many = [start_without_locks(errno.ENOLCK, *words) for _ in range(8)]
    said = [one.communicate() for one in many]
    assert sorted(out for out, _ in said) == [""] * 7 + ["held\n"]
    assert sum("one process at a time writes into a folder" in words for _, words in said) == 7


def test_a_folder_that_is_moved_away_stays_held_and_lets_its_name_go(tmp_path: Path) -> None:
    folder, moved = tmp_path / "run", tmp_path / "moved"
    with hold(folder) as require_place:
        require_place()
        folder.rename(moved)
        with pytest.raises(UserError, match=r"one process at a time .*moved, held since"), hold(moved):
            pass
        with pytest.raises(UserError, match=r"must stay where it is while it is written, got .*/run"):
            require_place()
        # Another run takes the name that is free now, and outlasts the first.
        other = start(folder)
    with other:
        with pytest.raises(UserError, match=rf"held since 2.* by process {other.pid}"), hold(folder):
            pass
        other.kill()


def test_a_run_that_was_moved_away_draws_nothing_into_another(workdir: Path) -> None:
    sample = Sample(problem_id="p", index=0, seed=0, text="2", tokens=1, finish="stop", seconds=1.0)
    Path("run").mkdir()
    log = SampleLog(Path("run/samples.jsonl"))
    log.append(sample)
    Path("run").rename("moved")
    with pytest.raises(UserError, match="must stay where it is while it is written"):
        log.append(sample)
    record(Path("run"))
    before = Path("run/samples.jsonl").read_bytes()
    with pytest.raises(UserError, match="must stay where it is while it is written"):
        log.append(sample)
    assert Path("run/samples.jsonl").read_bytes() == before


def test_a_step_whose_folder_was_moved_away_finishes_nowhere(workdir: Path) -> None:
    def build(folder: Path) -> dict[str, object]:
        (folder / "samples.jsonl").write_text("hours")
        folder.rename("moved")
        return {}

    with pytest.raises(UserError, match="must stay where it is"):
        run_step("eval", folder=Path("run"), inputs={}, settings={}, build=build)
    assert (not Path("run").exists(), Path("moved/samples.jsonl").read_text()) == (True, "hours")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_where_no_folder_can_be_made_is_told() -> None:
    with (
        pytest.raises(UserError, match="a run must be where folders can be made, got /proc/run"),
        hold(Path("/proc/run")),
    ):
        pass


HELD: dict[str, tuple[str, tuple[object, ...]]] = {
    "eval": ("run", (POCKET_VAL, "--model", "pocket", "--limit", 1, "--run", "run")),
    "eval replay": ("run", ("replay", "recorded", "--n", 1, "--run", "run")),
    "eval report": ("recorded", ("report", "recorded", "--repair")),
    "train": ("run", ("math", "--model", "pocket", "--limit", 20, "--until", "format", "--run", "run")),
    "train pocket-base": ("run/model", ("pocket-base", "--run", "run")),
    "submit build": ("run", ("build", "--model", "pocket", "--names.owner", "alice", "--run", "run")),
    "submit wheels": ("run", ("wheels", "--run", "run")),
    "submit image": ("run", ("image", "--run", "run")),
}


@pytest.mark.parametrize("command", HELD)
def test_every_command_that_makes_a_folder_leaves_a_held_one_alone(
    workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    train: CommandLine,
    evaluate: CommandLine,
    submit: CommandLine,
) -> None:
    from mathlete.submission import wheelhouse

    name = "mathlete-1-py3-none-any.whl"
    monkeypatch.setattr(wheelhouse, "_build_wheel", lambda root, into: Path(shutil.copy(__file__, into / name)))
    record(Path("recorded"))
    folder, words = HELD[command]
    with hold(Path(folder)):
        before = sorted(Path().rglob("*"))
        run = {"train": train, "eval": evaluate, "submit": submit}[command.split()[0]]
        assert f"one process at a time writes into a folder, got {folder}, held since" in run(*words).refusal
        assert sorted(Path().rglob("*")) == before


def record(folder: Path) -> None:
    """A run of two samples, as another program could have written it."""
    folder.mkdir()
    write_problems(folder / "problems.jsonl", [Problem(id="p", statement="1+1", gold="2")])
    with SampleLog(folder / "samples.jsonl") as log:
        for index in range(2):
            log.append(
                Sample(
                    problem_id="p", index=index, seed=index, text="2", answer="2", tokens=1, finish="stop", seconds=1.0
                )
            )
