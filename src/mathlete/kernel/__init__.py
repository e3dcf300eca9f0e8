"""Exactly what runs on Kaggle: a `predict` that always answers, its settings, and the journal it leaves.

The notebook finds its inputs with `find_input`, makes its server with `open_server`, reads its settings with
`config_from` and calls `serve`. Whatever goes wrong inside, every question gets an integer of the competition's range
in time, and a line in the journal says how. Nothing here needs a package that Kaggle's image or the notebook's wheels
lack; import-linter checks it.

>>> import json
>>> from mathlete.competitions import competition
>>> config = KernelConfig(competition=competition("aimo-2"), problems=10)
>>> config_from(json.loads(json.dumps(config.to_json()))) == config
True
"""

from collections.abc import Callable

from mathlete.kernel.config import KernelConfig, config_from
from mathlete.kernel.engine import EngineProcess
from mathlete.kernel.journal import JOURNAL, SUBMISSION, JournalLine, read_facts, read_journal
from mathlete.kernel.mounts import find_changes, find_input
from mathlete.kernel.opening import open_server
from mathlete.kernel.server import serve

PASTED: dict[str, Callable[..., object]] = {
    "find_input": find_input,
    "find_changes": find_changes,
    "open_server": open_server,
}
"""Functions whose source the notebook carries, by the names in its cells: it needs them before its wheels are there."""
__all__ = [
    "JOURNAL",
    "PASTED",
    "SUBMISSION",
    "EngineProcess",
    "JournalLine",
    "KernelConfig",
    "config_from",
    "read_facts",
    "read_journal",
    "serve",
]
