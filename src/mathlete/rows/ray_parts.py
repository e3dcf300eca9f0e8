"""Parts of the format step made by a Ray cluster: the same function, handed out by Ray Data.

The problems of each part go into a file beside the parts, so that a worker is told a path and writes to a path: all
machines must see the run's folder. A worker that dies is replaced by Ray, and its part is made again.
"""

import pickle
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from mathlete.rows.parts import Maker, Part
from mathlete.sampling.served.ray_engine import joined
from mathlete.traces import TracedProblem


class _Writer:
    """Runs in a process of the cluster."""

    def __init__(self, maker: Maker) -> None:
        self._maker = maker

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        part, given = Path(row["part"]), Path(row["given"])
        if not part.exists():
            self._maker.write(part, pickle.loads(given.read_bytes()))
        given.unlink(missing_ok=True)
        return {"part": row["part"]}


def parts_on_ray(
    folder: Path,
    traced: Iterable[Sequence[TracedProblem]],
    *,
    maker: Maker,
    workers: int,
    address: str,
    size: int,
) -> Iterator[Part]:
    """Yields the parts in order, made by so many workers of the cluster at `address`; `local` starts one here.

    Raises:
        UserError: ray is missing, or the cluster cannot be reached.
    """
    ray = joined(None if address == "local" else address, flag="--ray")
    try:
        rows = list(_given(folder.resolve(), traced, size=size))
        made = _made(ray, [row for row in rows if row["given"]], maker=maker, workers=workers)
        for row in rows:
            if row["given"]:
                next(made)
            yield Part(folder=Path(row["part"]))
    finally:
        ray.shutdown()


def _given(folder: Path, traced: Iterable[Sequence[TracedProblem]], *, size: int) -> Iterator[dict[str, str]]:
    """Writes the problems of each part that is not there yet into a file."""
    folder.mkdir(exist_ok=True)
    stream, number = iter(traced), 0
    while some := list(islice(stream, size)):
        part, given = folder / f"{number:05d}", folder / f"{number:05d}.given"
        missing = not part.exists()
        if missing:
            given.write_bytes(pickle.dumps(some))
        yield {"part": str(part), "given": str(given) if missing else ""}
        number += 1


def _made(ray: Any, rows: list[dict[str, str]], *, maker: Maker, workers: int) -> Iterator[object]:
    if not rows:
        return
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    parts = ray.data.from_items(rows, override_num_blocks=len(rows))
    yield from parts.map(
        _Writer, fn_constructor_args=(maker,), num_cpus=1, compute=ray.data.ActorPoolStrategy(size=workers)
    ).iter_rows()
