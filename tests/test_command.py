import errno
import json
from dataclasses import dataclass

import pytest

from mathlete.command import Command, run_command_line
from mathlete.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the test's command."""

    n: int = 1
    """How many."""
    json: bool = False
    """End with one line of JSON."""


def run(argv: list[str], *, raising: Exception | None = None) -> int:
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
