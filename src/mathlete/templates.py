"""A chat template tried in a process of its own, within limits, before anything is rendered here.

A template comes with a model and is a program: it may raise, loop for ever, or print until memory is full.

>>> try_template([Rendering(lambda: "Q: 2+2", holds=("2+2",))], where="a model")
>>> try_template([Rendering(lambda: "Hello!", holds=("2+2",))], where="a model")
Traceback (most recent call last):
    ...
mathlete.errors.UserError: the chat template must write the question, got a prompt of a model without '2+2'.
  Fix: use the template that the model is served with
"""

import json
import os
import resource
import select
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mathlete.errors import UserError

CPU_S, WALL_S = 10, 120.0
"""Seconds of computing that all renderings together may take, and of a busy machine's clock."""
SWITCHES = ("enable_thinking", "thinking", "clear_thinking", "preserve_thinking")
"""Arguments of templates that are true or false and nothing else: Qwen3's, SmolLM3's and GLM-4.5's; DeepSeek-V3.1's
and Granite's; GLM-4.7's; Qwen3.6's. Any other value leaves thinking on, as a text that is true or as no `false`."""
_MEMORY_BYTES = 2**30
_MOST_CHARACTERS = 2_000_000
_TIMES = 3
"""How often each is rendered: a template that draws by chance writes another prompt each time."""
_CURE = "use the template that the model is served with"
_AS_TEXT = "the chat template must take a message's content as text"
_ALIKE = "the chat template must write one prompt of one question"
_CURES = {
    _ALIKE: "take what it draws by chance (`random`, `lipsum`) out of it",
    _AS_TEXT: "write `message['content']` where it goes through its parts, as templates of text models do",
}
"""{rule: how it is kept}; _CURE for the others."""


@dataclass(frozen=True)
class Rendering:
    """One conversation to render."""

    render: Callable[[], str]
    holds: tuple[str, ...] = ()
    """Texts that must be in it."""
    may_fail: bool = False
    """Whether a template may refuse such a conversation."""
    in_parts: Callable[[], str] | None = None
    """The same with a list of parts in place of each text, which templates of models that see take."""

    def takes_parts(self) -> bool:
        """Return whether the texts are in it in parts alone, which its caller has found lacking."""
        try:
            text = self.in_parts() if self.in_parts else ""
        except Exception:
            # The border to a stranger's program, as in `_judge`.
            return False
        return bool(text) and all(part in text for part in self.holds)


def try_template(renderings: Sequence[Rendering], *, where: str) -> None:
    """Render conversations in a forked process.

    Raises:
        UserError: one can't be rendered, lacks its text, is another each time, or takes too much time or memory;
            `where` names the model.
    """
    reads, writes = os.pipe()
    with warnings.catch_warnings():
        # The child renders and ends: it takes no lock that another thread may hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _render_in_child(renderings, writes, where=where)
    os.close(writes)
    try:
        said = _read_until(reads, time.monotonic() + WALL_S)
    finally:
        os.close(reads)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    if not said and os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL):
        rule = f"the chat template must render a question within {CPU_S} s of computing"
        raise UserError(rule, value=f"that of {where}, which was still at it", cure=_CURE)
    rule, value = json.loads(said) if said else ("the chat template must render a question", "a process that died")
    if rule:
        raise UserError(rule, value=value, cure=_CURES.get(rule, _CURE))


def _render_in_child(renderings: Sequence[Rendering], writes: int, *, where: str) -> None:
    try:
        _limit()
        os.write(writes, json.dumps(_judge(renderings, where)).encode())
    finally:
        # No clean-up: it would flush and close what belongs to the parent.
        os._exit(0)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    with suppress(OSError, ValueError):  # no /proc, or a lower limit already
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY_BYTES,) * 2)


def _judge(renderings: Sequence[Rendering], where: str) -> tuple[str, str]:
    """Return (rule, value) of the first that is broken; empty where none is."""
    for one in renderings:
        try:
            text, *others = [one.render() for _ in range(_TIMES)]
        except MemoryError:
            return f"the chat template must render a question in {_MEMORY_BYTES / 2**30:.0f} GiB of memory", where
        except Exception as error:
            # The border to a stranger's program, which raises whatever it likes.
            if one.may_fail:
                continue
            if one.takes_parts():
                return _AS_TEXT, f"a list of parts in that of {where}"
            words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            return "the chat template must render a question on its own", f"{words} in that of {where}"
        if len(text) > _MOST_CHARACTERS:
            return f"the chat template must write at most {_MOST_CHARACTERS} characters", f"{len(text)} of {where}"
        if missing := [part for part in one.holds if part not in text]:
            if one.takes_parts():
                return _AS_TEXT, f"a list of parts in that of {where}"
            return "the chat template must write the question", f"a prompt of {where} without {missing[0]!r}"
        # A prompt that differs each time would be trained on and never served.
        if any(other != text for other in others):
            return _ALIKE, f"another each time in that of {where}"
    return "", ""


def _read_until(file: int, ends: float) -> bytes:
    """Return what comes before the other side ends or the time is over."""
    parts = list[bytes]()
    while select.select([file], [], [], max(0.0, ends - time.monotonic()))[0] and (part := os.read(file, 65536)):
        parts.append(part)
    return b"".join(parts)
