"""From a trained adapter to a model that can be served, and what every hop on the way cost.

Three steps follow the training, each a function that writes a folder and returns figures: `measure_effect` (what the
training changed), `merge_adapter` (16-bit weights) and `export_model` (an 8-bit format of EXPORT_FORMATS, its survival
figures and its model card). All three are given the `TunedModel`. `Forgetting`, `Survival` and `Export` are their
settings: what each may cost, and which formats are written. A `GateTrial` tries all of it before the training.

>>> export = Export(formats=("int8", "w8a8"), gpu="t4")
>>> export.check()
>>> [EXPORT_FORMATS[name].folder for name in export.formats]
['export', 'export-w8a8']
>>> EXPORT_FORMATS["int8"].require(export.gpu)
'int8: t4 takes it, in float16 because compute capability 7.5 is below 8.0 and has no bf16'

The steps are imported when they are first used: command lines that only need the settings answer `--help` without them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from mathlete.export.formats.table import EXPORT_FORMATS
from mathlete.export.settings import Export, Forgetting, MergeBase, Survival

if TYPE_CHECKING:
    from mathlete.export.effect import measure_effect
    from mathlete.export.exporting import export_model
    from mathlete.export.merge import merge_adapter
    from mathlete.export.trial import GateTrial
    from mathlete.export.tuned import TunedModel

__all__ = [
    "EXPORT_FORMATS",
    "Export",
    "Forgetting",
    "GateTrial",
    "MergeBase",
    "Survival",
    "TunedModel",
    "export_model",
    "measure_effect",
    "merge_adapter",
]
_STEPS = {
    "GateTrial": "trial",
    "TunedModel": "tuned",
    "export_model": "exporting",
    "measure_effect": "effect",
    "merge_adapter": "merge",
}
"""{name: the module that holds it} of what is imported at its first use."""


def __getattr__(name: str) -> object:
    if name not in _STEPS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_STEPS[name]}"), name)
