r"""The pocket model's own world: generated problems with traces, and the small model pretrained on them.

Any number of problems, byte-identical for the same arguments; no problem of the test side has the numbers of a problem
of the training side. The pocket model makes the whole pipeline run on a laptop's CPU in minutes.

>>> (item,) = generate_items(families=["easy/evaluate"], count=1, seed=0, split="train")
>>> print(item.problem.statement, item.problem.gold)
Evaluate 75 \cdot 5 + 52. 427
"""

from mathlete.pocket.base import PocketBaseConfig, build_pocket_base
from mathlete.pocket.generator import FAMILIES, PocketItem, Split, generate_items
from mathlete.pocket.suite import write_items
from mathlete.pocket.training import TRACE_SOURCES, generate_traces

__all__ = [
    "FAMILIES",
    "TRACE_SOURCES",
    "PocketBaseConfig",
    "PocketItem",
    "Split",
    "build_pocket_base",
    "generate_items",
    "generate_traces",
    "write_items",
]
