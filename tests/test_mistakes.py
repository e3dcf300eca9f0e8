"""What a machine refuses is one sentence with rule, value and cure, and exit code 2."""

import errno
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mathlete.errors import UserError
from mathlete.folders import require_result_file
from mathlete.mistakes import explain, find_hub_cure, name_cause, require_words
from mathlete.models import ModelSource
from mathlete.models.unreadable import explain_unreachable
from mathlete.rehearsal.containers import namespaces_work
from tests.conftest import POCKET_VAL, CommandLine, sample

SHOUT = """
import sys
from dataclasses import dataclass
from mathlete.command import Command, console, run_command_line

@dataclass(frozen=True, kw_only=True)
class Settings:
    json: bool = False

def run(settings):
    out = console(json=settings.json)
    for _ in range(2000):
        out.print("pass@1 ± se, and more words than one pipe takes")
    return {"words": "±", "path": "r\\udcff"}

shout = Command(settings=Settings, run=run, help="Shouts.")
sys.exit(run_command_line(sys.argv[1:], prog="python -m it", commands={"shout": shout}))
"""


def shout(end: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command that prints a lot, its output going where a shell's words say; buffered, as it is by default."""
    words = f'"$0" -c "$1" shout {end}'
    return subprocess.run(
        ["bash", "-c", words, sys.executable, SHOUT],
        env={**os.environ, "PYTHONUNBUFFERED": "", **environment},
        capture_output=True,
        text=True,
        errors="replace",
    )


@pytest.mark.parametrize("words", ["", "--json"])
def test_a_reader_that_goes_is_told_and_no_traceback(words: str) -> None:
    pipe = "2>&1 >/dev/null | head -c 5 >/dev/null" if words else "| head -c 5 >/dev/null"
    done = shout(f"{words} {pipe}; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr + done.stdout
    if not words:
        assert done.stderr.startswith("error: the output must have a reader until the end, got a pipe that was closed.")


@pytest.mark.parametrize("end", sample(">&- 2>&-", ">/dev/full", slow=[">&-", "2>&-", ">&- 2>&- <&-"]))
def test_a_closed_stream_is_no_mistake_and_a_full_one_is(end: str) -> None:
    done = shout(f"--json {end}")
    assert done.returncode == (2 if "full" in end else 0)
    assert "Traceback" not in done.stderr


def test_an_ascii_terminal_gets_what_it_can_show() -> None:
    done = shout("--json", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"words": "±", "path": "r\udcff"}
    assert "pass@1" in done.stderr


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk must have room"),
        (OSError(errno.EROFS, "Read-only file system", "runs/x"), "must not be read-only, got runs/x: Read-only"),
        (PermissionError(errno.EACCES, "Permission denied", b"runs/x"), "this user's to read and write, got runs/x: "),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x"), "a name must be short enough for the disk"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "x"), "a path must lead through folders only"),
        (FileExistsError(errno.EEXIST, "File exists", "x"), "a folder can't be made where a file is"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (OSError(errno.EFBIG, "File too large"), "ulimit -f"),
        (MemoryError(), "memory must hold the run, got MemoryError"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"), "memory must hold the run"),
        (RuntimeError("can't start new thread"), "memory must hold the run"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "memory must hold the run"),
    ],
)
def test_what_the_machine_refuses_has_a_rule_and_a_cure(error: Exception, told: str) -> None:
    mistake = explain(error)
    assert mistake is not None
    assert told in str(mistake)
    assert mistake.cure


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyError("x"), FileNotFoundError(2, "No such file", "x")])
def test_a_bug_stays_a_bug(error: Exception) -> None:
    assert explain(error) is None


EVAL = (POCKET_VAL, "--model", "pocket", "--n", 1, "--limit", 2, "--run")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((*EVAL, "file"), "a run must be a folder, got file, a file"),
        ((*EVAL, "file/below"), "a path must lead through folders only, got file/below"),
        ((*EVAL, "n" * 300), "a name must be short enough"),
        ((*EVAL, "r\udcff"), r"a name must be UTF-8, got 'r\udcff'"),
        ((*EVAL, "nowhere"), "a run must be a folder, got nowhere, a link that leads nowhere"),
        ((*EVAL, "run", "--time-budget", "inf"), "with SECONDS above 0, got 'inf'"),
        ((*EVAL, "run", "--sampling.timeout-s", "inf"), "timeout-s must be a finite number, got inf"),
        ((*EVAL, "run", "--tools.turns", 1, "--tools.timeout-s", "nan"), "timeout-s must be a finite number, got nan"),
        ((POCKET_VAL, "--model", "pocket", "--run", "run", "--n", "9" * 30), "--n must be at most 100000, got 999"),
        ((*EVAL, "run", "--model", ""), "a word of the command must not be empty, got --model ''"),
        ((*EVAL, "run", "--mirror="), "a word of the command must not be empty, got --mirror ''"),
        ((*EVAL, "~/run"), "a path must not begin with ~, which a shell"),
        ((*EVAL, "run", "--mirror=~/hub"), "a path must not begin with ~, which a shell"),
        ((*EVAL, "run", "--threads", 10**9), "--threads must be from 1 to 1024, got 1000000000"),
        (("replay", "file", "--seed", -1), "--seed must be at least 0, got -1"),
        (("replay", "file", "--questions", 10**8), "--questions must be from 1 to 50000000"),
        (("replay", "file", "--simulations", 10**8), "--simulations must be from 1 to 1000000 for so many questions"),
        (("report", "file"), "a run that is reported must be a folder, got file"),
        (("check", "nothing.jsonl"), "the file must exist, got nothing.jsonl"),
    ],
)
def test_a_wrong_path_is_told_before_anything_is_made(
    workdir: Path, evaluate: CommandLine, words: tuple[object, ...], told: str
) -> None:
    Path("file").write_text("mine")
    Path("nowhere").symlink_to("gone")
    assert told in evaluate(*words).refusal
    assert sorted(path.name for path in Path().iterdir()) == ["file", "nowhere"]


def test_a_folder_that_is_gone_is_told(workdir: Path, evaluate: CommandLine) -> None:
    Path("gone").mkdir()
    os.chdir("gone")
    Path("../gone").rmdir()
    assert "the working folder must exist, got one that was deleted" in evaluate(*EVAL, "run").refusal


def test_a_file_of_a_run_must_have_a_name_that_can_be_written(workdir: Path, evaluate: CommandLine) -> None:
    Path("model").mkdir()
    Path("model/r\udcff").write_text("")
    Path("model/config.json").write_text("{}")
    refusal = evaluate("replay", "model").refusal
    assert r"a name must be UTF-8, got 'model/r\udcff'" in refusal


def test_words_that_can_be_written_pass() -> None:
    require_words(["--run", "läufe/😀", "--tools.instruction", "", "--prompt.instruction=", "a~/b"])


def test_a_folder_of_wheels_must_be_there(workdir: Path, submit: CommandLine) -> None:
    assert "--find-links must be a folder of wheels, got nope" in submit("wheels", "--find-links", "nope").refusal


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("report", "run", "--out", "."), "a result must be a file, got ., a folder"),
        (("losses", "run", "--out", "folder"), "a result must be a file, got folder, a folder"),
        (("report", "run", "--out", "notes.html"), "a result may only replace a file of its kind, got notes.html"),
        (("check", "notes.html", "--out", "link"), "a result must not be written over what it is made of, got link"),
        (("compare", "run", "run", "--out", "pipe"), "no device and no pipe, got pipe"),
        (("losses", "run", "--out", "stdout"), "no device and no pipe, got stdout"),
        (("replay", "run", "--write-policy", "run/policy.json"), "must not be written among the files of a run"),
        (("inspect", "run", "--out", "run/results.json"), "must not be written among the files of a run"),
    ],
)
def test_a_result_replaces_nothing_but_results(
    workdir: Path, evaluate: CommandLine, words: tuple[str, ...], told: str
) -> None:
    Path("run").mkdir()
    Path("folder").mkdir()
    for name in ("problems.jsonl", "samples.jsonl"):  # another program's run, with no mark of this one's
        Path("run", name).touch()
    Path("notes.html").write_text("mine")
    Path("link").symlink_to("notes.html")
    Path("stdout").symlink_to("/proc/self/fd/1")
    os.mkfifo("pipe")
    before = sorted(Path().rglob("*"))
    assert told in evaluate(*words).refusal
    assert Path("notes.html").read_text() == "mine"
    assert sorted(Path().rglob("*")) == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_place_where_no_file_can_be_made_is_told() -> None:
    with pytest.raises(UserError, match=r"a file must be where files can be made, got /proc/new/o\.html"):
        require_result_file(Path("/proc/new/o.html"))


@pytest.mark.parametrize("name", ["samples.jsonl", "results.html", "checkpoints/table.json"])
@pytest.mark.parametrize("mark", ["manifest.json", "started.json"])
def test_no_result_is_written_over_a_runs_files(workdir: Path, evaluate: CommandLine, name: str, mark: str) -> None:
    Path("run").mkdir()
    (Path("run") / mark).write_text("{}")
    for words in (("report", "run"), ("compare", "run", "run"), ("losses", "run"), ("check", "run")):
        refusal = evaluate(*words, "--out", f"run/{name}").refusal
        assert f"must not be written among the files of a run, got run/{name}, in the run run" in refusal
    assert [path.name for path in Path("run").iterdir()] == [mark]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "told"),
    [
        ("ulimit -v 300000", "memory must hold the run"),
        ("ulimit -v 600000", "memory must hold the run: torch alone maps 1.5 GiB, got `ulimit -v` at 0.6 GiB"),
        ("ulimit -f 1", "a process must be allowed to write the files it needs"),
    ],
)
def test_limits_of_the_shell_are_told(workdir: Path, evaluate: CommandLine, before: str, told: str) -> None:
    command = shlex.join(evaluate.argv(*EVAL, "run"))
    done = subprocess.run(["bash", "-c", f"{before}; exec {command}"], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert told in done.stderr
    assert done.returncode == 2


@pytest.mark.slow
@pytest.mark.skipif(not namespaces_work(), reason="needs namespaces to mount a disk")
def test_a_read_only_disk_is_told(workdir: Path, evaluate: CommandLine) -> None:
    command = shlex.join(evaluate.argv(*EVAL, "disk/run"))
    mount = "mount -t tmpfs -o size=8m tmpfs disk && mount -o remount,ro disk && exec"
    Path("disk").mkdir()
    done = subprocess.run(["unshare", "-rm", "bash", "-c", f"{mount} {command}"], capture_output=True, text=True)
    assert "a disk that is written to must not be read-only, got disk/run" in done.stderr
    assert done.returncode == 2


@pytest.mark.parametrize(("status", "cure"), [(503, ""), (401, "set HF_TOKEN"), (403, "accept its terms there")])
def test_what_the_hub_answered_is_told_through_the_libraries_errors(status: int, cure: str) -> None:
    refused = OSError("a server's answer")
    refused.response = SimpleNamespace(status_code=status, reason_phrase="Because")  # type: ignore[attr-defined]
    error = FileNotFoundError("not cached")
    error.__context__ = refused
    assert name_cause(error) == f"FileNotFoundError: the hub answered {status} Because"
    assert cure in find_hub_cure(error)
    assert bool(cure) == bool(find_hub_cure(error))
    hub = explain_unreachable(ModelSource(name="a/b", location="a/b"), error)
    assert f"the hub answered {status} Because" in str(hub)
    assert cure in hub.cure
