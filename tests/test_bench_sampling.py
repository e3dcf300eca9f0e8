"""The ways of bench/sampling.py --model draw the samples that they are asked for, and its neighbours start."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import notebook_engine
from bench.ways import WAYS, Case, measure
from mathlete.models import find_model

STATEMENTS = (("sum", "What is 2 + 3?"), ("product", "What is 4 * 5?"))


@pytest.mark.slow
@pytest.mark.parametrize("way", [name for name in WAYS if name != "vllm"])
def test_a_way_draws_all_samples_up_to_their_caps(way: str) -> None:
    case = Case(
        way=way,
        model=find_model("pocket").location,
        dtype="float32",
        problems=STATEMENTS,
        n=3,
        max_tokens=6,
        threads=1,
    )
    drawn = measure(case)
    # The pocket model's answers are longer: every sample runs to its cap.
    assert drawn.tokens == 2 * 3 * 6
    assert 0 < drawn.first_s <= drawn.seconds
    assert drawn.cpu_seconds > 0
    assert drawn.peak_gib > 0


@pytest.mark.slow
def test_the_ways_are_compared_each_in_a_process_of_its_own(tmp_path: Path, root: Path) -> None:
    rows = [{"id": name, "statement": statement, "gold": "5"} for name, statement in STATEMENTS]
    (tmp_path / "two.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "bench/sampling.py", "--model", find_model("pocket").location, "--json"]
    command += [
        "--suite",
        str(tmp_path / "two.jsonl"),
        "--n",
        "2",
        "--max-tokens",
        "4",
        "--ways",
        "engine",
        "engine:bfloat16",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    ways = json.loads(ended.stdout.splitlines()[-1])
    assert {name: row["tokens"] for name, row in ways.items()} == {"engine": 16, "engine:bfloat16": 16}


def test_a_python_of_vllm_that_is_not_there_is_told_in_a_line(tmp_path: Path) -> None:
    missing = tmp_path / "python"
    with pytest.raises(SystemExit, match=f"--vllm must be the Python of an environment that has vLLM, got {missing}"):
        notebook_engine.main(notebook_engine.BenchSettings(vllm=missing))
