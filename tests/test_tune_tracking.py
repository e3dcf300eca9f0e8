"""The loss curve in trackio, in the run's own folder."""

import json
import os
import sqlite3
from importlib.util import find_spec
from pathlib import Path

import pytest

from mathlete import reporters
from mathlete.accounts import OFFLINE
from mathlete.errors import UserError
from mathlete.reporters import Reporter, check_reporters
from mathlete.tune import tracking
from tests.conftest import CommandLine

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


@pytest.mark.parametrize(
    ("names", "variables", "words"),
    [
        (["none", "wandb"], {}, "must stand alone"),
        (["trackio"], {"HF_HUB_OFFLINE": "1", "TRACKIO_SPACE_ID": "me/space"}, "got TRACKIO_SPACE_ID"),
        (["trackio"], {"HF_HUB_OFFLINE": "1", "TRACKIO_SERVER_URL": "http://here"}, "got TRACKIO_SERVER_URL"),
        (["wandb"], {}, "run `wandb login`"),
    ],
)
def test_what_cannot_be_reported_to_is_refused(
    names: list[Reporter], variables: dict[str, str], words: str, clean: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        clean.setenv(name, value)
    with pytest.raises(UserError, match=words):
        check_reporters(names)


@pytest.mark.parametrize(
    "variables",
    [{"WANDB_API_KEY": "k"}, {"WANDB_MODE": "offline"}, {"HF_HUB_OFFLINE": "1"}, {"NETRC": "netrc"}],
    ids=lambda variables: next(iter(variables)),
)
def test_wandb_needs_a_key_only_where_it_sends(
    variables: dict[str, str], clean: pytest.MonkeyPatch, workdir: Path
) -> None:
    Path("netrc").write_text("machine api.wandb.ai login user password secret\n")
    for name, value in variables.items():
        clean.setenv(name, value)
    check_reporters(["wandb"])


@pytest.mark.skipif(find_spec("wandb") is not None, reason="needs an environment without the package wandb")
def test_a_package_that_is_missing_is_told_before_the_training_begins(train: CommandLine, workdir: Path) -> None:
    refusal = train("math", "--model", "pocket", "--report-to", "wandb", "--run", "run").refusal
    assert (
        '--report-to wandb needs the package wandb, got not installed.\n  Fix: pip install "mathlete[wandb]"' in refusal
    )
    assert not Path("run").exists()


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment that says nothing of trackers, and has each package."""
    monkeypatch.setattr(reporters, "find_spec", lambda name: name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (*OFFLINE, "WANDB_API_KEY", "WANDB_MODE", "NETRC", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.slow
@pytest.mark.skipif(find_spec("trackio") is None, reason="needs the package trackio")
def test_a_training_is_shown_in_tensorboard_and_trackio_as_it_runs(train: CommandLine, workdir: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    small = ("--limit", "60", "--tune.steps", "3", "--tune.log-every", "1", "--rows.heldout", "2")
    words = ("--model", "pocket", "--until", "tune", *small, "--run", "run", "--report-to", "tensorboard", "trackio")
    done = train.process("math", *words, "--json")
    assert done.result["steps"] == 3
    curve = [json.loads(line) for line in Path("run/adapter/metrics.jsonl").read_text().splitlines()]
    board = accumulator.EventAccumulator("run/adapter/logs")
    board.Reload()
    with sqlite3.connect("run/adapter/trackio/mathlete.db") as database:
        kept = [json.loads(row) for (row,) in database.execute("select metrics from metrics order by step")]
    points = [point for point in kept if "train/loss" in point]
    for name in ("loss", "tokens_per_s", "learning_rate"):
        shown = [event.value for event in board.Scalars(f"train/{name}")]
        assert shown == pytest.approx([point[name] for point in curve])
        assert [point[f"train/{name}"] for point in points] == pytest.approx(shown)
    assert f"tensorboard --logdir {Path('run/adapter/logs')}" in done.stderr


def test_a_trainings_places_are_taken_back_and_the_users_stay(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean.setenv("WANDB_DIR", "/elsewhere")
    clean.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    for name in ("one", "two"):
        with reporters._choosing_places(tmp_path / name / "adapter") as places:
            assert places["tensorboard"] == tmp_path / name / "adapter" / "logs"
            assert places["wandb"] == Path("/elsewhere")
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ
    assert os.environ["WANDB_DIR"] == "/elsewhere"
