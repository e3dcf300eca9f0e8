"""Parts of the format step made by a Ray cluster: the same maker, handed out by Ray Data.

The problems of each part are written to a file beside the parts, so that a worker gets a path and writes to a path: all
machines must see the run's folder. Ray replaces a worker that dies, and its part is made again.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from mathlete.errors import UserError
from mathlete.jsonl import read_json_lines
from mathlete.problems import Problem
from mathlete.rows.parts import Part, PartMaker, split_into_parts
from mathlete.runs import write_atomically
from mathlete.sampling.served import join_cluster
from mathlete.traces import Trace, TracedProblem


class _Worker:
    """Makes parts in a process of the cluster."""

    def __init__(self, maker: PartMaker) -> None:
        self._maker = maker

    def __call__(self, task: dict[str, str]) -> dict[str, str]:
        part, problems = Path(task["part"]), Path(task["problems"])
        if not part.exists():
            self._maker.make(part, read_batch(problems))
        problems.unlink(missing_ok=True)
        return {"part": task["part"]}


def make_parts_on_ray(
    folder: Path,
    traced: Iterable[Sequence[TracedProblem]],
    *,
    maker: PartMaker,
    workers: int,
    address: str,
    size: int,
) -> Iterator[Part]:
    """Yield the parts in order, made by `workers` processes of the cluster at `address`; `local` starts one here.

    Raises:
        UserError: ray is missing, or the cluster cannot be reached.
    """
    ray = join_cluster(None if address == "local" else address, flag="--ray")
    try:
        tasks = list(_write_tasks(folder.resolve(), traced, size=size))
        results = _run_tasks(ray, [task for task in tasks if task["problems"]], maker=maker, workers=workers)
        for task in tasks:
            if task["problems"]:
                next(results)
            yield Part(folder=Path(task["part"]))
    finally:
        ray.shutdown()


def _write_tasks(folder: Path, traced: Iterable[Sequence[TracedProblem]], *, size: int) -> Iterator[dict[str, str]]:
    """Write the problems of each part that does not exist yet; yield the paths of part and problems ("" if made)."""
    folder.mkdir(exist_ok=True)
    for number, batch in enumerate(split_into_parts(traced, size)):
        part, problems = folder / f"{number:05d}", folder / f"{number:05d}.given"
        missing = not part.exists()
        if missing:
            write_batch(problems, batch)
        yield {"part": str(part), "problems": str(problems) if missing else ""}


def write_batch(file: Path, batch: Sequence[Sequence[TracedProblem]]) -> None:
    """Write the traced problems of a part, a line for each problem: text, for others may write into the folder."""
    write_atomically(file, "".join(f"{json.dumps([asdict(traced) for traced in traces])}\n" for traces in batch))


def read_batch(file: Path) -> list[list[TracedProblem]]:
    """Read the traced problems of a part.

    Raises:
        UserError: the file is not as `write_batch` writes it.
    """
    try:
        return [[_read_traced(row) for row in cast(list[Any], line)[:]] for _, line in read_json_lines(file)]
    except (KeyError, TypeError) as error:
        raise UserError("a part's problems must be as they were written", value=str(file), cure="delete it") from error


def _read_traced(row: dict[str, Any]) -> TracedProblem:
    return TracedProblem(problem=Problem(**row["problem"]), trace=Trace(**row["trace"]), where=row["where"])


def _run_tasks(ray: Any, tasks: list[dict[str, str]], *, maker: PartMaker, workers: int) -> Iterator[object]:
    if not tasks:
        return
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    parts = ray.data.from_items(tasks, override_num_blocks=len(tasks))
    yield from parts.map(
        _Worker, fn_constructor_args=(maker,), num_cpus=1, compute=ray.data.ActorPoolStrategy(size=workers)
    ).iter_rows()
