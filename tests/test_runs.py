import errno
import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from mathlete.errors import UserError
from mathlete.locks import LOCK
from mathlete.runs import (
    MANIFEST,
    Leftovers,
    Step,
    require_space,
    run_step,
    sha256_json,
    write_atomically,
    write_json,
)


class Build:
    """A step that counts its calls and can die half-way."""

    def __init__(self, *, die: bool = False) -> None:
        self.calls, self.die, self.seen = 0, die, list[str]()

    def __call__(self, folder: Path) -> dict[str, object]:
        self.calls += 1
        self.seen = sorted(path.name for path in folder.iterdir() if path.name not in ("started.json", LOCK))
        (folder / "part.txt").write_text("half")
        if self.die:
            raise KeyboardInterrupt
        (folder / "out.txt").write_text("whole")
        return {"rows": 3}


def step(folder: Path, build: Build, *, source: Path, overwrite: bool = False, **settings: object) -> Step:
    return run_step(
        "format",
        folder=folder,
        inputs={"problems": source},
        settings=settings,
        build=build,
        leftovers=Leftovers(overwrite=overwrite, writes=("part.txt", "out.txt")),
    )


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


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("change", "told"), [("input", "input problems has another in.jsonl"), ("setting", "rank is 16 there, 32 here")]
)
def test_a_change_is_refused_and_runs_again_in_an_empty_folder_by_overwrite(
    tmp_path: Path, source: Path, change: str, told: str, finished: bool
) -> None:
    folder, rank = tmp_path / "s", 16 if change == "input" else 32
    with nullcontext() if finished else pytest.raises(KeyboardInterrupt):
        step(folder, Build(die=not finished), source=source, rank=16)
    before = contents(folder)
    if change == "input":
        source.write_text("2")
    build = Build()
    with pytest.raises(UserError, match=rf"{'.finished.' if finished else ''}: {told}\.\n.*--run, or .*--overwrite"):
        step(folder, build, source=source, rank=rank)
    assert (build.calls, contents(folder)) == (0, before)
    assert not step(folder, build, source=source, rank=rank, overwrite=True).skipped
    assert (build.calls, build.seen) == (1, [])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_killed_step_is_resumed_on_what_it_left(tmp_path: Path, source: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        step(tmp_path / "s", Build(die=True), source=source)
    assert not (tmp_path / "s" / MANIFEST).exists()
    build = Build()
    assert not step(tmp_path / "s", build, source=source).skipped
    assert build.seen == ["part.txt"]


def test_a_mark_without_settings_says_what_can_be_said(tmp_path: Path, source: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "started.json").write_text('{"key": "of an earlier version"}')
    (tmp_path / "s" / "part.txt").write_text("half")
    with pytest.raises(UserError, match="an earlier version of mathlete began it and did not keep its settings"):
        step(tmp_path / "s", Build(), source=source)
    assert not step(tmp_path / "s", Build(), source=source, overwrite=True).skipped


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_stray_file_is_never_touched_and_has_to_be_moved(
    tmp_path: Path, source: Path, *, overwrite: bool, finished: bool
) -> None:
    folder = tmp_path / "s"
    with nullcontext() if finished else pytest.raises(KeyboardInterrupt):
        step(folder, Build(die=not finished), source=source, rank=8)
    for name in ("notes.txt", ".hidden", "plots/mine.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("years of work")
    for rank in (8, 16):
        with pytest.raises(UserError, match=r"got .*notes\.txt|rank is 8 there"):
            step(folder, Build(), source=source, rank=rank, overwrite=overwrite)
    (folder / "notes.txt").rename(tmp_path / "notes.txt")
    assert step(folder, Build(), source=source, rank=8).skipped == finished
    step(folder, Build(), source=source, rank=16, overwrite=True)
    assert {"notes.txt", "s/.hidden", "s/plots/mine.txt"} <= contents(tmp_path).keys()


def test_a_damaged_run_is_made_again_by_who_asks_for_it(tmp_path: Path, source: Path) -> None:
    for name in ("out.txt", MANIFEST):
        step(tmp_path / name, Build(), source=source)
        (tmp_path / name / name).write_text("other")
        with pytest.raises(UserError, match=r"--overwrite|must be a readable JSON file"):
            step(tmp_path / name, Build(), source=source)
        assert not step(tmp_path / name, Build(), source=source, overwrite=True).skipped
        assert step(tmp_path / name, Build(), source=source).skipped


def test_bad_input_leaves_nothing(tmp_path: Path, source: Path) -> None:
    def refuse(folder: Path) -> dict[str, object]:
        raise UserError("a row must be good", cure="mend it")

    with pytest.raises(UserError, match="a row must be good"):
        run_step("format", folder=tmp_path / "runs" / "s", inputs={}, settings={}, build=refuse)
    assert contents(tmp_path).keys() == {"in.jsonl"}
    assert not (tmp_path / "runs").exists()


def test_what_is_extended_keeps_its_files(tmp_path: Path, source: Path) -> None:
    def grow(folder: Path, n: int, *, overwrite: bool = False) -> tuple[Step, list[str]]:
        def build(folder: Path) -> dict[str, object]:
            there = sorted(path.name for path in folder.glob("*.txt"))
            (folder / f"{n}.txt").write_text("")
            return {"there": there}

        def extends(old: dict[str, Any], new: dict[str, Any]) -> bool:
            return bool(old["settings"]["n"] <= new["settings"]["n"])

        made = run_step(
            "draw",
            folder=folder,
            inputs={},
            settings={"n": n},
            build=build,
            leftovers=Leftovers(extends=extends, overwrite=overwrite),
        )
        return made, sorted(path.name for path in folder.glob("*.txt"))

    assert grow(tmp_path / "s", 4)[1] == ["4.txt"]
    made, there = grow(tmp_path / "s", 5)
    assert (made.figures, there) == ({"there": ["4.txt"]}, ["4.txt", "5.txt"])
    assert grow(tmp_path / "s", 5)[0].skipped
    (tmp_path / "s" / "4.txt").write_text("changed")
    for n in (5, 6):
        with pytest.raises(UserError, match=r"got 4.txt changed"):
            grow(tmp_path / "s", n)
    assert grow(tmp_path / "s", 5, overwrite=True)[1] == ["5.txt"]
    with pytest.raises(UserError, match="n is 5 there, 4 here"):
        grow(tmp_path / "s", 4)


DAMAGED: dict[str, Callable[[dict[str, Any]], object]] = {
    "no step": lambda mark: mark.pop("step"),
    "no inputs": lambda mark: mark.pop("inputs"),
    "no key": lambda mark: mark.pop("key"),
    "no setting": lambda mark: mark["settings"].pop("n"),
    "a setting in words": lambda mark: mark["settings"].update(n="4"),
    "a setting of null": lambda mark: mark["settings"].update(n=None),
    "another setting": lambda mark: mark["settings"].update(n=3),
    "settings that are a list": lambda mark: mark.update(settings=[4]),
    "a step that is a number": lambda mark: mark.update(step=4),
}


@pytest.mark.parametrize("name", [*DAMAGED])
def test_a_damaged_mark_is_never_built_upon(tmp_path: Path, name: str) -> None:
    def extends(old: dict[str, Any], new: dict[str, Any]) -> bool:
        return bool(old["inputs"] == new["inputs"] and old["settings"]["n"] <= new["settings"]["n"])

    def draw(n: int, *, overwrite: bool = False) -> Step:
        leftovers = Leftovers(extends=extends, writes=("part.txt", "out.txt"), overwrite=overwrite)
        where: Any = {"folder": tmp_path / "s", "inputs": {}}
        return run_step("draw", **where, settings={"n": n}, build=Build(die=n == 4), leftovers=leftovers)

    with pytest.raises(KeyboardInterrupt):
        draw(4)
    mark = json.loads((tmp_path / "s" / "started.json").read_text())
    DAMAGED[name](mark)
    write_json(tmp_path / "s" / "started.json", mark)
    with pytest.raises(UserError, match="a run goes on only with the settings that it was begun with"):
        draw(5)
    assert not draw(5, overwrite=True).skipped


def test_parts_of_another_try_do_not_block_the_next(tmp_path: Path) -> None:
    def build(folder: Path) -> dict[str, object]:
        (folder / ".parts" / "00000").mkdir(parents=True, exist_ok=True)
        raise KeyboardInterrupt

    def make(n: int) -> Step:
        return run_step("format", folder=tmp_path / "s", inputs={}, settings={"n": n}, build=build)

    for number in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            make(number)
        assert json.loads((tmp_path / "s" / "started.json").read_text())["settings"] == {"n": number}
    (tmp_path / "s" / ".parts" / "00001").mkdir()
    with pytest.raises(KeyboardInterrupt):
        make(2)
    assert (tmp_path / "s" / ".parts" / "00001").is_dir()
    (tmp_path / "s" / "head.jsonl").write_text("")
    with pytest.raises(UserError, match="a run goes on only with the settings that it was begun with"):
        make(3)


@pytest.mark.parametrize("changes", [True, False])
@pytest.mark.parametrize("error", [UserError("no engine", cure="start one"), KeyboardInterrupt(), ZeroDivisionError()])
def test_a_finished_run_stays_finished_where_what_would_extend_it_changes_nothing(
    tmp_path: Path, error: BaseException, *, changes: bool
) -> None:
    def grow(n: int) -> Step:
        def build(folder: Path) -> dict[str, object]:
            if n == 5 and not changes:
                raise error
            (folder / "out.txt").write_text(str(n))
            if n == 5:
                raise error
            return {}

        grows = Leftovers(extends=lambda old, new: True, writes=("out.txt",))
        return run_step("draw", folder=tmp_path / "s", inputs={}, settings={"n": n}, build=build, leftovers=grows)

    grow(4)
    before = (tmp_path / "s" / MANIFEST).read_bytes()
    with pytest.raises(type(error)):
        grow(5)
    assert (tmp_path / "s" / MANIFEST).is_file() is not changes
    if not changes:
        assert (tmp_path / "s" / MANIFEST).read_bytes() == before
        assert grow(4).skipped


def test_a_run_must_not_lie_in_what_it_is_made_of(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "link").symlink_to("model")
    for folder in ("model", "model/run", "link/run"):
        with pytest.raises(
            UserError, match=f"outside of what it is made of, which it would change, got .*/{folder}, in"
        ):
            step(tmp_path / folder, Build(), source=tmp_path / "model")
    assert not [*(tmp_path / "model").iterdir()]


def test_a_run_may_lie_behind_a_link(tmp_path: Path, source: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "s"
    link.symlink_to("disk")
    assert not step(link, Build(), source=source, rank=8).skipped
    assert step(link, Build(), source=source, rank=8).skipped
    assert not step(link, Build(), source=source, rank=16, overwrite=True).skipped
    assert link.is_symlink()
    assert {"out.txt", MANIFEST} <= contents(tmp_path / "disk").keys()


@pytest.mark.parametrize(("kind", "told"), [("file", "a file"), ("link", "a link that leads nowhere")])
def test_a_run_is_a_folder(tmp_path: Path, source: Path, kind: str, told: str) -> None:
    if kind == "file":
        (tmp_path / "s").write_text("letter")
    else:
        (tmp_path / "s").symlink_to("nowhere")
    with pytest.raises(UserError, match=f"a run must be a folder, got .*/s, {told}"):
        step(tmp_path / "s", Build(), source=source)


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
    with pytest.raises(TypeError):
        write_json(tmp_path / "f", {("no", "name"): 1})
    assert contents(tmp_path) == {"f": b"old"}


@pytest.mark.parametrize("nameless", [True, False])
def test_an_atomic_write_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, nameless: bool
) -> None:
    if not nameless:
        monkeypatch.delattr(os, "O_TMPFILE")
    write_atomically(tmp_path / "f", "old")
    write_atomically(tmp_path / ("n" * 250), "a name as long as one may be")

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "f", "new")
    assert contents(tmp_path)["f"] == b"old"
    assert sorted(contents(tmp_path)) == ["f", "n" * 250]


def test_no_space_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs 1048576\.00 GiB of free disk, got .* GiB"):
        require_space(tmp_path / "new" / "run", needed_bytes=2**50)
    assert not list(tmp_path.iterdir())


def test_json_hash_ignores_key_order() -> None:
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1})
