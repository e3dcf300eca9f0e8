"""How a process that loads in silence is told from one that hangs: real processes that read slowly, wait or spin."""

import sys
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from mathlete.kernel import engine as engines
from mathlete.kernel.engine import EngineError, EngineProcess

QUIET_S, LONGER_S = 0.5, 1.2
"""Seconds that one may be silent, and that each of these loads in silence."""
READY = "print('{\"ready\": true}', flush=True); sys.stdin.read()"
READS = {
    "the pages of a mapped file": "pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)\n"
    "while time.monotonic() < ends:\n"
    "    for _ in range(2**7): at = (at + 2**16) % len(pages); pages[at]\n"
    "    time.sleep(0.05)\n",
    "bytes into the same memory": "place = bytearray(2**20)\n"
    "while time.monotonic() < ends:\n"
    "    file.seek(0); file.readinto(place); time.sleep(0.1)\n",
}
HANGS = {
    "sleeps": "time.sleep(60)",
    "waits for itself": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "spins": "while True: pass",
    "looks around now and then": "while True: os.listdir('.'); time.sleep(0.05)",
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_LOOK_S", 0.05)


def started(folder: Path, code: str) -> "closing[EngineProcess]":
    command = (sys.executable, "-S", "-c", f"import mmap, os, subprocess, sys, threading, time\n{code}", str(folder))
    return closing(EngineProcess(folder, log=folder / "engine.log", command=command, quiet_s=QUIET_S))


@pytest.fixture
def weights(tmp_path: Path) -> Generator[Path, None, None]:
    """A file that takes no room on the disk."""
    with (tmp_path / "weights").open("wb") as file:
        file.truncate(2**30)
    yield tmp_path
    (tmp_path / "weights").unlink()


@pytest.mark.parametrize("by", ["itself", "its child"])
@pytest.mark.parametrize("how", READS)
def test_one_that_reads_slowly_and_says_nothing_comes_up(how: str, by: str, weights: Path) -> None:
    code = f"file = open(sys.argv[1] + '/weights', 'rb', buffering=0); at = 0; ends = time.monotonic() + {LONGER_S}\n"
    code += READS[how]
    if by == "its child":
        again = f"import mmap, sys, time\n{code}"
        code = f"subprocess.run([sys.executable, '-S', '-c', {again!r}, sys.argv[1]])\n"
    with started(weights, code + READY) as process:
        process.start(timeout_s=20.0)
        assert process.alive
    assert (weights / "engine.log").read_bytes() == b""


@pytest.mark.parametrize("how", HANGS)
def test_one_that_hangs_is_ended_long_before_its_time(how: str, tmp_path: Path) -> None:
    began = time.monotonic()
    with started(tmp_path, HANGS[how]) as process:
        with pytest.raises(EngineError, match="no progress: it printed and read nothing for 0 s while it loaded"):
            process.start(timeout_s=50.0)
        assert time.monotonic() - began < 25
        assert not process.alive
