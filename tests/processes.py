"""Processes that tests start and end: whether one still runs."""

import time
from pathlib import Path


def alive(process: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_end(*processes: int) -> None:
    """Wait until none of them runs, for at most 20 seconds."""
    ends = time.monotonic() + 20
    while any(alive(process) for process in processes):
        assert time.monotonic() < ends
        time.sleep(0.05)
