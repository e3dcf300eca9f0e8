"""Adapter, merge, export, and what each hop cost."""
