r"""Logs of other tools, and slices of one's own runs, read as the recording of one run.

`read_log` reads a file in the layout that its content shows: responses of OpenAI's API, samples of
lm-evaluation-harness, logs of Inspect, details of lighteval, generations of NeMo-Skills, or a table whose columns are
named. `join_logs` puts several together and finds what they do not say; `write_joined` makes of them the folder of a
run, which reports, comparisons and the replay take like any other.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     file = Path(folder, "output-rs0.jsonl")
...     _ = file.write_text('{"problem": "1 + 1?", "expected_answer": 2, "generation": "It is \\\\boxed{2}"}\n')
...     log = read_log(file, columns={})
>>> joined = join_logs([log], suite=None, pace=None, own_answers=False)
>>> log.layout, joined.samples[0].answer, [*joined.missing][:4]
('nemo-skills', '2', ['tokens', 'seconds', 'finish', 'logprobs'])
"""

from mathlete.logs.columns import parse_columns
from mathlete.logs.harness import find_results
from mathlete.logs.imported import Writing, write_joined
from mathlete.logs.joining import Joined, join_logs
from mathlete.logs.own import read_own_run
from mathlete.logs.reading import find_unfinished, read_log

__all__ = [
    "Joined",
    "Writing",
    "find_results",
    "find_unfinished",
    "join_logs",
    "parse_columns",
    "read_log",
    "read_own_run",
    "write_joined",
]
