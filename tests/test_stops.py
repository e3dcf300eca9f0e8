"""Every command stopped at every moment: it says so in one way, leaves nothing half-done, and goes on later."""

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT, CommandLine, sample

INJECTED = """
import atexit, os, signal, sys, threading, time
kind, match, number = os.environ.pop("STOP_AT", "||").split("|")

def stop(left=[1]):
    if left:
        left.clear()
        os.kill(os.getpid(), int(number))

def watch():
    while not os.path.exists(match) or not os.stat(match).st_size:
        time.sleep(0.002)
    stop()

def hear(event, words):
    if event == kind and any(match in str(word) for word in words[:2]):
        stop()

def leave():
    stop()
    time.sleep(60)

if kind == "file":
    threading.Thread(target=watch, daemon=True).start()
elif kind == "exit":
    atexit.register(leave)
elif kind:
    sys.addaudithook(hear)
"""
"""A sitecustomize.py, which Python imports before all else. STOP_AT says when the process sends itself which signal: at
an audit event with these words in it, when a file has something in it, or at exit."""

FOREGROUND = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
os.environ["STOP_AT"] = os.environ.pop("THEN_STOP_AT")
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True)
class Stopped:
    """A command, and what tells the moments of its work."""

    words: str
    load: str
    work: str
    write: str
    kept: str
    """Of what it says after a stop in the midst of its work."""


LOG = ROOT / "tests" / "logs" / "samples_pocket_sums_2026-11-29T14-48-34.027010.jsonl"
COMMANDS = {
    "train": Stopped(
        "train math --model pocket --limit 40 --tune.steps 4 --tune.save-every 2 --until tune --run run",
        "import|torch", "file|run/adapter/metrics.jsonl", "os.rename|adapter/manifest.json", "run/data, finished"),
    "eval": Stopped(
        "eval pocket_val --model pocket --limit 2 --n 2 --run run",
        "import|transformers", "file|run/samples.jsonl", "os.rename|run/manifest.json", "run/samples.jsonl, "),
    "replay": Stopped(
        "eval replay old --n 1 --simulations 50 --run run",
        "import|numpy", "open|old/samples.jsonl", "os.rename|run/manifest.json", ""),
    "report": Stopped(
        "eval report old --out page.html", "import|html", "open|old/samples.jsonl", "os.rename|page.html", ""),
    "import": Stopped(
        f"eval import {LOG} --run run", "import|mathlete.logs", f"open|{LOG.name}", "os.rename|run/manifest.json",
        ""),
    "build": Stopped(
        "submit build --model pocket --names.owner mathlete-demo", "import|numpy", "subprocess.Popen|",
        "os.rename|submission.ipynb", ""),
    "rehearse": Stopped(
        "submit rehearse --image none --questions 2 --runs 1", "import|numpy", "subprocess.Popen|stage",
        "os.rename|rehearsal.json", ""),
    "wheels": Stopped(
        "submit wheels --run run", "import|mathlete.submission", "subprocess.Popen|", "os.rename|run/manifest.json",
        ""),
}  # fmt: skip
MOMENTS = ("import", "load", "work", "write", "exit")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ROWS = [(name, moment) for name in COMMANDS for moment in MOMENTS]
SOME = [("import", "import"), ("import", "work")]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory, evaluate: CommandLine) -> Path:
    """A finished run."""
    with chdir(tmp_path_factory.mktemp("old")):
        assert evaluate("pocket_val", "--model", "pocket", "--limit", 2, "--n", 2, "--run", "old").code == 0
        return Path("old").resolve()


def run_stopped(words: str, when: str, number: int, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a process that stops itself, as if started in the foreground: no signal is ignored."""
    hooks = folder / "hooks"
    hooks.mkdir(exist_ok=True)
    (hooks / "sitecustomize.py").write_text(INJECTED)
    path = os.pathsep.join([str(hooks), *filter(None, [os.environ.get("PYTHONPATH")])])
    around = {**os.environ, "NO_COLOR": "1", "PYTHONPATH": path, "THEN_STOP_AT": f"{when}|{number}"}
    return subprocess.run(
        [sys.executable, "-c", FOREGROUND, sys.executable, "-m", *words.split()],
        cwd=folder, capture_output=True, text=True, check=False, env=around, timeout=600,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "moment"), sample(*SOME, slow=[row for row in ROWS if row not in SOME]))
def test_a_command_stops_at_any_moment_and_goes_on(
    name: str, moment: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    command = COMMANDS[name]
    if "old" in command.words:
        shutil.copytree(request.getfixturevalue("old"), tmp_path / "old")
    if name == "rehearse":
        shutil.copytree(request.getfixturevalue("built"), tmp_path, dirs_exist_ok=True)
    number = SIGNALS[(ROWS.index((name, moment)) + len(name)) % len(SIGNALS)]
    when = {"import": "import|tyro", "exit": "exit|"}.get(moment) or str(getattr(command, moment))
    done = run_stopped(command.words, when, number, tmp_path)
    assert done.returncode == 128 + number, done.stderr
    assert "Traceback" not in done.stderr
    if moment == "exit":
        assert done.stderr.endswith("\nended at once; the command had finished\n")
    else:
        told = done.stderr.partition("\nstopped by ")[2].splitlines()
        assert told[-1].endswith(f" with: python -m {command.words}"), done.stderr
        assert done.stderr.count("stopped by") == 1
        assert moment != "work" or command.kept in done.stderr
    if moment in ("work", "write"):
        again = subprocess.run(
            [sys.executable, "-m", *command.words.split()], cwd=tmp_path, capture_output=True, text=True
        )
        assert again.returncode == 0, again.stderr
    assert [path for path in tmp_path.rglob(".*") if re.search(r"\.\d+(\.\w+)?$|^\.lock$", path.name)] == []
