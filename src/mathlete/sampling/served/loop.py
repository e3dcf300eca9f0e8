"""An event loop in a thread of its own, for engines that draw with coroutines and are called from many threads."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from queue import SimpleQueue
from typing import TypeVar

from mathlete.errors import UserError
from mathlete.sampling import Sample
from mathlete.sampling.continuing import Cancel

Results = SimpleQueue[Sample | Exception]
Draw = Callable[[int, int], Coroutine[None, None, Sample]]
"""Draws the sample of an index and a seed."""
Last = Callable[[], Coroutine[None, None, None]]
T = TypeVar("T")


class LoopThread:
    """Runs coroutines for other threads until it is closed."""

    def __init__(self, *, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._calls: dict[asyncio.Task[None], Results] = {}
        """The results' queue of each call of `begin` that is still drawing."""
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[None, None, T]) -> T:
        """Run a coroutine and return its result; raise what it raises."""
        running = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return running.result()
        finally:
            running.cancel()  # where a stop ended the waiting: it goes no further than it must

    def begin(
        self,
        draw: Draw,
        *,
        seeds: Mapping[int, int],
        results: Results,
        unfinished: Callable[[], list[Sample]] = list,
    ) -> Cancel:
        """Start a task per seed; each result or exception goes to `results`. Return a cancel function.

        `unfinished` tells what those have said that are still being drawn.

        Raises:
            RuntimeError: the loop was closed.
        """
        if self._loop.is_closed():
            raise explain_closed()
        running = asyncio.run_coroutine_threadsafe(self._draw_all(draw, dict(seeds), results), self._loop)

        def cancel() -> list[Sample]:
            said = unfinished()
            running.cancel()
            return said

        return cancel

    async def _draw_all(self, draw: Draw, seeds: dict[int, int], results: Results) -> None:
        async def draw_one(index: int, seed: int) -> None:
            try:
                results.put(await draw(index, seed))
            except Exception as error:
                # Passed to the stream, which raises it in its caller's thread.
                results.put(error)
            except asyncio.CancelledError:
                one = asyncio.current_task()
                if one is None or not one.cancelling():
                    results.put(_silent_error())  # a library's own doing: nobody else would tell the stream
                raise

        task = asyncio.current_task()
        assert task is not None
        self._calls[task] = results
        try:
            async with asyncio.TaskGroup() as group:
                for index, seed in seeds.items():
                    group.create_task(draw_one(index, seed))
        finally:
            del self._calls[task]

    def close(self, *, last: Last | None = None) -> None:
        """Cancel what is still being drawn, await `last` and end the thread. Streams still waiting raise.

        Closing a second time does nothing.
        """
        if self._loop.is_closed():
            return
        self.run(self._end(last))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self, last: Last | None) -> None:
        for results in self._calls.values():
            results.put(explain_closed())
        await _cancel([*self._calls])
        if last is not None:
            await last()
        # The engine's own tasks are left, such as a client's keep-alive: pending ones would warn when the loop goes.
        await _cancel([task for task in asyncio.all_tasks() if task is not asyncio.current_task()])
        # So would streams that were left in the middle.
        await asyncio.get_running_loop().shutdown_asyncgens()


async def _cancel(tasks: "list[asyncio.Task[None]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _silent_error() -> UserError:
    rule, cure = "an engine must answer, or say why not", "look into its log; the run goes on where it stopped"
    return UserError(rule, value="a request that its library cancelled", cure=cure)


def explain_closed() -> RuntimeError:
    """Return the error of an engine that is asked after it was closed."""
    return RuntimeError("the sampling engine stopped: it was closed")
