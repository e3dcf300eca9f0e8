"""What a completion votes for, which may have been cut anywhere: in its thoughts, or in the middle of its answer."""

from __future__ import annotations

from mathlete.answers.extraction import extract
from mathlete.reasoning import find_unfinished, is_within_thoughts, split


def read_answer(text: str, *, cut: bool = False, thinking: bool | None = False) -> str | None:
    r"""Return the final answer in a completion, or None; a cut completion has one only in a box or another clear form.

    The last number of an unfinished derivation is no answer, and would vote as one; nor is a box in unfinished
    thoughts, or a number that may have had more digits.

    Args:
        text: what the model wrote.
        cut: whether it would have gone on.
        thinking: whether the prompt has opened the thoughts; None where nobody knows (`is_within_thoughts`).

    >>> read_answer("So far 3 + 4 is 7, and then"), read_answer("So far 3 + 4 is 7, and then", cut=True)
    ('7', None)
    >>> read_answer(r"Maybe \boxed{7}? No", cut=True), read_answer(r"Maybe \boxed{7}? No", cut=True, thinking=True)
    ('7', None)
    >>> read_answer(r"It is \boxed{12", cut=True), read_answer("The answer is 12", cut=True)
    (None, None)
    """
    within = is_within_thoughts(text, cut=cut, thinking=thinking)
    if not cut:
        return extract(text, thinking=within).string
    # One that was cut behind its thoughts has not said that it meant what stands in them.
    parts = split(text) if find_unfinished(text) is None else None
    text = text if parts is None else parts[1]
    answer = extract(text, thinking=within)
    # What would be another answer with one more character was perhaps not written to its end.
    longer = "" if answer.strength == "weak" or answer.string is None else extract(f"{text}0", thinking=within).string
    return answer.string if answer.strength == "strong" and longer == answer.string else None
