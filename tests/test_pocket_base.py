"""The pocket model: its tokenizer, its optimizer, and a pretraining that resumes to the same bytes."""

import os
import signal
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

from mathlete.errors import UserError
from mathlete.models import find_model, load_model, load_prompt_format
from mathlete.pocket import base, generate_items
from mathlete.pocket.base import PocketBaseConfig, build_pocket_base
from mathlete.pocket.batches import Batches
from mathlete.pocket.muon import Muon, orthogonalise
from mathlete.pocket.tokenizer import build_tokenizer
from mathlete.prompts import PromptFormat
from mathlete.runs import sha256_tree
from mathlete.shipped import data_folder
from tests.conftest import sample

TINY: dict[str, Any] = {"hidden": 64, "layers": 1, "heads": 2, "intermediate": 64, "batch": 2, "vocabulary": 320}


@pytest.fixture(scope="module")
def prompts() -> PromptFormat:
    return PromptFormat(tokenizer=build_tokenizer(vocabulary=576), instruction="")


@pytest.mark.parametrize("count", sample(100, slow=[400]))
def test_the_tokenizer_gives_back_every_text(prompts: PromptFormat, count: int) -> None:
    tokenizer = prompts.tokenizer
    assert len(tokenizer) <= 576
    for item in generate_items(families=["easy", "hard"], count=count, seed=1, split="test"):
        text = f"{item.problem.statement}\n{item.completion} Ünïcödé ∑ 数"
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_each_digit_is_a_token_and_the_marks_of_reasoning_are_one_each(prompts: PromptFormat) -> None:
    tokenizer = prompts.tokenizer
    assert tokenizer.tokenize("1234567") == list("1234567")
    for mark in ("<think>", "</think>", "<｜User｜>", "<｜Assistant｜>"):
        (token,) = tokenizer(mark, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode([token], skip_special_tokens=True) == mark


def test_the_template_is_byte_for_byte_what_trl_knows(prompts: PromptFormat) -> None:
    known = files("trl").joinpath("chat_templates", "deepseek_r1_distill.jinja").read_text(encoding="utf-8")
    assert prompts.tokenizer.chat_template == known
    assert prompts.prefilled


def test_padding_is_not_eos_and_bos_stands_once(prompts: PromptFormat) -> None:
    tokenizer = prompts.tokenizer
    assert tokenizer.pad_token_id not in (tokenizer.eos_token_id, tokenizer.bos_token_id)
    assert prompts.prompt_ids("What is gcd(12, 18)?").count(tokenizer.bos_token_id) == 1


def test_the_shipped_tokenizer_is_the_one_the_code_builds(prompts: PromptFormat, tmp_path: Path) -> None:
    prompts.tokenizer.save_pretrained(tmp_path)
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (data_folder() / "pocket" / "model" / file.name).read_bytes()
    shipped = load_prompt_format(find_model("pocket")).tokenizer
    assert shipped.get_vocab() == prompts.tokenizer.get_vocab()


def test_only_the_completion_has_labels(prompts: PromptFormat) -> None:
    batches = Batches(prompts=prompts, size=4, easy=0.5, seed=0)
    ids, labels = batches.at(3)
    assert ids.shape == labels.shape == (4, ids.shape[1])
    think = prompts.tokenizer.get_vocab()["<think>"]
    for row, wanted in zip(ids.tolist(), labels.tolist(), strict=True):
        labelled = [position for position, label in enumerate(wanted) if label >= 0]
        first, last = labelled[0], labelled[-1]
        assert labelled == list(range(first, last + 1))
        assert row.index(think) < first <= row.index(think) + 2
        assert row[last] == prompts.tokenizer.eos_token_id
        assert [row[position] for position in labelled] == [wanted[position] for position in labelled]


def test_batches_are_a_function_of_their_number(prompts: PromptFormat) -> None:
    one, two = (Batches(prompts=prompts, size=4, easy=0.9, seed=0) for _ in range(2))
    for number in (40, 3, 17):
        one.at(number)
    assert torch.equal(one.at(5)[0], two.at(5)[0])


@pytest.mark.parametrize("shape", [(3, 16, 48), (2, 48, 16), (1, 32, 32)])
def test_muon_makes_every_singular_value_about_one(shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape, generator=generator)))
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_muon_moves_like_torchs_own() -> None:
    """torch.optim.Muon works in bf16, so equal only to its precision."""
    generator = torch.Generator().manual_seed(0)
    start, gradient = torch.randn(2, 24, 40, generator=generator)
    mine, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    for optimizer, weight in (
        (Muon([mine], lr=0.02, weight_decay=0.1), mine),
        (torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.95), theirs),
    ):
        for _ in range(3):
            weight.grad = gradient.clone()
            optimizer.step()
    assert torch.allclose(mine, theirs, atol=3e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "--steps must be at least 1, got 0"),
        ({"hidden": 100}, "--hidden must be a multiple of 64, got 100"),
        ({"heads": 3}, "--heads must be even"),
        ({"hard": 1.5}, "--hard must be 0 to 1, got 1.5"),
        ({"vocabulary": 256}, "--vocabulary must be a multiple of 64, at least 320, got 256"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        build_pocket_base(tmp_path / "model", PocketBaseConfig(**settings))
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_a_rebuilt_base_has_the_same_bytes_and_loads(tmp_path: Path) -> None:
    config = PocketBaseConfig(steps=3, **TINY)
    figures = [build_pocket_base(tmp_path / name, config) for name in ("one", "two")]
    assert sha256_tree(tmp_path / "one") == sha256_tree(tmp_path / "two")
    assert figures[0]["last_loss"] == figures[1]["last_loss"]
    model = load_model(find_model(str(tmp_path / "one")))
    assert model.num_parameters() == figures[0]["parameters"]


def test_the_checkpoint_of_other_settings_is_refused(
    tmp_path: Path, prompts: PromptFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "build_tokenizer", lambda vocabulary: prompts.tokenizer)  # one costs a second
    torch.save({"config": {"steps": 1}}, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match="goes on with its own settings"):
        build_pocket_base(tmp_path, PocketBaseConfig(steps=2, **TINY | {"vocabulary": 576}))


def test_the_shipped_files_are_those_of_their_hashes() -> None:
    folder = data_folder() / "pocket"
    lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    assert {name: digest for digest, name in (line.split("  ") for line in lines)} == {
        name: digest for name, digest in sha256_tree(folder).items() if name != "SHA256SUMS"
    }
    assert (folder / "model" / "model.safetensors").stat().st_size < 8 * 2**20


@pytest.mark.slow
def test_a_killed_pretraining_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 160, **TINY}
    build_pocket_base(tmp_path / "whole", PocketBaseConfig(**settings))
    code = (
        "from pathlib import Path; from mathlete.pocket.base import *; "
        f"build_pocket_base(Path({str(tmp_path / 'cut')!r}), PocketBaseConfig(**{settings!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as started:
        while not (tmp_path / "cut" / "checkpoint.pt").exists() and started.poll() is None:
            time.sleep(0.01)
        os.kill(started.pid, signal.SIGKILL)
    assert (tmp_path / "cut" / "checkpoint.pt").exists()
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    build_pocket_base(tmp_path / "cut", PocketBaseConfig(**settings))
    assert sha256_tree(tmp_path / "cut") == sha256_tree(tmp_path / "whole")
