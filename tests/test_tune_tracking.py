"""The loss curve in trackio, in the run's own folder."""

import json
import sqlite3
from importlib.util import find_spec
from pathlib import Path

import pytest

from mathlete.tune import tracking

pytestmark = pytest.mark.usefixtures("in_full")
CURVE = [{"step": step, "loss": 2.0 / step, "learning_rate": 1e-3, "seconds": float(step)} for step in (1, 2, 3)]


@pytest.fixture
def curve(tmp_path: Path) -> Path:
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps(point) + "\n" for point in CURVE))
    return file


@pytest.mark.skipif(find_spec("trackio") is None, reason="needs the package trackio")
def test_every_point_is_in_the_runs_own_folder(curve: Path) -> None:
    words = tracking.log_to_trackio(curve, name="run-a")
    folder = curve.parent / "trackio"
    assert words == f"trackio: TRACKIO_DIR={folder} trackio show --project mathlete"
    with sqlite3.connect(folder / "mathlete.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics order by step").fetchall()
    assert [(name, step) for name, step, _ in rows] == [("run-a", 1), ("run-a", 2), ("run-a", 3)]
    assert [json.loads(metrics)["loss"] for *_, metrics in rows] == [2.0, 1.0, 2.0 / 3]


def test_without_the_package_it_says_what_to_install(curve: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    assert 'pip install "mathlete[trackio]"' in tracking.log_to_trackio(curve, name="run-a")
    assert not (curve.parent / "trackio").exists()


@pytest.mark.skipif(find_spec("trackio") is None, reason="needs the package trackio")
def test_a_curve_that_cannot_be_read_costs_no_run(tmp_path: Path) -> None:
    assert tracking.log_to_trackio(tmp_path / "none.jsonl", name="run-a").startswith("trackio: nothing logged (")
