"""The suites that `python -m eval` knows; training keeps clear of the same ones."""

from mathlete.corpus.suites import SUITE_NAMES, Suite, load_suite

__all__ = ["SUITE_NAMES", "Suite", "load_suite"]
