r"""Answers: read out of a model's text, brought into one form, compared with each other.

`extract` reads the final answer in a text, and `read_answer` what a completion votes for; `parse` brings an answer into
canonical form, `compare` tells whether it equals the gold, `label_classes` numbers equal answers for a vote. Three
outcomes are possible: equal, different and unknown; unknown never counts as equal. What takes long or much memory runs
in a process of its own, which is killed at its limit.

>>> answer = extract(r"<think>Maybe \boxed{10}.</think> So it is \boxed{\frac{84}{2}}.").string
>>> answer
'\\frac{84}{2}'
>>> compare(answer=answer, gold="42")
Verdict(outcome='equal', reason='as num and num')
>>> label_classes(["1/2", "3", "0.5", "50%"])
[0, 1, 0, 0]
"""

from mathlete.answers.answer import Answer, parse
from mathlete.answers.boxes import last_box
from mathlete.answers.check import check_file
from mathlete.answers.comparison import compare
from mathlete.answers.completions import read_answer
from mathlete.answers.extraction import extract
from mathlete.answers.integers import read_integer
from mathlete.answers.verdict import Verdict
from mathlete.answers.voting import label_classes

__all__ = [
    "Answer",
    "Verdict",
    "check_file",
    "compare",
    "extract",
    "label_classes",
    "last_box",
    "parse",
    "read_answer",
    "read_integer",
]
