"""The server behind `mathlete.answers.isolation`: reads pairs as lines of JSON, forks and times a child for each.

Only strings of JSON come in and go out. Nothing that a model wrote is ever evaluated as code: the child reads it with
the same grammar as the main process.
"""

from __future__ import annotations

import json
import os
import select
import sys
from typing import Any

_NESTING = 50_000
"""Python frames that a child may stack up."""


def serve() -> None:
    """Answers requests until the input ends."""
    import sympy

    import mathlete.answers.algebra
    import mathlete.answers.answer
    import mathlete.answers.numeric

    mathlete.answers.numeric.context(64)
    x = sympy.Symbol("x", real=True)
    sympy.solve_univariate_inequality(abs(x**2 - 1) < x + 1, x, relational=False)
    sympy.simplify(sympy.sin(x) ** 2 + sympy.cos(x) ** 2)
    _say(b"ready")
    for line in sys.stdin.buffer:
        request = json.loads(line)
        _say(_in_child(request))


def _say(line: bytes) -> None:
    os.write(1, line + b"\n")


def _in_child(request: dict[str, Any]) -> bytes:
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        os.write(write_end, json.dumps(_decide(request)).encode())
        os._exit(0)
    os.close(write_end)
    try:
        ready, _, _ = select.select([read_end], [], [], request["limit_s"])
        found = os.read(read_end, 65536) if ready else b""
    finally:
        os.close(read_end)
        os.kill(child, 9)
        os.waitpid(child, 0)
    reason = "out of memory" if ready else f"undecided after {request['limit_s']} s"
    return found or json.dumps({"outcome": "unknown", "reason": reason}).encode()


def _decide(request: dict[str, Any]) -> dict[str, str]:
    from mathlete.answers import effort
    from mathlete.answers.algebra import decide_with_algebra

    _limit_memory(request["memory_mib"])
    effort.lift()
    sys.setrecursionlimit(_NESTING)
    try:
        verdict = decide_with_algebra(request["answer"], request["gold"])
    except Exception as error:
        # The boundary to sympy, which raises whatever it likes; the main process hears why.
        return {"outcome": "unknown", "reason": f"{type(error).__name__}: {str(error)[:200]}"}
    return {"outcome": verdict.outcome, "reason": verdict.reason[:500]}


def _limit_memory(mib: int) -> None:
    import resource
    from pathlib import Path

    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return  # No /proc, as on macOS; the time limit still holds.
    limit = pages * resource.getpagesize() + mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
