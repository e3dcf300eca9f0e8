"""What a machine refuses, said as a user's mistake: disks, names, rights, memory, pipes, text of another encoding.

>>> print(explain(PermissionError(13, "Permission denied", "runs/base")))
a run's files must be this user's to read and write, got runs/base: Permission denied.
  Fix: choose another folder, or have its owner let you in
>>> explain(ZeroDivisionError()) is None
True
"""

import errno
import math
import os
import re
import select
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path

from mathlete.errors import UserError

_ROOM = ("the disk must have room", "free some space and run it again")
_RULES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EROFS: ("a disk that is written to must not be read-only", "choose a folder on another disk"),
    errno.EACCES: (
        "a run's files must be this user's to read and write",
        "choose another folder, or have its owner let you in",
    ),
    errno.ENAMETOOLONG: ("a name must be short enough for the disk, 255 bytes on most", "choose a shorter one"),
    errno.ENOTDIR: ("a path must lead through folders only", "check the path, or move the file that is in the way"),
    errno.EEXIST: ("a folder can't be made where a file is", "choose another path, or move the file"),
    errno.EISDIR: ("a file that is read or written must not be a folder", "name a file"),
    errno.ELOOP: ("a link must not lead in a circle", "check the path"),
    errno.EMFILE: ("a process must be allowed to open the files it needs", "raise the limit: `ulimit -n 4096`"),
    errno.EFBIG: ("a process must be allowed to write the files it needs", "raise the limit: `ulimit -f unlimited`"),
    errno.EIO: ("the disk must work", "look into the system's log, and choose a folder on another disk"),
}
"""{error number: (rule, cure)}."""
_RULES |= {errno.EPERM: _RULES[errno.EACCES], errno.ENFILE: _RULES[errno.EMFILE]}
_TORCH_BYTES = 3 * 2**29
"""Address space with which the pocket model is evaluated; measured: 1.0 GB is too little for all of it, 2.0 enough."""
_MAY_BE_EMPTY = ("instruction", "organiser")
"""Ends of flags after which an empty word means something; else it is a variable of the shell that is not set."""
_MEMORY = re.compile(
    r"cannot allocate memory|can't allocate memory|not enough memory|out of memory|failed to map segment|"
    r"can't start new thread|insufficient memory|std::bad_alloc",
    re.IGNORECASE,
)
"""How libraries say that memory is short; not all raise MemoryError."""


def explain(error: BaseException) -> UserError | None:
    """Return the user's mistake that an error stands for; None for a bug."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, MemoryError) or _MEMORY.search(str(error)):
        return _explain_memory(error)
    if isinstance(error, BrokenPipeError) and any(map(_has_no_reader, (1, 2))):
        return UserError(
            "the output must have a reader until the end",
            value="a pipe that was closed",
            cure="write it into a file; the same command goes on with what is there",
        )
    if isinstance(error, OSError) and error.errno in _RULES:
        rule, cure = _RULES[error.errno]
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return UserError(rule, value=f"{where}{error.strerror}", cure=cure)
    return None


def name_cause(error: BaseException) -> str:
    """Return an error's kind and, where a hub's answer is behind it, that: libraries say of any that a file is missing.

    >>> name_cause(FileNotFoundError("not cached"))
    'FileNotFoundError'
    """
    answer = _find_answer(error)
    return type(error).__name__ + (f": the hub answered {answer[0]} {answer[1]}".rstrip() if answer else "")


def find_hub_cure(error: BaseException) -> str:
    """Return what to do first about what the hub answered, with a semicolon behind it; "" where it says nothing."""
    answer = _find_answer(error)
    refused = answer is not None and answer[0] in (401, 403)
    return "accept its terms there and set HF_TOKEN, or `hf auth login`; else " if refused else ""


def _find_answer(error: BaseException | None) -> tuple[int, str] | None:
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        # httpx's and requests' errors have one; neither is loaded for this.
        response = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        if isinstance(status, int):
            words = getattr(response, "reason_phrase", "") or getattr(response, "reason", "")
            return status, str(words or "")
        error = error.__cause__ or error.__context__
    return None


def _explain_memory(error: BaseException) -> UserError:
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    limited = limit != resource.RLIM_INFINITY
    return UserError(
        "memory must hold the run",
        value=f"{' '.join(str(error).split())[:200] or type(error).__name__}"
        + (f", with `ulimit -v` at {limit / 2**30:.1f} GiB" if limited else ""),
        cure="raise it: `ulimit -v unlimited`" if limited else "end other programs, or use a smaller model or batch",
    )


def require_address_space() -> None:
    """Check that a process may map what torch needs: with less, its libraries abort the process without a word.

    Raises:
        UserError: the shell's limit is too low.
    """
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < _TORCH_BYTES:
        raise UserError(
            f"memory must hold the run: torch alone maps {_TORCH_BYTES / 2**30:.1f} GiB",
            value=f"`ulimit -v` at {limit / 2**30:.1f} GiB",
            cure="raise it: `ulimit -v unlimited`",
        )


def _has_no_reader(number: int) -> bool:
    poll = select.poll()
    poll.register(number, 0)
    return any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))


def require_words(words: Sequence[str]) -> None:
    """Check that a command's words, and the folder that it is called in, can be written down.

    Raises:
        UserError: one is not UTF-8 or empty, begins with an unread ~, or the folder is gone.
    """
    for before, word in pairwise(("", *words)):
        flag = word.removesuffix("=") if word.startswith("--") else before
        if (not word or (word.startswith("--") and word.endswith("="))) and not flag.endswith(_MAY_BE_EMPTY):
            rule = "a word of the command must not be empty"
            raise UserError(
                rule, value=f"{flag} ''", cure="leave it out, or set the shell's variable that it was made of"
            )
    try:
        here = str(Path.cwd())
    except FileNotFoundError as error:
        raise UserError("the working folder must exist", value="one that was deleted", cure="cd to another") from error
    for word in (*words, here):
        require_utf8(word)
    for word in words:
        if re.match(r"(--[^=]*=)?~(/|$)", word):
            rule = "a path must not begin with ~, which a shell replaces only at a word's beginning and without quotes"
            raise UserError(rule, value=word, cure='write "$HOME" instead')


def require_finite(settings: object) -> None:
    """Check that no number in a dataclass of settings, or in one below it, is infinite or no number.

    Raises:
        UserError: one is.
    """
    for name, value in vars(settings).items():
        if is_dataclass(value):
            require_finite(value)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                rule = f"{name.replace('_', '-')} must be a finite number"
                raise UserError(rule, value=number, cure="leave it out, or give a number")


def require_utf8(name: str) -> None:
    """Check that a name can be written into a manifest.

    Raises:
        UserError: it is not UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError("a name must be UTF-8", value=ascii(name), cure="rename the file or folder") from error


def open_streams() -> None:
    """Make stdin, stdout and stderr such that nothing written to them fails for its letters, or ends in a file.

    A closed one would give its number to the next file that is opened, into which libraries then print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # as Python has it for one that is closed
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - open until the process ends
    for stream in (sys.stdout, sys.stderr):
        # surrogateescape, which some locales give, holds no more letters than strict does.
        if isinstance(stream, TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")


def mute_broken_streams() -> None:
    """Have what a stream cannot take go nowhere: Python writes it once more at exit, and would end with code 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, AttributeError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
