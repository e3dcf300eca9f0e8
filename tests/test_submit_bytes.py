"""What is rehearsed is what is pushed: the bytes of kaggle/, and what kernel-metadata.json mounts."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mathlete.errors import UserError
from mathlete.kaggle_image import PYTHON
from mathlete.problems import Problem, read_problems
from mathlete.rehearsal import RehearsalSettings, choose_canaries, rehearse
from mathlete.rehearsal.draft import Draft, make_draft
from mathlete.rehearsal.environments import THIS_PYTHON
from mathlete.submission import Build
from mathlete.submission.checks import _names
from mathlete.submission.lint import lint_kernel
from mathlete.submission.metadata import KERNEL_FILE
from mathlete.submission.notebook import require_as_built
from tests.conftest import POCKET_VAL, CommandLine

PROBLEMS = [Problem(id=str(number), statement=f"What is {number}?", gold=str(number)) for number in (1, 2, 3)]
Notebook = dict[str, Any]


def edit(build: Build, change: Callable[[Notebook], object]) -> None:
    """Change the notebook by hand."""
    notebook = json.loads(build.notebook.read_text())
    change(notebook)
    build.notebook.write_text(json.dumps(notebook))


def mount(build: Build, **sources: list[str]) -> None:
    """Change what is mounted by hand."""
    file = build.kaggle / KERNEL_FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), **sources}))


def new_cell(source: str, **more: Any) -> Notebook:
    return {"cell_type": "code", "source": source, "metadata": {}, "outputs": [], "execution_count": None, **more}


def draft(build: Build, folder: Path, **how: Any) -> Draft:
    folder.mkdir()
    return make_draft(build, PROBLEMS, RehearsalSettings(**how), speed=100.0, folder=folder)


def sources(text: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(text)["cells"]]


@pytest.mark.parametrize("edited", [False, True])
def test_the_notebook_as_it_lies_there_is_what_is_rehearsed(edited: bool, build: Build, tmp_path: Path) -> None:
    if edited:
        edit(build, lambda notebook: notebook["cells"].insert(3, new_cell("if later:\n    undefined", id="mine")))
    made = draft(build, tmp_path / "draft")
    before, after = sources(build.notebook.read_text()), sources(made.text)
    (added,) = [source for source in after if source.startswith("# Put in by the rehearsal alone.")]
    assert after.index(added) == len(after) - 2
    after.remove(added)
    assert [source.replace(THIS_PYTHON.replace(".", ", "), PYTHON.replace(".", ", ")) for source in after] == before
    # Both differences are told.
    assert added in made.changes[0]
    assert [THIS_PYTHON in change for change in made.changes[1:]] == [True]
    rest = {name: part for name, part in json.loads(made.text).items() if name != "cells"}
    assert rest == {name: part for name, part in json.loads(build.notebook.read_text()).items() if name != "cells"}


def test_a_notebook_that_asserts_another_python_still_does(build: Build, tmp_path: Path) -> None:
    text = build.notebook.read_text()
    build.notebook.write_text(text.replace("version_info[:2] == (3, 12)", "version_info[:2] == (3, 9)"))
    assert "version_info[:2] == (3, 9)" in draft(build, tmp_path / "draft").text


def test_a_notebook_of_ones_own_needs_no_tags_but_a_cell_that_serves(build: Build, tmp_path: Path) -> None:
    edit(build, lambda notebook: [cell.update(metadata={}) for cell in notebook["cells"]])
    assert "speed_up(100.0)" in sources(draft(build, tmp_path / "draft").text)[-2]
    edit(build, lambda notebook: notebook["cells"].pop())
    with pytest.raises(UserError, match="the notebook must have a cell that serves"):
        draft(build, tmp_path / "again")


def test_a_model_of_links_is_mounted_as_files(build: Build, tmp_path: Path) -> None:
    """As in the hub's cache, whose snapshots are links to blobs beside them: the container sees one folder only."""
    snapshot, blobs = build.model, tmp_path / "blobs"
    (snapshot / "model.safetensors").write_bytes(b"weights")
    snapshot.rename(blobs)
    snapshot.mkdir()
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(Path("../blobs", file.name))
    # As a download that was broken off leaves one, and one that leads to itself.
    (snapshot / "more.safetensors").symlink_to("../blobs/more.safetensors")
    (snapshot / "loop").symlink_to("loop")
    made = draft(build, tmp_path / "draft")
    (place,) = [folder for name, folder in made.inputs.items() if name.startswith("models/")]
    assert {file.name for file in place.iterdir()} == {"config.json", "model.safetensors"}
    assert not any(file.is_symlink() for file in place.iterdir())
    assert (place / "model.safetensors").samefile(blobs / "model.safetensors")
    # All else is mounted as it lies there.
    assert build.wheels in made.inputs.values()


def merge_last_cells(notebook: Notebook) -> None:
    *kept, settings, serving = notebook["cells"]
    both = [*settings["source"], "\n", *serving["source"]]
    notebook["cells"] = [*kept, {**settings, "source": both, "metadata": {}}]


def rename_config(notebook: Notebook) -> None:
    for cell in notebook["cells"]:
        cell["source"] = [line.replace("CONFIG", "MINE") for line in cell["source"]]


@pytest.mark.parametrize("change", [merge_last_cells, rename_config])
def test_a_notebook_whose_settings_cannot_be_sped_up_is_refused_in_a_sentence(
    change: Callable[[Notebook], None], build: Build, tmp_path: Path
) -> None:
    edit(build, change)
    with pytest.raises(UserError, match="must make CONFIG in a cell before the one that serves"):
        draft(build, tmp_path / "draft")


LOOK = 'find_input("datasets", "bob/extra")'
MOUNTS: list[tuple[str, dict[str, list[str]], str]] = [
    ("", {}, ""),
    ("", {"dataset_sources": []}, "datasets alice/mathlete-wheels is not mounted"),
    ("", {"model_sources": []}, "models alice/mathlete-model/transformers/int8/1 is not mounted"),
    ("", {"model_sources": ["alice/mathlete-model/transformers/int8/2"]}, "int8/1 is not mounted"),
    ("", {"model_sources": ["alice/mathlete-model/Transformers/int8/1"]}, ""),
    ("", {"dataset_sources": ["alice/mathlete-wheels/3"]}, ""),
    ("", {"competition_sources": ["other-prize"]}, "ai-mathematical-olympiad-progress-prize-3 is not mounted"),
    ("", {"dataset_sources": ["alice/mathlete-wheels", "bob/extra"]}, "it never names bob/extra"),
    ("", {"kernel_sources": ["bob/extra"]}, "it never names bob/extra"),
    (LOOK, {}, "datasets bob/extra is not mounted"),
    (f"!ls /kaggle\n{LOOK}", {}, "datasets bob/extra is not mounted"),
    ('find_input(kind="datasets", name="bob/extra")', {}, "datasets bob/extra is not mounted"),
    (f"# {LOOK}", {}, ""),
    ('find_input("notebooks", "bob/extra")', {"kernel_sources": ["bob/extra"]}, ""),
    (LOOK, {"dataset_sources": ["alice/mathlete-wheels", "bob/extra"]}, ""),
    ("open('/kaggle/input/extra/a')", {"dataset_sources": ["alice/mathlete-wheels", "bob/extra"]}, ""),
]


@pytest.mark.parametrize(("code", "mounts", "says"), MOUNTS)
def test_what_the_notebook_looks_for_is_mounted_and_nothing_else(
    code: str, mounts: dict[str, list[str]], says: str, build: Build, tmp_path: Path
) -> None:
    mount(build, **mounts)
    if code:
        edit(build, lambda notebook: notebook["cells"].insert(3, new_cell(code, id="mine")))
    refusals = [*_names(build)]
    assert [says in refusal.value for refusal in refusals[:1]] == ([True] if says else [])
    if says:
        with pytest.raises(UserError, match=re.escape(says)):
            draft(build, tmp_path / "draft")


def test_what_is_mounted_beside_the_build_has_a_folder_here(build: Build, tmp_path: Path) -> None:
    edit(build, lambda notebook: notebook["cells"].insert(3, new_cell(LOOK, id="mine")))
    mount(build, dataset_sources=["alice/mathlete-wheels", "bob/extra"])
    with pytest.raises(UserError, match="bob/extra, which is no part of the build"):
        draft(build, tmp_path / "first")
    for name in ("bob/extras", "alice/mathlete-wheels"):
        with pytest.raises(UserError, match=f"beside the build's own, got {name}.*\n.*to be named: bob/extra"):
            draft(build, tmp_path / name.replace("/", "-"), mounts={name: tmp_path})
    for layout, place in (("new", "datasets/bob/extra"), ("old", "extra")):
        made = draft(build, tmp_path / layout, layout=layout, mounts={"bob/extra": tmp_path})
        assert made.inputs[place] == tmp_path
        assert len(made.inputs) == 4


CELL = {"cell_type": "code", "source": "1", "metadata": {}}
BROKEN: dict[str, object] = {
    "a list": [1, 2],
    "no cells": {"metadata": {}},
    "cells that are a text": {"cells": "abc"},
    "a cell that is a number": {"cells": [1]},
    "a source that is a number": {"cells": [{**CELL, "source": 5}]},
    "a source of numbers": {"cells": [{**CELL, "source": [5]}]},
    "a cell's metadata as a list": {"cells": [{**CELL, "metadata": [1]}]},
    "metadata as a list": {"cells": [CELL], "metadata": [1]},
}


@pytest.mark.parametrize("name", [*BROKEN, "nested too deep", "another encoding"])
def test_a_notebook_that_is_none_is_refused_by_all_who_read_it(name: str, build: Build) -> None:
    whole = build.notebook.read_text()
    if name in BROKEN:
        build.notebook.write_text(json.dumps(BROKEN[name]))
    else:
        build.notebook.write_bytes(b"[" * 10**5 if name == "nested too deep" else whole.encode("utf-16"))
    for read in (build.read_notebook, build.restamp, lambda: require_as_built(build.notebook)):
        with pytest.raises(UserError, match=r"notebook|readable text"):
            read()
    assert any("notebook" in refusal.rule for refusal in lint_kernel(build.kaggle))


def test_a_notebook_that_is_none_is_refused_before_the_image_is_fetched(
    built: Path, workdir: Path, submit: CommandLine
) -> None:
    build = load_build_in(built, workdir)
    build.notebook.write_text("[1]")
    assert "the notebook must be one in JSON" in submit("rehearse").refusal
    assert not Path("runs/image").exists()


def name_error(notebook: Notebook) -> None:
    line = f'if "{"KAGGLE_IS_COMPETITION_RERUN"}" in os.environ:\n    undefined\n'
    notebook["cells"][-1]["source"] = [line, *notebook["cells"][-1]["source"]]


def drop_kernelspec(notebook: Notebook) -> None:
    del notebook["metadata"]["kernelspec"]


def raise_at_the_end(notebook: Notebook) -> None:
    notebook["cells"].append(new_cell("raise ValueError('the end')", id="end"))


EDITS: dict[str, tuple[tuple[Callable[[Notebook], None], ...], bool, str]] = {
    "NameError in the rerun": ((name_error,), True, "NameError"),
    "no kernelspec": ((drop_kernelspec,), True, "No kernel name found"),
    "a last cell that raises": ((raise_at_the_end,), False, "the end"),
    "all together": ((name_error, drop_kernelspec, raise_at_the_end), True, "No kernel name found"),
}
"""{edit by hand: (what it does, whether the rerun shows it, what the refusal says)}; all once passed the rehearsal."""


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITS)
def test_a_notebook_broken_by_hand_is_refused(name: str, built: Path, workdir: Path) -> None:
    build = load_build_in(built, workdir)
    changes, rerun, says = EDITS[name]
    for change in changes:
        edit(build, change)
    asked = choose_canaries(read_problems(POCKET_VAL), count=2, rules=build.config.competition)
    rehearsed = rehearse(build, asked, RehearsalSettings(rerun=rerun), folder=workdir / "rehearsal")
    assert rehearsed.refusal is not None
    assert says in (workdir / "rehearsal" / "stage" / "notebook.log").read_text()


def load_build_in(built: Path, folder: Path) -> Build:
    """A copy of the pocket model's build, to be changed by hand."""
    import shutil

    for part in ("kaggle", "runs"):
        shutil.copytree(built / part, folder / part, ignore=shutil.ignore_patterns("image"))
    assert Path.cwd() == folder
    os.environ.pop("KAGGLE_IS_COMPETITION_RERUN", None)
    return Build.load(Path("runs/submit"))
