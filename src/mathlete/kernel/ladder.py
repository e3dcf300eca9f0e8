"""The ladder of engines: what the notebook was built for, the same with safer settings, then the embedded engine.

An engine that does not come up, or that dies twice, is left for the next; each step is on the clock, and the journal
has a line for it with its cause. The last step is tried again and again: there is nothing else.
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mathlete.kernel.config import KernelConfig
from mathlete.kernel.engine import EngineError, EngineProcess
from mathlete.problems import Problem
from mathlete.sampling import Sample, SamplingConfig
from mathlete.sampling.served import VllmSettings

_SHARE = 0.6
"""Share of the time left for loading that a step may take while others come after it."""
_LEAST_S = 5.0
"""Seconds below which no step is begun that others come after: the last one has all of them."""
_SAFE_ROWS = 64
"""Samples decoded together at most with safer settings: each needs memory of its own beside the cache."""
_SAFE_MEMORY = 0.8
"""Share of a GPU's memory with safer settings: what else is on the GPU, and the kernels' own workspace, fits beside."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One way to draw samples."""

    name: str
    """In the journal."""
    engine: str
    """One of `mathlete.engines.ENGINES`."""
    vllm: VllmSettings = field(default_factory=VllmSettings)


def plan_steps(config: KernelConfig, *, gpus: int) -> list[Step]:
    """Return the steps of a notebook's ladder, first choice first.

    Args:
        config: how it answers.
        gpus: the machine's.

    >>> [step.name for step in plan_steps(KernelConfig(engine="vllm"), gpus=1)]
    ['vllm', 'vllm with safer settings', 'embedded']
    >>> [step.name for step in plan_steps(KernelConfig(), gpus=1)]
    ['embedded']
    """
    embedded = Step(name="embedded", engine="transformers")
    if config.engine != "vllm":
        return [embedded]
    safer = replace(
        config.vllm,
        eager=True,
        gpu_memory_utilization=min(_SAFE_MEMORY, config.vllm.gpu_memory_utilization),
        at_once=min(_SAFE_ROWS, config.vllm.at_once),
        kv_dtype="auto",
        # Written in Triton, it needs no kernels that were compiled for the GPU beforehand; a CPU build has its own.
        attention_backend="TRITON_ATTN" if gpus else "auto",
        extra={},
    )
    first = Step(name="vllm", engine="vllm", vllm=config.vllm)
    return [first, Step(name="vllm with safer settings", engine="vllm", vllm=safer), embedded]


class Ladder:
    """A sampler over the first step that works. `start` goes down where one does not."""

    name = "ladder"

    def __init__(
        self,
        steps: Sequence[tuple[str, EngineProcess]],
        *,
        on_step: Callable[[Mapping[str, object]], None] = lambda fact: None,
    ) -> None:
        """Take the steps.

        Args:
            steps: (name, its engine's process), first choice first.
            on_step: called with {"step", "cause", "seconds", "next"} of each that is left.
        """
        self._steps, self._on_step = list(steps), on_step
        self._ready, self._restarted = False, False

    @property
    def step(self) -> str:
        """The name of the step that it is on."""
        return self._steps[0][0]

    @property
    def opens_thoughts(self) -> bool:
        """Whether the prompts of the engine that is up end inside the model's thoughts."""
        return self._process.opens_thoughts

    def start(self, *, timeout_s: float) -> None:
        """Return once an engine is loaded.

        Raises:
            EngineError: no step came up within the time.
        """
        if self._ready and self._process.alive:
            return
        began = time.monotonic()
        if self._ready:
            cause = f"it ended a second time: {self._process.cause_of_death()}"
            if self._restarted and len(self._steps) > 1:
                self._leave(cause, seconds=0.0)
            self._restarted = True
        self._ready = False
        while True:
            left_s = timeout_s - (time.monotonic() - began)
            stepped = time.monotonic()
            try:
                self._start_step(left_s)
            except EngineError as error:
                if len(self._steps) == 1:
                    raise
                self._leave(str(error), seconds=time.monotonic() - stepped)
            else:
                self._ready = True
                return

    def stream(
        self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig
    ) -> Generator[Sample, None, None]:
        """Yield finished samples of the engine that is up.

        Raises:
            EngineError: the process died, or reports an error.
        """
        return self._process.stream(problem, seeds=seeds, config=config)

    def close(self) -> None:
        """End the engine at once; a stream that waits for it raises."""
        self._process.close()

    @property
    def _process(self) -> EngineProcess:
        return self._steps[0][1]

    def _start_step(self, left_s: float) -> None:
        last = len(self._steps) == 1
        if not last and left_s * _SHARE < _LEAST_S:
            raise EngineError(f"the clock: {max(0.0, left_s):.0f} s are left for loading")
        self._process.start(timeout_s=max(left_s, 0.0) if last else left_s * _SHARE)

    def _leave(self, cause: str, *, seconds: float) -> None:
        """Go down one step, and say why."""
        self._process.close()
        name, _ = self._steps.pop(0)
        self._restarted = False
        self._on_step({"step": name, "cause": cause, "seconds": round(seconds, 1), "next": self.step})
