"""Answers read out of model text, and when two of them are the same."""

from mathlete.answers.answer import Answer, Verdict, cluster, compare, parse
from mathlete.answers.extract import Extracted, extract
from mathlete.answers.integers import read_integer

__all__ = ["Answer", "Extracted", "Verdict", "cluster", "compare", "extract", "parse", "read_integer"]
