"""The first Ctrl-C or SIGTERM stops a command, which says what it keeps; the second ends it and all below it."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import sample
from tests.processes import alive

HEARING = """
import signal
# nohup and background jobs of a shell hand down signals that are ignored, and the commands keep to that.
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
"""
STOPS = [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "its terminal's end")]
COMMAND = """
import json, os, signal, subprocess, sys, time
from dataclasses import dataclass
from mathlete.command import Command, note_on_stop, run_command_line
from mathlete.signals import run_stoppably

@dataclass(frozen=True, kw_only=True)
class Settings:
    kind: str = "plain"

DEAF = "trap '' INT TERM HUP; while :; do sleep 60 & sleep 60; done"

def run(settings):
    deaf = settings.kind not in ("plain", "filled")
    child = subprocess.Popen(["sh", "-c", DEAF], start_new_session=True, stderr=subprocess.DEVNULL) if deaf else None
    with note_on_stop(lambda: ["3 of 8 samples"]):
        try:
            print(json.dumps(child and child.pid), flush=True)
            time.sleep(60)
        finally:
            if settings.kind == "cleans":
                time.sleep(60)
            if settings.kind == "computes":
                while not hash(tuple(range(10**6))) == 1: pass
            if settings.kind == "filled":
                os.write(2, bytes(2**20))
    return {}

draw = Command(settings=Settings, run=run, help="Draws.")
commands = {"draw": draw}
main = lambda: run_command_line(sys.argv[1:], prog="python -m it", commands=commands)
sys.exit(run_stoppably(main, prog="python -m it"))
"""


@contextmanager
def started(kind: str) -> Iterator[tuple[subprocess.Popen[str], int | None]]:
    """The command, and the process below it."""
    words = [sys.executable, "-c", HEARING + COMMAND, "draw", "--kind", kind]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            yield process, None if line == "null\n" else int(line)
        finally:
            process.kill()


@pytest.mark.parametrize(("number", "by"), STOPS)
def test_each_signal_says_what_is_kept(number: signal.Signals, by: str) -> None:
    with started("plain") as (process, _):
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert told.splitlines() == [
        "",
        f"stopped by {by}",
        "  kept: 3 of 8 samples",
        "  go on with: python -m it draw --kind plain",
    ]


@pytest.mark.parametrize(
    ("number", "kind"),
    sample(
        (signal.SIGTERM, "cleans"),
        slow=[(signal.SIGINT, "cleans"), (signal.SIGINT, "computes"), (signal.SIGTERM, "computes")],
    ),
)
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
    # SIGKILL was sent before these words; the kernel may still be at it. The child itself would run for a minute.
    end = time.monotonic() + 5
    while alive(child) and time.monotonic() < end:
        time.sleep(0.01)
    assert not alive(child)


def test_a_second_stop_waits_for_no_reader() -> None:
    """The pipe of stderr is full, and nobody reads it."""
    with started("filled") as (process, _):
        process.send_signal(signal.SIGTERM)
        time.sleep(1.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM


def run_code(code: str, *, ignoring: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run `main`, as the code defines it, in a process of its own; it starts with SIGINT ignored, or as usual."""
    begin = "import os, signal, sys, time\nfrom mathlete.signals import keep_handlers, run_stoppably\n"
    begin += "def stop(number=signal.SIGTERM): os.kill(os.getpid(), number)\n"
    words = [sys.executable, "-c", f"{begin}{code}\nsys.exit(run_stoppably(main, prog='it'))"]
    before = {number: signal.getsignal(number) for number, _ in STOPS}
    try:
        for number in before:
            signal.signal(number, signal.SIG_IGN if number == ignoring else signal.SIG_DFL)
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


TOLD = "\nstopped by SIGTERM\n  nothing half-done is left; begin again with: it\n"
ENDED = "\nended at once; the command had finished\n"
MOMENTS: dict[str, tuple[str, int, str]] = {
    "in a text given to exec": ("def main(): exec('stop()')", 143, TOLD),
    "in a library that swallows it": (
        "def main():\n    try: stop()\n    except BaseException: pass\n    time.sleep(60)", 143, TOLD),
    "in a destructor": (
        "class Freed:\n    def __del__(self): stop()\ndef main():\n    Freed()\n    time.sleep(60)", 143, TOLD),
    "in an import that says it with other words": (
        "def main():\n    try: stop()\n    except BaseException as error: raise ImportError('no') from error",
        143, TOLD),
    "in a clean-up that fails": (
        "def main():\n    try: stop()\n    finally: raise OSError(28, 'No space left on device')", 143, TOLD),
    "where a library has its own handler": (
        "def main():\n    signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n    stop()\n    time.sleep(60)",
        143, TOLD),
    "where a library's handler was put back": (
        "def main():\n    with keep_handlers(): signal.signal(signal.SIGTERM, lambda *_: print('theirs'))\n"
        "    stop()\n    time.sleep(60)", 143, TOLD),
    "at exit": (
        "import atexit\natexit.register(lambda: (stop(), time.sleep(60)))\ndef main(): return 0", 143, ENDED),
    "in the last threads": (
        "import threading\nlate = lambda: (time.sleep(0.3), stop(), time.sleep(60))\n"
        "def main(): threading.Thread(target=late).start(); return 0", 143, ENDED),
    "with a thread that goes on": (
        "import threading, mathlete.signals as s\ns._LAST_S = 0.2\n"
        "def main(): threading.Thread(target=time.sleep, args=(60,)).start(); stop(); time.sleep(60)", 143,
        f"{TOLD}\nended at once; threads of it went on for 0.2 s\n"),
    "never": ("def main(): return 7", 7, ""),
    "by the program's own will": ("def main(): sys.exit(3)", 3, ""),
    "ignored": ("def main(): stop(signal.SIGINT); return 0", 0, ""),
    "ignored, but not this one": ("def main(): stop(); time.sleep(60)", 143, TOLD),
}  # fmt: skip
"""{when a signal comes: (what is run, its exit code, what it says)}."""


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_stop_is_told_whenever_it_comes(moment: str) -> None:
    code, ends, told = MOMENTS[moment]
    done = run_code(code, ignoring=signal.SIGINT if moment.startswith("ignored") else None)
    assert (done.returncode, done.stderr) == (ends, told)


@pytest.mark.parametrize(("main", "code"), [("os.write(1, bytes([15])) and 7", 7), ("stop() or time.sleep(60)", 143)])
def test_closed_streams_are_no_pipe_of_signals(main: str, code: int) -> None:
    begin = "import os, signal, sys, time; from mathlete.mistakes import open_streams; from mathlete.signals import *"
    stop = "stop = lambda: os.kill(os.getpid(), signal.SIGTERM)"
    words = f"{begin}; {stop}; sys.exit(run_stoppably(lambda: open_streams() or ({main}), prog='it'))"
    done = subprocess.run(["bash", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, words], check=False)
    assert done.returncode == code


def test_a_bug_keeps_its_traceback() -> None:
    done = run_code("def main(): 1 / 0")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_a_forked_process_ends_by_sigterm_and_stops_nobody_else() -> None:
    done = run_code("""
def main():
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
    return 0
""")
    assert (done.stdout, done.stderr) == (f"[{signal.SIGTERM.value}, {signal.SIGTERM.value}]\ngoes on\n", "")


KILLED = {
    "container": """
from mathlete.rehearsal.containers import _isolated_outer, _run
_run([*_isolated_outer(), "bash", "-c", "sleep 60 & echo go; sleep 60"], dict(os.environ), limit_s=60)
""",
    "no namespaces": """
from mathlete.rehearsal.containers import _run
WORDS = ["sh", "-c", "setsid sleep 60 & echo go; sleep 60"]
CODE = f"import subprocess; from mathlete.rehearsal import unisolated; unisolated.end_all_by_sigterm(); " \\
    f"subprocess.run({WORDS})"
_run([sys.executable, "-c", CODE], dict(os.environ), limit_s=60, end_by=signal.SIGTERM)
""",
    "what a library starts": """
import subprocess, time
from mathlete.signals import Guard
guard = Guard()
child = subprocess.Popen(["sh", "-c", "setsid sleep 60 & sleep 60"])
time.sleep(3)
print("go", flush=True)
child.wait()
""",
    "engine that loads": """
import subprocess
CODE = "import time; from mathlete.kernel.engine_child import end_with_input as end; end(); print('go'); time.sleep(60)"
subprocess.Popen([sys.executable, "-u", "-c", CODE], stdin=subprocess.PIPE, start_new_session=True).wait()
""",
}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell nobody of a parent's end")
@pytest.mark.parametrize("kind", KILLED)
def test_what_a_killed_process_has_started_ends_with_it(kind: str) -> None:
    from mathlete.rehearsal.containers import namespaces_work

    if kind == "container" and not namespaces_work():
        pytest.skip("no namespaces here")
    words = [sys.executable, "-c", f"import os, signal, sys{KILLED[kind]}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        process.kill()
        # Its end: all that it started had the pipe open too.
        assert process.stdout.read() == ""


def test_a_guard_that_is_ended_lets_all_run_on() -> None:
    code = (
        "import subprocess; from mathlete.signals import Guard; guard = Guard(); "
        "subprocess.Popen(['sh', '-c', 'sleep 2; echo on']); guard.end(); guard.end(); print('ended', flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "ended\non\n"


def test_a_guard_that_was_killed_leaves_no_open_file() -> None:
    code = (
        "import warnings; warnings.simplefilter('always'); from mathlete.signals import Guard; guard = Guard(); "
        "guard._process.kill(); guard._process.wait(); guard.end(); guard.end()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
