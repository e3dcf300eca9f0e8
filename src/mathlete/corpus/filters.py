"""Which traces are fit to learn from: each check gives the reason why one is not, or "" where it is."""

import re
import zlib
from collections.abc import Sequence

from mathlete.answers import compare, last_box
from mathlete.corpus.programs import holds_foreign_output, holds_output
from mathlete.corpus.settings import Filters
from mathlete.problems import Problem
from mathlete.traces import Trace, TracedProblem, has_marks

_RUN = 20
_BASE = 0x9E3779B97F4A7C15
"""Odd, so that multiplying by it loses no bit: 2**64 over the golden ratio."""
_SQUEEZED = 0.08
"""Share of its size that zlib leaves of a text that says one thing again and again; of a real trace, a third."""
_LONG = 2000
"""Characters above which zlib's share tells something."""
_SCRIPTS = {
    "cjk": "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff",
    "hangul": "\u1100-\u11ff\uac00-\ud7af",
    "cyrillic": "\u0400-\u052f",
    "arabic": "\u0600-\u06ff\u0750-\u077f",
    "hebrew": "\u0590-\u05ff",
    "devanagari": "\u0900-\u097f",
    "thai": "\u0e00-\u0e7f",
}
"""Ranges of The Unicode Standard. Latin and Greek, which mathematics uses in any language, are never foreign."""
_LETTERS = {name: re.compile(f"[{ranges}]") for name, ranges in _SCRIPTS.items()}


def reason_against(traced: TracedProblem, filters: Filters) -> str:
    """Why the trace is left out: its own flaw, what the checker says, or what the filters find; "" for none."""
    problem, trace = traced.problem, traced.trace
    if trace.flaw and not (trace.flaw == "no gold" and trace.answer and filters.unverified == "keep"):
        return trace.flaw
    if not trace.flaw and (verdict := checked(trace, problem)):
        return verdict
    if not trace.text.strip():
        return "empty"
    if has_marks(trace.text):
        return "marks"
    if (holds_output if filters.tool_output == "drop" else holds_foreign_output)(trace.text):
        return "tool output"
    if filters.two_boxes == "drop" and boxes_differ(trace.ending):
        return "two boxes"
    if foreign_share(trace.text, statement=problem.statement) > filters.foreign:
        return "language"
    return "loop" if is_loop(trace.text, most=filters.repeats) else ""


def checked(trace: Trace, problem: Problem) -> str:
    """What the answer checker holds against the trace: wrong, unknown, or ""."""
    verdict = compare(answer=trace.answer, gold=problem.gold).outcome
    return {"equal": "", "different": "wrong", "unknown": "unknown"}[verdict]


def boxes_differ(text: str) -> bool:
    r"""Whether a text has two boxes with different answers.

    >>> boxes_differ(r"\boxed{0.5}, that is \boxed{\frac12}"), boxes_differ(r"\boxed{1} or \boxed{2}")
    (False, True)
    """
    box = last = last_box(text)
    while box is not None and last is not None:
        box = last_box(text[: box.start])
        if box is not None and compare(answer=box.content, gold=last.content).outcome == "different":
            return True
    return False


def foreign_share(text: str, *, statement: str) -> float:
    """The share of a text's letters in scripts that the statement does not use, 0 to 1."""
    if text.isascii():
        return 0.0
    foreign = sum(len(found.findall(text)) for found in _LETTERS.values() if not found.search(statement))
    return foreign / max(1, sum(map(str.isalpha, text)))


def is_loop(text: str, *, most: float) -> bool:
    """Whether a text says the same over and over: by its runs of words, or, where it has no words, by its bytes."""
    words = text.split()
    runs = max(0, len(words) - _RUN + 1)
    if runs and 1 - _distinct_runs(words) / runs > most:
        return True
    data = text.encode()
    return len(data) > _LONG and len(zlib.compress(data, 1)) < _SQUEEZED * len(data) and most < 1


def _distinct_runs(words: Sequence[str]) -> int:
    """How many runs of _RUN words differ: by 64-bit polynomial hashes (Karp and Rabin, IBM J. Res. Dev. 31, 1987)."""
    import numpy as np

    hashes = np.fromiter(map(hash, words), dtype=np.int64, count=len(words)).view(np.uint64)
    runs = np.zeros(len(words) - _RUN + 1, dtype=np.uint64)
    for at in range(_RUN):
        runs = runs * np.uint64(_BASE) + hashes[at : at + len(runs)]
    return len(np.unique(runs))


def shortened(text: str, *, gold: str) -> str:
    """The trace up to the end of the line where it first boxes the right answer; "" where it never does."""
    for found in re.finditer(r"\\boxed", text):
        end = text.find("\n", found.end())
        upto = text[: end if end >= 0 else len(text)]
        box = last_box(upto)
        if box is not None and compare(answer=box.content, gold=gold).outcome == "equal":
            return upto.rstrip()
    return ""
