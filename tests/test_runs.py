import json
from pathlib import Path

import pytest

from mathlete.errors import UserError
from mathlete.runs import MANIFEST, Step, require_space, run_step, sha256_json, write_atomically


class Build:
    """A step that counts its calls and can die half-way."""

    def __init__(self, *, die: bool = False) -> None:
        self.calls, self.die, self.seen = 0, die, list[str]()

    def __call__(self, folder: Path) -> dict[str, object]:
        self.calls += 1
        self.seen = sorted(path.name for path in folder.iterdir() if path.name != "started.json")
        (folder / "part.txt").write_text("half")
        if self.die:
            raise KeyboardInterrupt
        (folder / "out.txt").write_text("whole")
        return {"rows": 3}


def step(folder: Path, build: Build, *, source: Path, **settings: object) -> Step:
    return run_step("format", folder=folder, inputs={"problems": source}, settings=settings, build=build)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("1")
    return path


def test_same_inputs_and_settings_are_skipped(tmp_path: Path, source: Path) -> None:
    build = Build()
    first = step(tmp_path / "s", build, source=source, rank=16)
    again = step(tmp_path / "s", build, source=source, rank=16)
    assert (build.calls, first.skipped, again.skipped) == (1, False, True)
    assert again.figures == {"rows": 3}


@pytest.mark.parametrize("change", ["input", "setting"])
def test_a_change_runs_again_in_an_empty_folder(tmp_path: Path, source: Path, change: str) -> None:
    build = Build()
    step(tmp_path / "s", build, source=source, rank=16)
    if change == "input":
        source.write_text("2")
    step(tmp_path / "s", build, source=source, rank=16 if change == "input" else 32)
    assert (build.calls, build.seen) == (2, [])


def test_killed_step_is_resumed_on_what_it_left(tmp_path: Path, source: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        step(tmp_path / "s", Build(die=True), source=source)
    assert not (tmp_path / "s" / MANIFEST).exists()
    build = Build()
    assert not step(tmp_path / "s", build, source=source).skipped
    assert build.seen == ["part.txt"]


def test_leftover_of_other_settings_is_not_resumed(tmp_path: Path, source: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        step(tmp_path / "s", Build(die=True), source=source, rank=8)
    build = Build()
    step(tmp_path / "s", build, source=source, rank=16)
    assert build.seen == []


@pytest.mark.parametrize("damage", ["change", "remove", "add"])
def test_files_that_differ_from_the_manifest_are_an_error(tmp_path: Path, source: Path, damage: str) -> None:
    step(tmp_path / "s", Build(), source=source)
    file = tmp_path / "s" / ("new.txt" if damage == "add" else "out.txt")
    if damage == "remove":
        file.unlink()
    else:
        file.write_text("other")
    with pytest.raises(UserError, match=rf"must match the folder's files, got .*{file.name}"):
        step(tmp_path / "s", Build(), source=source)


def test_a_foreign_folder_is_never_emptied(tmp_path: Path, source: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="only into its own or an empty folder"):
        step(tmp_path / "s", Build(), source=source)
    assert (tmp_path / "s" / "thesis.tex").read_text() == "years of work"


def test_manifest_names_inputs_outputs_and_environment(tmp_path: Path, source: Path) -> None:
    step(tmp_path / "s", Build(), source=source, rank=16)
    manifest = json.loads((tmp_path / "s" / MANIFEST).read_text())
    assert manifest["status"] == "done"
    assert manifest["settings"] == {"rank": 16}
    assert set(manifest["outputs"]) == {"part.txt", "out.txt"}
    assert set(manifest["inputs"]["problems"]) == {"in.jsonl"}
    assert {"git", "python", "packages", "hardware", "argv", "seconds", "figures"} <= set(manifest)


def test_atomic_write_leaves_the_old_file_where_it_fails(tmp_path: Path) -> None:
    write_atomically(tmp_path / "f", "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(tmp_path / "f", "\ud800")
    assert (tmp_path / "f").read_text() == "old"


def test_no_space_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs 1048576\.00 GiB of free disk, got .* GiB"):
        require_space(tmp_path / "new" / "run", needed_bytes=2**50)
    assert not list(tmp_path.iterdir())


def test_json_hash_ignores_key_order() -> None:
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1})
