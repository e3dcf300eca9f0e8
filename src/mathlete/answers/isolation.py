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

from mathlete.answers.answer import Verdict

MEMORY_MIB = 160
"""Address space that a child may add to the server's, MiB."""
_START_S = 60.0
"""The server's first answer may take that long on a busy machine (it imports sympy)."""
_GRACE_S = 5.0
_PROGRAM = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from mathlete.answers.worker import serve; serve()"


class _Server:
    """The server process and the pipe to it; used by one thread at a time."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        self.buffer = b""
        if self.line(_START_S) != b"ready":
            self.kill()
            raise OSError("the server did not start")

    def ask(self, request: dict[str, object], *, limit_s: float) -> dict[str, str]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({**request, "limit_s": limit_s}).encode() + b"\n")
        found: dict[str, str] = json.loads(self.line(limit_s + _GRACE_S))
        return found

    def line(self, limit_s: float) -> bytes:
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
        self.forget()
        self.process.wait()

    def forget(self) -> None:
        """Closes the pipes; the server ends when nobody can write to it any more."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


_lock = threading.Lock()
_server: _Server | None = None


def decide_in_worker(answer: str, gold: str, *, limit_s: float, reason: str) -> Verdict:
    """The worker's verdict; unknown where it runs out of time or memory, or cannot be started."""
    global _server
    with _lock:
        try:
            if _server is None:
                _server = _Server()
            found = _server.ask({"answer": answer, "gold": gold, "memory_mib": MEMORY_MIB}, limit_s=limit_s)
        except (OSError, ValueError) as error:
            # A server that died (out of memory, killed by hand) is replaced at the next call.
            if _server is not None:
                _server.kill()
            _server = None
            return Verdict("unknown", f"{reason}; no worker: {error}")
    return Verdict(found["outcome"], found["reason"])  # type: ignore[arg-type]


def warm_up() -> None:
    """Starts the server, so that the first hard pair does not wait for it."""
    decide_in_worker("0", "0", limit_s=1.0, reason="warming up")


@atexit.register
def close() -> None:
    """Ends the server."""
    global _server
    with _lock:
        if _server is not None:
            _server.forget()
            _server.process.wait()
            _server = None


def _start_afresh_in_child() -> None:
    """A forked process must not share the parent's pipes."""
    global _server, _lock
    _lock = threading.Lock()
    if _server is not None:
        _server.forget()
        _server.process.returncode = 0
        _server = None


os.register_at_fork(after_in_child=_start_afresh_in_child)
