"""Samples drawn for a folder: what `python -m eval` and `python -m submit answer` have in common.

`ModelSettings` are the flags of a model and its engine. A `DrawingPlan` says which problems are drawn how, and
`draw_samples` draws the samples that a folder lacks and solves the problems with them by the one solve loop: a run that
was killed goes on where it was.

>>> from mathlete.problems import Problem
>>> from mathlete.solve import Policy
>>> engine, reason = ModelSettings(model="pocket").choose(max_tokens=256)
>>> reason
'model pocket: named by --model'
>>> plan = DrawingPlan(problems=[Problem(id="a", statement="1 + 1?", gold="2")], engine=engine, policy=Policy(n=4))
>>> plan.samples, plan.settings(suite="sums", suite_sha="0").engine
(4, 'transformers')
"""

from mathlete.drawing.plan import DrawingPlan
from mathlete.drawing.recorded import LOST, SAMPLES, SPENT, Drawn, Tally, Watching, doubt_opening, draw_samples
from mathlete.drawing.settings import ModelSettings

__all__ = [
    "LOST",
    "SAMPLES",
    "SPENT",
    "DrawingPlan",
    "Drawn",
    "ModelSettings",
    "Tally",
    "Watching",
    "doubt_opening",
    "draw_samples",
]
