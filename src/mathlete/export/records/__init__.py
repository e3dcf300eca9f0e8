"""What effect, merge and export measured, as records with one way to and from JSON.

The steps write them (`effect.json`, `survival.json`, the figures of a manifest), the report reads them back. They are a
room of their own below `mathlete.export`, because the report needs the figures of a run but none of its steps.

>>> files = {
...     "hop": "int8", "engine": "transformers", "kl": 1e-5, "top1": 0.999, "problems": 200, "answered": 180,
...     "unchanged": 1.0, "right": 150, "change": [0.0, -0.01, 0.01], "bytes": 2**20, "seconds": 3.2}
>>> hop = Hop.from_json(files)
>>> hop.change.hi, hop.to_json() == files
(0.01, True)
"""

from mathlete.export.records.exports import Hop, LayerCost, SurvivalFigures
from mathlete.export.records.tuning import (
    ANSWERS,
    EFFECT,
    BaseComparison,
    BaseFigures,
    EffectFigures,
    MergeFigures,
    TuningChange,
)

__all__ = [
    "ANSWERS",
    "EFFECT",
    "BaseComparison",
    "BaseFigures",
    "EffectFigures",
    "Hop",
    "LayerCost",
    "MergeFigures",
    "SurvivalFigures",
    "TuningChange",
]
