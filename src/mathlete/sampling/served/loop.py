"""An event loop in a thread of its own, for engines that draw with coroutines and are asked from many threads."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from queue import SimpleQueue
from typing import Any, TypeVar

from mathlete.sampling import Sample

Results = SimpleQueue[Sample | Exception]
Draw = Callable[[int, int], Coroutine[Any, Any, Sample]]
"""Draws the sample of an index and a seed."""
T = TypeVar("T")


class LoopThread:
    """Runs coroutines for other threads until it is closed."""

    def __init__(self, *, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._drawing: dict[asyncio.Task[Any] | None, Results] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What the coroutine returns; raises what it raises."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def begin(self, draw: Draw, *, seeds: Mapping[int, int], results: Results) -> Callable[[], object]:
        """Has what `draw` returns for each {index: seed}, or raises, put into `results`; returns what cancels the rest.

        Raises:
            RuntimeError: the loop was closed.
        """
        if self._loop.is_closed():
            raise _closed()
        running = asyncio.run_coroutine_threadsafe(self._draw_all(draw, dict(seeds), results), self._loop)
        return running.cancel

    async def _draw_all(self, draw: Draw, seeds: dict[int, int], results: Results) -> None:
        async def one(index: int, seed: int) -> None:
            try:
                results.put(await draw(index, seed))
            except Exception as error:
                # Carried to the stream, which raises it in its caller's thread.
                results.put(error)

        task = asyncio.current_task()
        self._drawing[task] = results
        try:
            async with asyncio.TaskGroup() as group:
                for index, seed in seeds.items():
                    group.create_task(one(index, seed))
        finally:
            del self._drawing[task]

    def close(self, *, last: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Cancels what is still drawn, whose streams raise, awaits `last` and ends the thread; once closed, nothing."""
        if self._loop.is_closed():
            return
        self.wait(self._end(last))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self, last: Callable[[], Coroutine[Any, Any, None]] | None) -> None:
        for results in self._drawing.values():
            results.put(_closed())
        await _cancelled([task for task in self._drawing if task is not None])
        if last is not None:
            await last()
        await _cancelled([task for task in asyncio.all_tasks() if task is not asyncio.current_task()])


async def _cancelled(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _closed() -> RuntimeError:
    return RuntimeError("the sampling engine stopped: it was closed")
