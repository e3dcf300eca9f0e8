"""What a killed run leaves at the end of samples.jsonl: half a line, which `--repair` cuts off."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mathlete.jsonl import JsonLines


def repair_samples(folders: Sequence[Path], *, say: Callable[[str], None]) -> None:
    """Cut half-written last lines off the runs' samples, and say so."""
    for folder in folders:
        if dropped := JsonLines(folder / "samples.jsonl").cut_half_line():
            say(f"{folder}: dropped a half-written last line of samples.jsonl ({dropped} bytes)")
