"""How the format step scales: python bench/corpus.py --rows 10000 30000 100000.

For each size, synthetic traced problems (a statement, a trace of about 2,000 tokens of R1's tokenizer, a boxed answer)
are written as parquet; then `python -m train math --until format` verifies, deduplicates, decontaminates and tokenises
them in a process of its own. `seconds` is the clock's, `cpu_s` what all its processes computed (which other work on
the machine does not lengthen). Of every hundred rows one is wrong, one repeats an earlier problem, one rewords one, one
stands in pocket_val, one is too long. `rows_per_s` and the peak memory of all processes together are of that run;
`stages` are rows a second of each part of the work, on one core. The largest size but one is then run again, killed
with signal 9 half-way and resumed: finished parts must be left as they are and the rows be the same.

With --tokenizer DIR the tokenizer is that folder's; without, the pocket model's, whose tokens are characters.
"""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tyro

from mathlete.models import ModelSource, data_folder, model_source
from mathlete.problems import Problem, read_problems
from mathlete.runs import sha256_tree

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
    """Processes of the format step."""
    tokenizer: Path | None = None
    """Folder of a tokenizer; default: the pocket model's."""
    duplicates: str = "near"
    """As `--filters.duplicates`."""
    folder: Path | None = None
    """Where files go; default: a temporary folder, removed at the end."""
    resume: bool = True
    """Also kill and resume."""
    plot: Path | None = None
    """Where the picture of rows and seconds goes."""
    json: bool = False
    """End with one line of JSON."""


def statement(chance: random.Random) -> tuple[str, int]:
    """A problem that no other one rewords, and its answer."""
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


def problems(count: int, *, words: int, suite: list[Problem]) -> Iterator[dict[str, str]]:
    """Rows with the columns of mathlete's own layout."""
    chance, before = random.Random(0), statement(random.Random(1))
    for number in range(count):
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


def write_source(file: Path, count: int, *, words: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    suite = [one for one in read_problems(data_folder() / "pocket" / "pocket_val.jsonl") if one.gold.isdigit()]
    names = ("id", "statement", "gold", "trace", "answer")
    schema = pa.schema([(name, pa.string()) for name in names])
    with pq.ParquetWriter(file, schema) as writer:
        some: list[dict[str, str]] = []
        for row in problems(count, words=words, suite=suite):
            some.append(row)
            if len(some) == 1000:
                writer.write_table(pa.Table.from_pylist(some, schema=schema))
                some = []
        if some:
            writer.write_table(pa.Table.from_pylist(some, schema=schema))


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


def memory_mib(root: int) -> float:
    """Proportional set size of a process and all its children, MiB: pages they share are counted once."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    queue, total = [root], 0.0
    while queue:
        process = queue.pop()
        queue += children.get(process, [])
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        # Memory-mapped rows are page cache, which the kernel takes back when it needs it.
        total += sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:"))) / 1024
    return total


def watched(words: list[str], *, until: Callable[[], bool] = lambda: False) -> tuple[float, float, dict[str, Any]]:
    """(seconds, peak MiB, the last line's JSON) of a command; it is killed as soon as `until` holds."""
    started, peak = time.monotonic(), 0.0
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    while process.poll() is None:
        peak = max(peak, memory_mib(process.pid))
        if until():
            os.killpg(process.pid, signal.SIGKILL)
            break
        time.sleep(0.5)
    out = process.communicate()[0]
    seconds = time.monotonic() - started
    return seconds, peak, json.loads(out.splitlines()[-1]) if process.returncode == 0 else {}


def children_cpu() -> float:
    """CPU seconds of the ended child processes, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def size_of(count: int, settings: BenchSettings, folder: Path) -> dict[str, Any]:
    source, run = folder / f"{count}.parquet", folder / f"run-{count}"
    if not source.is_file():
        write_source(source, count, words=settings.words)
    shutil.rmtree(run, ignore_errors=True)
    before = children_cpu()
    seconds, peak, _ = watched(command(source, run, settings))
    cpu = children_cpu() - before
    manifest = json.loads((run / "data" / "manifest.json").read_text())
    figures = manifest["figures"]
    found = {
        "rows": count,
        "seconds": round(seconds, 1),
        "cpu_s": round(cpu, 1),
        "rows_per_s": round(count / seconds, 1),
        "peak_mib": round(peak),
        "kept": figures["kept"],
        "tokens_a_row": round(figures["tokens"] / figures["rows"]),
        "drops": figures["drops"],
        "parity": figures["parity"],
    }
    print(found, flush=True)
    return found


def resumed(count: int, settings: BenchSettings, folder: Path) -> dict[str, Any]:
    """Kills a run when half of its parts are there; whether those were left alone and the rows are the same."""
    source, whole, run = folder / f"{count}.parquet", folder / f"run-{count}", folder / f"killed-{count}"
    shutil.rmtree(run, ignore_errors=True)
    parts, half = run / "data" / ".parts", -(-count // 1000) // 2

    def finished() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in parts.glob("[0-9][0-9][0-9][0-9][0-9]")}

    watched(command(source, run, settings), until=lambda: len(finished()) >= half)
    before = finished()
    kept: dict[str, int] = {}

    def look() -> bool:
        kept.update({name: at for name, at in finished().items() if name in before})
        return False

    seconds, _, _ = watched(command(source, run, settings), until=look)
    same = all(sha256_tree(run / "data" / name) == sha256_tree(whole / "data" / name) for name in ("train", "heldout"))
    untouched = all(kept.get(name) == at for name, at in before.items())
    found = {"rows": count, "parts_before": len(before), "untouched": untouched, "same_rows": same, "seconds": seconds}
    print(found, flush=True)
    return found


def stages(settings: BenchSettings, count: int = 1000) -> dict[str, float]:
    """Rows a second of each part of the work, on one core."""
    from mathlete.corpus.duplicates import first_of_each
    from mathlete.corpus.filters import checked
    from mathlete.corpus.overlap import SuiteIndex
    from mathlete.corpus.stream import opened, parse_spec
    from mathlete.models import prompt_format

    with TemporaryDirectory() as folder:
        file = Path(folder) / "some.parquet"
        write_source(file, count, words=settings.words)
        traced = [one for some in opened(parse_spec(str(file)), mirror=None) for one in some]
    suite = read_problems(data_folder() / "pocket" / "pocket_val.jsonl")
    folder_of = settings.tokenizer
    source = ModelSource(name="given", location=str(folder_of)) if folder_of else model_source("pocket")
    prompts, index = prompt_format(source), SuiteIndex(suite)
    found = {}
    for name, work in (
        ("verify", lambda: [checked(one.trace, one.problem) for one in traced]),
        ("deduplicate", lambda: first_of_each([one.problem for one in traced])),
        ("decontaminate", lambda: list(index.pairs(one.problem for one in traced))),
        ("tokenise", lambda: [prompts.completion_ids(trace=t.trace.text, answer=t.trace.answer) for t in traced]),
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
        found = [size_of(count, settings, folder) for count in sorted(settings.rows)]
        again = resumed(sorted(settings.rows)[-2:][0], settings, folder) if settings.resume else None
    if settings.plot:
        draw(found, settings.plot)
    return {"stages": alone, "runs": found, "resume": again}


if __name__ == "__main__":
    chosen = tyro.cli(BenchSettings, description=__doc__)
    line = main(chosen)
    if chosen.json:
        print(json.dumps(line))
