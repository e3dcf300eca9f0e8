r"""Which problems are the same: word for word, one inside the other, or reworded.

Training must not see the problems of an evaluation suite, and rewordings of one problem must not stand on both sides
of a split. Statements are compared without their typesetting; numbers, drawings and gold answers must agree.

>>> from mathlete.problems import Problem
>>> suite = [Problem(id="s1", statement=r"Find $\tfrac{6}{2} + 1$.", gold="4")]
>>> row = Problem(id="r1", statement=r"Find \(\frac{6}{2}+1\).", gold="4")
>>> [(pair.suite.id, pair.kind) for pair in SuiteIndex(suite).pairs([row])]
[('s1', 'exact')]
"""

from mathlete.overlap.duplicates import find_first_duplicates
from mathlete.overlap.statements import hash_statement, is_stated_in
from mathlete.overlap.suite_index import RepeatedProblem, SuiteIndex

__all__ = ["RepeatedProblem", "SuiteIndex", "find_first_duplicates", "hash_statement", "is_stated_in"]
