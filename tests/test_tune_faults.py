"""What ends a training run early, by real faults: divergence, a full disk, a full memory."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from mathlete.errors import UserError
from mathlete.tune.curve import CurvePoint, Meter, read_curve
from mathlete.tune.divergence import EXPLODED, explain_full_memory_or_disk, require_calm, require_finite
from tests.conftest import CommandLine

WORDS = ("math", "--model", "pocket", "--limit", "60", "--until", "tune", "--run", "run", "--tune.batch", "4",
         "--tune.log-every", "1", "--tune.save-every", "2")  # fmt: skip


def calm(count: int, norm: float = 1.0) -> list[CurvePoint]:
    return [CurvePoint(step=step, loss=2.0, grad_norm=norm) for step in range(1, count + 1)]


@pytest.mark.parametrize(
    ("last", "rule"),
    [
        (CurvePoint(step=9, loss=float("nan"), grad_norm=1.0), "the loss must be a number, got nan at step 9"),
        (CurvePoint(step=9, loss=float("inf"), grad_norm=1.0), "the loss must be a number"),
        (CurvePoint(step=9, loss=2.0, grad_norm=2 * EXPLODED), "1000 times its median, got 2e.03 at step 9"),
        (CurvePoint(step=9, loss=2.0, grad_norm=EXPLODED / 2), ""),
    ],
)
def test_a_curve_that_diverged_is_told(last: CurvePoint, rule: str) -> None:
    if not rule:
        return require_calm([*calm(8), last], kept=lambda: "kept")
    with pytest.raises(UserError, match=rule) as error:
        require_calm([*calm(8), last], kept=lambda: "checkpoint-8 is complete")
    assert "checkpoint-8 is complete" in error.value.cure
    return None


def test_the_first_norms_make_no_median_yet() -> None:
    require_calm([*calm(4, 1e-9), CurvePoint(step=5, loss=2.0, grad_norm=1.0)], kept=lambda: "")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_is_found_among_many(bad: float) -> None:
    weights = [torch.nn.Parameter(torch.zeros(3)) for _ in range(4)]
    for weight in weights[1:]:
        weight.grad = torch.ones(3)
    require_finite(weights, step=7, kept=lambda: "")
    assert weights[3].grad is not None
    weights[3].grad[1] = bad
    with pytest.raises(UserError, match="the gradient must be finite, got NaN or infinity in step 7"):
        require_finite(weights, step=7, kept=lambda: "")


def full_torch() -> object:
    return torch.empty(2**60)


def full_numpy() -> object:
    return np.empty(2**50)


def full_gpu(said: str) -> object:
    raise RuntimeError(said)  # torch.AcceleratorError is one


GPU_WORDS = ["CUDA error: out of memory", "CUDA out of memory. Tried to", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when"]


@pytest.mark.parametrize("allocate", [full_torch, full_numpy, *(partial(full_gpu, said) for said in GPU_WORDS)])
def test_a_full_memory_names_what_is_kept(allocate: Callable[[], object]) -> None:
    with (
        pytest.raises(UserError, match="memory must hold a training step") as error,
        explain_full_memory_or_disk(lambda: "checkpoint-8"),
    ):
        allocate()
    assert "--tune.checkpointing on" in error.value.cure
    assert "checkpoint-8" in error.value.cure


def test_another_error_stays_itself() -> None:
    with pytest.raises(RuntimeError, match="mat1"), explain_full_memory_or_disk(lambda: ""):
        torch.zeros(2, 3) @ torch.zeros(2, 3)


@pytest.mark.slow
def test_a_run_that_diverges_ends_with_its_last_sound_checkpoint_and_the_way_on(
    workdir: Path, train: CommandLine
) -> None:
    told = train(*WORDS, "--tune.rate", "1e37", "--tune.steps", "8", "--tune.warmup", "0.9").refusal
    assert "the gradient must be finite" in told or "the loss must be a number" in told
    assert "lower --tune.rate" in told
    assert not Path("run/adapter/manifest.json").exists()


LIMITED = """
import resource, sys
from mathlete.command import run_command_line
from train.commands import COMMANDS
resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, resource.RLIM_INFINITY))
sys.exit(run_command_line(sys.argv[1:], prog="python -m train", commands=COMMANDS))
"""


@pytest.mark.slow
def test_a_disk_without_room_ends_the_run_and_more_room_ends_it_well(workdir: Path, train: CommandLine) -> None:
    words = [*WORDS, "--tune.steps", "4"]
    done = subprocess.run([sys.executable, "-c", LIMITED, *words], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "the disk must have room" in done.stderr
    assert "no checkpoint was written yet" in done.stderr
    again = train(*WORDS, "--tune.steps", "4")
    assert again.code == 0
    assert "merge and formats are not tried before a training with --until tune" in again.stdout
    points = [json.loads(line) for line in Path("run/adapter/metrics.jsonl").read_text().splitlines()]
    assert [point["step"] for point in points] == [1, 2, 3, 4]
    assert all(point["tokens_per_s"] > 0 for point in points)
    assert [point["tokens"] for point in points] == sorted({point["tokens"] for point in points})


def test_a_curve_point_is_the_same_after_json() -> None:
    logged = {"step": 3, "loss": 1.5, "learning_rate": 1e-3, "grad_norm": 0.5, "completions/mean_length": 12.0,
              "rewards/margins": 0.1, "tokens": 90, "tokens_per_s": 30.0, "seconds": 3.0}  # fmt: skip
    (point,) = read_curve([{**logged, "epoch": 0.1, "num_tokens": 90}, {"step": 3, "train_runtime": 1.0}])
    assert (point.completion_length, point.reward) == (12.0, None)
    assert json.dumps(point.to_json()) == json.dumps(logged)
    assert CurvePoint.from_json(point.to_json()) == point


def test_a_meter_goes_on_where_the_checkpoint_was() -> None:
    meter = Meter([10, 20, 30, 40], rows=2)
    meter.start([CurvePoint(step=1, loss=2.0, seconds=100.0, tokens=30)])
    point = meter.read(2, {})
    assert point.tokens == 100
    assert 100.0 <= point.seconds < 101.0
    drawn = Meter([], rows=2)
    drawn.start([])
    assert drawn.read(1, {"num_tokens": 12.0}).tokens == 12
