"""Interpreters for model-written Python: one for each sample, which keeps its variables from program to program.

Persistent, as in NVIDIA's AIMO-2 winner (stateful sessions, arXiv:2504.16891, section 3) and AIMO-3's field (a pool of
Jupyter kernels); Numina's AIMO-1 winner (`PythonREPL` in its kaggle-solution.ipynb) and ReTool (arXiv:2504.11536) take
a fresh process for each program. A program written for a fresh process runs here as well, the other way round not.

An interpreter that overruns its wall even after a TimeoutError in the program is killed; the next program then begins
in a new one, and its output says so. A sample's programs give the same output each time as far as they depend on
neither time nor speed: hash and random seeds are fixed.
"""

import contextlib
import itertools
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass

from mathlete.errors import UserError
from mathlete.tir.protection import ProgramLimits
from mathlete.tir.zygote import REQUEST_BYTES

_START_S = 120.0
"""Numpy and sympy load in a second; a busy machine may take longer."""
_END_S = 2.0
_KEPT_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "LD_LIBRARY_PATH")
"""Variables that numpy may need to run at all; nothing else of this environment reaches a program."""
_PROGRAM = """\
import json, socket, sys
sys.path[:] = json.loads(sys.argv[1])
from mathlete.tir.protection import ProgramLimits
from mathlete.tir.zygote import serve
serve(socket.socket(fileno=int(sys.argv[2])), ProgramLimits(**json.loads(sys.argv[3])), json.loads(sys.argv[4]))
"""


@dataclass(frozen=True, kw_only=True)
class ProgramResult:
    """The result of running a program."""

    output: str
    """Its printed text, the value of a last expression, and its traceback."""
    failed: bool
    seconds: float
    killed: bool = False
    """Whether the interpreter ended with it, and the variables with that."""


class Pythons:
    """Opens interpreters; may be used from many threads. Close it to end them all."""

    def __init__(self, limits: ProgramLimits, *, layers: list[str] | None = None) -> None:
        """Start the process that forks them.

        Args:
            limits: of each interpreter.
            layers: names of `mathlete.tir.protection.LAYERS`; None takes all that work here.

        Raises:
            UserError: it does not start.
        """
        self.limits = limits
        self._lock, self._numbers = threading.Lock(), itertools.count()
        self._folder = tempfile.TemporaryDirectory(prefix="mathlete-tir-")
        self._control, theirs = socket.socketpair()
        arguments = [json.dumps(sys.path), str(theirs.fileno()), json.dumps(asdict(limits)), json.dumps(layers)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=self._environment(),
            cwd=self._folder.name,
            start_new_session=True,
        )
        theirs.close()
        self.layers: list[str] = self._wait_ready()
        """Names of the layers that hold."""

    def _environment(self) -> dict[str, str]:
        own = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        fixed = {"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": self._folder.name, "PYTHONHASHSEED": "0"}
        return {**own, **threads, **fixed, "PYTHONDONTWRITEBYTECODE": "1"}

    def _wait_ready(self) -> list[str]:
        line = read_line(self._control, limit_s=_START_S, most=4096)
        if line is None:
            self.close()
            raise UserError(
                "the process that runs the model's programs must start",
                value=f"exit code {self._process.returncode}",
                cure="try `python -c 'import numpy, sympy'`, or run without --tools.turns",
            )
        layers: list[str] = json.loads(line)
        return layers

    def open(self) -> "Python":
        """Return a new interpreter.

        Raises:
            UserError: it does not start.
        """
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            number = next(self._numbers).to_bytes(REQUEST_BYTES - 1)
            socket.send_fds(self._control, [b"o" + number], [theirs.fileno()])
        if read_line(ours, limit_s=_START_S, most=16) is None:
            ours.close()
            raise UserError(
                "an interpreter for the model's programs must start",
                value=f"none with {self.limits.memory_mib} MiB and the layers {', '.join(self.layers)}",
                cure="free memory, or run with fewer samples at once",
            )
        return Python(self, number, ours)

    def kill(self, number: bytes) -> None:
        """End an interpreter; nothing happens where it has ended already."""
        with self._lock, contextlib.suppress(OSError):
            self._control.sendall(b"k" + number)

    def close(self) -> None:
        """End all interpreters."""
        self._control.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()


class Python:
    """One interpreter; `run` is called by one thread at a time, `close` by any."""

    def __init__(self, pythons: Pythons, number: bytes, channel: socket.socket) -> None:
        self._pythons, self._number, self._channel = pythons, number, channel
        self.alive = True

    def run(self, code: str) -> ProgramResult:
        """Run the program to its end, or to its wall."""
        limits, started = self._pythons.limits, time.monotonic()
        line = None
        with contextlib.suppress(OSError):
            self._channel.sendall(json.dumps(code).encode() + b"\n")
            wall = limits.timeout_s + limits.grace_s
            # JSON needs 12 bytes for a character outside the basic plane (two \\uXXXX), and some words around it.
            line = read_line(self._channel, limit_s=wall, most=12 * limits.output_chars + 4096)
        seconds = time.monotonic() - started
        reply = _parse_reply(line)
        if reply is None:
            # After anything but a proper reply the interpreter's state is unknown: the next program gets a new one.
            self.close()
            late = seconds >= limits.timeout_s
            why = f"it ran longer than {limits.timeout_s:g} s" if late else "it ended the interpreter, or used it up"
            output = f"[killed: {why}; all variables are gone]"
            return ProgramResult(output=output, failed=True, seconds=seconds, killed=True)
        output, failed = reply
        return ProgramResult(output=output, failed=failed, seconds=seconds)

    def close(self) -> None:
        """End it; a `run` in another thread returns at once."""
        if self.alive:
            self.alive = False
            self._pythons.kill(self._number)
            with contextlib.suppress(OSError):
                self._channel.shutdown(socket.SHUT_RDWR)
            self._channel.close()


def _parse_reply(line: bytes | None) -> tuple[str, bool] | None:
    """Return (output, whether it failed), or None for an improper reply, which the program itself may have sent."""
    try:
        reply = json.loads(line or b"")
    except ValueError:
        return None
    if not isinstance(reply, dict) or set(reply) != {"output", "failed"}:
        return None
    output, failed = reply["output"], reply["failed"]
    return (output, failed) if isinstance(output, str) and isinstance(failed, bool) else None


def read_line(channel: socket.socket, *, limit_s: float, most: int) -> bytes | None:
    """Return a line that comes within the time and is no longer than `most` bytes, None for anything else."""
    ends, line = time.monotonic() + limit_s, b""
    while not line.endswith(b"\n"):
        try:
            ready = select.select([channel], [], [], max(0.0, ends - time.monotonic()))[0]
            chunk = channel.recv(65536) if ready else b""
        except (OSError, ValueError):
            # Closed by the other side, or by another thread here.
            return None
        line += chunk
        if not chunk or len(line) > most:
            return None
    return line
