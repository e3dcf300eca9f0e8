"""Ctrl-C in a terminal: what it says, and that the same command then goes on. On a pty, where bars are shown."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

MATH = "train math --model pocket --limit 300 --tune.steps 60 --tune.save-every 2 --until tune --run run"
EVAL = "eval pocket_val --model pocket --limit 60 --run run"


def in_terminal(
    words: str, folder: Path, *, until: Callable[[], bool], number: int = signal.SIGINT, times: int = 1
) -> tuple[int, str]:
    """Return (exit code, what the terminal showed) of a command that gets a Ctrl-C as soon as `until` holds."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", *words.split()]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(
        command, cwd=folder, stderr=slave, stdout=subprocess.DEVNULL, env=environment, start_new_session=True
    )
    os.close(slave)
    os.set_blocking(master, False)
    shown, ends = b"", time.monotonic() + 300
    while process.poll() is None and time.monotonic() < ends:
        shown += _read(master)
        if until():
            for _ in range(times):
                os.killpg(process.pid, number)
                time.sleep(0.05)
            until = bool
        time.sleep(0.05)
    shown += _read(master)
    os.close(master)
    return process.wait(10), shown.decode()


def _read(master: int) -> bytes:
    try:
        return os.read(master, 2**20)
    except (BlockingIOError, OSError):  # nothing there yet, or its other side is closed
        return b""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "by"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
@pytest.mark.parametrize(
    ("words", "begun", "kept"),
    [
        pytest.param(MATH, "adapter/checkpoint-4/whole", ["run/adapter/checkpoint-", "run/data, finished"], id="train"),
        pytest.param(EVAL, "samples.jsonl", ["run/samples.jsonl, ", " of 480 samples"], id="eval"),
    ],
)
def test_a_stop_keeps_what_was_done(
    words: str, begun: str, kept: list[str], tmp_path: Path, number: signal.Signals, by: str
) -> None:
    file = tmp_path / "run" / begun

    def begins() -> bool:
        return file.is_file() and (file.stat().st_size > 0 or file.name == "whole")

    code, shown = in_terminal(words, tmp_path, until=begins, number=number)
    assert code == 128 + number, shown
    assert "ETA" in shown
    told = shown.replace("\r", "")
    assert "Traceback" not in told
    assert all(words in told for words in [f"stopped by {by}", *kept, f"go on with: python -m {words}"]), told
    done = subprocess.run([sys.executable, "-m", *words.split()], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0
    assert "going on" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_stop_ends_a_rehearsal_with_its_containers(
    built: Path, tmp_path: Path, number: signal.Signals
) -> None:
    log = built / "runs" / "submit" / "rehearsal-0" / "stage" / "notebook.log"
    log.unlink(missing_ok=True)
    words = "submit rehearse --image none --questions 6"
    code, shown = in_terminal(words, built, until=lambda: log.is_file() and bool(below(built)), number=number, times=2)
    assert code in (128 + number, -number), shown
    assert "Traceback" not in shown
    ends = time.monotonic() + 20
    while (left := below(built)) and time.monotonic() < ends:
        time.sleep(0.1)
    assert not left


def below(folder: Path) -> list[str]:
    """Return the commands of containers that were started in a folder."""
    commands = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
            if "stage.sh" in command and (process / "cwd").resolve() == folder.resolve():
                commands.append(command)
        except OSError:  # it has ended
            continue
    return commands
