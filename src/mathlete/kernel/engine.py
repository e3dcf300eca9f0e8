"""The engine in a process of its own, so that its death, its memory or a hang in it never reaches the server.

Plain pipes and JSON lines rather than multiprocessing: a spawned child would import the notebook's `__main__`, and a
forked one would inherit gRPC's threads.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Protocol

from mathlete.kernel.causes import find_cause_of_end
from mathlete.kernel.signs import Signs
from mathlete.problems import Problem
from mathlete.prompts import PromptSettings
from mathlete.sampling import Sample, SamplingConfig
from mathlete.sampling.served import VllmSettings
from mathlete.temporary import remove_abandoned
from mathlete.tir import ToolSettings

COMMAND = (sys.executable, "-m", "mathlete.kernel.engine_child")
Reply = dict[str, object]
"""A line of the process: {"ready", "engine", …}, {"request", "sample"}, {"request", "done"} or {"request", "error"}."""
_LOG_TAIL = 200_000
"""Bytes of the log in which the cause of an end is looked for."""
_READY = 0
_DYING_S = 3.0
"""Seconds from the end of a process's pipe to its own end."""
_LOOK_S = 1.0
"""Seconds between two looks for a sign of life."""
_SIGNALS = {
    signal.SIGBUS: "SIGBUS: shared memory of the machine that is full, or a file that was cut under it",
    signal.SIGKILL: "SIGKILL: somebody ended it, or the machine for want of main memory",
    signal.SIGSEGV: "SIGSEGV",
}
"""What a process that says nothing any more was ended by."""


class EngineError(RuntimeError):
    """The engine's process died, hung or refused a request; the next `start` makes a new one."""


class World(Protocol):
    """Packages that one engine's process alone sees, and that may still be on their way."""

    @property
    def folder(self) -> Path:
        """Where they are; in front of all other packages in that process."""
        ...

    def wait(self, *, timeout_s: float) -> None:
        """Return once they are there.

        Raises:
            EngineError: they cannot be had, or not within the time.
        """
        ...


class EngineProcess:
    """A sampler over the process. `start` starts it, and does so again after it died."""

    name = "process"

    def __init__(
        self,
        model: Path,
        *,
        log: Path,
        engine: str = "transformers",
        vllm: VllmSettings | None = None,
        max_tokens: int | None = None,
        scores: bool = True,
        precision: str = "auto",
        threads: int | None = None,
        tools: ToolSettings | None = None,
        prompt: PromptSettings | None = None,
        world: World | None = None,
        quiet_s: float | None = None,
        command: tuple[str, ...] = COMMAND,
        on_ready: Callable[[Mapping[str, object]], None] = lambda facts: None,
    ) -> None:
        """Take what to start.

        Args:
            model: the model's folder.
            log: the file that its process's stderr is added to.
            engine: its name in `mathlete.engines.ENGINES`.
            vllm: settings of vLLM, where that is the engine.
            max_tokens: the longest completion that will be asked for; None: any.
            scores: whether samples must have log-probabilities.
            precision: how weights are held.
            threads: CPU threads; None: the engine's own choice.
            tools: whether, and how, the model may run Python.
            prompt: what stands in its prompt otherwise than its folder says.
            world: packages of its own; None: those of this process.
            quiet_s: seconds after which one hangs that loads, prints nothing and takes nothing into memory; None: only
                the time ends it.
            command: what starts the process.
            on_ready: called with what each process says of itself once it has loaded, and with `load_s`.
        """
        self._settings = {
            "model": str(model),
            "engine": engine,
            "vllm": asdict(vllm or VllmSettings()),
            "max_tokens": max_tokens,
            "scores": scores,
            "precision": precision,
            "threads": threads,
            "tools": asdict(tools or ToolSettings()),
            "prompt": (prompt or PromptSettings()).to_json(),
        }
        self._log, self._command, self._on_ready = log, command, on_ready
        self._world, self._quiet_s = world, quiet_s
        self._log_start = 0
        self._process: subprocess.Popen[str] | None = None
        self._inbox = _Inbox()
        self._requests = 0
        self.opens_thoughts = False
        self.starts = 0
        """Processes started so far."""
        self.fruitless, self.trouble = 0, ""
        """Requests in a row, of the process that runs, that ended without a word; how the last of them ended."""
        self.served = False
        """Whether a sample with text came of the process that runs."""

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, timeout_s: float) -> None:
        """Return once the model is loaded.

        Raises:
            EngineError: the process died or hangs while loading, or needs longer than `timeout_s`, and was ended.
        """
        if self.alive:
            return
        began = time.monotonic()
        if self._world is not None:
            self._world.wait(timeout_s=timeout_s)
        signs = Signs(self._log, group=self._start_process())
        reply = self._wait_until_ready(signs, ends=began + timeout_s, timeout_s=timeout_s)
        if reply is None:
            raise EngineError(self.cause_of_death())
        facts = reply.get("engine")
        self.opens_thoughts = reply.get("opens_thoughts") is True
        load_s = round(time.monotonic() - began, 1)
        self._on_ready({**(facts if isinstance(facts, dict) else {}), "load_s": load_s})

    def _wait_until_ready(self, signs: Signs, *, ends: float, timeout_s: float) -> Reply | None:
        """Return the process's first reply, None where it ended; end it where nothing comes."""
        replies, moved = self._inbox.replies(_READY), time.monotonic()
        while True:
            left_s = max(0.0, ends - time.monotonic())
            try:
                return replies.get(timeout=left_s if self._quiet_s is None else min(left_s, _LOOK_S))
            except Empty:
                now = time.monotonic()
            if signs.came():
                moved = now
            if now >= ends:
                self.close()
                raise EngineError(f"the model was not loaded within {timeout_s:.0f} s")
            if self._quiet_s is not None and now - moved > self._quiet_s:
                self.close()
                raise EngineError(f"no progress: it printed and read nothing for {self._quiet_s:.0f} s while it loaded")

    def stream(
        self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig
    ) -> Generator[Sample, None, None]:
        """Yield finished samples.

        Raises:
            EngineError: the process died, or reports an error.
        """
        return self._ask({"problem": asdict(problem), "seeds": dict(seeds), "config": config.to_json()})

    def stream_all(
        self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig
    ) -> Generator[Sample, None, None]:
        """Yield finished samples, then what the others have said in `config.timeout_s`; see `Sampler.stream_all`.

        Raises:
            EngineError: the process died, or reports an error.
        """
        drawn = {"problem": asdict(problem), "seeds": dict(seeds), "config": config.to_json()}
        return self._ask({**drawn, "keep": True})

    def force_answers(
        self, problem: Problem, *, cut: Sequence[Sample], max_tokens: int, timeout_s: float | None = None
    ) -> Generator[Sample, None, None]:
        """Yield what samples say that must answer; see `Sampler.force_answers`.

        Raises:
            EngineError: the process died, or reports an error.
        """
        how = {"max_tokens": max_tokens, "timeout_s": timeout_s}
        return self._ask({"problem": asdict(problem), "cut": [one.to_json() for one in cut], **how})

    def _ask(self, request: Mapping[str, object]) -> Generator[Sample, None, None]:
        """Yield the samples with which the process answers a request."""
        self._requests += 1
        number = self._requests
        replies = self._inbox.replies(number)
        finished, spoke = False, False
        try:
            self._send({"request": number, **request})
            while not finished:
                reply = replies.get()
                if reply is None:
                    raise EngineError(self.cause_of_death())
                if "error" in reply:
                    self._count(spoke, trouble=str(reply["error"]))
                    raise EngineError(str(reply["error"]))
                if not (finished := "done" in reply):
                    sample = Sample.from_json(reply["sample"], where="the engine's reply")
                    if sample.text.strip():
                        # At once: whoever has enough samples closes the stream, and never sees its end.
                        self.fruitless, self.trouble, self.served = 0, "", True
                    # That a question is too long is no fault of the engine's.
                    spoke = spoke or bool(sample.text.strip()) or sample.lacks_room
                    yield sample
            self._count(spoke, trouble="only empty completions")
        finally:
            self._inbox.forget(number)
            if not finished and self._process is not None and self._process.poll() is None:
                self._send({"cancel": number})

    def close(self) -> None:
        """End the process at once; a stream that waits for it raises."""
        if self._process is None:
            return
        # Its whole group: vLLM's own processes would keep the GPU's memory, and outlive one that is killed.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        try:
            self._process.wait(timeout=_DYING_S)
        except subprocess.TimeoutExpired:
            # It hangs inside a driver, where no signal reaches it: left behind, for no question may wait for it.
            self._process = None
            self._inbox.end()
            return
        remove_abandoned()  # as a killed process leaves it
        if self._process.stdin is not None:
            # Closing flushes what is buffered, and nobody reads it any more.
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _count(self, spoke: bool, *, trouble: str) -> None:
        """Count a request that ended by itself without a word: one that was cancelled says nothing of the engine."""
        if not spoke:
            self.fruitless, self.trouble = self.fruitless + 1, trouble

    def _start_process(self) -> int:
        """Start the process; return its group, which is its own."""
        self.close()
        self.starts += 1
        self.fruitless, self.trouble, self.served = 0, "", False
        self._inbox = _Inbox()
        with self._log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                start_new_session=True,
                env=self._make_environment(),
            )
        threading.Thread(target=_read, args=(self._process, self._inbox), name="engine-pipe", daemon=True).start()
        self._send(self._settings)
        return self._process.pid

    def _send(self, value: Mapping[str, object]) -> None:
        if self._process is None or self._process.stdin is None:
            raise EngineError("the engine was not started")
        try:
            self._process.stdin.write(json.dumps(value) + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise EngineError(self.cause_of_death()) from error

    def _make_environment(self) -> dict[str, str]:
        if self._world is None:
            return {**os.environ}
        path = os.pathsep.join(filter(None, [str(self._world.folder), os.environ.get("PYTHONPATH")]))
        # By what vLLM says while it loads, too, a hang is told from slow work.
        return {**os.environ, "PYTHONPATH": path, "VLLM_LOGGING_LEVEL": "INFO"}

    def cause_of_death(self) -> str:
        """Return how the process ended, and the likeliest cause in what it printed."""
        code, ended, process = None, "", self._process
        if process is not None:
            try:
                code = process.wait(timeout=_DYING_S)
                ended = _SIGNALS.get(-code, "")  # type: ignore[call-overload]
            except subprocess.TimeoutExpired:
                # The process closed its pipe or wrote something else than JSON, and lives on.
                self.close()
                code = process.returncode
                ended = f"we ended it: it answered no more and had not ended {_DYING_S:g} s later"
        with self._log.open("rb") as file:
            file.seek(max(self._log_start, self._log.stat().st_size - _LOG_TAIL))
            said = file.read().decode(errors="replace")
        return f"the engine's process ended with code {code}{ended and f' ({ended})'}: {find_cause_of_end(said)}"


class _Inbox:
    """Replies, sorted by the request they answer: what comes late for an abandoned stream reaches no other one."""

    def __init__(self) -> None:
        self._queues: dict[int, SimpleQueue[Reply | None]] = {_READY: SimpleQueue()}
        self._ended = False
        self._lock = threading.Lock()

    def replies(self, number: int) -> "SimpleQueue[Reply | None]":
        """Return the queue of a request's replies; None in it means that the process ended."""
        with self._lock:
            queue = self._queues.setdefault(number, SimpleQueue())
            if self._ended:
                queue.put(None)
            return queue

    def forget(self, number: int) -> None:
        """Drop a request's queue, and whatever still comes for it."""
        with self._lock:
            self._queues.pop(number, None)

    def put(self, reply: Reply) -> None:
        """Put a reply into its request's queue."""
        with self._lock:
            number = reply.get("request")
            queue = self._queues.get(number if isinstance(number, int) else _READY)
            if queue is not None:
                queue.put(reply)

    def end(self) -> None:
        """Let every waiting stream know that the process ended."""
        with self._lock:
            self._ended = True
            for queue in self._queues.values():
                queue.put(None)


def _read(process: subprocess.Popen[str], inbox: _Inbox) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            try:
                inbox.put(json.loads(line))
            except ValueError:
                # Half a line of a dying process; the end of its pipe follows.
                break
    inbox.end()
