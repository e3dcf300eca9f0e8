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
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass

from mathlete.errors import UserError
from mathlete.temporary import TemporaryFolder
from mathlete.tir.protection import SEPARATING, ProgramLimits, hide_memory
from mathlete.tir.zygote import READY, REQUEST_BYTES

_START_S = 120.0
"""Numpy and sympy load in a second; a busy machine may take longer."""
_END_S = 2.0
_SPARES = 2
"""Interpreters that are ready before a sample needs one: to fork one and put it behind its layers takes a moment."""
_REASON_BYTES = 4096
"""Of an interpreter that does not start."""
_NOTE_CHARS = 100
"""Room in a reply for the note about what was left out of the output."""
_KEPT_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "LD_LIBRARY_PATH")
"""Variables that numpy may need to run at all; nothing else of this environment reaches a program."""
_PROGRAM = """\
import json, socket, sys
sys.path[:] = json.loads(sys.argv[1])
from mathlete.tir.protection import SEPARATING, ProgramLimits, hide_memory
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
        self._lock, self._numbers, self._closed = threading.RLock(), itertools.count(), False
        self._folder = TemporaryFolder("tir")
        self._spares: deque[tuple[bytes, socket.socket]] = deque()
        self.layers: list[str] = self._start(layers)
        """Names of the layers that hold."""
        if not SEPARATING & {*self.layers}:
            # A program then runs as a process of this user, whose environment may hold tokens.
            hide_memory()

    def _start(self, layers: list[str] | None) -> list[str]:
        """Start the process that forks interpreters, and return its layers."""
        self._control, theirs = socket.socketpair()
        arguments = [json.dumps(sys.path), str(theirs.fileno()), json.dumps(asdict(self.limits)), json.dumps(layers)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=self._environment(),
            cwd=self._folder.path,
            start_new_session=True,
        )
        theirs.close()
        return self._wait_ready()

    def _environment(self) -> dict[str, str]:
        own = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        fixed = {"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": str(self._folder.path), "PYTHONHASHSEED": "0"}
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
        ready: list[str] = json.loads(line)
        return ready

    def open(self) -> "Python":
        """Return a new interpreter.

        Raises:
            UserError: it does not start.
        """
        ends, said = time.monotonic() + _START_S, b""
        # A spare may have died, and so may the process that forks.
        for _ in range(_SPARES + 2):
            with self._lock:
                number, channel = self._take()
            said = read_line(channel, limit_s=ends - time.monotonic(), most=_REASON_BYTES) or said
            if said == READY:
                return Python(self, number, channel)
            channel.close()
        if said:
            raise UserError(
                f"an interpreter must get behind the layers {', '.join(self.layers)}",
                value=said.decode(errors="replace").strip(),
                cure="where it names a path, let all read it (`chmod o+rX`); else run with fewer samples at once",
            )
        raise UserError(
            "an interpreter for the model's programs must start",
            value=f"none with {self.limits.memory_mib} MiB and the layers {', '.join(self.layers)}",
            cure="free memory, or run with fewer samples at once",
        )

    def _take(self) -> tuple[bytes, socket.socket]:
        """Return the number and channel of an interpreter that is starting or ready, and have spares follow it."""
        if self._closed:
            raise UserError("interpreters must be opened before their owner is closed", cure="open another `Pythons`")
        try:
            self._fill()
        except OSError:
            self._process.kill()
            self._process.wait()
        if self._process.poll() is not None:
            # What it forked has ended with it.
            self._close_spares()
            self._control.close()
            self._start(self.layers)
            self._fill()
        return self._spares.popleft()

    def _fill(self) -> None:
        while len(self._spares) <= _SPARES:
            ours, theirs = socket.socketpair()
            number = next(self._numbers).to_bytes(REQUEST_BYTES - 1)
            self._spares.append((number, ours))
            with theirs:
                socket.send_fds(self._control, [b"o" + number], [theirs.fileno()])

    def _close_spares(self) -> None:
        while self._spares:
            self._spares.popleft()[1].close()

    def kill(self, number: bytes) -> None:
        """End an interpreter; nothing happens where it has ended already."""
        with self._lock, contextlib.suppress(OSError):
            self._control.sendall(b"k" + number)

    def close(self) -> None:
        """End all interpreters."""
        with self._lock:
            self._closed = True
            self._close_spares()
            self._control.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.close()


class Python:
    """One interpreter; `run` is called by one thread at a time, `close` by any."""

    def __init__(self, pythons: Pythons, number: bytes, channel: socket.socket) -> None:
        self._pythons, self._number, self._channel = pythons, number, channel
        # A program that keeps the interpreter from reading must not keep its owner waiting.
        channel.settimeout(pythons.limits.timeout_s + pythons.limits.grace_s)
        self._programs = 0
        self.alive = True

    def run(self, code: str) -> ProgramResult:
        """Run the program to its end, or to its wall."""
        limits, started = self._pythons.limits, time.monotonic()
        line, self._programs = None, self._programs + 1
        # What is there before a program is sent was forged, or the interpreter has ended.
        with contextlib.suppress(OSError):
            if not _is_readable(self._channel, limit_s=0):
                self._channel.sendall(json.dumps(code).encode() + b"\n")
                wall = limits.timeout_s + limits.grace_s - (time.monotonic() - started)
                # JSON needs 12 bytes for a character outside the basic plane (two \\uXXXX), and some words around it.
                line = read_line(self._channel, limit_s=wall, most=12 * limits.output_chars + 4096)
        seconds = time.monotonic() - started
        reply = _parse_reply(line, number=self._programs, most=limits.output_chars + _NOTE_CHARS)
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


def _parse_reply(line: bytes | None, *, number: int, most: int) -> tuple[str, bool] | None:
    """Return (output, whether it failed), or None for an improper reply, which the program itself may have sent."""
    try:
        reply = json.loads(line or b"")
    except (ValueError, RecursionError):
        return None
    if not isinstance(reply, dict) or set(reply) != {"number", "output", "failed"}:
        return None
    output, failed = reply["output"], reply["failed"]
    # The true reply to a program that has sent its own comes late, with an old number.
    if type(reply["number"]) is not int or reply["number"] != number:
        return None
    return (output, failed) if isinstance(output, str) and len(output) <= most and isinstance(failed, bool) else None


def _is_readable(channel: socket.socket, *, limit_s: float) -> bool:
    """Return whether there is something to read, or the other side has closed, within the time."""
    # Not select, which takes no descriptor above 1,023: there may be that many samples.
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    return bool(poll.poll(max(0.0, limit_s) * 1000))


def read_line(channel: socket.socket, *, limit_s: float, most: int) -> bytes | None:
    """Return a line that comes within the time and is no longer than `most` bytes, None for anything else."""
    ends, line = time.monotonic() + limit_s, b""
    while not line.endswith(b"\n"):
        try:
            chunk = channel.recv(65536) if _is_readable(channel, limit_s=ends - time.monotonic()) else b""
        except (OSError, ValueError):
            # Closed by the other side, or by another thread here.
            return None
        line += chunk
        if not chunk or len(line) > most:
            return None
    return line
