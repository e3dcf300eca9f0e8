"""The slugs of a build's parts: legal, each its own, and those of the notebook that downloads too."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mathlete.folders import list_weights
from mathlete.submission import checks
from mathlete.submission.build import Build
from mathlete.submission.metadata import KERNEL_FILE
from mathlete.submission.refusal import Refusal
from tests.conftest import ROOT, CommandLine


def write_metadata(folder: Path, **changes: object) -> None:
    file = folder / KERNEL_FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


OWN: list[tuple[tuple[str, ...], str]] = [
    (("--names.vllm", "mathlete-submission"), "must have slugs of their own, got mathlete-submission, 2 times"),
    (("--names.vllm", "mathlete-model"), "must have slugs of their own, got mathlete-model, 2 times"),
    (("--names.vllm", "ab"), "vllm/kernel-metadata.json: id must have a slug of at least five characters"),
    (("--names.vllm", "My Wheels"), "must be owner/slug"),
    # Kaggle addresses each by its kind, and the notebook is not among what it mounts.
    (
        ("--names.wheels", "mathlete-submission", "--names.model", "mathlete-submission"),
        "got mathlete-submission, 2 times",
    ),
    (("--names.kernel", "mathlete-model"), ""),
    (("--names.kernel", "mathlete-wheels"), ""),
    (("--names.model", "mathlete-wheels"), "must have slugs of their own"),
    (("--names.wheels", "Wheels!"), "small letters"),
    (("--vllm-wheels", "runs/vw", "--names.vllm", "mathlete-wheels"), "got mathlete-wheels, 2 times: dataset_sources"),
    (("--vllm-wheels", "runs/vw", "--names.vllm", "vllms"), "dataset_sources must have a slug of 6 to 50 characters"),
    (("--vllm-wheels", "runs/vw"), ""),
]


@pytest.mark.parametrize(("words", "says"), OWN)
def test_all_parts_of_a_build_have_slugs_that_kaggle_takes_and_each_its_own(
    built_wheels: Path, submit: CommandLine, words: tuple[str, ...], says: str
) -> None:
    Path("runs/vw").mkdir()
    Path("runs/vw/vllm.lock").write_bytes((ROOT / "data/vllm.lock").read_bytes())
    done = submit("build", "--names.owner", "alice", "--engine", "vllm", *words)
    assert says in done.stderr.replace("\n", " ")
    assert done.code == (2 if says else 0)


def test_preflight_looks_at_the_notebook_that_downloads_too(built_wheels: Path, submit: CommandLine) -> None:
    assert submit("build", "--names.owner", "alice", "--engine", "vllm").code == 0
    build = Build.load(Path("runs/submit"))
    look: Callable[[], list[Refusal]] = lambda: [*checks._vllm(build)]  # noqa: E731
    assert look() == []
    for changes, says in (
        ({"id": "alice/ab", "title": "ab"}, "at least five characters"),
        ({"id": "alice/others", "title": "others"}, "id must be the build's, alice/mathlete-vllm"),
        ({"enable_internet": False}, "enable_internet must be true"),
        ({"is_private": False}, "is_private must be true"),
    ):
        before = (build.downloads / KERNEL_FILE).read_text()
        write_metadata(build.downloads, **changes)
        assert any(f"vllm/{KERNEL_FILE}" in one.rule and says in one.rule for one in look()), says
        (build.downloads / KERNEL_FILE).write_text(before)
    (build.downloads / KERNEL_FILE).unlink()
    assert "the folder needs" in look()[0].rule


def test_wheels_that_vllms_folder_cannot_hold_are_refused(submit: CommandLine, workdir: Path) -> None:
    done = submit("wheels", "--engine", "vllm", "--need", "einops>=0.8")
    assert "--need is for the notebook's own wheels, got einops>=0.8" in str(done.refusal)


def test_a_second_copy_of_the_weights_is_counted_once(tmp_path: Path) -> None:
    """Mistral's repositories hold one in a layout of its own, which no engine reads beside the other."""
    for name in ("consolidated.safetensors", "model-00001-of-00001.safetensors"):
        (tmp_path / name).write_bytes(bytes(10))
    assert [path.name for path in list_weights(tmp_path)] == ["model-00001-of-00001.safetensors"]
    (tmp_path / "model-00001-of-00001.safetensors").unlink()
    assert [path.name for path in list_weights(tmp_path)] == ["consolidated.safetensors"]
