"""The engine in a process of its own, so that its death, its memory or a hang in it never reaches the server.

Plain pipes and JSON lines rather than multiprocessing: a spawned child would import the notebook's `__main__`, and a
forked one would inherit gRPC's threads.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import asdict
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from mathlete.problems import Problem
from mathlete.sampling.record import sample_from
from mathlete.sampling.samples import Sample, Sampler, SamplingConfig

COMMAND = (sys.executable, "-m", "mathlete.kernel.engine_child")
_LOG_TAIL = 300


class EngineError(RuntimeError):
    """The engine's process died, hung or could not take a request; the next request starts a new one."""


class EngineProcess:
    """Starts the process when it is first needed, and again after it died."""

    def __init__(
        self,
        model: Path,
        *,
        log: Path,
        precision: str = "auto",
        threads: int | None = None,
        command: tuple[str, ...] = COMMAND,
    ) -> None:
        self._settings = {"model": str(model), "precision": precision, "threads": threads}
        self._log, self._command = log, command
        self._process: subprocess.Popen[str] | None = None
        self._replies: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._requests = 0
        self.starts = 0
        """Processes started so far."""

    def ready(self, *, timeout_s: float) -> None:
        """Returns once the model is loaded.

        Raises:
            EngineError: it died while loading, or needs longer than `timeout_s`; the process is gone then.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self._start()
        try:
            reply = self._reply(deadline=time.monotonic() + timeout_s)
        except Empty:
            self.kill()
            raise EngineError(f"the model was not loaded within {timeout_s:.0f} s") from None
        if not reply.get("ready"):
            raise EngineError(f"the engine's first word was {reply}")

    def until(self, deadline: float) -> Sampler:
        """A Sampler over the process whose streams end at `deadline`, a moment of `time.monotonic()`."""
        return _Until(self, deadline)

    def kill(self) -> None:
        """Ends the process at once; a stream waiting for it raises."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def samples(
        self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig, deadline: float
    ) -> Generator[Sample, None, None]:
        """Yields finished samples until all are there or the deadline has come.

        Raises:
            EngineError: the process died, or reports an error.
        """
        self._requests += 1
        number = self._requests
        request = {"request": number, "problem": asdict(problem), "seeds": dict(seeds), "config": asdict(config)}
        self._send(request)
        finished = False
        try:
            while True:
                reply = self._reply(deadline=deadline)
                if reply.get("request") != number:
                    continue
                if "error" in reply:
                    raise EngineError(reply["error"])
                if finished := "done" in reply:
                    return
                yield sample_from(reply["sample"], where="the engine's reply")
        except Empty:
            return
        finally:
            if not finished and self._process is not None and self._process.poll() is None:
                self._send({"cancel": number})

    def _start(self) -> None:
        self.kill()
        self.starts += 1
        self._replies = SimpleQueue()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8"
            )
        threading.Thread(target=_read, args=(self._process, self._replies), daemon=True).start()
        self._send(self._settings)

    def _send(self, value: Mapping[str, object]) -> None:
        if self._process is None or self._process.stdin is None:
            raise EngineError("the engine was not started")
        try:
            self._process.stdin.write(json.dumps(value) + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise EngineError(self._epitaph()) from error

    def _reply(self, *, deadline: float) -> dict[str, Any]:
        reply = self._replies.get(timeout=max(0.0, deadline - time.monotonic()))
        if reply is None:
            raise EngineError(self._epitaph())
        return reply

    def _epitaph(self) -> str:
        code = self._process.wait() if self._process is not None else None
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - _LOG_TAIL))
            tail = file.read().decode(errors="replace")
        last = tail.strip().splitlines()[-1:] or ["it said nothing"]
        return f"the engine's process ended with code {code}: {last[0]}"


class _Until:
    name = "process"

    def __init__(self, engine: EngineProcess, deadline: float) -> None:
        self._engine, self._deadline = engine, deadline

    def stream(
        self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig
    ) -> Generator[Sample, None, None]:
        """Yields finished samples until the deadline."""
        return self._engine.samples(problem, seeds=seeds, config=config, deadline=self._deadline)

    def close(self) -> None:
        """The process outlives a question."""


def _read(process: subprocess.Popen[str], replies: "SimpleQueue[dict[str, Any] | None]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        try:
            replies.put(json.loads(line))
        except ValueError:
            # A half line of a dying process; its end follows.
            break
    replies.put(None)
