"""The format step on a real Ray cluster of two workers; skipped where ray is not installed (`mathlete[ray]`)."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from mathlete.corpus import open_source
from mathlete.corpus.suites import load_suite
from mathlete.errors import UserError
from mathlete.models import find_model, load_prompt_format
from mathlete.rows.figures import RowFigures
from mathlete.rows.format import format_rows
from mathlete.rows.parts import PartMaker
from mathlete.rows.ray_parts import make_parts_on_ray
from mathlete.rows.settings import Filters, Rows
from mathlete.runs import sha256_tree
from mathlete.traces import TracedProblem

on_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs ray: pip install 'mathlete[ray]'")
# What Ray itself leaves behind.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def maker() -> PartMaker:
    prompts = load_prompt_format(find_model("pocket"))
    suites = [load_suite("pocket_val")]
    return PartMaker(prompts=prompts, rows=Rows(), filters=Filters(), suites=suites, keep_dropped=True)


def built(folder: Path, maker: PartMaker, *, ray: str | None, count: int = 120) -> RowFigures:
    folder.mkdir()
    return format_rows(
        folder,
        traced=open_source("pocket", limit=count),
        total=None,
        maker=maker,
        seed=0,
        advance=lambda *_: None,
        num_proc=2 if ray else 1,
        ray=ray,
        size=20,
    )


@pytest.mark.slow
@on_ray
def test_a_cluster_makes_the_very_rows_of_one_process(tmp_path: Path, maker: PartMaker) -> None:
    assert built(tmp_path / "ray", maker, ray="local") == built(tmp_path / "here", maker, ray=None)
    assert sha256_tree(tmp_path / "ray") == sha256_tree(tmp_path / "here")


def workers() -> list[int]:
    """Processes of this machine that are Ray's parts writers."""
    processes = []
    for stat in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if "MapWorker" in stat.read_bytes().decode(errors="replace"):
                processes.append(int(stat.parent.name))
        except OSError:
            continue
    return processes


@pytest.mark.slow
@on_ray
def test_a_killed_worker_loses_nothing(tmp_path: Path, maker: PartMaker) -> None:
    def kill() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and not (processes := workers()):
            time.sleep(0.05)
        if processes:
            os.kill(processes[0], signal.SIGKILL)
            killed.append(processes[0])

    killed: list[int] = []
    killer = threading.Thread(target=kill)
    killer.start()
    rows = built(tmp_path / "ray", maker, ray="local", count=400)
    killer.join()
    assert killed
    assert rows == built(tmp_path / "here", maker, ray=None, count=400)
    assert sha256_tree(tmp_path / "ray") == sha256_tree(tmp_path / "here")


@pytest.mark.skipif(find_spec("ray") is not None, reason="ray is installed")
def test_without_the_package_the_error_names_the_extra(tmp_path: Path, maker: PartMaker) -> None:
    nothing: Iterator[list[TracedProblem]] = iter(())
    with pytest.raises(UserError, match="needs the ray package"):
        list(make_parts_on_ray(tmp_path, nothing, maker=maker, workers=2, address="local", size=20))
