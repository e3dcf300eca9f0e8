"""The formats that weights are stored in: `table` holds an entry for each, the other modules write and read them.

A new format of an export is one more entry of `EXPORT_FORMATS` in `table.py` and a file with its writer. What the
notebook's engine loads and mathlete does not write stands in `MOUNTED_FORMATS`, with the same fields. `find_formats`
looks into both, for the checks before a submission; `choose_export` takes that of a run which a machine serves best.

>>> EXPORT_FORMATS["w8a16"].wheels, [one.stored_as for one in MOUNTED_FORMATS if one.embedded]
(('compressed-tensors>=0.20',), ['dense', 'nf4'])
>>> [one.fits(10.0) for one in find_formats("compressed-tensors")]
[True, False, True, True, True, True, True]
"""

from mathlete.export.formats.choosing import choose_export
from mathlete.export.formats.table import (
    DEFAULT_FORMAT,
    EXPORT_FORMATS,
    MOUNTED_FORMATS,
    ExportFormat,
    StoredFormat,
    find_formats,
    read_storage,
)

__all__ = [
    "DEFAULT_FORMAT",
    "EXPORT_FORMATS",
    "MOUNTED_FORMATS",
    "ExportFormat",
    "StoredFormat",
    "choose_export",
    "find_formats",
    "read_storage",
]
