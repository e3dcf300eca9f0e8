"""A run killed with signal 9 in any of its steps goes on to the same weights and the same curve."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from mathlete.runs import sha256_tree
from tests.conftest import CommandLine

KILLS = {
    "format": ("data", ".parts/00000/part.json"),
    "tune": ("adapter", "checkpoint-8/whole"),
    "effect": ("effect", "started.json"),
    "merge": ("merged", "started.json"),
    "export": ("export", "model.safetensors"),
}


def curve(run: Path) -> list[dict[str, object]]:
    """Return the loss curve without what a clock says."""
    points = [json.loads(line) for line in (run / "adapter" / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in point.items() if key not in ("seconds", "tokens_per_s")} for point in points]


def costs(run: Path) -> list[dict[str, Any]]:
    """Return the survival figures without what a clock says."""
    return [
        {**figures, "hops": [{**hop, "seconds": None} for hop in figures["hops"]]}
        for name in ("effect/effect.json", "export/survival.json")
        for figures in [json.loads((run / name).read_text())]
    ]


@pytest.mark.slow
def test_kill_9_in_any_step_changes_no_weight(tmp_path: Path, train: CommandLine) -> None:
    words = ["math", "--model", "pocket", "--limit", "1200", "--rows.heldout", "20", "--survival.greedy", "0", "--json",
             "--tune.steps", "14", "--tune.batch", "8", "--tune.save-every", "4", "--tune.log-every", "2",
             "--run"]  # fmt: skip
    assert train.process(*words, "whole", folder=tmp_path).code == 0
    cut = tmp_path / "cut"
    for step, mark in KILLS.values():
        log = (tmp_path / "log").open("w")
        with log, subprocess.Popen(train.argv(*words, "cut"), cwd=tmp_path, stdout=log, stderr=log) as started:
            while not (cut / step / mark).exists() and started.poll() is None:
                time.sleep(0.005)
            os.kill(started.pid, signal.SIGKILL)
        assert started.returncode == -signal.SIGKILL, (tmp_path / "log").read_text()
        assert not (cut / step / "manifest.json").exists()
    done = train.process(*words, "cut", folder=tmp_path)
    assert done.result["skipped"] == ["format", "tune", "effect", "merge"]
    whole = sha256_tree(tmp_path / "whole")
    for name, hashed in sha256_tree(cut).items():
        if name.endswith((".safetensors", ".arrow", "answers.json")):
            assert hashed == whole[name], name
    assert costs(cut) == costs(tmp_path / "whole")
    # Tokens go on where they were; only the time is another.
    assert curve(cut) == curve(tmp_path / "whole")
    seconds = [json.loads(line)["seconds"] for line in (cut / "adapter" / "metrics.jsonl").read_text().splitlines()]
    assert seconds == sorted(set(seconds))
