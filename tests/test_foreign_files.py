"""What a person has put among a run's files stays, whatever a command deletes, extends or replaces there."""

import json
import os
import socket
from contextlib import chdir, closing
from pathlib import Path

import pytest

from mathlete.errors import UserError
from mathlete.folders import CHART_MAKER, delete_outputs, own_all_files
from mathlete.jsonl import JsonLines
from mathlete.locks import LOCK, hold
from mathlete.rehearsal.runner import _set_aside
from mathlete.rows import RowFiles
from mathlete.runs import Leftovers, run_step, verify_outputs
from mathlete.submission.metadata import NOTEBOOK
from mathlete.tune.adapters import AdapterFolder
from tests.conftest import CommandLine
from train.shown import delete_if_bad_input
from train.steps import WRITTEN

DRAWN = b"\x89PNG" + CHART_MAKER.encode()


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def test_deleting_a_step_leaves_what_is_not_its_own(tmp_path: Path) -> None:
    run, disk = tmp_path / "run", tmp_path / "disk"
    fill(run, "adapter_config.json", "report.html", "checkpoint-2/whole", "checkpoint-2-best/whole", "checkpoint.txt")
    fill(run, "plots/mine.png", "inspect/mine.eval", "inspect/aime24.eval", ".parts/1", "logs/events")
    fill(disk, "whole")
    (run / "checkpoint-4").symlink_to(disk)
    (run / "plots" / "accuracy.png").write_bytes(DRAWN)
    delete_outputs(run, {"settings": {"suite": "aime24"}}, (*WRITTEN, *RowFiles.hidden))
    kept = {"checkpoint-2-best/whole", "checkpoint.txt", "plots/mine.png", "inspect/mine.eval", "started.json"}
    assert names(run) == kept
    assert names(disk) == {"whole"}


@pytest.mark.parametrize("manifest", ['{"name": "an extension", "version": "1"}', "[1]", "no JSON"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_manifest_of_another_program_makes_no_step_of_a_folder(
    tmp_path: Path, manifest: str, overwrite: bool
) -> None:
    fill(tmp_path, "samples.jsonl")
    (tmp_path / "manifest.json").write_text(manifest)
    leftovers = Leftovers(overwrite=overwrite, writes=("samples.jsonl",))
    with pytest.raises(UserError, match=r"writes only into its own or an empty folder|must .* JSON"):
        run_step("eval", folder=tmp_path, inputs={}, settings={}, build=lambda _: {}, leftovers=leftovers)
    assert (tmp_path / "samples.jsonl").read_text() == "samples.jsonl"
    assert (tmp_path / "manifest.json").read_text() == manifest


@pytest.mark.parametrize(
    ("inside", "refused"), [("data", True), ("a/b", True), ("plots/b", False), (".parts/b", False)]
)
def test_a_run_puts_no_files_among_those_of_a_finished_one(tmp_path: Path, inside: str, refused: bool) -> None:
    def run(folder: Path) -> None:
        run_step("eval", folder=folder, inputs={}, settings={}, build=lambda _: {})

    run(tmp_path / "run")
    if refused:
        with pytest.raises(UserError, match="a run must not lie among the files of another"):
            run(tmp_path / "run" / inside)
    else:
        run(tmp_path / "run" / inside)
    verify_outputs(tmp_path / "run")
    (tmp_path / "manifest.json").write_text('{"name": "an extension"}')
    run(tmp_path / "beside")


def test_no_command_that_makes_several_steps_begins_in_a_finished_run(
    workdir: Path, train: CommandLine, submit: CommandLine
) -> None:
    run_step("eval", folder=Path("run"), inputs={}, settings={}, build=lambda _: {})
    before = names(Path("run"))
    told = "a run must not lie among the files of another"
    assert told in train("math", "--model", "pocket", "--limit", 20, "--until", "format", "--run", "run").refusal
    assert told in submit("build", "--model", "pocket", "--names.owner", "alice", "--run", "run").refusal
    assert names(Path("run")) == before


def test_a_damaged_manifest_beside_its_mark_is_still_a_steps(tmp_path: Path) -> None:
    leftovers = Leftovers(overwrite=True, writes=("samples.jsonl",))
    for damage in ("[1]", "no JSON"):
        run_step("eval", folder=tmp_path, inputs={}, settings={}, build=lambda _: {}, leftovers=leftovers)
        (tmp_path / "manifest.json").write_text(damage)
        with pytest.raises(UserError, match="JSON"):
            run_step("eval", folder=tmp_path, inputs={}, settings={}, build=lambda _: {})
    run_step("eval", folder=tmp_path, inputs={}, settings={}, build=lambda _: {}, leftovers=leftovers)


def test_an_unfinished_training_step_is_not_deleted_with_notes_in_it(tmp_path: Path) -> None:
    fill(tmp_path, "metrics.jsonl", "notes.md", "photo.jpg")
    with pytest.raises(UserError, match=r"got notes.md, photo.jpg, which the run did not write"):
        delete_outputs(tmp_path, {}, WRITTEN)
    assert names(tmp_path) == {"metrics.jsonl", "notes.md", "photo.jpg"}


def test_only_checkpoints_of_the_training_are_looked_at(tmp_path: Path) -> None:
    adapter, disk = AdapterFolder(tmp_path / "adapter"), tmp_path / "disk"
    fill(adapter.path, "checkpoint-2/whole", "checkpoint-4/half", "checkpoint-2-best/whole", "checkpoint-mine/half")
    fill(disk, "half")
    adapter.checkpoint(6).symlink_to(disk)
    assert adapter.last_checkpoint() == adapter.checkpoint(2)
    assert names(adapter.path) == {"checkpoint-2/whole", "checkpoint-2-best/whole", "checkpoint-mine/half"}
    assert names(disk) == {"half"}


@pytest.mark.parametrize("resumed", [True, False])
def test_input_that_proves_bad_takes_only_what_was_made_of_it(tmp_path: Path, *, resumed: bool) -> None:
    files = RowFiles(tmp_path / "run" / "data")
    fill(files.folder, "notes.txt", "started.json", *([".parts/0/rows"] if resumed else []))

    def make() -> None:
        fill(files.folder, ".parts/1/rows", "head.jsonl", "train/state.json")
        raise UserError("the hub must be reachable", cure="try again")

    with pytest.raises(UserError), delete_if_bad_input(files):
        make()
    made = {".parts/0/rows", ".parts/1/rows", "head.jsonl", "train/state.json", "started.json"} if resumed else set()
    assert names(files.folder) == {"notes.txt", *made}
    assert {path.name for path in files.list_made()} == ({".parts", "head.jsonl", "train"} if resumed else set())


def test_what_is_added_to_a_hard_linked_file_is_added_here_only(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    fill(there, "samples.jsonl", "deep/part")
    fill(here, "own.txt")
    (here / "deep").mkdir()
    for name in ("samples.jsonl", "deep/part"):
        os.link(there / name, here / name)
    (here / "link").symlink_to(there / "samples.jsonl")
    own_all_files(here)
    JsonLines(here / "samples.jsonl").append({"a": 1})
    assert (there / "samples.jsonl").read_text() == "samples.jsonl"
    assert (here / "deep" / "part").stat().st_nlink == 1
    assert names(here) == {"own.txt", "samples.jsonl", "deep/part", "link"}
    assert (here / "link").is_symlink()


@pytest.mark.parametrize("kind", ["file", "link", "folder", "empty link", "pipe", "socket"])
def test_a_file_of_the_locks_name_is_left_to_its_owner(tmp_path: Path, kind: str) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    other.write_text("" if kind == "empty link" else "of another program")
    if kind == "file":
        (run / LOCK).write_text("of another program")
    elif kind == "folder":
        (run / LOCK).mkdir()
    elif kind == "pipe":
        os.mkfifo(run / LOCK)
    elif kind == "socket":
        # By a short path: a test's own folder has a longer one than a socket may have.
        with chdir(run), closing(socket.socket(socket.AF_UNIX)) as server:
            server.bind(LOCK)
    else:
        (run / LOCK).symlink_to(other)
    before = other.read_text()
    with (
        pytest.raises(UserError, match=rf"leave the name of its lock free, got {run / LOCK} of another program"),
        hold(run),
    ):
        pass
    assert os.path.lexists(run / LOCK)
    assert other.read_text() == before
    assert kind != "file" or (run / LOCK).read_text() == "of another program"


def test_what_a_killed_process_left_of_its_lock_is_no_strangers(tmp_path: Path) -> None:
    for left in ("", '{"pid": 12, "ho', json.dumps({"pid": 12, "host": "a"})):
        (tmp_path / LOCK).write_text(left)
        with hold(tmp_path):
            assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_an_earlier_rehearsal_is_set_aside(tmp_path: Path) -> None:
    folder = tmp_path / "rehearsal-1"
    folder.mkdir()
    assert _set_aside(folder, notebook=NOTEBOOK) is None
    for number in (1, 2):
        fill(folder, "stage/notebook.log", "hidden/test.csv", NOTEBOOK, ".lock")
        assert _set_aside(folder, notebook=NOTEBOOK) == tmp_path / f"rehearsal-1.{number}"
        assert names(tmp_path / f"rehearsal-1.{number}") == {"stage/notebook.log", "hidden/test.csv", NOTEBOOK}
        assert names(folder) == {".lock"}
    fill(folder, "hidden/test.csv")
    assert _set_aside(folder, notebook=NOTEBOOK) is None
    fill(folder, "stage/notebook.log", "notes.txt")
    with pytest.raises(UserError, match=r"must hold nothing else: .*, got notes.txt"):
        _set_aside(folder, notebook=NOTEBOOK)
    assert names(folder) == {"hidden/test.csv", "stage/notebook.log", "notes.txt", ".lock"}
