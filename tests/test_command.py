import errno
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import pytest

from mathlete.command import Command, busy, console, note_on_stop, progress, run_command_line
from mathlete.command.folding import fold
from mathlete.command.pairs import make_registry
from mathlete.errors import UserError
from mathlete.runs import run_step


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the test's command."""

    n: int = 1
    """How many."""
    json: bool = False
    """End with one line of JSON."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """Settings with names and values."""

    extra: dict[str, str] = field(default_factory=dict)
    """More."""


def run(argv: list[str], *, raising: BaseException | None = None) -> int:
    def body(settings: Settings) -> dict[str, object]:
        if raising:
            raise raising
        return {"n": settings.n}

    command = Command(settings=Settings, run=body, help="Counts.\n\nExample: count --n 2")
    return run_command_line(argv, prog="python -m it", commands={"count": command, "data show": command})


def test_json_is_the_last_line_of_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["count", "--n", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"n": 3}


def test_user_error_is_exit_2_without_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["count"], raising=UserError("--n must be at least 1", value=0, cure="use --n 8")) == 2
    assert capsys.readouterr().err == "error: --n must be at least 1, got 0.\n  Fix: use --n 8\n"


def test_full_disk_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["count"], raising=OSError(errno.ENOSPC, "No space left on device")) == 2
    assert "the disk must have room" in capsys.readouterr().err


def test_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run(["count"], raising=ZeroDivisionError())


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cuont"]) == 2
    assert "did you mean count?" in capsys.readouterr().err


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    stop = KeyboardInterrupt()
    stop.add_note("runs/a b/samples.jsonl, 3 of 8 samples")
    assert run(["count", "--n", "3"], raising=stop) == 130
    assert capsys.readouterr().err.splitlines() == [
        "",
        "stopped by Ctrl-C",
        "  kept: runs/a b/samples.jsonl, 3 of 8 samples",
        "  go on with: python -m it count --n 3",
    ]


def test_ctrl_c_of_a_command_that_keeps_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["count"], raising=KeyboardInterrupt()) == 130
    assert capsys.readouterr().err.endswith("begin again with: python -m it count\n")


def test_a_step_notes_its_folder_unless_it_knows_better(tmp_path: Path) -> None:
    def stopped(folder: Path) -> dict[str, object]:
        raise KeyboardInterrupt

    def knows_better(folder: Path) -> dict[str, object]:
        with note_on_stop(lambda: ["12 parts"]):
            raise KeyboardInterrupt

    for build, kept in ((stopped, f"{tmp_path / 'step'}, unfinished"), (knows_better, "12 parts")):
        with pytest.raises(KeyboardInterrupt) as interrupt:
            run_step("step", folder=tmp_path / "step", inputs={}, settings={}, build=build)
        assert interrupt.value.__notes__ == [kept]


def test_no_color_is_known_to_all_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert run(["--no-color", "count", "--json"]) == 0
    assert os.environ["NO_COLOR"] == "1"
    console(json=False).print("red", style="red")
    assert capsys.readouterr().out.endswith("\nred\n")


class Screen(StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_bar_leaves_a_redirected_stdout_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress("eval") as bar, busy("report"):
        bar.add_task("right 50%", total=8, completed=4)
        bar.refresh()
        print("a line for the file")
    assert capsys.readouterr().out == "a line for the file\n"
    assert all(words in screen.getvalue() for words in ("right 50%", "4/8", "ETA"))


def test_colours_that_are_forced_make_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A notebook's kernel sets FORCE_COLOR: what a terminal draws over would stand there again and again."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress("eval") as bar, busy("report"):
        bar.add_task("right 50%", total=8, completed=4)
        bar.refresh()
    assert capsys.readouterr().err == ""


def test_what_takes_a_moment_writes_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("eval") as bar, busy("report"):
        bar.add_task("right 50%", total=8, completed=4)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("argv", [["count", "--m", "3"], ["count", "--n", "many"]])
def test_wrong_flag_is_exit_2(argv: list[str]) -> None:
    assert run(argv) == 2


@pytest.mark.parametrize("argv", [["--help"], [], ["count", "--help"]])
def test_help_is_exit_0(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(argv) == 0
    assert "Counts." in capsys.readouterr().out


def test_a_command_of_two_words_is_one_of_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "show", "--n", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"n": 4}
    for words in (["data"], ["data", "--help"]):
        assert run(words) == 0
        assert "commands of python -m it data:\n  show" in capsys.readouterr().out
    assert run(["data", "shwo"]) == 2
    assert "did you mean show?" in capsys.readouterr().err


def emulate(written: str) -> list[str]:
    """Return the lines that a terminal shows of what was written, by the few codes that a bar uses."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[[\d;?]*[A-Za-z]|\n|\r|[^\x1b\n\r]+", written):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part.endswith("A") and part.startswith("\x1b["):
            row -= int(part[2:-1] or 1)
        elif part == "\x1b[2K":
            lines[row] = ""
        elif not part.startswith("\x1b") and part != "\r":
            lines[row] += part
    return [line.rstrip() for line in lines]


def test_text_stands_above_the_bar_whole_words_and_the_bar_ends_full(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    out = console(json=False)
    words_of_choice = "compute in float32: CPU: fp32 is the safe choice, and bf16 is slower on most of the CPUs"
    with progress("tune") as bar:
        task = bar.add_task("loading the model", total=None)
        bar.refresh()
        out.print(words_of_choice, "x" * 90)
        bar.update(task, completed=29, total=30, description="loss 0.0174 · 2.1 s/step · 1,406 tokens/s · 0.4 GiB")
    first, second, long, shown, words, *rest = emulate(screen.getvalue())
    assert f"{first} {second}" == words_of_choice
    assert long == "x" * 90
    assert shown.startswith(f"tune {'━' * 28} 29/29")
    assert words == "  loss 0.0174 · 2.1 s/step · 1,406 tokens/s · 0.4 GiB"
    assert not any(rest)


def test_where_is_no_terminal_a_line_tells_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mathlete.command import log_lines

    monkeypatch.setattr(log_lines, "FIRST_LINE_SECONDS", 0.02)
    told = Told(capsys)
    with progress("tune") as bar:
        task = bar.add_task("loading the model", total=None)
        told.wait("tune · loading the model · 0:00:00\n")
        bar.update(task, description="the first step", total=30)
        told.wait("tune 0/30 · the first step · 0:00:00\n")
    with busy("reading"):
        told.wait("reading · 0:00:00\n")
    monkeypatch.setattr(log_lines, "_every_seconds", 0.02)
    with progress("eval") as bar:
        bar.add_task("right 50%", total=64, completed=32)
        told.wait("eval 32/64 · right 50% · 0:00:00\n", times=3)
    assert capsys.readouterr().out == ""


class Told:
    """What was written to stderr so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys, self.text = capsys, ""

    def wait(self, line: str, *, times: int = 1) -> None:
        before, deadline = self.text.count(line), time.monotonic() + 60
        while self.text.count(line) < before + times:
            assert time.monotonic() < deadline, self.text
            time.sleep(0.01)
            self.text += self.capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "soon", "nan", ""])
def test_log_every_is_a_number_of_seconds(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["count", "--log-every", value]) == 2
    assert "--log-every must be from 1 to 86400 seconds" in capsys.readouterr().err


def test_libraries_draw_no_bars_of_their_own() -> None:
    code = (
        "from mathlete.models.loading import _draw_no_bars\n_draw_no_bars()\n_draw_no_bars()\n"
        "from tqdm import tqdm\n[*tqdm(range(9), desc='Applying', disable=False)]\n"
        "from huggingface_hub.utils import tqdm as hub\n[*hub(range(9), desc='Fetching')]"
    )
    shown = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_PROGRESS_BARS"}
    done = subprocess.run([sys.executable, "-c", code], env=shown, capture_output=True, text=True, check=True)
    assert "Applying" not in done.stderr
    assert "Fetching" in done.stderr


def test_a_download_draws_no_bar_where_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    assert run(["count", "--json"]) == 0
    assert os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"
    monkeypatch.setattr(sys, "stderr", Screen())
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS")
    assert run(["count", "--json"]) == 0
    assert "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ


def test_commands_in_text_are_called_as_the_user_called_this_one(capsys: pytest.CaptureFixture[str]) -> None:
    def body(settings: Settings) -> dict[str, object]:
        console(json=False).print("next: python -m submit rehearse --run a, not python -m pip")
        raise UserError("there must be a build", cure="run `python -m submit build`")

    commands = {"count": Command(settings=Settings, run=body, help="Counts.\n\npython -m eval --help")}
    for prog, name in (("mathlete it", "mathlete"), ("python -m it", "python -m")):
        assert run_command_line(["count"], prog=prog, commands=commands) == 2
        out, err = capsys.readouterr()
        assert out == f"next: {name} submit rehearse --run a, not python -m pip\n"
        assert err.endswith(f"Fix: run `{name} submit build`\n")
        run_command_line(["count", "--help"], prog=prog, commands=commands)
        assert f"\n{name} eval --help\n" in capsys.readouterr().out


def test_a_command_in_backticks_is_folded_in_one_piece_where_it_has_room() -> None:
    line = "  Fix: give the folder that `mathlete eval pocket_val --model x` wrote"
    assert fold(line, 50) == ("  Fix: give the folder that\n  `mathlete eval pocket_val --model x` wrote")
    assert fold("`" + "a b " * 30 + "`", 60).count("\n") == 2
    assert fold("", 10) == ""
    assert fold("a" * 99, 10) == "a" * 99


@pytest.mark.parametrize(
    ("words", "kept", "read"),
    [
        ((), {"a": "1"}, {"a": "1"}),
        (("--extra", "b", "2", "c", "3"), {"a": "1"}, {"b": "2", "c": "3"}),
        (("--extra",), {"a": "1"}, {}),
        (("--extra", "b", "2"), {}, {"b": "2"}),
        (("--extra", "b"), {}, "b has no value"),
        (("--extra", "b", "2", "b", "3"), {}, "each name must stand once, got b 2 and b 3"),
    ],
)
def test_names_and_values_are_pairs_whatever_was_kept(
    words: tuple[str, ...], kept: dict[str, str], read: object, capsys: pytest.CaptureFixture[str]
) -> None:
    import tyro

    def parse() -> Named:
        return tyro.cli(Named, args=[*words], default=Named(extra=kept), registry=make_registry())

    if isinstance(read, dict):
        assert parse().extra == read
        return
    with pytest.raises(SystemExit, match="2"):
        parse()
    assert str(read) in " ".join(re.findall(r"[^\s│]+", capsys.readouterr().err))
