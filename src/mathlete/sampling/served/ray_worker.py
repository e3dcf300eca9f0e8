"""The worker of the ray engine: an actor with a model of its own, in a process of the cluster."""

from collections.abc import Sequence
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

from mathlete.errors import UserError
from mathlete.models import ModelSource, Precision, load_prompt_format
from mathlete.problems import Problem
from mathlete.prompts import SavedPrompt
from mathlete.sampling import Sample, SamplingConfig
from mathlete.sampling.continuing import Cancel


class SamplingWorker:
    """The actor: the embedded engine in a process of the cluster."""

    def __init__(
        self, source: ModelSource, precision: Precision, dtype: str, threads: int | None, prompt: SavedPrompt
    ) -> None:
        from mathlete.sampling.embedded import open_transformers

        self._drawing: dict[int, tuple[Cancel, SimpleQueue[Sample | Exception | None]]] = {}
        """{key of a call: (what cancels its sample, where that is awaited)}."""
        self._stopped: set[int] = set()
        """Keys of calls that are to end, also before they have begun."""
        self._refusal: UserError | None = None
        """Why there is no model. Of an actor that is not made, Ray tells a traceback, and no error."""
        try:
            prompts = load_prompt_format(source).with_saved(prompt)
            self._sampler = open_transformers(
                source, precision=precision, dtype=dtype, threads=threads, prompts=prompts
            )
        except UserError as error:
            self._refusal = error

    def draw(
        self, problem: Problem, index: int, seed: int, config: SamplingConfig, said: str, until_code: bool, key: int
    ) -> Sample | None:
        """Return one sample, None where it was stopped. Many calls run at once, in threads, and share a batch."""
        self.ready()
        results: SimpleQueue[Any] = SimpleQueue()
        cancel = self._sampler.begin(
            problem,
            seeds={index: seed},
            # The order among all samples is the shared queue's: a worker begins what it is given.
            config=replace(config, enough=None),
            results=results,
            said=said,
            until_code=until_code,
        )
        # In this order, and in the other one in `stop`: one of the two sees it.
        self._drawing[key] = cancel, results
        try:
            result: Sample | Exception | None = None if key in self._stopped else results.get()
        finally:
            cancel()
            self._drawing.pop(key, None)
            self._stopped.discard(key)
        if isinstance(result, Exception):
            raise result
        return result

    def stop(self, keys: Sequence[int]) -> list[Sample]:
        """End the calls of these keys; return what their samples have said until now, with finish `clock`."""
        self._stopped |= {*keys}
        told: list[Sample] = []
        for cancel, results in filter(None, map(self._drawing.get, keys)):
            told += cancel() or ()
            results.put(None)
        return told

    def ready(self) -> bool:
        """Return True once the model is loaded.

        Raises:
            UserError: it cannot be.
        """
        if self._refusal is not None:
            raise self._refusal
        return True
