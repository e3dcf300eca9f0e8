"""The first Ctrl-C or SIGTERM stops a command, which says what it keeps; the second ends it and all below it."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

COMMAND = """
import json, os, subprocess, sys, time
from dataclasses import dataclass
from mathlete.command import Command, note_on_stop, run_command_line

@dataclass(frozen=True, kw_only=True)
class Settings:
    kind: str = "plain"

def run(settings):
    child = subprocess.Popen(["sleep", "60"], start_new_session=True) if settings.kind != "plain" else None
    with note_on_stop(lambda: ["3 of 8 samples"]):
        try:
            print(json.dumps(child and child.pid), flush=True)
            time.sleep(60)
        finally:
            if settings.kind == "cleans":
                time.sleep(60)
            if settings.kind == "computes":
                while not hash(tuple(range(10**6))) == 1: pass
    return {}

draw = Command(settings=Settings, run=run, help="Draws.")
sys.exit(run_command_line(sys.argv[1:], prog="python -m it", commands={"draw": draw}))
"""


@contextmanager
def started(kind: str) -> Iterator[tuple[subprocess.Popen[str], int | None]]:
    """The command, and the process below it."""
    words = [sys.executable, "-c", COMMAND, "draw", "--kind", kind]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            yield process, None if line == "null\n" else int(line)
        finally:
            process.kill()


@pytest.mark.parametrize(("number", "code", "by"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
def test_either_signal_says_what_is_kept(number: signal.Signals, code: int, by: str) -> None:
    with started("plain") as (process, _):
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
    assert process.returncode == code
    assert told.splitlines() == [
        "",
        f"stopped by {by}",
        "  kept: 3 of 8 samples",
        "  go on with: python -m it draw --kind plain",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["cleans", "computes"])
def test_the_second_ends_at_once_with_all_below_it(number: signal.Signals, kind: str) -> None:
    with started(kind) as (process, child):
        assert child is not None
        process.send_signal(number)
        assert process.stderr is not None
        assert process.stderr.readline() == "\n"
        assert process.stderr.readline() == "stopping; a second Ctrl-C ends it at once\n"
        began = time.monotonic()
        process.send_signal(number)
        _, told = process.communicate(timeout=30)
        # Far less than the minute that the clean-up would take; a busy machine needs some.
        assert time.monotonic() - began < 20
    assert process.returncode == 128 + number
    assert told == "\nended at once; the same command goes on with what is there\n"
    assert not alive(child)


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    code = (
        "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "from mathlete.signals import stop_on_signals\n"
        "with stop_on_signals():\n    os.kill(os.getpid(), signal.SIGTERM)\nprint('goes on')"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "goes on\n"


def test_a_forked_process_ends_by_sigterm_and_stops_nobody_else() -> None:
    code = """
import os, signal, time
from mathlete.signals import stop_on_signals
with stop_on_signals():
    children = []
    while len(children) < 2 and 0 not in children:
        children.append(os.fork())
    if 0 in children:
        time.sleep(60)
    for child in children:
        os.kill(child, signal.SIGTERM)
    print([os.waitpid(child, 0)[1] for child in children], flush=True)
    time.sleep(1.5)
print("goes on")
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (shown.stdout, shown.stderr) == (f"[{signal.SIGTERM.value}, {signal.SIGTERM.value}]\ngoes on\n", "")


def test_what_was_set_before_is_set_again() -> None:
    from mathlete.signals import stop_on_signals

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_on_signals():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    with pytest.raises(KeyboardInterrupt), stop_on_signals():
        raise KeyboardInterrupt
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
