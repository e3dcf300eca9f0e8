r"""Answers: read out of a model's text, brought into one form, compared with each other.

`extract` reads the final answer in a text, `parse` brings it into canonical form, `compare` tells whether it equals
the gold, `cluster` groups answers for a vote. Three outcomes are possible: equal, different and unknown; unknown never
counts as equal. What takes long or much memory runs in a process of its own, which is killed at its limit.

>>> answer = extract(r"<think>Maybe \boxed{10}.</think> So it is \boxed{\frac{84}{2}}.").string
>>> answer
'\\frac{84}{2}'
>>> compare(answer=answer, gold="42")
Verdict(outcome='equal', reason='as num and num')
>>> cluster(["1/2", "3", "0.5", "50%"])
[[0, 2, 3], [1]]
"""

from mathlete.answers.answer import Answer, parse
from mathlete.answers.boxes import last_box
from mathlete.answers.check import check_file
from mathlete.answers.comparison import compare
from mathlete.answers.extract import Extracted, extract
from mathlete.answers.integers import read_integer
from mathlete.answers.verdict import Verdict
from mathlete.answers.voting import cluster

__all__ = [
    "Answer",
    "Extracted",
    "Verdict",
    "check_file",
    "cluster",
    "compare",
    "extract",
    "last_box",
    "parse",
    "read_integer",
]
