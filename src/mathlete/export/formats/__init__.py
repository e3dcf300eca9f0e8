"""The 8-bit formats of an export: `table` holds an entry for each, the other modules write and read their weights.

A new format is one more entry of `EXPORT_FORMATS` in `table.py` and a file with its writer.
"""
