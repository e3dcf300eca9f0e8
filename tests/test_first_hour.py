"""The second part of docs/first-hour.md, word for word, on the real model that it names: hours, in slices."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mathlete.export.records import SurvivalFigures
from mathlete.runs import read_json
from mathlete.signals import ending_with_parent
from tests.conftest import ROOT
from tests.test_docs_commands import AS_PRINTED, blocks
from tests.test_gates import WEIGHTS

PLACE = ROOT / ".cache" / "first-hour"
"""Kept between slices: each command goes on where it was stopped."""
SLICE_S = float(os.environ.get("MATHLETE_SLICE_S", "1500"))
"""After so many seconds the command at work is stopped by SIGTERM."""
SHAPE = {"model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "vocab_size": 151936}
"""Qwen2.5-Coder-0.5B's."""


def find_weights() -> Path:
    """Return the folder of the page's model, or skip."""
    folder = os.environ.get(WEIGHTS)
    if not folder:
        pytest.skip(f"{WEIGHTS} names no folder of real models")
    for file in sorted(Path(folder).glob("*/config.json")):
        if SHAPE.items() <= json.loads(file.read_text()).items():
            return file.parent.resolve()
    pytest.skip(f"{WEIGHTS}={folder} has no model of Qwen2.5-0.5B's shape")


@pytest.fixture
def place(shared: Path) -> Path:
    weights = find_weights()
    (PLACE / "models").mkdir(parents=True, exist_ok=True)
    for link, target in ((PLACE / "models" / "qwen-coder-0.5b", weights), (PLACE / "hub", shared / "data" / "hub")):
        link.unlink(missing_ok=True)
        link.symlink_to(target, target_is_directory=True)
    return PLACE


def run_within(words: list[str], *, place: Path, seconds: float) -> int | None:
    """Run a printed command; return its exit code, or None where it was stopped at the slice's end."""
    name = words[words.index("--run") + 1] if "--run" in words else words[words.index("eval") + 1]
    # A stranger's shell leaves the number of threads to torch; the tests' is one.
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    with (place / f"{Path(name).name}.log").open("a") as log:
        argv = [sys.executable, *words[1:]]
        # Where the test is killed, the command keeps what it has, as at the end of a slice.
        ended = ending_with_parent(signal.SIGTERM)
        process = subprocess.Popen(argv, cwd=place, env=environment, stdout=log, stderr=log, preexec_fn=ended)
        try:
            return process.wait(timeout=max(seconds, 0.1))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=300) == 128 + signal.SIGTERM, f"{name} did not stop as it should: {log.name}"
            return None


@pytest.mark.slow
def test_the_second_part_runs_as_printed(place: Path) -> None:
    end = time.monotonic() + SLICE_S
    commands = next(block for block in blocks(AS_PRINTED) if "two cores" in block.needs).commands
    for count, words in enumerate(commands):
        code = run_within(words, place=place, seconds=end - time.monotonic())
        if code is None:
            pytest.skip(
                f"{count} of {len(commands)} commands are done, in {SLICE_S:.0f} s; the next run goes on from there"
            )
        assert code == 0, f"{' '.join(words)}: exit code {code}, log in {place}"
    base, tuned = (read_json(place / "runs" / name / "results.json") for name in ("05b-base", "05b-tuned"))
    assert (base["problems"], tuned["problems"]) == (120, 120)
    kept = SurvivalFigures.read(place / "runs" / "05b" / "export")
    assert kept.gates is not None
    assert not kept.gates.outcome.breaches
    assert (place / "runs" / "05b-report" / "report.html").stat().st_size > 100_000
