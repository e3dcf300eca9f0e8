"""Ctrl-C and SIGTERM: the first stops a command, which then says what it keeps; the second ends it at once.

>>> import os, signal
>>> with stop_on_signals():
...     try:
...         os.kill(os.getpid(), signal.SIGTERM)
...     except KeyboardInterrupt as stop:
...         print(stop)
SIGTERM
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_STOPS = (signal.SIGINT, signal.SIGTERM)
_ECHO_S = 1.0
"""A launcher sends its processes a SIGTERM soon after the terminal's Ctrl-C: within this time that is one stop."""


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Have the first of these signals raise KeyboardInterrupt with its name, and the second end all at once.

    A thread counts them as they come, for Python itself runs nothing while a library computes, and merges what comes
    meanwhile. Where a stop ends the context by its exception this stays so, until the process has ended. Signals that
    are ignored stay ignored. Outside the main thread Python has no signals: nothing changes there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _STOPS if signal.getsignal(number) is not signal.SIG_IGN}
    listens, speaks = os.pipe()
    os.set_blocking(speaks, False)
    earlier = signal.set_wakeup_fd(speaks, warn_on_full_buffer=False)
    handler = _Stop()
    for number in before:
        signal.signal(number, handler)
    threading.Thread(target=_end_at_the_second, args=(listens,), name="mathlete-signals", daemon=True).start()
    stopped = False
    try:
        yield
    except KeyboardInterrupt as stop:
        stopped = bool(stop.args)  # else it was raised by other means
        raise
    finally:
        if not stopped:
            signal.set_wakeup_fd(earlier)
            for number, earlier_handler in before.items():
                signal.signal(number, earlier_handler)
            os.close(speaks)


class _Stop:
    """A handler that raises once: what comes later is the counting thread's, and must not end the clean-up half-way."""

    raised = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt with the signal's name."""
        if not self.raised:
            self.raised = True
            raise KeyboardInterrupt(signal.Signals(number).name)


def _forget_in_child() -> None:
    """Let a forked process, whose signals are not this one's, end by SIGTERM as any other does."""
    if isinstance(signal.getsignal(signal.SIGTERM), _Stop):
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _mask(signal.SIG_UNBLOCK)


def _mask(how: int) -> None:
    signal.pthread_sigmask(how, _STOPS)


# While it is forked neither is interrupted: a signal for the child would still be counted as the parent's.
os.register_at_fork(
    before=lambda: _mask(signal.SIG_BLOCK),
    after_in_parent=lambda: _mask(signal.SIG_UNBLOCK),
    after_in_child=_forget_in_child,
)


def _end_at_the_second(listens: int) -> None:
    """Read the signals' numbers until the other side is closed, and end the process at the second stop."""
    first, came, told = 0, 0.0, False
    while True:
        if first and not told and not select.select([listens], [], [], _ECHO_S)[0]:
            told = True
            print("\nstopping; a second Ctrl-C ends it at once", file=sys.stderr, flush=True)
        if not (byte := os.read(listens, 1)):
            os.close(listens)
            return
        if byte[0] not in _STOPS:
            continue
        if first and (byte[0] == first or time.monotonic() - came > _ECHO_S):
            _end(byte[0])
        first, came = byte[0], time.monotonic()


def _end(number: int) -> None:
    """End this process and all below it: engines, workers, containers."""
    for pid in _descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    # What was drawn or trained until now is on the disk; a bar may have hidden the cursor.
    shown = "\x1b[?25h" if sys.stderr is not None and sys.stderr.isatty() else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{shown}\nended at once; the same command goes on with what is there\n".encode())
    os._exit(128 + number)


def _descendants(pid: int) -> list[int]:
    """Return the processes below one, from /proc; none where there is no such folder."""
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
