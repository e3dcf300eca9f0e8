"""Quantisation lab: every scheme of 8 and 4 bits on the linear layers of one model, and what each costs it.

A room of its own within the export room, because no run enters it: its schemes are never written to a file that serves,
weights are only rounded to their levels. It shares the measures (KL, top-1 agreement) with the exports, and nothing
else. Formulas and figures are in docs/quantization.md.

>>> scheme = next(scheme for scheme in list_schemes() if scheme.name == "int4/affine/group/mse")
>>> scheme.bits_a_weight(rows=256, columns=128)
4.3125
"""

from mathlete.export.lab.figures import LabFigures, SchemeCost
from mathlete.export.lab.measuring import measure_schemes
from mathlete.export.lab.quantizers import Scheme, list_part_schemes, list_schemes
from mathlete.export.lab.views import build_lab_table, write_lab

__all__ = [
    "LabFigures",
    "Scheme",
    "SchemeCost",
    "build_lab_table",
    "list_part_schemes",
    "list_schemes",
    "measure_schemes",
    "write_lab",
]
