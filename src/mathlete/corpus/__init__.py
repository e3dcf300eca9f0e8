"""Where problems and traces come from: hub data sets, files in any columns, the pocket generator; and the suites.

`Corpus` says what a training run reads; `Corpus.open` yields the traces of one row of a source after the other, and
says afterwards what it took. A suite is a fixed set of problems to measure on, identified by its hash.

>>> corpus = Corpus(source=("pocket",), limit=2)
>>> [[traced.problem.id for traced in row] for row in corpus.open(seed=0)]
[['pocket-hard-expression-train-0-0'], ['pocket-hard-power-train-0-1']]
>>> len(load_suite("pocket_val").problems)
600
"""

from mathlete.corpus.problem_files import Questions
from mathlete.corpus.settings import Corpus
from mathlete.corpus.stream import Mix, SourceSpec, open_source
from mathlete.corpus.suites import SUITE_NAMES, Suite, load_suite
from mathlete.corpus.tables import read_rows, read_statements

__all__ = [
    "SUITE_NAMES",
    "Corpus",
    "Mix",
    "Questions",
    "SourceSpec",
    "Suite",
    "load_suite",
    "open_source",
    "read_rows",
    "read_statements",
]
