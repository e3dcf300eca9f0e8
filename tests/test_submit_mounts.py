"""Where a notebook finds what is mounted: both layouts of Kaggle's, and however a name is spelled."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mathlete.kernel.mounts import find_input
from mathlete.submission.mounts import MountedSource, SourceKind

MOUNTS = [
    ("competitions", "some-prize", "competitions/some-prize"),
    ("competitions", "some-prize", "some-prize"),
    ("datasets", "alice/wheels", "datasets/alice/wheels"),
    ("datasets", "alice/wheels", "wheels"),
    ("models", "alice/m/transformers/int8/1", "models/alice/m/transformers/int8/1"),
    ("models", "alice/m/transformers/int8/1", "models/alice/m/Transformers/int8/1"),
    ("models", "alice/m/transformers/int8/1", "m/transformers/int8/1"),
    ("models", "alice/m/transformers/int8/1", "m/Transformers/int8/1"),
    ("notebooks", "alice/other", "notebooks/alice/other"),
    ("notebooks", "alice/other", "other"),
    ("datasets", "alice/wheels/3", "datasets/alice/wheels"),
]


@pytest.mark.parametrize(("kind", "source", "where"), MOUNTS)
def test_an_input_is_found_in_either_layout(kind: str, source: str, where: str, tmp_path: Path) -> None:
    (tmp_path / where).mkdir(parents=True)
    assert find_input(kind, source, str(tmp_path)) == tmp_path / where


@pytest.mark.parametrize("spell", [str, str.lower, str.upper, str.title])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("competitions", "some-prize"),
        ("datasets", "Alice/wheels/3"),
        ("models", "qwen-lm/qwen2.5/Transformers/0.5b-instruct/1"),
        ("models", "metaresearch/dinov2/pyTorch/small/1"),
        ("models", "google/bit/TensorFlow2/m-r50x1/2"),
        ("notebooks", "alice/other"),
    ],
)
def test_what_kaggle_mounts_is_found_however_its_name_is_spelled(
    kind: SourceKind, name: str, spell: Callable[[str], str], tmp_path: Path
) -> None:
    for number, place in enumerate(MountedSource(kind=kind, name=name).places):
        # Kaggle's folders have small letters, whatever its pages and metadata write.
        assert place == place.lower()
        (tmp_path / str(number) / place).mkdir(parents=True)
        assert find_input(kind, spell(name), str(tmp_path / str(number))) == tmp_path / str(number) / place


def test_an_input_spelled_as_it_is_mounted_is_taken_before_others(tmp_path: Path) -> None:
    for framework in ("Transformers", "transformers"):
        (tmp_path / "models" / "a" / "m" / framework / "v" / "1").mkdir(parents=True)
    for framework in ("Transformers", "transformers"):
        place = f"a/m/{framework}/v/1"
        assert find_input("models", place, str(tmp_path)) == tmp_path / "models" / place


def test_an_input_that_is_not_mounted_is_named_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "datasets" / "alice").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=re.escape("models a/b/c/d/1 is not mounted")) as caught:
        find_input("models", "a/b/c/d/1", str(tmp_path))
    assert "datasets/alice" in str(caught.value)
