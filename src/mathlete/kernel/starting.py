"""One start of an engine in the background: it loads while nobody asks, and questions wait as long as they may."""

import threading
from typing import Protocol


class Startable(Protocol):
    """What has to be started."""

    def start(self, *, timeout_s: float) -> None:
        """Return once it is up, at once where it is so already; raise where it is not within the time."""
        ...


class BackgroundStart:
    """A start in a thread of its own. A question that cannot wait for its end leaves it alone."""

    def __init__(self, engine: Startable, *, timeout_s: float) -> None:
        """Begin.

        Args:
            engine: what is started.
            timeout_s: how long the start itself may take.
        """
        self._error: BaseException | None = None
        self._done = threading.Event()
        threading.Thread(target=self._run, args=(engine, timeout_s), name="mathlete-start", daemon=True).start()

    @property
    def ended(self) -> bool:
        """Whether it came to an end, good or bad."""
        return self._done.is_set()

    def wait(self, *, timeout_s: float) -> None:
        """Return once the engine is up.

        Raises:
            BaseException: what the start raised.
            TimeoutError: it goes on.
        """
        if not self._done.wait(timeout_s):
            raise TimeoutError(f"the model was not loaded within {timeout_s:.0f} s; it is loaded further")
        if self._error is not None:
            raise self._error

    def _run(self, engine: Startable, timeout_s: float) -> None:
        try:
            engine.start(timeout_s=timeout_s)
        except BaseException as error:
            # A thread's border: even SystemExit must reach the question that waits, which says it in the journal.
            self._error = error
        finally:
            self._done.set()
