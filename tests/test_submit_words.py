"""Words, names and files of a build that are none of Kaggle's: refused before anything is rehearsed or pushed."""

import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mathlete.competitions import competition
from mathlete.delivery import preflight
from mathlete.errors import UserError
from mathlete.kernel import KernelConfig
from mathlete.runs import read_json, write_json
from mathlete.submission import Build, Names, checks
from mathlete.submission.lint import require_sound
from mathlete.submission.metadata import KERNEL_FILE, NOTEBOOK, write_metadata
from mathlete.submission.notebook import write_notebook
from tests.conftest import NAMES, CommandLine

WORDS = [
    ({"machine": "H100"}, NAMES, "machine_shape must be known"),
    ({"image": "latest"}, NAMES, "pinned by its digest"),
    ({"licence": "apache"}, NAMES, "Kaggle's own name"),
    ({}, replace(NAMES, kernel="My Notebook"), "id must be owner/slug"),
    ({}, replace(NAMES, wheels="w"), "a slug of 6 to 50"),
    ({}, replace(NAMES, model_version=-1), "model_sources must be"),
    ({}, replace(NAMES, variation="INT 8"), "model_sources must be"),
    ({}, replace(NAMES, variation="Int8"), "instanceSlug must be of small letters"),
    ({}, replace(NAMES, model="qwen2.5", variation="0.5b_int8"), ""),
    # The account may be told later.
    ({}, replace(NAMES, owner="your-kaggle-name"), ""),
    ({}, replace(NAMES, owner="YOUR-NAME"), ""),
]


@pytest.mark.parametrize(("words", "names", "says"), WORDS)
def test_a_word_that_kaggle_does_not_know_is_refused_by_the_build(
    words: dict[str, str], names: Names, says: str, tmp_path: Path
) -> None:
    facts: Any = {"machine": None, "image": "", "licence": "Apache 2.0", "weights": "int8", **words}
    write_metadata(tmp_path, names, rules=competition("aimo-3"), **facts)
    write_notebook(tmp_path / NOTEBOOK, KernelConfig(), names)
    with pytest.raises(UserError, match=says) if says else nullcontext():
        require_sound(tmp_path)


def test_the_notebook_that_counts_is_the_one_that_is_pushed(build: Build) -> None:
    shutil.copy(build.notebook, build.kaggle / "mine.ipynb")
    file = build.kaggle / KERNEL_FILE
    write_json(file, {**read_json(file), "code_file": "mine.ipynb"})
    before = build.hashes()
    assert build.notebook.name == "mine.ipynb"
    (build.kaggle / "mine.ipynb").write_text(build.notebook.read_text().replace("STARTED = ", "STARTED  = "))
    assert build.hashes().notebook != before.notebook
    assert build.restamp()
    assert build.stamp in (build.kaggle / "mine.ipynb").read_text()


def test_more_files_than_are_uploaded_as_they_are_are_counted_before_a_push(build: Build) -> None:
    hidden = build.model / ".cache" / "huggingface"  # as `hf download` leaves it
    hidden.mkdir(parents=True)
    for number in range(49):
        (build.model / f"model-{number}.safetensors").touch()
        (hidden / f"{number}.metadata").touch()
    (build.model / "manifest.json").touch()
    assert list(preflight._count_files(build)) == []
    (build.model / "one-more.json").touch()
    (refusal,) = preflight._count_files(build)
    assert refusal.value.startswith("51 in")
    (build.model / "one-more.json").unlink()
    (build.model / "one-more.json").symlink_to("nowhere")
    (refusal,) = preflight._count_files(build)
    assert refusal.value.startswith("one-more.json in")


def test_a_release_day_that_the_build_was_told_need_not_be_told_again(build: Build) -> None:
    write_json(build.model / "config.json", {"_name_or_path": "some/unknown"})
    told = replace(build, released="2024-11-12")
    told.save(build.kaggle.parent)
    assert Build.load(build.kaggle.parent).released == "2024-11-12"
    assert list(checks.check_parts(told)[-1].refusals) == []
    (asked,) = checks.check_parts(told, released="2026-06-01")[-1].refusals
    assert asked.value == "2026-06-01"


def test_a_release_day_is_read_first_and_what_a_build_changes_is_said(built_wheels: Path, submit: CommandLine) -> None:
    assert "must be a day" in submit("build", "--released", "November").refusal
    assert not Path("kaggle").exists()
    assert submit("build", "--names.owner", "alice", "--released", "2024-11-12").code == 0
    assert Build.load(Path("runs/submit")).released == "2024-11-12"
    file = Path("kaggle", KERNEL_FILE)
    write_json(file, {**read_json(file), "dataset_sources": ["alice/mine"]})
    # What a hand has written there is not lost without a word.
    again = submit("build", "--names.owner", "alice").stdout
    assert 'dataset_sources is ["alice/mathlete-wheels"] now, it was ["alice/mine"]' in again
    assert again.count(" now, it was ") == 1
