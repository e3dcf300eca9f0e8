"""The process behind `mathlete.tir.python`: holds numpy and sympy loaded, and forks an interpreter for each sample.

Requests come over one socket, 9 bytes each: `o` and a number, with a socket attached, opens an interpreter that
listens there; `k` and its number kills it. When the socket closes, because its owner ended in whatever way, all
interpreters are killed. This process itself never runs a program.
"""

import ast
import builtins
import contextlib
import importlib
import io
import json
import linecache
import os
import select
import signal
import socket
import sys
import traceback
from pathlib import Path
from types import FrameType

from mathlete.tir.hints import find_hint
from mathlete.tir.protection import ProgramLimits, apply_layers, hide_memory, set_limits, usable_layers

_LOADED = (
    "bisect",
    "cmath",
    "collections",
    "decimal",
    "fractions",
    "functools",
    "heapq",
    "itertools",
    "math",
    "random",
)
_LOADED_TOO = ("re", "statistics", "string", "time", "typing", "mpmath", "numpy", "sympy")
"""Loaded once here: a fork shares them, where each interpreter would need a second to import them."""
_EMPTY = {"__name__": "__main__", "__builtins__": builtins}
REQUEST_BYTES = 9
READY = b"ready\n"
"""What an interpreter says first; one that does not get behind its layers says why instead."""
_LOOK_S = 0.1
_MOST_THREADS = 256
"""Of an interpreter: one program could use up the numbers that the kernel has for all threads of a machine."""
_HINTED_CHARS = 1000


def serve(control: socket.socket, limits: ProgramLimits, layers: list[str] | None) -> None:
    """Answer requests until the socket closes; `layers` None takes all that work here."""
    for name in (*_LOADED, *_LOADED_TOO):
        importlib.import_module(name)
    layers = usable_layers() if layers is None else layers
    # Of an interpreter this process is the nearest neighbour.
    hide_memory()
    control.sendall(json.dumps(layers).encode() + b"\n")
    children: dict[bytes, int] = {}
    try:
        while request := _next_request(control, children):
            word, handles = request
            if word[:1] == b"o":
                children[word[1:]] = _fork(control, handles[0], limits, layers)
                os.close(handles[0])
            elif word[1:] in children:
                _kill(children.pop(word[1:]))
    finally:
        for child in children.values():
            _kill(child)


def _next_request(control: socket.socket, children: dict[bytes, int]) -> tuple[bytes, list[int]] | None:
    # Wakes up without a request too: interpreters that ended by themselves would stay zombies.
    while not select.select([control], [], [], _LOOK_S if children else None)[0]:
        _reap(children)
    _reap(children)
    word, handles, _, _ = socket.recv_fds(control, REQUEST_BYTES, 1)
    # A stream socket may deliver a request in pieces; zeros fill up one that its sender did not live to finish.
    while word and len(word) < REQUEST_BYTES:
        word += control.recv(REQUEST_BYTES - len(word)) or b"\0" * REQUEST_BYTES
    return (word, handles) if word else None


def _reap(children: dict[bytes, int]) -> None:
    """Forget interpreters that have ended, and end those with too many threads."""
    for number, child in [*children.items()]:
        if os.waitpid(child, os.WNOHANG)[0]:
            del children[number]
        elif _count_threads(child) > _MOST_THREADS:
            _kill(children.pop(number))


def _count_threads(child: int) -> int:
    try:
        # The twentieth field; the second, in brackets, may hold spaces.
        return int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[17])
    except (OSError, ValueError, IndexError):
        return 1  # no /proc, as on macOS


def _kill(child: int) -> None:
    # Its group too: without a filter it may have children of its own.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _fork(control: socket.socket, handle: int, limits: ProgramLimits, layers: list[str]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        # Else the interpreter could open and kill others.
        control.close()
        # A process group of its own, so that one signal ends it with whatever it started.
        os.setsid()
        channel = socket.socket(fileno=handle)
        # Limits before layers: the filter forbids setrlimit.
        set_limits(limits)
        try:
            apply_layers(layers)
        except OSError as error:
            channel.sendall(f"{error}\n".encode(errors="replace"))
            return child
        _interpret(channel, limits)
    finally:
        # A child must never return into the loop of `serve`, whatever happened.
        os._exit(0)


def _interpret(channel: socket.socket, limits: ProgramLimits) -> None:
    """Run the programs that come in as lines of JSON, one after another in one namespace."""
    import random

    import numpy

    # Python refuses to print integers of more than 4,300 digits; the wall and the output's limit hold anyway.
    sys.set_int_max_str_digits(0)
    random.seed(0)
    numpy.random.seed(0)
    channel.sendall(READY)
    namespace: dict[str, object] = {**_EMPTY}
    for number, line in enumerate(channel.makefile("rb"), start=1):
        output = BoundedText(limits.output_chars)
        failed = execute(json.loads(line), namespace, output, name=f"<block {number}>", timeout_s=limits.timeout_s)
        reply = {"number": number, "output": output.getvalue(), "failed": failed}
        channel.sendall(json.dumps(reply).encode() + b"\n")


def execute(code: str, namespace: dict[str, object], output: io.TextIOBase, *, name: str, timeout_s: float) -> bool:
    """Run a program; return whether it failed. Its printed text and its traceback are written to `output`."""
    # For tracebacks, which show the source line of each frame.
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    sys.stdout = sys.stderr = output
    try:
        try:
            signal.signal(signal.SIGALRM, _raise_timeout)
            signal.setitimer(signal.ITIMER_REAL, timeout_s)
            _run(code, namespace, name)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except SystemExit:
        return False
    except MemoryError as error:
        # Variables that fill the memory would make every later program fail too.
        traceback.clear_frames(error.__traceback__)
        namespace.clear()
        namespace.update(_EMPTY)
        output.write(_format_error(error) + "[out of memory: all variables are gone]\n")
        return True
    except BaseException as error:
        # The boundary to the model's program, which raises whatever it likes; the model reads it.
        output.write(_format_error(error))
        return True
    return False


def _raise_timeout(number: int, frame: FrameType | None) -> None:
    raise TimeoutError("the program ran too long")


def _run(code: str, namespace: dict[str, object], name: str) -> None:
    """Run the statements, and print the value of a last expression as a notebook does."""
    tree = ast.parse(code, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), namespace)
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
        if value is not None:
            print(repr(value))


def _format_error(error: BaseException) -> str:
    """Return the traceback with the programs' own lines only."""
    report = traceback.TracebackException(type(error), error, error.__traceback__, compact=True)
    own = [frame for frame in report.stack if frame.filename.startswith("<block")]
    report.stack = traceback.StackSummary.from_list(own)
    lines = [*report.format_exception_only()]
    hint = find_hint(lines[-1][:_HINTED_CHARS]) if lines else None
    return "".join(report.format(chain=False)) + (f"[hint: {hint}]\n" if hint else "")


class BoundedText(io.TextIOBase):
    """A text file in memory that keeps the start and the end of what is written, and drops the middle.

    >>> text = BoundedText(10)
    >>> text.write("0123456789abcdef")
    16
    >>> text.getvalue()
    '01234\\n[6 characters left out]\\nbcdef'
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._head, self._tail, self._length = limit, "", "", 0

    def write(self, text: str) -> int:
        """Take the text, and return its length."""
        rest = text
        if (room := self._limit // 2 - len(self._head)) > 0:
            self._head, rest = self._head + text[:room], text[room:]
        keep = self._limit - self._limit // 2
        self._tail = (self._tail + rest[-keep:])[-keep:]
        self._length += len(text)
        return len(text)

    def writable(self) -> bool:
        """Return True."""
        return True

    def getvalue(self) -> str:
        """Return the text, with a note where the middle is missing."""
        left_out = self._length - len(self._head) - len(self._tail)
        middle = f"\n[{left_out} characters left out]\n" if left_out else ""
        return self._head + middle + self._tail
