"""Several processes: refused without a launcher, and with one the training of a single process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mathlete.command import run_command_line
from mathlete.errors import UserError
from mathlete.models import data_folder
from mathlete.tune import ranks
from train.__main__ import COMMANDS

DDP = data_folder() / "launch" / "ddp.yaml"
WORDS = ("-m", "train", "math", "--model", "pocket", "--limit", "120", "--tune.steps", "4", "--tune.batch", "8",
         "--tune.log-every", "1", "--tune.save-every", "2", "--survival.greedy", "0", "--json")  # fmt: skip


@pytest.mark.parametrize(("devices", "environment"), [(0, {}), (1, {}), (2, {"WORLD_SIZE": "2"})])
def test_one_gpu_or_a_launcher_is_right(devices: int, environment: dict[str, str]) -> None:
    ranks.require_launcher(devices, environment)


def test_several_gpus_without_a_launcher_are_refused_with_both_cures() -> None:
    with pytest.raises(UserError, match="several GPUs need a launcher") as told:
        ranks.require_launcher(4, {})
    assert "CUDA_VISIBLE_DEVICES=0" in told.value.cure
    assert "accelerate launch --config_file" in told.value.cure


def test_a_batch_is_shared_out_evenly_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "world", lambda: 4)
    assert ranks.rows_each(8) == 2
    with pytest.raises(UserError, match="multiple of the 4 processes, got 6") as told:
        ranks.rows_each(6)
    assert "--tune.batch 8" in told.value.cure


def test_the_configuration_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["launch-config", "ddp"], prog="python -m train", commands=COMMANDS) == 0
    assert Path(capsys.readouterr().out.strip()).samefile(DDP)


def carried_out(folder: Path, *words: str) -> dict[str, object]:
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("{"))
    found: dict[str, object] = json.loads(line)
    return found


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "adapter" / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_go_the_whole_way_with_the_loss_curve_of_one(tmp_path: Path) -> None:
    (tmp_path / "cpu.yaml").write_text(DDP.read_text().replace("use_cpu: false", "use_cpu: true"))
    launcher = ("-m", "accelerate.commands.launch", "--config_file", "cpu.yaml")
    carried_out(tmp_path, *WORDS, "--run", "one")
    # Stopped after the adapter, then the rest: what is done is skipped in all processes.
    carried_out(tmp_path, *launcher, *WORDS, "--until", "tune", "--run", "two")
    found = carried_out(tmp_path, *launcher, *WORDS, "--run", "two")
    assert found["skipped"] == ["format", "tune"]
    assert (tmp_path / "two" / "export" / "manifest.json").is_file()
    # Each process wrote its part of the checkpoint: two did train.
    assert {f"rng_state_{rank}.pth" for rank in (0, 1)} <= {p.name for p in (tmp_path / "two").rglob("rng_state_*")}
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    # A kill between checkpoints: the manifest and the last checkpoint are gone.
    adapter = tmp_path / "two" / "adapter"
    (adapter / "manifest.json").unlink()
    (adapter / "checkpoint-4" / "whole").unlink()
    carried_out(tmp_path, *launcher, *WORDS, "--until", "tune", "--run", "two")
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
