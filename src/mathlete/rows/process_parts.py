"""Parts of the format step made on this machine, by this process or by several."""

import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

from mathlete.rows.parts import Part, PartMaker, split_into_parts
from mathlete.traces import TracedProblem

_maker: PartMaker
"""The maker of a worker process."""


def make_parts(
    folder: Path, traced: Iterable[Sequence[TracedProblem]], *, maker: PartMaker, num_proc: int, size: int
) -> Iterator[Part]:
    """Yield the parts in order, made now or by a killed run; at most two per process are in memory."""
    with _start_workers(maker, num_proc) as pool:
        waiting: deque[Part | Future[Part]] = deque()
        for number, batch in enumerate(split_into_parts(traced, size)):
            part = folder / f"{number:05d}"
            if part.exists():
                waiting.append(Part(folder=part))
            elif pool is None:
                waiting.append(maker.make(part, batch))
            else:
                waiting.append(pool.submit(_make_part, part, batch))
            while len(waiting) > 2 * num_proc or (waiting and pool is None):
                yield _finish(waiting.popleft())
        while waiting:
            yield _finish(waiting.popleft())


def _finish(part: Part | Future[Part]) -> Part:
    return part.result() if isinstance(part, Future) else part


@contextmanager
def _start_workers(maker: PartMaker, num_proc: int) -> Iterator[ProcessPoolExecutor | None]:
    """Start the processes that make parts; None stands for this process alone. An error ends them after their parts."""
    if num_proc == 1:
        yield None
        return
    context = get_context("spawn")  # threads of the tokenizer and of Arrow do not survive a fork
    pool = ProcessPoolExecutor(num_proc, mp_context=context, initializer=_set_maker, initargs=(maker,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _set_maker(maker: PartMaker) -> None:
    global _maker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops handing out parts
    Thread(target=_end_with_parent, daemon=True).start()
    _maker = maker


def _end_with_parent() -> None:
    # Workers hold each other's pipes open, so that none of them would notice a killed parent.
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _make_part(folder: Path, batch: Sequence[Sequence[TracedProblem]]) -> Part:
    return _maker.make(folder, batch)
