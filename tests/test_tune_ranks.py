"""Several processes: refused without a launcher, with one the training of a single process, weights shared or not."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from mathlete.errors import UserError
from mathlete.shipped import data_folder
from mathlete.tune import Ranks, require_launcher, shards
from tests.conftest import CommandLine

LAUNCH = data_folder() / "launch"
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "WORLD_SIZE": "2"}
WORDS = ("-m", "train", "math", "--model", "pocket", "--limit", "120", "--tune.steps", "4", "--tune.batch", "8",
         "--tune.log-every", "1", "--tune.save-every", "2", "--survival.greedy", "0", "--json")  # fmt: skip
FLAGS = {
    "pack": ("--tune.pack", "512"),
    "checkpointing": ("--tune.checkpointing", "on"),
    "grpo": ("--method", "grpo", "--tune.steps", "1", "--grpo.max-tokens", "24"),
    "dpo": ("--method", "dpo", "--source", "pairs.jsonl"),
}


@pytest.mark.parametrize(("devices", "environment"), [(0, {}), (1, {}), (2, {"WORLD_SIZE": "2"})])
def test_one_gpu_or_a_launcher_is_right(devices: int, environment: dict[str, str]) -> None:
    require_launcher("lora", devices=devices, environment=environment)


def test_several_gpus_without_a_launcher_are_refused_with_both_cures() -> None:
    with pytest.raises(UserError, match="several GPUs need a launcher") as told:
        require_launcher("lora", devices=4, environment={})
    assert "CUDA_VISIBLE_DEVICES=0" in told.value.cure
    assert "accelerate launch --config_file" in told.value.cure


def test_a_batch_is_split_evenly_or_refused() -> None:
    ranks = Ranks.from_launcher({"WORLD_SIZE": "4"})
    assert ranks.split_rows(8) == 2
    with pytest.raises(UserError, match="multiple of the 4 processes, got 6") as told:
        ranks.split_rows(6)
    assert "--tune.batch 8" in told.value.cure


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_the_configuration_is_found(kind: str, train: CommandLine) -> None:
    assert Path(train("launch-config", kind).stdout.strip()).samefile(LAUNCH / f"{kind}.yaml")


@pytest.mark.parametrize(
    ("method", "changed", "words"),
    [
        ("lora", {"WORLD_SIZE": "1"}, "FSDP shards a model over several processes, got one process"),
        ("lora", {"FSDP_VERSION": "1"}, "fsdp_version must be 2, got 1"),
        ("prompt", {}, "FSDP can't shard virtual tokens here, got --method prompt"),
        ("prefix", {}, "FSDP can't shard virtual tokens here, got --method prefix"),
    ],
)
def test_what_fsdp_cannot_share_is_refused(method: str, changed: dict[str, str], words: str) -> None:
    with pytest.raises(UserError) as told:
        shards.require_shardable(method, FSDP | changed)
    assert words in str(told.value)
    assert "use " in told.value.cure


@pytest.mark.parametrize(("method", "environment"), [("lora", FSDP), ("prompt", {}), ("dpo", FSDP)])
def test_what_can_be_shared_is_not(method: str, environment: dict[str, str]) -> None:
    shards.require_shardable(method, environment)


def test_a_run_goes_on_with_or_without_fsdp_as_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "whole-2").mkdir()
    (tmp_path / "shares-2" / "pytorch_model_fsdp_0").mkdir(parents=True)
    shards.require_same_sharding(tmp_path / "whole-2")
    with pytest.raises(UserError, match="shares-2, written with FSDP"):
        shards.require_same_sharding(tmp_path / "shares-2")
    monkeypatch.setattr(shards, "is_sharded", lambda: True)
    shards.require_same_sharding(tmp_path / "shares-2")
    with pytest.raises(UserError, match="whole-2, written without FSDP"):
        shards.require_same_sharding(tmp_path / "whole-2")


def train_in(folder: Path, *words: str) -> dict[str, object]:
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("{"))
    result: dict[str, object] = json.loads(line)
    return result


def load_adapter(run: Path) -> dict[str, Any]:
    (file,) = (run / "adapter").glob("*model.safetensors")
    weights: dict[str, Any] = load_file(file)
    return weights


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "adapter" / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_go_the_whole_way_with_the_loss_curve_of_one(kind: str, tmp_path: Path) -> None:
    (tmp_path / "cpu.yaml").write_text((LAUNCH / f"{kind}.yaml").read_text().replace("use_cpu: false", "use_cpu: true"))
    launcher = ("-m", "accelerate.commands.launch", "--config_file", "cpu.yaml")
    train_in(tmp_path, *WORDS, "--run", "one")
    # Stopped after the adapter, then the rest: what is done is skipped in all processes.
    train_in(tmp_path, *launcher, *WORDS, "--until", "tune", "--run", "two")
    result = train_in(tmp_path, *launcher, *WORDS, "--run", "two")
    assert result["skipped"] == ["format", "tune"]
    assert (tmp_path / "two" / "export" / "manifest.json").is_file()
    # Each process wrote its part of the checkpoint: two did train.
    assert {f"rng_state_{rank}.pth" for rank in (0, 1)} <= {p.name for p in (tmp_path / "two").rglob("rng_state_*")}
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    shares = [*(tmp_path / "two" / "adapter" / "checkpoint-4").glob("pytorch_model_fsdp_0/*.distcp")]
    assert len(shares) == (2 if kind == "fsdp" else 0)
    # A kill between checkpoints: the manifest and the last checkpoint are gone.
    adapter = tmp_path / "two" / "adapter"
    (adapter / "manifest.json").unlink()
    (adapter / "checkpoint-4" / "whole").unlink()
    train_in(tmp_path, *launcher, *WORDS, "--until", "tune", "--run", "two")
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("more", ["full", "dora", "ia3", "dpo", "grpo", "pack", "checkpointing"])
def test_shared_weights_are_trained_as_one_process_would(more: str, tmp_path: Path, pairs: str) -> None:
    """Each process holds half of them, and every loss is that of one process; samples of GRPO are its own."""
    (tmp_path / "cpu.yaml").write_text((LAUNCH / "fsdp.yaml").read_text().replace("use_cpu: false", "use_cpu: true"))
    launcher = ("-m", "accelerate.commands.launch", "--config_file", "cpu.yaml")
    (tmp_path / "pairs.jsonl").write_text(pairs)
    words = [*WORDS, "--until", "tune", *FLAGS.get(more, ("--method", more))]
    train_in(tmp_path, *words, "--run", "one")
    result = train_in(tmp_path, *launcher, *words, "--run", "two")
    assert result["steps"] == (1 if more == "grpo" else 4)
    if more != "grpo":
        assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-3)
    ours, theirs = (load_adapter(tmp_path / name) for name in ("one", "two"))
    assert {name: tensor.shape for name, tensor in ours.items()} == {name: t.shape for name, t in theirs.items()}
