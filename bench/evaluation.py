"""What an evaluation costs beside the sampling, at 5,000 problems x 64 samples of 1 kB: python bench/evaluation.py.

A made-up log is imported as a run (read, vote, grade, results), its report is written, and its samples are replayed
under another policy, each in a process of its own: seconds, CPU seconds and the peak of memory of each.
"""

import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import tyro


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """Sizes."""

    problems: int = 5000
    """Problems in the log."""
    samples: int = 64
    """Samples of each."""
    characters: int = 1000
    """Length of each sample's text."""
    json: bool = False
    """End with one line of JSON."""


@dataclass(frozen=True)
class Cost:
    """What one command took."""

    seconds: float
    cpu_seconds: float
    peak_gib: float


def write_log(settings: BenchSettings) -> Iterator[str]:
    """Yield the lines of a log: easy and hard problems, answers of some twenty shapes, some texts without any."""
    source = random.Random(0)
    shapes = ("{}", r"\frac{{{}}}{{7}}", "{}.5", r"\sqrt{{{}}}", "x = {}", "({}, 1)", r"{}\pi", "{} apples")
    for number in range(settings.problems):
        shape, ease = source.choice(shapes), source.random()
        for index in range(settings.samples):
            value = number if source.random() < ease else number + source.randint(1, 9)
            end = rf"</think>\boxed{{{shape.format(value)}}}" if source.random() < 0.95 else " and so on"
            line = {
                "problem_id": f"p{number}",
                "statement": f"Made-up problem {number}.",
                "gold": shape.format(number),
                "text": ("So we try the next case. " * (settings.characters // 25))[: -len(end)] + end,
                "tokens": settings.characters // 4,
                "seconds": round(source.lognormvariate(3, 0.5), 2),
                "index": index,
            }
            yield json.dumps(line) + "\n"


def run(*words: str) -> Cost:
    """Run a command of `python -m eval`; return what it took.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.Popen([sys.executable, "-m", "eval", *words], stdout=subprocess.DEVNULL)
    _, status, used = _wait(done)
    if status:
        raise subprocess.CalledProcessError(status, words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(round(time.perf_counter() - started, 1), round(cpu, 1), round(used / 2**20, 2))


def _wait(process: "subprocess.Popen[bytes]") -> tuple[int, int, int]:
    """Wait for a process; return (its id, exit status, peak of its resident memory in KiB)."""
    import os

    pid, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return pid, process.returncode, used.ru_maxrss


def main(settings: BenchSettings) -> dict[str, object]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        log, recorded = folder / "log.jsonl", str(folder / "run")
        with log.open("w") as out:
            out.writelines(write_log(settings))
        fields = ("problem_id", "statement", "gold", "text", "tokens", "seconds", "index")
        columns = [f"{field}={field}" for field in fields]
        costs = {
            "import": run("import", str(log), "--run", recorded, "--columns", *columns),
            "report": run("report", recorded, "--out", str(folder / "report.html")),
            "replay": run("replay", recorded, "--out", str(folder / "replay.json")),
        }
    for title, cost in costs.items():
        print(f"{title}: {cost.seconds} s, {cost.cpu_seconds} CPU s, {cost.peak_gib} GiB")
    return {title: asdict(cost) for title, cost in costs.items()}


if __name__ == "__main__":
    chosen = tyro.cli(BenchSettings, description=__doc__)
    line = main(chosen)
    if chosen.json:
        print(json.dumps(line))
