"""The training benchmark itself: tokens counted alike for every trainer, real shapes, Unsloth where there is one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from bench.train import keep_rows
from mathlete.errors import UserError

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[1] / "bench" / "train.py"
SHORT = ("--steps", "1", "--warm", "1", "--repeats", "1", "--json")


def run_bench(*words: str) -> tuple[dict[str, Any], str]:
    """Return (the line of JSON, all that was printed before it)."""
    done = subprocess.run([sys.executable, SCRIPT, *SHORT, *words], capture_output=True, text=True, check=True)
    *printed, line = done.stdout.strip().splitlines()
    return json.loads(line), "\n".join(printed)


def test_without_unsloth_the_ratio_is_none_and_the_cure_is_told() -> None:
    line, printed = run_bench("--who", "mathlete", "trl_fp32")
    assert line["ratio_over_unsloth"] is None
    assert "--unsloth" in printed
    assert all(run["tokens"] > 32 for runs in line["shapes"][0]["runs"].values() for run in runs)


def test_an_interpreter_without_unsloth_is_an_error_of_that_case_alone() -> None:
    line, _ = run_bench("--who", "mathlete", "--unsloth", sys.executable)
    runs = line["shapes"][0]["runs"]
    assert "unsloth" in runs["unsloth"][0]["error"]
    assert runs["mathlete"][0]["tokens_per_s"] > 0
    assert line["ratio_over_unsloth"] is None


def test_real_weights_train_two_rows_a_step(root: Path) -> None:
    line, _ = run_bench("--models", str(root / "data" / "pocket" / "model"), "--who", "mathlete", "trl")
    assert line["ratio_trl_defaults"] > 0
    assert line["shapes"][0]["ratios_per_cpu_s"]["trl"] > 0
    assert {ran[0]["checkpointing"] for ran in line["shapes"][0]["runs"].values()} == {True, False}


def test_too_few_rows_are_refused_with_both_numbers(tmp_path: Path) -> None:
    datasets.Dataset.from_list([{"tokens": number} for number in range(5)]).save_to_disk(tmp_path / "rows")
    with pytest.raises(UserError, match=r"must leave 6 rows to train on, after all filters, got 5 rows"):
        keep_rows(tmp_path / "rows", 6)
    keep_rows(tmp_path / "rows", 4)
    assert datasets.load_from_disk(tmp_path / "rows")["tokens"][:] == [0, 1, 2, 3]


def test_the_command_for_a_gpu_is_ready(shared: Path) -> None:
    """The real shapes' widths divided: the vocabulary, the families and the tokenizer are real."""
    folder = shared / "tokenizers" / "r1-distill-qwen"
    words = ("--tokenizer", os.path.relpath(folder), "--shrink", "64")
    line, _ = run_bench("--shapes", "r1-llama-8b", "--who", "mathlete", "trl", *words)
    (shape,) = line["shapes"]
    assert line["ratio_trl_defaults"] == shape["ratio_mathlete"] > 0
    assert {ran[0]["tokens"] > 0 for ran in shape["runs"].values()} == {True}


@pytest.mark.skipif("UNSLOTH_PYTHON" not in os.environ, reason="UNSLOTH_PYTHON names no Python that has Unsloth")
def test_unsloth_trains_the_same_rows() -> None:
    line, _ = run_bench("--who", "mathlete", "trl_fp32", "--unsloth", os.environ["UNSLOTH_PYTHON"])
    runs = line["shapes"][0]["runs"]
    tokens = {name: ran[0]["tokens"] for name, ran in runs.items()}
    assert tokens["unsloth"] == tokens["unsloth_kept"] == tokens["trl_fp32"]  # one seed shuffles all three
    assert [runs[name][0]["checkpointing"] for name in ("unsloth", "unsloth_kept")] == [True, False]
    assert line["ratio_over_unsloth"] > 0
