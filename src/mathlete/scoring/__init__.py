"""Scores: samples graded against gold answers, a run's results, and runs compared problem by problem.

`grade` judges every sample and vote, and `Results.of` makes of that what results.json holds. `EvalRun` is a run read
back from its folder, finished or not. `Pool` holds the samples of one or several runs of a model: `compare_runs` tests
two pools against each other, and the replay draws from one.

>>> from mathlete.problems import Problem
>>> from mathlete.sampling import Sample
>>> sum_of_two = Problem(id="a", statement="What is 1 + 1?", gold="2")
>>> def draw(*answers):
...     return [
...         Sample(problem_id="a", index=i, seed=i, text="", answer=answer, tokens=9, finish="stop", seconds=float(i))
...         for i, answer in enumerate(answers)
...     ]
>>> unsure, sure = (Pool.of([sum_of_two], {"a": draw(*answers)}) for answers in (("2", "3", None), ("2", "2", "2")))
>>> unsure.problems[0].verdicts
['equal', 'different', 'none']
>>> [(score.score, round(score.a, 2), score.b) for score in compare_runs(unsure, sure).scores]
[('pass@1', 0.33, 1.0), ('maj@3', 1.0, 1.0)]
"""

from mathlete.scoring.comparison import compare_tuned
from mathlete.scoring.facts import RunFacts, RunSettings
from mathlete.scoring.grading import Graded, RunningScore, grade
from mathlete.scoring.pairing import compare_runs
from mathlete.scoring.pool import Pool
from mathlete.scoring.recording import EvalRun
from mathlete.scoring.results import Results

__all__ = [
    "EvalRun",
    "Graded",
    "Pool",
    "Results",
    "RunFacts",
    "RunSettings",
    "RunningScore",
    "compare_runs",
    "compare_tuned",
    "grade",
]
