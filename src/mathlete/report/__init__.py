"""Numbers, tables and pictures about a run."""
