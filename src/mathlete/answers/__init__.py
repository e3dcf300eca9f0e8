"""Answers read out of model text, and when two of them are the same."""

from mathlete.answers.answer import Answer, Verdict, compare, parse
from mathlete.answers.extract import Extracted, extract
from mathlete.answers.integers import read_integer
from mathlete.answers.voting import cluster

__all__ = ["Answer", "Extracted", "Verdict", "cluster", "compare", "extract", "parse", "read_integer"]
