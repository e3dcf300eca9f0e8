"""How the format step scales: python bench/corpus.py --rows 10000 30000 100000.

For each size, synthetic traced problems (a statement, a trace of about 2,000 tokens of R1's tokenizer, a boxed answer)
are written as parquet; then `python -m train math --until format` verifies, deduplicates, decontaminates and tokenises
them in a process of its own. `seconds` is the clock's, `cpu_s` what all its processes computed (which other work on
the machine does not lengthen). Of every hundred rows one is wrong, one repeats an earlier problem, one rewords one, one
stands in pocket_val, one is too long. `rows_per_s` and the peak memory of all processes together are of that run;
`stages` are rows a second of each part of the work, on one core. The run of the largest size is killed with signal 9
half-way and goes on: `untouched` tells whether the parts that were finished then were left as they are, and the seconds
are those of both halves. The smallest size is run once more like that: `same_rows` tells whether its rows are those of
the unbroken run, byte for byte.

With --tokenizer DIR the tokenizer is that folder's; without, the pocket model's, whose tokens are characters.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tyro

from mathlete.models import ModelSource, find_model
from mathlete.problems import Problem, read_problems
from mathlete.runs import sha256_tree
from mathlete.shipped import data_folder

WORDS = (  # noqa: SIM905
    "so the we have that then this gives which means is a number of let us check again wait but if it holds for every "
    "term in sequence sum product divides prime even odd remainder modulo case since both sides are equal we can write "
    "therefore now consider next step first second value must be positive integer at most least between and also hence"
).split()
THINGS = ("apples", "lamps", "tiles", "coins", "books", "stones", "cards", "boxes", "chairs", "ropes", "maps", "seeds")


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """Sizes."""

    rows: tuple[int, ...] = (2_000, 4_000, 8_000)
    """Traced problems of each run."""
    words: int = 900
    """Words of a trace; 900 are about 2,000 tokens of R1's tokenizer."""
    num_proc: int = 2
    """Processes of the format step, and of the writing of its source."""
    tokenizer: Path | None = None
    """Folder of a tokenizer; default: the pocket model's."""
    duplicates: str = "near"
    """As `--filters.duplicates`."""
    folder: Path | None = None
    """Where files go; default: a temporary folder, removed at the end."""
    kill: bool = True
    """Kill the largest run half-way."""
    plot: Path | None = None
    """Where the picture of rows and seconds goes."""
    json: bool = False
    """End with one line of JSON."""


def statement(chance: random.Random) -> tuple[str, int]:
    """Return a problem that no other one rewords, and its answer."""
    a, b, c = (chance.randrange(10, 10_000) for _ in range(3))
    things = chance.sample(THINGS, 3)
    words = " ".join(chance.choices(WORDS, k=12))
    return f"There are {a} {things[0]}, {b} {things[1]} and {c} {things[2]}, {words}. How many are there?", a + b + c


def trace(chance: random.Random, words: int) -> str:
    lines = []
    while words > 0:
        some = chance.choices(WORDS, k=min(words, 18))
        words -= len(some)
        x, y = chance.randrange(1000), chance.randrange(1000)
        lines.append(f"{' '.join(some)} ${x} + {y} = {x + y}$.")
    return "\n".join(lines)


CHUNK = 1000
"""Rows that are made together; each chunk has a chance of its own, so that any process may make it."""


def problems(chunk: int, count: int, *, words: int, suite: list[Problem]) -> Iterator[dict[str, str]]:
    """The first rows of a chunk, with the columns of mathlete's own layout."""
    chance = random.Random(chunk)
    before = statement(chance)
    for number in range(chunk * CHUNK, chunk * CHUNK + count):
        kind, (asked, gold) = number % 100, statement(chance)
        if kind == 11:
            asked, gold = before
        elif kind == 12:
            asked, gold = before[0].replace("How many are there", "What is their number in all"), before[1]
        elif kind == 3:
            known = suite[number // 100 % len(suite)]
            asked, gold = known.statement, int(known.gold)
        before = (asked, gold)
        text = trace(chance, words * (20 if kind == 4 else 1))
        found = gold + 1 if kind == 0 else gold
        answer = f"The answer is \\boxed{{{found}}}."
        yield {"id": f"p{number}", "statement": asked, "gold": str(gold), "trace": text, "answer": answer}


def table_of(work: tuple[int, int, int]) -> Any:
    """Return the Arrow table of (chunk, rows, words)."""
    import pyarrow as pa

    chunk, count, words = work
    suite = [one for one in read_problems(data_folder() / "pocket" / "pocket_val.jsonl") if one.gold.isdigit()]
    schema = pa.schema([(name, pa.string()) for name in ("id", "statement", "gold", "trace", "answer")])
    return pa.Table.from_pylist(list(problems(chunk, count, words=words, suite=suite)), schema=schema)


def write_source(file: Path, count: int, *, words: int, num_proc: int) -> None:
    import pyarrow.parquet as pq

    work = [(at // CHUNK, min(CHUNK, count - at), words) for at in range(0, count, CHUNK)]
    with get_context("spawn").Pool(num_proc) as pool:
        tables = pool.imap(table_of, work)
        first = next(tables)
        with pq.ParquetWriter(file, first.schema) as writer:
            for table in chain([first], tables):
                writer.write_table(table)


def command(source: Path, run: Path, settings: BenchSettings) -> list[str]:
    words = ["--until", "format", "--source", str(source), "--run", str(run), "--num-proc", str(settings.num_proc)]
    words += [
        "--limit",
        "100000000",
        "--rows.max-tokens",
        "16384",
        "--filters.duplicates",
        settings.duplicates,
        "--json",
    ]
    model = ["--tokenizer", str(settings.tokenizer)] if settings.tokenizer else ["--model", "pocket"]
    return [sys.executable, "-m", "train", "math", *model, *words]


@dataclass(kw_only=True)
class Use:
    """What a command took."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    """CPU seconds of all its processes."""
    peak_mib: float = 0.0
    """Most memory of all its processes at a time."""
    rss_mib: float = 0.0
    """The same with the pages of mapped files, which the kernel takes back when it needs them."""

    def add(self, other: "Use") -> "Use":
        """Do both, one after the other."""
        return Use(
            seconds=self.seconds + other.seconds,
            cpu_s=self.cpu_s + other.cpu_s,
            peak_mib=max(self.peak_mib, other.peak_mib),
            rss_mib=max(self.rss_mib, other.rss_mib),
        )


def tree(root: int) -> tuple[float, float, float]:
    """Return (MiB, MiB with mapped files, CPU seconds) of a process and all its children, the ended ones' seconds too.

    MiB are proportional: pages they share are counted once.
    """
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
        ticks[int(stat.parent.name)] = sum(map(int, fields[11:15]))
    queue, total, everything, spent = [root], 0.0, 0.0, 0
    while queue:
        process = queue.pop()
        queue += children.get(process, [])
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        spent += ticks.get(process, 0)
        held = dict(line.split(":", 1) for line in lines[1:])
        own, shared, mapped = (int(held[f"Pss_{kind}"].split()[0]) / 1024 for kind in ("Anon", "Shmem", "File"))
        total += own + shared
        everything += own + shared + mapped
    return total, everything, spent / os.sysconf("SC_CLK_TCK")


def watch(words: list[str], *, until: Callable[[], bool] = lambda: False) -> Use:
    """Return what a command took; it is killed as soon as `until` holds."""
    started, use = time.monotonic(), Use()
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while process.poll() is None:
        mib, rss_mib, cpu_s = tree(process.pid)
        use.peak_mib, use.rss_mib, use.cpu_s = max(use.peak_mib, mib), max(use.rss_mib, rss_mib), max(use.cpu_s, cpu_s)
        if until():
            os.killpg(process.pid, signal.SIGKILL)
            break
        time.sleep(0.5)
    errors = process.communicate()[1]
    if process.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(errors)
    use.seconds = time.monotonic() - started
    return use


def list_finished(run: Path) -> dict[str, int]:
    """Return {a finished part: when it was written}"""
    parts = (run / "data" / ".parts").glob("[0-9][0-9][0-9][0-9][0-9]")
    found = {}
    for path in parts:
        try:  # the last file of a part; the folder itself also changes when all parts are removed at the end
            found[path.name] = (path / "part.json").stat().st_mtime_ns
        except FileNotFoundError:
            continue
    return found


def kill_and_resume(count: int, words: list[str], run: Path) -> tuple[Use, dict[str, Any]]:
    """Kill a run when half of its parts are there, and go on; whether the second half left the first alone."""
    half = -(-count // 1000) // 2
    first = watch(words, until=lambda: len(list_finished(run)) >= half)
    before, seen = list_finished(run), dict[str, int]()

    def look() -> bool:
        seen.update({name: at for name, at in list_finished(run).items() if name in before})
        return False

    use = first.add(watch(words, until=look))
    return use, {"parts_before": len(before), "untouched": seen == before}


def size_of(count: int, settings: BenchSettings, folder: Path, *, kill: bool = False) -> dict[str, Any]:
    source, run = folder / f"{count}.parquet", folder / f"run-{count}"
    if not source.is_file():
        write_source(source, count, words=settings.words, num_proc=settings.num_proc)
    shutil.rmtree(run, ignore_errors=True)
    words = command(source, run, settings)
    use, resumed = kill_and_resume(count, words, run) if kill else (watch(words), None)
    figures = json.loads((run / "data" / "manifest.json").read_text())["figures"]
    found = {
        "rows": count,
        "seconds": round(use.seconds, 1),
        "cpu_s": round(use.cpu_s, 1),
        "rows_per_s": round(count / use.seconds, 1),
        "peak_mib": round(use.peak_mib),
        "rss_mib": round(use.rss_mib),
        "kept": figures["kept"],
        "tokens_a_row": round(figures["tokens"] / figures["rows"]),
        "drops": figures["drops"],
        "parity": figures["parity"],
        "killed": resumed,
    }
    print(found, flush=True)
    return found


def same_rows(count: int, settings: BenchSettings, folder: Path) -> bool:
    """Return whether a run of so many rows that is killed and goes on gives the rows of the unbroken one."""
    run = folder / f"killed-{count}"
    shutil.rmtree(run, ignore_errors=True)
    kill_and_resume(count, command(folder / f"{count}.parquet", run, settings), run)
    whole = folder / f"run-{count}"
    return all(sha256_tree(run / "data" / name) == sha256_tree(whole / "data" / name) for name in ("train", "heldout"))


def stages(settings: BenchSettings, count: int = 1000) -> dict[str, float]:
    """Rows a second of each part of the work, on one core."""
    from mathlete.corpus import open_source
    from mathlete.models import load_prompt_format
    from mathlete.overlap import SuiteIndex, find_first_duplicates
    from mathlete.rows.encoding import make_encoder
    from mathlete.rows.filters import check_answer

    with TemporaryDirectory() as folder:
        file = Path(folder) / "some.parquet"
        write_source(file, count, words=settings.words, num_proc=settings.num_proc)
        traced = [one for traces in open_source(str(file)) for one in traces]
    suite = read_problems(data_folder() / "pocket" / "pocket_val.jsonl")
    folder_of = settings.tokenizer
    source = ModelSource(name="given", location=str(folder_of)) if folder_of else find_model("pocket")
    prompts, index = load_prompt_format(source), SuiteIndex(suite)
    encode = make_encoder(prompts.tokenizer)
    found = {}
    for name, work in (
        ("verify", lambda: [check_answer(one.trace, one.problem) for one in traced]),
        ("deduplicate", lambda: find_first_duplicates([one.problem for one in traced])),
        ("decontaminate", lambda: list(index.pairs(one.problem for one in traced))),
        ("tokenise", lambda: [encode(prompts.completion(trace=t.trace.text, answer=t.trace.answer)) for t in traced]),
    ):
        started = time.process_time()
        work()
        found[name] = round(count / (time.process_time() - started), 1)
    return found


def draw(found: list[dict[str, Any]], file: Path) -> None:
    """Rows against seconds, and the straight line through the smallest run."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    rows, seconds = [one["rows"] for one in found], [one["seconds"] for one in found]
    figure, axes = plt.subplots(figsize=(6, 4))
    axes.plot(rows, seconds, "o-", label="measured")
    axes.plot(rows, [one["cpu_s"] for one in found], "s:", label="CPU seconds, all processes")
    axes.plot(rows, [seconds[0] * count / rows[0] for count in rows], "--", label="linear from the first")
    axes.set(xlabel="rows", ylabel="seconds", xscale="log", yscale="log", title="Format step, all stages")
    axes.legend()
    figure.savefig(file, dpi=120, bbox_inches="tight")


def main(settings: BenchSettings) -> dict[str, object]:
    with TemporaryDirectory() as temporary:
        folder = settings.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        alone = stages(settings)
        print(f"rows a second on one core: {alone}", flush=True)
        sizes = sorted(settings.rows)
        found = [size_of(count, settings, folder, kill=settings.kill and count == sizes[-1]) for count in sizes]
        same = same_rows(sizes[0], settings, folder) if settings.kill and len(sizes) > 1 else None
    if settings.plot:
        draw(found, settings.plot)
    return {"stages": alone, "runs": found, "same_rows": same}


if __name__ == "__main__":
    chosen = tyro.cli(BenchSettings, description=__doc__)
    line = main(chosen)
    if chosen.json:
        print(json.dumps(line))
