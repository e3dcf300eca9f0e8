"""The progress bar of a rehearsal: questions answered so far, how many of them rightly, and the fallbacks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from mathlete.command import progress
from mathlete.kernel import JournalLine


@contextmanager
def rehearsal_bar(
    title: str, *, golds: Mapping[str, str], total: int
) -> Iterator[Callable[[Sequence[JournalLine]], None]]:
    """Show a bar for as long as it is entered; yield what moves it.

    Args:
        title: what stands before the bar.
        golds: {problem id: gold}.
        total: questions asked.
    """
    with progress(title) as bar:
        task = bar.add_task("starts", total=total)

        def show(lines: Sequence[JournalLine]) -> None:
            bar.update(task, completed=len(lines), description=in_words(lines, golds))

        yield show


def in_words(lines: Sequence[JournalLine], golds: Mapping[str, str]) -> str:
    """Return the running score.

    >>> right = JournalLine(id="a", answer=3, fallback=False, why="")
    >>> none = JournalLine(id="b", answer=0, fallback=True, why="the clock")
    >>> in_words([right, none], {"a": "3"})
    'right 1 of 2, 1 fallback'
    """
    right = sum(str(line.answer) == golds.get(line.id) for line in lines)
    fallbacks = sum(line.fallback for line in lines)
    return f"right {right} of {len(lines)}" + (f", {fallbacks} fallback" if fallbacks else "")
