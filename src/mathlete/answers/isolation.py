"""A preloaded process that decides hard pairs, one forked child a pair, within a time and a memory limit.

A thread cannot stop a C-level operation on huge integers, and a signal only works in the main thread, so the limit is
kept by another process: this module starts one server (`mathlete.answers.worker`, with sympy loaded), sends it pairs
of strings, and reads verdicts. The server forks a child for each pair and kills it when its time is over. It works
from any thread, and a forked process starts a server of its own.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from functools import lru_cache

from mathlete.answers.verdict import Verdict

MEMORY_MIB = 160
"""Address space that a child may add to the server's, MiB."""
_START_S = 300.0
"""The server's first answer may take that long on a busy machine (it imports sympy)."""
WALL_FACTOR = 60
"""Wall time that a child may take, as a multiple of its CPU time: on a machine that does much else."""
_GRACE_S = 5.0
"""Seconds after the child's limit in which the server must answer."""
_PROGRAM = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from mathlete.answers.worker import serve; serve()"


@dataclass(frozen=True, kw_only=True)
class Request:
    """A pair to decide, as a line of JSON to the server."""

    answer: str
    gold: str
    limit_s: float
    """CPU time of the child, seconds."""
    settings: str = ""
    """The suite's conventions."""
    memory_mib: int = MEMORY_MIB


class _Server:
    """The server process and the pipe to it; used by one thread at a time."""

    def __init__(self) -> None:
        # A session of its own: Ctrl-C in the terminal must not kill it while the main process still saves its results.
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        self.buffer = b""
        if self.read_line(_START_S) != b"ready":
            self.kill()
            raise OSError("the server did not start")

    def ask(self, request: Request) -> Verdict:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asdict(request)).encode() + b"\n")
        return Verdict(**json.loads(self.read_line(request.limit_s * WALL_FACTOR + _GRACE_S)))

    def read_line(self, limit_s: float) -> bytes:
        assert self.process.stdout is not None
        end = time.monotonic() + limit_s
        while b"\n" not in self.buffer:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
            chunk = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not chunk:
                raise OSError("the server does not answer")
            self.buffer += chunk
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line

    def kill(self) -> None:
        self.process.kill()
        self.close_pipes()
        self.process.wait()

    def close_pipes(self) -> None:
        """Close the pipes; the server ends when nobody can write to it any more."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


_lock = threading.Lock()
_server: _Server | None = None


def decide_in_worker(answer: str, gold: str, *, limit_s: float, reason: str, settings: str = "") -> Verdict:
    """Return the worker's verdict; unknown where it runs out of time or memory, or cannot be started.

    A vote asks the same again with each sample that arrives, so verdicts on answers of usual length are kept.

    Args:
        answer: as extracted from a model's text.
        gold: as the data set has it.
        limit_s: CPU time of the child, seconds.
        reason: why this process did not decide; part of an unknown verdict's reason.
        settings: the suite's conventions.
    """
    ask = _ask_once if len(answer) + len(gold) <= _MAX_KEPT else _ask
    try:
        return ask(answer, gold, limit_s, settings)
    except _NoWorker as error:
        return Verdict("unknown", f"{reason}; no worker: {error}")


class _NoWorker(Exception):
    """The server cannot be started or died; the message says how."""


_MAX_KEPT = 2_000
"""Characters of a pair whose verdict is kept."""


def _ask(answer: str, gold: str, limit_s: float, settings: str) -> Verdict:
    """Return the server's verdict.

    Raises:
        _NoWorker: there is no server, which is no verdict to keep.
    """
    global _server
    with _lock:
        try:
            if _server is None:
                _server = _Server()
            return _server.ask(Request(answer=answer, gold=gold, limit_s=limit_s, settings=settings))
        except (OSError, ValueError) as error:
            # A server that died (out of memory, killed by hand) is replaced at the next call.
            if _server is not None:
                _server.kill()
            _server = None
            raise _NoWorker(str(error)) from error


_ask_once = lru_cache(maxsize=1024)(_ask)


def warm_up() -> None:
    """Start the server, so that the first hard pair does not wait for it."""
    decide_in_worker("0", "0", limit_s=1.0, reason="warming up")


@atexit.register
def close() -> None:
    """End the server."""
    global _server
    with _lock:
        if _server is not None:
            _server.close_pipes()
            _server.process.wait()
            _server = None


def _forget_parents_server() -> None:
    """Start afresh in a forked process, which must not share its parent's pipes."""
    global _server, _lock
    # The parent's lock may be held by a thread that does not exist here.
    _lock = threading.Lock()
    if _server is not None:
        _server.close_pipes()
        # Popen would warn about a process that is still running; it is the parent's child, not ours.
        _server.process.returncode = 0
        _server = None


os.register_at_fork(after_in_child=_forget_parents_server)
