"""Ctrl-C, SIGTERM and a closing terminal: the first stops a command, which says what it keeps; the second ends it.

What a command starts ends with it, also where it is killed itself: by `ending_with_parent` what it starts itself, by a
`Guard` what a library starts.

A command imports this module before all others, and it imports little itself: from then on a stop is heard.

>>> stop = KeyboardInterrupt("SIGTERM")
>>> stop.add_note("runs/base, unfinished")
>>> with contextlib.redirect_stderr(sys.stdout):
...     tell_stop(stop, command="python -m train math")
<BLANKLINE>
stopped by SIGTERM
  kept: runs/base, unfinished
  go on with: python -m train math
143
"""

import contextlib
import fcntl
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "its terminal's end"}
"""The signals that stop a command, as it tells them."""
_ECHO_MS = 1000
"""Within this time another signal is the same stop: a launcher sends its processes a SIGTERM soon after the terminal's
Ctrl-C, and of a terminal's end both kernel and shell tell."""
_SWALLOWED_S = 0.05
"""From the moment when a library has swallowed a stop until it is raised again: not in the same line."""
_LAST_S = 60.0
"""From the moment when a stop is told until the process is ended where threads of a library keep it."""
_PATIENCE_MS = 1000
"""How long stderr may take before a line is left out: a full pipe that nobody reads must not hold the second stop."""

_WATCH_MS, _OFF_DUTY = 1000, b"."
"""How often a guard looks what there is, and the word by which it ends."""
_PR_SET_PDEATHSIG = 1
"""Of prctl(2)."""

_SHOW_CURSOR = "\x1b[?25h"
"""For a terminal: a bar may have hidden it."""


def run_stoppably(main: Callable[[], int], *, prog: str) -> int:
    """Carry out a process's command; return its exit code: 128 and the signal's number where one has stopped it.

    The first signal raises `Stop` in the main thread, wherever that is. The second ends the process and all below it,
    as does the first after the command's end. Signals that are ignored stay ignored.
    """
    stops = _Stops()
    try:
        stops.listen()
        return main()
    except BaseException as error:
        stop = find_stop(error) or stops.find_replaced(error)
        if stop is None:
            raise
        import shlex

        return tell_stop(stop, command=f"{prog} {shlex.join(sys.argv[1:])}".rstrip())
    finally:
        stops.over = True
        # A KeyboardInterrupt that ended a text given to `exec`, as dataclasses and sympy give them, is one that nobody
        # has caught to CPython, which then kills itself at exit. Another text makes it forget.
        exec("")


class Stop(KeyboardInterrupt):
    """What a signal raises; raised again where a library swallows it, as in an import or a destructor."""

    def __init__(self, stops: "_Stops", number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self._stops = stops

    def settle(self) -> None:
        """Take the command for ended: neither this stop nor another is raised any more."""
        self._stops.over = True

    def __del__(self) -> None:
        self._stops.raise_again()


def find_stop(error: BaseException | None) -> KeyboardInterrupt | None:
    """Return the stop that an error is or came of: a clean-up may fail, an import say it with words of its own.

    >>> try:
    ...     try:
    ...         raise KeyboardInterrupt
    ...     except KeyboardInterrupt as stop:
    ...         raise ImportError("initialization failed") from stop
    ... except ImportError as error:
    ...     find_stop(error)
    KeyboardInterrupt()
    """
    seen = set[int]()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def tell_stop(stop: KeyboardInterrupt, *, command: str) -> int:
    """Print what was saved, from the notes on the exception, and how to go on; return the exit code."""
    if isinstance(stop, Stop):
        stop.settle()
    number = next((number for number in _NAMES if stop.args == (number.name,)), signal.SIGINT)
    saved: list[str] = getattr(stop, "__notes__", [])
    lines = ["", f"stopped by {_NAMES[number]}", *(f"  kept: {note}" for note in saved)]
    lines.append(f"  {'go on' if saved else 'nothing half-done is left; begin again'} with: {command}")
    with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, as the terminal may be
        sys.stderr.write("\n".join([*lines, ""]))
        sys.stderr.flush()
    return 128 + number


@contextmanager
def keep_handlers() -> Iterator[None]:
    """Put back the handlers that a library has replaced by its own, which would end the process without words."""
    before = {number: signal.getsignal(number) for number in _NAMES}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if handler is not None and signal.getsignal(number) is not handler:
                    signal.signal(number, handler)


def ending_with_parent(number: int = signal.SIGKILL) -> Callable[[], None] | None:
    """Return a `preexec_fn` for `subprocess`: the kernel ends the process when the thread that starts it has ended.

    The signal of that number is what it sends. It holds through `exec`, for as long as the process changes no user. On
    other systems than Linux there is none.
    """
    if sys.platform != "linux":
        return None
    import ctypes

    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # it ended before it was asked for
            os._exit(128 + number)

    return ask


class Guard:
    """A process beside this one, which ends all that this one has started, should it be killed itself."""

    def __init__(self) -> None:
        import subprocess

        words = [sys.executable, "-c", "import sys; from mathlete import signals; signals.watch_over(int(sys.argv[1]))"]
        path = os.pathsep.join(filter(None, sys.path))
        self._process = subprocess.Popen(
            [*words, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    def end(self) -> None:
        """End the guard: what runs still may run on."""
        # Where it was killed itself, its input is open still.
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(OSError):
                self._process.communicate(_OFF_DUTY)


def watch_over(parent: int) -> None:
    """Wait until the input ends, and kill what was below that process a second before, unless a word says not to."""
    below = set[int]()
    while not _is_ready(0, select.POLLIN, _WATCH_MS):
        below = {*_descendants(parent)} - {os.getpid()}
    if not os.read(0, 1):
        for pid in below:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


class _Stops:
    """The signals of a process, counted by a thread as they come.

    Python itself runs no handler while a library computes, and merges what comes meanwhile.
    """

    over = False
    """Whether the command has ended, so that there is nothing to stop but the process."""
    first = 0
    """The number of the first that came."""

    def __init__(self) -> None:
        self._raised = False
        self._handled: list[int] = []
        self._own = 0
        """Signals that the thread itself has sent, and will read."""

    def listen(self) -> None:
        """Handle the signals that are not ignored. Outside the main thread Python has none."""
        if threading.current_thread() is not threading.main_thread():
            return
        listens, self._speaks = _open_pipe()
        os.set_blocking(self._speaks, False)
        signal.set_wakeup_fd(self._speaks, warn_on_full_buffer=False)
        with contextlib.suppress(RuntimeError):  # no thread can be started: the command will have more to say of that
            threading.Thread(target=self._count, args=(listens,), name="mathlete-signals", daemon=True).start()
        for number in _NAMES:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                signal.signal(number, self)
                self._handled.append(number)
        hook = sys.unraisablehook
        # It would print the traceback of a stop that is raised again.
        sys.unraisablehook = lambda lost: None if isinstance(lost.exc_value, Stop) else hook(lost)
        _listening.append(self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise a stop, once: what comes later is the thread's, and must not end the clean-up half-way."""
        if not self._raised and not self.over:
            self._raised = True
            raise Stop(self, number)

    def find_replaced(self, error: BaseException) -> KeyboardInterrupt | None:
        """Return the stop for which a library has ended the process, by a handler in the place of this one."""
        if not isinstance(error, SystemExit) or all(map(self._handles, self._handled)):
            return None
        time.sleep(_SWALLOWED_S)  # the thread may not have read it yet
        return Stop(self, self.first) if self.first else None

    def raise_again(self) -> None:
        """Have a stop that was swallowed be raised once more, when what has swallowed it is over."""
        if not self.over:
            self._raised = False
            os.write(self._speaks, bytes(1))

    def _count(self, listens: int) -> None:
        """Read the signals' numbers, and end the process at the second stop."""
        came, told, over_since = 0.0, False, 0.0
        while True:
            if not _is_ready(listens, select.POLLIN, _ECHO_MS if self.first else None):
                if not (told or self.over):
                    _say("\nstopping; a second Ctrl-C ends it at once\n")
                told = True
                over_since = over_since or (time.monotonic() if self.over else 0.0)
                if over_since and time.monotonic() - over_since > _LAST_S:
                    _end(self.first, f"threads of it went on for {_LAST_S:g} s")
                # One that comes just before the main thread begins to wait does not end the waiting.
                self._wake()
                continue
            number = os.read(listens, 1)[0]
            # 0 is the word of a stop that was swallowed.
            if number == 0:
                time.sleep(_SWALLOWED_S)
                self._wake()
            if number not in _NAMES:
                continue
            if self._own:
                self._own -= 1
                continue
            is_echo = time.monotonic() - came <= _ECHO_MS / 1000 and (number != self.first or number == signal.SIGHUP)
            if self.over and not (self.first or self._raised):
                _end(number, "the command had finished")
            if self.first and not is_echo:
                _end(number, "the same command goes on with what is there")
            self.first, came = self.first or number, time.monotonic()

    def _wake(self) -> None:
        """Send the main thread the signal once more, if it has not heard it."""
        if not (self._raised or self.over) and self._handles(self.first):
            self._own += 1
            signal.pthread_kill(threading.main_thread().ident or 0, self.first)

    def _handles(self, number: int) -> bool:
        handler: object = signal.getsignal(number)
        return handler is self

    def forget(self) -> None:
        """Let this forked process, whose signals are not those of the one it came of, end by them as any other does."""
        signal.set_wakeup_fd(-1)
        self.over = True
        for number in _NAMES:
            if self._handles(number):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


_listening: list[_Stops] = []
"""Those of this process, if it has any."""
_forking = threading.local()
"""Which signals a thread that is forking had masked before."""


def _mask() -> None:
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _NAMES)


def _unmask() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _unmask_in_child() -> None:
    for stops in _listening:
        stops.forget()
    _unmask()


# While it is forked neither is interrupted: a signal for the child would still be counted as the parent's.
os.register_at_fork(before=_mask, after_in_parent=_unmask, after_in_child=_unmask_in_child)


def _open_pipe() -> tuple[int, int]:
    """Return both ends of a pipe, of which none has the number of a standard stream that is closed: all print there."""
    ends = os.pipe()
    reads, writes = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3) for end in ends)
    for end in ends:
        os.close(end)
    return reads, writes


def _is_ready(number: int, event: int, patience_ms: int | None) -> bool:
    """Return whether a file can be read or written within that time, or ever."""
    poll = select.poll()
    poll.register(number, event)
    return bool(poll.poll(patience_ms))


def _say(words: str) -> None:
    """Write to stderr past Python's own stream, in which the main thread may hang."""
    with contextlib.suppress(OSError):  # closed, full, or the end of a pipe
        if _is_ready(2, select.POLLOUT, _PATIENCE_MS):
            os.write(2, words.encode())


def _end(number: int, why: str) -> None:
    """End this process and all below it: engines, workers, containers."""
    for pid in _hold_descendants():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        _say(f"{_SHOW_CURSOR if os.isatty(2) else ''}\nended at once; {why}\n")
    os._exit(128 + number)


def _hold_descendants() -> list[int]:
    """Stop the processes below this one where they are, so that none starts another unseen; return them."""
    held: list[int] = []
    while new := [pid for pid in _descendants(os.getpid()) if pid not in held]:
        for pid in new:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGSTOP)
        held += new
    return held


def _descendants(pid: int) -> list[int]:
    """Return the processes below one, from /proc; none where there is no such folder."""
    from pathlib import Path  # takes as long to import as all else here

    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name before it stands in brackets, and may hold anything.
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    below = list[int]()
    todo = [pid]
    while todo:
        todo = [child for one in todo for child in children.get(one, [])]
        below += todo
    return below
