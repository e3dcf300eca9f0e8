"""A session that ends: the run stops before, a copy is kept, and the next session goes on from the furthest copy."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mathlete.errors import UserError
from mathlete.shipped import data_folder
from tests.conftest import CommandLine
from train.kept import RunCopy, choose_copy
from train.session import SessionSettings

WORDS = ("math", "--model", "pocket", "--limit", "120", "--tune.steps", "300", "--tune.batch", "4", "--rows.heldout",
         "4", "--survival.trial-rows", "0", "--until", "tune", "--json")  # fmt: skip


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        file = folder / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Rows that are finished and a training with two checkpoints, the second still being written."""
    run = write(tmp_path / "run", data__rows="12", adapter__curve="1", **{"data__manifest.json": "{}", ".lock": "me"})
    write(run / "adapter" / "checkpoint-10", weights="ten", whole="")
    write(run / "adapter" / "checkpoint-20", weights="twen")
    return run


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_copy_follows_the_run_file_by_file(run: Path, tmp_path: Path) -> None:
    copy = RunCopy(tmp_path / "kept")
    assert copy.update(run) == 6
    assert names(copy.folder) == names(run) - {".lock"} | {"kept.json"}
    assert copy.update(run) == 0
    write(run / "adapter" / "checkpoint-20", weights="twenty", whole="")
    shutil.rmtree(run / "adapter" / "checkpoint-10")
    write(run / "merged", weights="all")
    assert copy.update(run, leave_out=["merged"]) == 2
    assert names(copy.folder) == {
        *("data/rows", "data/manifest.json", "adapter/curve", "adapter/checkpoint-20/weights"),
        *("adapter/checkpoint-20/whole", "kept.json"),
    }
    assert (copy.folder / "adapter/checkpoint-20/weights").read_text() == "twenty"


def test_a_step_that_is_made_anew_is_not_finished_in_the_copy(run: Path, tmp_path: Path) -> None:
    copy = RunCopy(tmp_path / "kept")
    copy.update(run)
    (run / "data" / "manifest.json").unlink()
    copy.update(run)
    assert "data/manifest.json" not in names(copy.folder)


def test_the_furthest_copy_is_taken_with_what_is_whole_of_it(run: Path, tmp_path: Path) -> None:
    old, new = tmp_path / "sets" / "old", tmp_path / "sets" / "new" / "output"
    RunCopy(old).update(run)
    write(run / "adapter" / "checkpoint-20", weights="twenty", whole="")
    RunCopy(new).update(run)
    chosen = choose_copy([tmp_path / "sets", tmp_path / "nowhere"])
    assert chosen == RunCopy(new)
    assert chosen.describe() == "finished: data; checkpoint of step 20"
    # As a data set has it: without empty files, and with what was put beside it.
    for mark in new.rglob("whole"):
        mark.unlink()
    write(new, **{"uploads.json": "{}"})
    RunCopy(new).take_into(tmp_path / "next")
    assert names(tmp_path / "next") == names(run) - {".lock"} | {"uploads.json"}
    # The copy that is kept of it later knows what it has already.
    assert RunCopy(new).update(tmp_path / "next") == 1


def test_what_did_not_arrive_whole_is_not_whole(run: Path, tmp_path: Path) -> None:
    copy = RunCopy(tmp_path / "kept")
    write(run / "adapter" / "checkpoint-20", weights="twenty", whole="")
    copy.update(run)
    (copy.folder / "adapter/checkpoint-20/weights").write_text("twe")
    (copy.folder / "data/rows").unlink()
    (chosen,) = [choose_copy([copy.folder])]
    assert chosen is not None
    assert chosen.describe() == "finished: no step; checkpoint of step 10"
    chosen.take_into(tmp_path / "next")
    assert names(tmp_path / "next") == {
        *("adapter/curve", "adapter/checkpoint-10/weights", "adapter/checkpoint-10/whole")
    }


def test_a_run_that_a_person_copied_is_taken_too(run: Path, tmp_path: Path) -> None:
    by_hand = shutil.copytree(run, tmp_path / "by-hand")
    chosen = choose_copy([by_hand])
    assert chosen is not None
    chosen.take_into(tmp_path / "next")
    assert names(tmp_path / "next") == names(run) - {".lock"}


def open_session(run: Path, **settings: object) -> list[str]:
    said: list[str] = []
    with SessionSettings(**settings).open(run, say=said.append):  # type: ignore[arg-type]
        write(run, data__rows="13")
    return said


def test_a_session_begins_or_goes_on_and_keeps_its_copy(run: Path, tmp_path: Path) -> None:
    kept, next_run = tmp_path / "kept", tmp_path / "elsewhere" / "run"
    assert open_session(run, keep=kept, resume=(kept,)) == [f"copy kept: {kept}"]
    assert open_session(next_run, keep=kept, resume=(kept,)) == [
        f"going on from {kept}: finished: data; checkpoint of step 10",
        f"copy kept: {kept}",
    ]
    assert (next_run / "adapter/checkpoint-10/weights").read_text() == "ten"
    (words,) = open_session(tmp_path / "third", resume=(tmp_path / "nothing",))
    assert words == f"no copy of an earlier session in {tmp_path / 'nothing'}: the run begins"


def test_a_copy_stays_as_it_is_where_the_run_is_stopped_before_anything_is_written(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        SessionSettings(keep=tmp_path / "kept").open(tmp_path / "run", say=print),
    ):
        raise KeyboardInterrupt
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ("run/copy", "a folder apart from the run"),
        (".", "a folder apart from the run"),
        ("photos", "empty, or hold the copy of an earlier session"),
        ("copy", "is not replaced by a run that begins"),
    ],
)
def test_a_copy_replaces_nothing_else(keep: str, words: str, run: Path, tmp_path: Path) -> None:
    write(tmp_path / "photos", cat="meow")
    RunCopy(tmp_path / "copy").update(run)
    shutil.rmtree(run)
    before = names(tmp_path)
    with pytest.raises(UserError, match=words):
        open_session(run, keep=tmp_path / keep)
    assert names(tmp_path) == before


def test_a_list_that_leads_outside_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "kept", **{"kept.json": json.dumps({"files": {"../away": [1, 1]}})})
    with pytest.raises(UserError, match="a file outside of the copy"):
        choose_copy([tmp_path])


@pytest.mark.parametrize("words", [("--session.minutes", "-1"), ("--session.leave-out", "adapter")])
def test_bad_settings_of_a_session_are_refused(words: tuple[str, ...], train: CommandLine, tmp_path: Path) -> None:
    assert words[0].removeprefix("--") in train("math", "--run", tmp_path / "run", *words).refusal
    assert not (tmp_path / "run").exists()


def in_session(*words: object, processes: int, folder: Path) -> tuple[dict[str, object], str]:
    """Run the command, by as many processes; return its line of JSON and what it said."""
    config = (data_folder() / "launch" / "ddp.yaml").read_text().replace("use_cpu: false", "use_cpu: true")
    (folder / "cpu.yaml").write_text(config)
    launcher = ["-m", "accelerate.commands.launch", "--config_file", "cpu.yaml"] if processes > 1 else []
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "train", *WORDS, *map(str, words)],
        cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("{"))
    return json.loads(line), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_in_several_sessions_is_the_run_of_one(processes: int, tmp_path: Path) -> None:
    """Each session has a disk of its own, and twice the time of the one before it."""
    kept, weights = tmp_path / "kept", "adapter/adapter_model.safetensors"
    said = ""
    for number in range(8):
        run = tmp_path / f"disk-{number}" / "run"
        words = ("--run", run, "--session.keep", kept, "--session.resume", kept, "--session.leave-out", "effect")
        minutes = ("--session.minutes", 0.4 * 2**number)
        result, told = in_session(*words, *minutes, processes=processes, folder=tmp_path)
        said += told
        if "finished" not in result:
            break
    assert "finished" not in result
    assert re.search(r"the session's time is over at step (\d+): .*checkpoint-\1 is kept", said)
    assert re.search(r"going on from .*kept: finished: data; checkpoint of step [1-9]", said)
    assert (run / weights).read_bytes() == (kept / weights).read_bytes()
    if processes == 1:
        in_session("--run", tmp_path / "whole", processes=1, folder=tmp_path)
        assert (run / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


@pytest.mark.slow
def test_what_has_no_checkpoint_is_stopped_after_the_minutes_of_grace(train: CommandLine, tmp_path: Path) -> None:
    """Here before the libraries are loaded: the copy is kept as far as the run is, and the exit code is SIGTERM's."""
    words = ("--run", tmp_path / "run", "--session.keep", tmp_path / "kept")
    done = train.process(*WORDS, *words, "--session.minutes", "0.2", "--session.grace-min", "0", folder=tmp_path)
    assert done.code in (0, 143), done.stderr
    assert "session's time" in done.stderr
    assert train.process(*WORDS, *words, folder=tmp_path).result["steps"] == 300
