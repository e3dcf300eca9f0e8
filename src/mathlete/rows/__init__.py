r"""From problems with traces to rows of tokens, or the reason why a trace makes none.

The format step reads a corpus and leaves out what is wrong, unproved, unfit or a problem of an evaluation suite. It
tokenises the rest as it will be served, and proves of each row that it is so. `RowFiles` are the paths of the result,
`FormatFigures` what its manifest counts.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> from mathlete.corpus import Corpus
>>> from mathlete.models import find_model
>>> corpus = Corpus(source=("pocket",), limit=20, against=())
>>> step = FormatStep(corpus=corpus, rows=Rows(), filters=Filters(), model=find_model("pocket"), seed=0)
>>> with TemporaryDirectory() as folder:
...     figures = step.build(Path(folder), lambda *_: None, say=print)
...     first = RowFiles(Path(folder)).read_head(1)[0]
kept clear of no suite · ...
>>> figures.rows, figures.heldout, figures.drops
(18, 2, {})
>>> first.trained.splitlines()[-1]
'\\boxed{6}<｜end▁of▁sentence｜>'
"""

from mathlete.rows.card import explain_reason, find_cure
from mathlete.rows.figures import FormatFigures
from mathlete.rows.files import DroppedTrace, RowFiles, RowText
from mathlete.rows.packing import pack_rows
from mathlete.rows.settings import Filters, Rows
from mathlete.rows.step import FormatStep

__all__ = [
    "DroppedTrace",
    "Filters",
    "FormatFigures",
    "FormatStep",
    "RowFiles",
    "RowText",
    "Rows",
    "explain_reason",
    "find_cure",
    "pack_rows",
]
