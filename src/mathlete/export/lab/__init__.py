"""Quantisation lab: every scheme of 8 and 4 bits on the linear layers of one model, and what each costs it.

A room of its own within the export room, because no run enters it. Most schemes only round weights to their levels.
An `ExportScheme` is a format of `EXPORT_FORMATS`, whose files are written, measured and deleted again. Formulas and
figures are in docs/quantization.md.

>>> scheme = next(scheme for scheme in list_schemes() if scheme.name == "int4/affine/group/mse")
>>> scheme.bits_a_weight(rows=256, columns=128)
4.3125
>>> [scheme.name for scheme in find_schemes("fp8")]
['fp8/tensor', 'fp8/channel', 'fp8/group', 'export/fp8']
"""

from mathlete.export.lab.exports import find_lacking, find_schemes
from mathlete.export.lab.figures import LabFigures, SchemeCost
from mathlete.export.lab.measuring import measure_schemes
from mathlete.export.lab.quantizers import Scheme, list_part_schemes, list_schemes
from mathlete.export.lab.views import build_lab_table, write_lab

__all__ = [
    "LabFigures",
    "Scheme",
    "SchemeCost",
    "build_lab_table",
    "find_lacking",
    "find_schemes",
    "list_part_schemes",
    "list_schemes",
    "measure_schemes",
    "write_lab",
]
