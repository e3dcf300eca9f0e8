"""The engine over a Ray cluster: each worker is an actor with a model of its own; the workers share one queue.

A worker that dies is restarted by Ray, here or on another node, and the samples it was drawing are drawn again with the
same seeds by whichever worker is free: nothing is lost, and no sample counts twice. A worker runs the embedded engine,
so the same seed gives the same sample on any worker of the same kind of hardware.
"""

import itertools
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from mathlete.errors import UserError, require
from mathlete.lost import Lost, LostTry, OnLost
from mathlete.models import ModelSource, Precision, load_prompt_format
from mathlete.problems import Problem
from mathlete.prompts import PromptFormat, PromptSettings
from mathlete.sampling import Continuing, Sample, SamplingConfig
from mathlete.sampling.continuing import Cancel
from mathlete.sampling.served.loop import explain_closed
from mathlete.sampling.served.ray_cluster import describe, find_cause, is_death, join_cluster
from mathlete.sampling.served.ray_worker import SamplingWorker
from mathlete.text import quote

if TYPE_CHECKING:
    from ray import ObjectRef

_TRIES = 3
"""Tries at a sample of which a worker's own error makes nothing; one that dies with its worker is drawn as often as it
takes, within the patience."""
_LOOK_S = 0.1
_STOP_S = 5.0
"""In which the workers must tell what the samples that are stopped have said; one that is gone tells nothing."""


@dataclass(frozen=True, kw_only=True)
class RaySettings:
    """The workers of the ray engine."""

    address: str | None = None
    """A running cluster's, as in auto or ray://HOST:10001; default: one on this machine, for this run."""
    workers: int = 1
    """Actors, each with its own model."""
    gpus: float = 0.0
    """GPUs of a worker."""
    cpus: float = 1.0
    """CPU cores of a worker."""
    at_once: int = 16
    """Samples asked of a worker at a time."""
    patience_s: float = 300.0
    """A run stops when no worker has answered for so long."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        require(
            ("workers", self.workers, self.workers >= 1, "at least 1"),
            ("gpus", self.gpus, self.gpus >= 0, "0 or more"),
            ("cpus", self.cpus, self.cpus >= 0, "0 or more"),
            ("at-once", self.at_once, self.at_once >= 1, "at least 1"),
            ("patience-s", self.patience_s, self.patience_s > 0, "above 0"),
            prefix="--ray.",
            cure="leave it out",
        )


@dataclass(eq=False)
class _Group:
    """The samples of one call of `begin`."""

    problem: Problem
    config: SamplingConfig
    results: "SimpleQueue[Sample | Exception]"
    said: str = ""
    until_code: bool = False
    cancelled: bool = False
    drawing: "dict[int, _Call]" = field(default_factory=dict)
    """{key: the call} of those that a worker has."""


@dataclass(eq=False)
class _Call:
    """One sample, as a call of a worker."""

    group: _Group
    index: int
    seed: int
    key: int
    """Its number among all calls of the sampler."""
    worker: int = -1
    stopped: bool = False
    """Whether its worker was told that it is over."""
    failures: int = 0
    """Tries that ended with an error of the worker's own."""


class RaySampler(Continuing):
    """A Sampler over Ray actors. `stream` may be called from many threads; close it to end the actors."""

    name = "ray"

    def __init__(
        self,
        settings: RaySettings,
        *,
        source: ModelSource,
        precision: Precision = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        prompts: PromptFormat | None = None,
        on_lost: OnLost = lambda one: None,
    ) -> None:
        """Start or join the cluster and load the model in every worker.

        `prompts` are the model's own where none are given; `on_lost` is called with each try at a sample that was lost,
        and is made again.

        Raises:
            UserError: ray is missing, or the cluster cannot be reached or has no room.
        """
        settings.check()
        self.prompts = prompts or load_prompt_format(source)
        # Rules that the prompt comes from may be a file of this machine alone.
        bare, saved = replace(source, prompt=PromptSettings()), self.prompts.saved
        self._settings, self._on_lost = settings, on_lost
        self._ray = join_cluster(settings.address)
        actor: Any = self._ray.remote(SamplingWorker).options(
            num_cpus=settings.cpus,
            num_gpus=settings.gpus,
            max_restarts=-1,
            max_concurrency=settings.at_once + 1,  # one that stops the others
        )
        self._workers = [actor.remote(bare, precision, dtype, threads, saved) for _ in range(settings.workers)]
        self._wait_ready()
        self._inbox: SimpleQueue[_Call | None] = SimpleQueue()
        self._keys = itertools.count()
        self._closed = False
        self._down: set[int] = set()
        """Workers that are being started anew."""
        self._latest = ""
        """What was last lost on a worker."""
        self._thread = threading.Thread(target=self._serve, name="mathlete-ray", daemon=True)
        self._thread.start()

    def _wait_ready(self) -> None:
        try:
            ready = [worker.ready.remote() for worker in self._workers]
            done, _ = self._ray.wait(ready, num_returns=len(ready), timeout=self._settings.patience_s)
            if len(done) < len(ready):
                raise UserError(
                    f"all workers must have loaded the model within {self._settings.patience_s:g} s",
                    value=f"{len(done)} of {len(ready)}",
                    cure="ask for fewer --ray.workers, or fewer CPUs or GPUs for each; look at the workers' log",
                )
            self._ray.get(ready)
        except Exception as error:
            self._end()
            if isinstance(refused := find_cause(error), UserError):
                raise refused from None
            raise UserError(
                "all workers must load the model",
                value=describe(error),
                cure="look at the workers' log; where memory is short, ask for fewer --ray.workers",
            ) from error

    def begin(
        self,
        problem: Problem,
        *,
        seeds: Mapping[int, int],
        config: SamplingConfig,
        results: "SimpleQueue[Sample | Exception]",
        said: str = "",
        until_code: bool = False,
    ) -> Cancel:
        """Start the samples; see `Continuing.begin`."""
        config.check()
        if self._closed:
            raise explain_closed()
        group = _Group(problem=problem, config=config, results=results, said=said, until_code=until_code)
        for index, seed in seeds.items():
            self._inbox.put(_Call(group=group, index=index, seed=seed, key=next(self._keys)))
        return lambda: self._cancel(group)

    def _cancel(self, group: _Group) -> list[Sample]:
        """Have the workers end what they draw of a group; return what that has said until now."""
        if group.cancelled:
            return []
        group.cancelled = True
        told: list[Sample] = []
        # A worker that is gone, or a cluster, has said nothing.
        with suppress(Exception):
            asked = self._stop([*group.drawing.values()])
            done, _ = self._ray.wait(asked, num_returns=len(asked), timeout=_STOP_S) if asked else ([], [])
            for reference in done:
                with suppress(Exception):
                    told += self._ray.get(reference)
        return told

    def _stop(self, calls: Sequence[_Call]) -> "list[ObjectRef[list[Sample]]]":
        """Tell the workers that these calls are over; return what they will have said."""
        keys: dict[int, list[int]] = {}
        for call in calls:
            if not call.stopped:
                call.stopped = True
                keys.setdefault(call.worker, []).append(call.key)
        return [self._workers[worker].stop.remote(some) for worker, some in keys.items()]

    def close(self) -> None:
        """End the workers, and leave the cluster, which ends where it was started here; streams still waiting raise.

        Closing a second time does nothing.
        """
        if self._closed:
            return
        self._closed = True
        self._inbox.put(None)
        self._thread.join()
        self._end()

    def _end(self) -> None:
        # What a cluster that is gone says to that concerns no sample.
        for worker in self._workers:
            with suppress(Exception):
                self._ray.kill(worker)
        with suppress(Exception):
            self._ray.shutdown()

    def _serve(self) -> None:
        waiting: deque[_Call] = deque()
        running: dict[ObjectRef[Sample], _Call] = {}
        self._heard = time.monotonic()
        while self._collect(waiting, wait=not running and not waiting):
            try:
                self._advance(waiting, running)
            except Exception as error:
                # Of the cluster itself. This thread must live on: whoever waits for it would wait for ever.
                calls = [*waiting, *running.values()]
                waiting.clear()
                running.clear()
                self._give_up(calls, "the cluster must live as long as the run", value=describe(error))
        left = [self._inbox.get() for _ in range(self._inbox.qsize())]
        for group in {call.group for call in (*waiting, *running.values(), *left) if call is not None}:
            group.results.put(explain_closed())

    def _advance(self, waiting: deque[_Call], running: "dict[ObjectRef[Sample], _Call]") -> None:
        self._hand_out(waiting, running)
        # Of those that were handed out while their group was cancelled.
        self._stop([call for call in running.values() if call.group.cancelled])
        # A short wait, because new calls and cancellations come while workers draw.
        done, _ = self._ray.wait([*running], num_returns=1, timeout=_LOOK_S) if running else ([], [])
        for reference in done:
            call = running.pop(reference)
            if self._settle(call, reference):
                self._heard = time.monotonic()
            else:
                # In front: it has waited longest. A worker that starts anew refuses what it is asked at once.
                waiting.appendleft(call)
                time.sleep(_LOOK_S)
        # Patience is for workers that owe something, not for a pause between problems.
        if not running and not waiting:
            self._heard = time.monotonic()
        if time.monotonic() - self._heard > self._settings.patience_s:
            calls = [*waiting, *running.values()]
            waiting.clear()
            running.clear()
            self._give_up(
                calls,
                f"one of the workers must answer within {self._settings.patience_s:g} s",
                value=f"{self._settings.workers} silent"
                + (f", the latest trouble: {self._latest}" if self._latest else ""),
            )

    def _collect(self, waiting: deque[_Call], *, wait: bool) -> bool:
        while wait or not self._inbox.empty():
            call = self._inbox.get()
            if call is None:
                return False
            waiting.append(call)
            wait = False
        return True

    def _hand_out(self, waiting: deque[_Call], running: "dict[ObjectRef[Sample], _Call]") -> None:
        load = [0] * len(self._workers)
        for call in running.values():
            load[call.worker] += 1
        while waiting and min(load) < self._settings.at_once:
            call = waiting[0]
            if call.group.cancelled:
                waiting.popleft()
                continue
            # One that is down answers at once, with nothing, and would be asked for ever while another has room.
            free = [worker for worker, count in enumerate(load) if count < self._settings.at_once]
            call.worker = min(free, key=lambda worker: (worker in self._down, load[worker]))
            load[call.worker] += 1
            draw = self._workers[call.worker].draw
            group = call.group
            arguments = (group.problem, call.index, call.seed, group.config, group.said, group.until_code, call.key)
            call.stopped = False
            group.drawing[call.key] = call
            running[draw.remote(*arguments)] = call
            waiting.popleft()

    def _settle(self, call: _Call, reference: "ObjectRef[Sample]") -> bool:
        """Pass the result on; return False where the try was lost and the sample must be drawn again."""
        results = call.group.results
        call.group.drawing.pop(call.key, None)
        try:
            sample = self._ray.get(reference)
            if not isinstance(sample, Sample):
                raise Lost(f"a worker must give a sample, and gave {quote(repr(sample))}")
            results.put(sample)
            self._down.discard(call.worker)
        except Exception as error:
            if call.group.cancelled:
                return True
            if isinstance(cause := find_cause(error), UserError):
                # The problem's or the settings' fault: another worker would say the same.
                results.put(cause)
                return True
            if is_death(error, self._ray.exceptions):
                # While it starts anew, calls come back at once: these are no further tries.
                if call.worker not in self._down:
                    self._note_lost(call, error)
                    self._down.add(call.worker)
                return False
            call.failures += 1
            self._heard = time.monotonic()  # a worker that says what went wrong is not silent
            reason = self._note_lost(call, cause)
            # The error may have ended the worker's engine for good: Ray starts the worker anew.
            self._ray.kill(self._workers[call.worker], no_restart=False)
            self._down.add(call.worker)
            if call.failures == _TRIES:
                results.put(_no_sample(call, reason))
                return True
            return False
        return True

    def _note_lost(self, call: _Call, error: Exception) -> str:
        reason = error.reason if isinstance(error, Lost) else describe(error)
        if not call.group.cancelled:
            problem_id, where = call.group.problem.id, f"ray worker {call.worker}"
            self._on_lost(LostTry(problem_id=problem_id, index=call.index, seed=call.seed, where=where, reason=reason))
        self._latest = reason
        return reason

    def _give_up(self, calls: list[_Call], rule: str, *, value: str) -> None:
        error = UserError(rule, value=value, cure="look at `ray status`; the run goes on where it stopped")
        for group in {call.group for call in calls}:
            group.results.put(error)


def _no_sample(call: _Call, reason: str) -> UserError:
    return UserError(
        f"a worker must give a whole sample in {_TRIES} tries",
        value=f"for problem {call.group.problem.id}: {reason}",
        cure="look at the workers' log; the run goes on where it stopped",
    )
