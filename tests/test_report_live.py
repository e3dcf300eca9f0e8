"""The live page and the replay's: what they show, and to whom. In a browser: test_report_browser."""

import json
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from mathlete.errors import UserError
from mathlete.report import open_server
from mathlete.report.html.replay import build_replay_chart
from mathlete.report.live import LivePage
from tests.conftest import CommandLine, Extras
from tests.recorded import answers, data, problem, record, six, train_run

pytestmark = pytest.mark.usefixtures("lean")


@pytest.fixture
def running(tmp_path: Path) -> Path:
    """A run as it is after its first two samples: no results yet."""
    folder = record(tmp_path / "run", six())
    for name in ("results.json", "manifest.json"):
        (folder / name).unlink(missing_ok=True)
    (folder / "whole.jsonl").write_bytes((folder / "samples.jsonl").read_bytes())
    lines = (folder / "samples.jsonl").read_text().splitlines(keepends=True)
    (folder / "samples.jsonl").write_text("".join(lines[:2]) + lines[2][:30])
    (folder / "started.json").write_text(json.dumps({"settings": {"policy": {"n": 4}}}))
    return folder


def test_a_live_page_follows_what_a_run_appends(running: Path) -> None:
    now = [0.0]
    page = LivePage([running], clock=lambda: now[0])
    (state,) = json.loads(page.read())
    assert (state["done"], state["total"], state["finished"], state["left_s"]) == (2, 24, False, None)
    assert [trace["right"] for trace in state["traces"]] == [True, True]
    whole = (running / "whole.jsonl").read_bytes()
    (running / "samples.jsonl").write_bytes(whole)
    now[0] = 0.5
    assert json.loads(page.read())[0]["done"] == 2  # looked at once a second
    now[0] = 10.0
    (state,) = json.loads(page.read())
    assert (state["done"], state["left_s"]) == (24, 0.0)
    assert state["figures"][0] == ["pass@1 so far, % (95%)", "41.7"]
    # A file that has become shorter is another run's.
    (running / "samples.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:10]))
    now[0] = 20.0
    assert json.loads(page.read())[0]["done"] == 10


def test_a_live_page_follows_a_training(tmp_path: Path) -> None:
    folder = train_run(tmp_path / "t", losses=(2.0, 1.5, 1.0))
    shutil.rmtree(folder / "export")
    shutil.rmtree(folder / "export-q8_0")
    (folder / "adapter" / "started.json").write_text(json.dumps({"settings": {"tune": {"steps": 5}}}))
    (state,) = json.loads(LivePage([folder]).read())
    assert (state["done"], state["total"], state["unit"], state["finished"]) == (3, 5, "steps", False)
    assert state["curve"] == [[1.0, 2.0], [2.0, 1.5], [3.0, 1.0]]


@pytest.fixture
def served(running: Path) -> Iterator[int]:
    """The port of a server that follows the run."""
    with open_server([running]) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        assert server.server_address[0] == "127.0.0.1"
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_the_live_page_is_for_this_machine_alone(served: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{served}/") as answer:
        page = answer.read().decode()
    assert "default-src 'none'; script-src 'sha256-" in page
    assert "connect-src 'self'" in page
    # Another site's name that leads to this machine.
    connection = HTTPConnection("127.0.0.1", served)
    connection.request("GET", "/state.json", headers={"Host": "evil.example"})
    assert connection.getresponse().status == 403
    connection.close()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{served}/../etc/passwd")
    with urllib.request.urlopen(f"http://localhost:{served}/state.json") as answer:
        assert json.loads(answer.read())[0]["done"] == 2


def test_a_port_that_is_taken_and_a_run_that_is_none_are_refused(served: int, running: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the port of a live report must be free"):
        open_server([running], port=served)
    with pytest.raises(UserError, match="a run that is followed must be a folder"):
        open_server([tmp_path / "none"])


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory, evaluate: CommandLine, lean: Extras) -> Path:
    """A replay of a made-up run."""
    folder = tmp_path_factory.mktemp("replay")
    # Each ends at a time of its own: else no rule could be replayed.
    told = [{**one, "seconds": 1 + at / 1000} for at, one in enumerate(answers("9", "9", "7", "9", "9", "7", "9", "9"))]
    run = record(folder / "run", [(problem(f"p{at}"), told) for at in range(6)])
    words = (
        "--n",
        2,
        4,
        "--stop",
        "none",
        "votes2",
        "--budget",
        "none",
        9,
        "--simulations",
        50,
        "--run",
        folder / "out",
    )
    with lean.put_back():
        assert evaluate("replay", run, *words, "--run", folder / "out").code == 0
    return folder / "out"


def test_a_replay_has_a_page_with_the_paired_change_against_time(replayed: Path) -> None:
    page = (replayed / "replay.html").read_text()
    (chart,) = data(page)["charts"]
    told: list[dict[str, Any]] = json.loads((replayed / "replay.json").read_text())["policies"]
    drawn = [next(one["y"][at] for one in chart["series"] if one["y"][at] is not None) for at in range(len(told))]
    assert drawn == [one["change"]["value"] for one in told]
    assert chart["clocks"] == [9.0]
    assert (chart["kind"], len(chart["ids"]), len({*zip(chart["x"], drawn, strict=True)})) == (
        "points",
        len(told),
        len(told),
    )
    assert "highest score: n=" in page
    assert (replayed / "replay.png").read_bytes().startswith(b"\x89PNG")


def test_a_clock_far_off_is_told_and_not_drawn(replayed: Path) -> None:
    from mathlete.replay import Replay

    content = json.loads((replayed / "replay.json").read_text())
    for one in content["policies"]:
        if one["budget_s"]:
            one["budget_s"] = 18_000.0
    chart = build_replay_chart(Replay.from_json(content), [str(at) for at in range(len(content["policies"]))])
    assert list(chart.clocks) == []
    assert "Beyond the axis: the clock of 18,000 s." in chart.note
