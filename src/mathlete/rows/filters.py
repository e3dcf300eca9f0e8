"""Which traces are fit to learn from: each check gives the reason why a trace is dropped, or "" where it passes."""

import re
import zlib
from collections.abc import Sequence

from mathlete.answers import compare, last_box
from mathlete.problems import Problem
from mathlete.reasoning import has_marks
from mathlete.renderings import holds_chat_marks
from mathlete.rows.programs import holds_foreign_output, holds_output
from mathlete.rows.settings import Filters
from mathlete.traces import Trace, TracedProblem

_RUN = 20
_BASE = 0x9E3779B97F4A7C15
"""Odd, so that multiplication by it loses no bit; 2**64 over the golden ratio."""
_COMPRESSED = 0.08
"""zlib shrinks a text that repeats itself below this share of its size, a real trace to a third."""
_LONG = 2000
"""Characters above which zlib's share is informative."""
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


def find_drop_reason(traced: TracedProblem, filters: Filters) -> str:
    """Return why the trace is dropped: its flaw, the checker's verdict or a filter's reason; "" to keep it."""
    problem, trace = traced.problem, traced.trace
    # Where several reasons hold, the first one counts: what is wrong comes before what is badly written.
    # A trace whose only flaw is a missing gold may be kept on trust; nothing can be checked then.
    trusted = trace.flaw == "no gold" and trace.answer and filters.unverified == "keep"
    if trace.flaw and not trusted:
        return trace.flaw
    if not trace.flaw and (reason := check_answer(trace, problem)):
        return reason
    if not trace.text.strip():
        return "empty"
    # Learnt, they would end the reasoning, or a turn, in the middle.
    if has_marks(trace.text):
        return "marks"
    if holds_chat_marks(trace.text) or holds_chat_marks(problem.statement):
        return "marks"
    if (holds_output if filters.tool_output == "drop" else holds_foreign_output)(trace.text):
        return "tool output"
    if filters.two_boxes == "drop" and boxes_differ(trace.ending, answers=problem.answers):
        return "two boxes"
    if share_of_foreign_letters(trace.text, statement=problem.statement) > filters.foreign:
        return "language"
    return "loop" if is_loop(trace.text, most=filters.repeats) else ""


def check_answer(trace: Trace, problem: Problem) -> str:
    """Return "wrong" or "unknown" as the answer checker says, "" where the answer is right."""
    outcome = compare(answer=trace.answer, gold=problem.gold, settings=problem.answers).outcome
    return {"equal": "", "different": "wrong", "unknown": "unknown"}[outcome]


def boxes_differ(text: str, *, answers: str = "") -> bool:
    r"""Return whether a text has two boxes with different answers, by the conventions of the problem's answers.

    >>> boxes_differ(r"\boxed{0.5}, that is \boxed{\frac12}"), boxes_differ(r"\boxed{1} or \boxed{2}")
    (False, True)
    """
    box = last = last_box(text)
    while box is not None and last is not None:
        box = last_box(text[: box.start])
        if box is None:
            break
        if compare(answer=box.content, gold=last.content, settings=answers).outcome == "different":
            return True
    return False


def share_of_foreign_letters(text: str, *, statement: str) -> float:
    """Return the share of a text's letters in scripts that the statement does not use, 0 to 1."""
    if text.isascii():
        return 0.0
    foreign = sum(len(letters.findall(text)) for letters in _LETTERS.values() if not letters.search(statement))
    return foreign / max(1, sum(map(str.isalpha, text)))


def is_loop(text: str, *, most: float) -> bool:
    """Return whether more than the share `most` of a text's runs of 20 words repeat, or its bytes compress too well."""
    words = text.split()
    runs = max(0, len(words) - _RUN + 1)
    if runs and 1 - _count_distinct_runs(words) / runs > most:
        return True
    # Texts without spaces, such as "7777…", have no runs of words; their bytes show the loop.
    data = text.encode()
    return len(data) > _LONG and len(zlib.compress(data, 1)) < _COMPRESSED * len(data) and most < 1


def _count_distinct_runs(words: Sequence[str]) -> int:
    """Count the distinct runs of _RUN words by 64-bit polynomial hashes (Karp and Rabin, IBM J. Res. Dev. 31, 1987)."""
    import numpy as np

    hashes = np.fromiter(map(hash, words), dtype=np.int64, count=len(words)).view(np.uint64)
    runs = np.zeros(len(words) - _RUN + 1, dtype=np.uint64)
    for at in range(_RUN):
        runs = runs * np.uint64(_BASE) + hashes[at : at + len(runs)]
    return len(np.unique(runs))


def shorten_trace(text: str, *, gold: str, answers: str = "") -> str:
    """Return the trace up to the end of the line where it first boxes the right answer; "" if it never does.

    Args:
        text: the trace.
        gold: the right answer.
        answers: the conventions of the problem's answers.
    """
    for match in re.finditer(r"\\boxed", text):
        end = text.find("\n", match.end())
        head = text[: end if end >= 0 else len(text)]
        box = last_box(head)
        if box is not None and compare(answer=box.content, gold=gold, settings=answers).outcome == "equal":
            return head.rstrip()
    return ""
