"""The server behind `mathlete.answers.isolation`: reads pairs as lines of JSON, forks and times a child for each.

Only strings of JSON come in and go out. Nothing that a model wrote is ever evaluated as code: the child reads it with
the same grammar as the main process.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import sympy

from mathlete.answers.algebra import decide_with_algebra
from mathlete.answers.effort import lift_limit
from mathlete.answers.isolation import WALL_FACTOR, Request
from mathlete.answers.numeric import context
from mathlete.answers.verdict import Verdict

_NESTING = 50_000
"""Python frames that a child may stack up."""


def serve() -> None:
    """Answer requests until the input ends."""
    _load_algebra()
    _write_line(b"ready")
    for line in sys.stdin.buffer:
        _write_line(_decide_in_child(Request(**json.loads(line))))


def _load_algebra() -> None:
    """Do a little of everything once: what is imported and cached here, no child has to do again."""
    context(64)
    x = sympy.Symbol("x", real=True)
    sympy.solve_univariate_inequality(abs(x**2 - 1) < x + 1, x, relational=False)
    sympy.simplify(sympy.sin(x) ** 2 + sympy.cos(x) ** 2)


def _write_line(line: bytes) -> None:
    os.write(1, line + b"\n")


def _decide_in_child(request: Request) -> bytes:
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        # CPU time, not the clock's: beside other work the same pair gets the same verdict.
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, request.limit_s)
        os.write(write_end, _as_json(_decide(request)))
        # No clean-up: it would flush and close what belongs to the server.
        os._exit(0)
    os.close(write_end)
    try:
        # A child that dies closes the pipe, which counts as ready with nothing to read.
        ready, _, _ = select.select([read_end], [], [], request.limit_s * WALL_FACTOR)
        reply = os.read(read_end, 65536) if ready else b""
    finally:
        os.close(read_end)
        # The signal of its CPU time came first where that is over; this one only ends a child that still runs.
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    is_late = not ready or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF)
    reason = f"undecided after {request.limit_s} s" if is_late else "out of memory"
    return reply or _as_json(Verdict("unknown", reason))


def _as_json(verdict: Verdict) -> bytes:
    return json.dumps(asdict(verdict)).encode()


def _decide(request: Request) -> Verdict:
    _limit_memory(request.memory_mib)
    lift_limit()
    sys.setrecursionlimit(_NESTING)
    try:
        verdict = decide_with_algebra(request.answer, request.gold, request.settings)
    except Exception as error:
        # The boundary to sympy, which raises whatever it likes; the main process hears why.
        return Verdict("unknown", f"{type(error).__name__}: {str(error)[:200]}")
    # A reply must fit the pipe's buffer, or the child would wait for the server to read it.
    return Verdict(verdict.outcome, verdict.reason[:500])


def _limit_memory(mib: int) -> None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return  # No /proc, as on macOS; the time limit still holds.
    limit = pages * resource.getpagesize() + mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
