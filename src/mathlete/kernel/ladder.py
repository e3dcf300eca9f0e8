"""The ladder of engines: what the notebook was built for, the same with safer settings, then the embedded engine.

An engine that does not come up, that dies twice, or of which nothing comes is left for the next; each step is on the
clock, and the journal has a line for it with its cause. Some steps are taken only where the cause is one that they
mend. The last step is tried again and again: there is nothing else. Where the embedded engine cannot load the model,
that is vLLM, as it was built and as it was left by turns, each restart with its line, and with a pause after one that
failed.
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence

from mathlete.kernel.engine import EngineError, EngineProcess
from mathlete.kernel.steps import EngineStep
from mathlete.problems import Problem
from mathlete.sampling import Sample, SamplingConfig
from mathlete.sampling.served import VllmSettings

_SHARE = 0.6
"""Share of the time left for loading that a step may take while others come after it."""
_LEAST_S = 5.0
"""Seconds below which no step is begun that others come after: the last one has all of them."""
_BARREN = 2
"""Requests in a row without a word after which a step is left: its processes live, and nothing comes of them."""


_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 60.0
"""Seconds from a failed boot of a step that repeats to the next, each time twice as long: what is short of memory or
of a port may pass."""


class Ladder:
    """A sampler over the first step that works. `start` goes down where one does not."""

    name = "ladder"

    def __init__(
        self,
        steps: Sequence[EngineStep],
        make: Callable[[EngineStep], EngineProcess],
        *,
        on_step: Callable[[Mapping[str, object]], None] = lambda fact: None,
    ) -> None:
        """Take the steps.

        Args:
            steps: first choice first; the last is taken after any other.
            make: makes a step's engine, not started yet.
            on_step: called with {"step", "cause", "seconds", "next"} of each that is left, or restarted: then the next
                is the same.
        """
        self._step, *self._rest = steps
        self._make, self._on_step, self._process = make, on_step, make(self._step)
        self._ready, self._restarted, self._silent = False, False, False
        self._failed = 0
        """Boots in a row that failed of the step that repeats."""

    @property
    def step(self) -> str:
        """The name of the step that it is on."""
        return self._step.name

    @property
    def goes_on(self) -> bool:
        """Whether another step is left where this one fails, or the same that may do better in another process."""
        return bool(self._rest)

    @property
    def opens_thoughts(self) -> bool:
        """Whether the prompts of the engine that is up end inside the model's thoughts."""
        return self._process.opens_thoughts

    def start(self, *, timeout_s: float) -> None:
        """Return once an engine is loaded.

        Raises:
            EngineError: no step came up within the time.
        """
        if self._ready and self._process.alive and not self._is_barren():
            return
        began = time.monotonic()
        if self._ready:
            self._restart_or_leave()
        self._ready, tried = False, list[VllmSettings]()
        while True:
            left_s = timeout_s - (time.monotonic() - began)
            stepped = time.monotonic()
            try:
                self._start_step(left_s)
            except EngineError as error:
                if not self.goes_on:
                    raise
                again = self._step.repeats
                self._failed += again
                tried += [self._step.vllm] if again else []
                self._leave(str(error), seconds=time.monotonic() - stepped)
                hurried = timeout_s - (time.monotonic() - began) < _LEAST_S
                if again and self._step.repeats and (hurried or self._step.vllm in tried):
                    # The next question goes on from here.
                    raise
            else:
                self._ready, self._failed = True, 0
                return

    def stream(
        self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig
    ) -> Generator[Sample, None, None]:
        """Yield finished samples of the engine that is up.

        Raises:
            EngineError: the process died, or reports an error.
        """
        return self._process.stream(problem, seeds=seeds, config=config)

    def stream_all(
        self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig
    ) -> Generator[Sample, None, None]:
        """Yield finished samples, then what the others have said; see `Sampler.stream_all`.

        Raises:
            EngineError: the process died, or reports an error.
        """
        return self._process.stream_all(problem, seeds=seeds, config=config)

    def force_answers(
        self, problem: Problem, *, cut: Sequence[Sample], max_tokens: int, timeout_s: float | None = None
    ) -> Generator[Sample, None, None]:
        """Yield what samples say that must answer; see `Sampler.force_answers`.

        Raises:
            EngineError: the process died, or reports an error.
        """
        return self._process.force_answers(problem, cut=cut, max_tokens=max_tokens, timeout_s=timeout_s)

    def close(self) -> None:
        """End the engine at once; a stream that waits for it raises."""
        self._silent = self._process.alive
        self._process.close()

    def _is_barren(self) -> bool:
        return self.goes_on and self._process.fruitless >= _BARREN

    def _restart_or_leave(self) -> None:
        """Go on from an engine that was up: to itself once more, or to the next where that was done or is no use."""
        barren, silent = self._is_barren(), self._silent
        self._silent = False
        if not self.goes_on:
            return
        if barren:
            cause = f"nothing came of {self._process.fruitless} requests: {self._process.trouble}"
        else:
            cause = "no sample came in the time of a question" if silent else self._process.cause_of_death()
        if barren or self._restarted:
            served = self._process.served and not barren
            self._leave(cause if barren else f"it ended a second time: {cause}", seconds=0.0, served=served)
            return
        self._restarted = True
        self._on_step({"step": self.step, "cause": cause, "seconds": 0.0, "next": self.step})

    def _start_step(self, left_s: float) -> None:
        others = self.goes_on and not self._step.repeats
        if others and left_s * _SHARE < _LEAST_S:
            raise EngineError(f"the clock: {max(0.0, left_s):.0f} s are left for loading")
        left_s = max(left_s, 0.0)
        if self._failed and not others:
            pause_s = min(left_s / 2, _LONGEST_PAUSE_S, _PAUSE_S * 2 ** (self._failed - 1))
            time.sleep(pause_s)
            left_s -= pause_s
        self._process.start(timeout_s=left_s * _SHARE if others else left_s)

    def _leave(self, cause: str, *, seconds: float, served: bool = False) -> None:
        """Go down to the next step that may mend the cause, and say why."""
        self._process.close()
        left, rest = self._step, self._rest
        followed = ((at, each.follow(left, cause, served=served)) for at, each in enumerate(rest))
        place, self._step = next((at, step) for at, step in followed if step)
        # What was passed over may mend what goes wrong next; after the last there is nothing, unless it repeats.
        if not self._step.repeats:
            self._rest = [] if place == len(rest) - 1 else [*rest[:place], *rest[place + 1 :]]
        self._process, self._restarted = self._make(self._step), False
        self._on_step({"step": left.name, "cause": cause, "seconds": round(seconds, 1), "next": self.step})
