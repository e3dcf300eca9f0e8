"""The progress bar of a rehearsal: it reads along in the notebook's log, where every answer leaves a line of JSON."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from mathlete.command import progress

_EVERY_S = 0.5
_START = '{"id": '


@contextmanager
def rehearsal_bar(title: str, *, log: Path, golds: Mapping[str, str], total: int) -> Iterator[None]:
    """Shows the questions answered so far, how many of them rightly, and the fallbacks, for as long as it is entered.

    Args:
        title: what stands before the bar.
        log: the notebook's log, there or not yet.
        golds: {problem id: gold}.
        total: questions asked.
    """
    with progress(title) as bar:
        task, ended = bar.add_task("starts", total=total), Event()

        def follow() -> None:
            while not ended.wait(_EVERY_S):
                if found := answered(log):
                    bar.update(task, completed=len(found), description=in_words(found, golds))

        follower = Thread(target=follow, daemon=True)
        if not bar.disable:
            follower.start()
        try:
            yield
        finally:
            ended.set()
            if follower.is_alive():
                follower.join()


def answered(log: Path) -> list[dict[str, Any]]:
    """The journal's lines in the notebook's log, as far as they are written; none where there is no log yet."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    lines = [line[line.index(_START) :] for line in text.splitlines() if _START in line and line.endswith("}")]
    return [json.loads(line) for line in lines]


def in_words(found: list[dict[str, Any]], golds: Mapping[str, str]) -> str:
    """The running score.

    >>> in_words([{"id": "a", "answer": 3, "fallback": False}, {"id": "b", "answer": 0, "fallback": True}], {"a": "3"})
    'right 1 of 2, 1 fallback'
    """
    right = sum(str(line["answer"]) == golds.get(line["id"]) for line in found)
    fallbacks = sum(bool(line["fallback"]) for line in found)
    return f"right {right} of {len(found)}" + (f", {fallbacks} fallback" if fallbacks else "")
