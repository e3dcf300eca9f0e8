"""Mathlete: from an open reasoning model to a rehearsed maths-olympiad submission."""

__version__ = "0.1.0"
