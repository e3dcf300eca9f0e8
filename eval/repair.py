"""What a killed run leaves at the end of samples.jsonl: half a line, which `--repair` cuts off."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mathlete.jsonl import JsonLines
from mathlete.locks import hold


def repair_samples(folders: Sequence[Path], *, say: Callable[[str], None]) -> None:
    """Cut half-written last lines off the runs' samples, and say so.

    Raises:
        UserError: a run is being written.
    """
    for folder in folders:
        if not (folder / "samples.jsonl").is_file():
            continue
        with hold(folder):  # else it would cut the line that a running evaluation is at
            dropped = JsonLines(folder / "samples.jsonl").cut_half_line()
        if dropped:
            say(f"{folder}: dropped a half-written last line of samples.jsonl ({dropped} bytes)")
