"""What an evaluation costs beside the sampling, at 5,000 problems x 64 samples of 1 kB: python bench/evaluation.py.

Three parts, each in a process of its own: the samples' votes and grades with results.json, as `eval` makes them at its
end; `eval report`; `eval replay`. Of each the seconds, the CPU seconds and the peak of memory, and their sum.

The run is the import of a made-up log. What that takes is told too and no part of the sum: it reads another tool's file
and takes the answers out of its texts, which `eval` does as the samples come, and it votes, grades and reports itself.
"""

import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

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
    answers: Literal["short", "hard"] = "short"
    """short: numbers in eight spellings, ten a problem; hard: roots, formulas, intervals, matrices and lists, nineteen
    a problem, each compared with the gold as such."""
    json: bool = False
    """End with one line of JSON."""


@dataclass(frozen=True)
class Cost:
    """What one command, or one part, took."""

    seconds: float
    cpu_seconds: float
    peak_gib: float


_SHORT = ("{a}", r"\frac{{{a}}}{{7}}", "{a}.5", r"\sqrt{{{a}}}", "x = {a}", "({a}, 1)", r"{a}\pi", "{a} apples")
_HARD = (
    *(r"\frac{{{a}\sqrt{{{b}}}+{c}}}{{{d}}}", r"x^2+{a}x-{b}", r"(-\infty, {a}]\cup[{c}, \infty)"),
    *(r"\begin{{pmatrix}}{a}&{b}\\{c}&{d}\end{{pmatrix}}", r"{a}+{b}i", r"\text{{{a} and {b}}}", r"2^{{{a}}}-{b}"),
    "{a},{b},{c}",
)


def write_log(settings: BenchSettings) -> Iterator[str]:
    """Yield the lines of a log: easy and hard problems, answers of eight shapes, some texts without any."""
    source = random.Random(0)
    shapes, others = (_HARD, 30) if settings.answers == "hard" else (_SHORT, 9)
    for number in range(settings.problems):
        shape, ease = source.choice(shapes), source.random()
        rest = {"b": 2 + number % 97, "c": 6000 + number, "d": 3 + number % 89}
        for index in range(settings.samples):
            value = number if source.random() < ease else number + source.randint(1, others)
            end = rf"</think>\boxed{{{shape.format(a=value, **rest)}}}" if source.random() < 0.95 else " and so on"
            line = {
                "problem_id": f"p{number}",
                "statement": f"Made-up problem {number}.",
                "gold": shape.format(a=number, **rest),
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
    pid, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return pid, process.returncode, used.ru_maxrss


def score(folder: Path) -> Cost:
    """Vote, grade and write the results of a run's samples, as `eval` does once they are there; return what it took.

    The peak of memory is that of the process, with the samples.

    Raises:
        UserError: the folder is not that of a finished run.
    """
    from mathlete.sampling import Sample
    from mathlete.scoring import Results, grade
    from mathlete.scoring.pool import read_recording
    from mathlete.solve import Solution

    problems, samples = read_recording(folder)
    facts = Results.read(folder).facts
    assert facts is not None  # the import has written them
    of_problem: dict[str, list[Sample]] = {}
    for sample in samples:
        of_problem.setdefault(sample.problem_id, []).append(sample)
    before, started = os.times(), time.perf_counter()

    def solve() -> Iterator[Solution]:
        for problem in problems:
            drawn = of_problem[problem.id]
            votes = facts.settings.policy.count_votes(drawn, settings=problem.answers)
            answer = votes[0].answer if votes else None
            yield Solution(problem_id=problem.id, answer=answer, votes=votes, samples=drawn, seconds=1.0)

    with TemporaryDirectory() as name:
        Results.of(grade(problems, solve()), facts).write(Path(name), began=0.0)
    after, seconds = os.times(), time.perf_counter() - started
    cpu = after.user + after.system - before.user - before.system
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Cost(round(seconds, 1), round(cpu, 1), round(peak / 2**20, 2))


def main(settings: BenchSettings) -> dict[str, object]:
    with TemporaryDirectory() as name, ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        folder = Path(name)
        log, recorded = folder / "log.jsonl", str(folder / "run")
        with log.open("w") as out:
            out.writelines(write_log(settings))
        fields = ("problem_id", "statement", "gold", "text", "tokens", "seconds", "index")
        columns = [f"{field}={field}" for field in fields]
        imported = run("import", str(log), "--run", recorded, "--columns", *columns)
        parts = {
            "grades and results": alone.submit(score, Path(recorded)).result(),
            "report": run("report", recorded, "--out", str(folder / "report.html")),
            "replay": run("replay", recorded, "--out", str(folder / "replay")),
        }
    whole = Cost(
        round(sum(cost.seconds for cost in parts.values()), 1),
        round(sum(cost.cpu_seconds for cost in parts.values()), 1),
        max(cost.peak_gib for cost in parts.values()),
    )
    costs = {"import": imported, **parts, "sum": whole}
    for title, cost in costs.items():
        also = " (no part of the sum)" if title == "import" else ""
        print(f"{title}: {cost.seconds} s, {cost.cpu_seconds} CPU s, {cost.peak_gib} GiB{also}")
    return {title: asdict(cost) for title, cost in costs.items()}


if __name__ == "__main__":
    chosen = tyro.cli(BenchSettings, description=__doc__)
    line = main(chosen)
    if chosen.json:
        print(json.dumps(line))
