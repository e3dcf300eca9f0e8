"""What leaves this machine: cards without its paths, files that others can read."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mathlete.export import TunedModel
from mathlete.files import share_files
from mathlete.models import ModelSource, find_model

COMMIT = "a" * 40


@pytest.fixture
def open_mask() -> Iterator[None]:
    """The mask that most users have."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o027, 0o640)])
def test_files_are_shared_as_far_as_the_mask_says(tmp_path: Path, open_mask: None, mask: int, mode: int) -> None:
    (tmp_path / "below").mkdir()
    file = tmp_path / "below" / "model.safetensors"
    file.touch(mode=0o600)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    os.umask(mask)
    share_files(tmp_path)
    assert file.stat().st_mode & 0o777 == mode
    assert os.umask(mask) == mask


def _adapter(folder: Path, base: Path) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base), "r": 8}))
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "README.md").write_text(f"---\nbase_model: {base}\n---\n# Model Card for adapter\n")
    return folder


def test_the_card_of_an_adapter_names_the_base_and_no_place_on_this_machine(tmp_path: Path) -> None:
    base = tmp_path / "hub" / "models--Qwen--Qwen3-8B" / "snapshots" / COMMIT
    base.mkdir(parents=True)
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Qwen3-8B\n")
    folder = _adapter(tmp_path / "adapter", base)
    source = ModelSource(name=str(base), location=str(base))
    TunedModel(source=source, data=tmp_path / "data", adapter=folder).write_adapter_card()
    card = (folder / "README.md").read_text()
    for line in (
        'base_model: "Qwen/Qwen3-8B"', 'license: "apache-2.0"', 'library_name: "peft"',
        f"- base: Qwen/Qwen3-8B@{COMMIT}", "# Qwen/Qwen3-8B, tuned, the adapter",
    ):  # fmt: skip
        assert line in card.splitlines()
    assert "adapter_model.safetensors" in card
    assert json.loads((folder / "adapter_config.json").read_text()) == {
        "base_model_name_or_path": "Qwen/Qwen3-8B",
        "r": 8,
    }
    assert all(str(tmp_path) not in file.read_text() for file in folder.glob("*.*"))


def test_a_base_that_is_a_folder_of_its_own_is_named_by_it(tmp_path: Path) -> None:
    base = tmp_path / "my-model"
    base.mkdir()
    folder = _adapter(tmp_path / "adapter", base)
    source = ModelSource(name=str(base), location=str(base))
    TunedModel(source=source, data=tmp_path / "data", adapter=folder).write_adapter_card()
    card = (folder / "README.md").read_text()
    assert "base_model:" not in card
    assert "- base: my-model" in card.splitlines()
    assert "license:" not in card.split("---")[1]
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "my-model"


def test_the_pocket_models_licence_is_the_projects(root: Path) -> None:
    assert find_model("pocket").licence == "apache-2.0"
    assert "**Licence** Apache-2.0" in (root / "data" / "pocket" / "README.md").read_text()
