"""What leaves this machine: the checks before a push, the push itself, the submission, and the ledger of all of them.

`check_before_push` names every reason not to push. `push_build` uploads what changed through a connected `Kaggle`,
waits for the notebook's run and checks its output; `submit_version` submits it. `Asking` says how Kaggle is asked:
looks until a limit, acts once. `Ledger` keeps what became of each submission.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> from mathlete.submission import Hashes
>>> hashes = Hashes(notebook="n", code="c", weights="w", wheels="h", metadata="m", image="")
>>> with TemporaryDirectory() as folder:
...     ledger = Ledger(Path(folder))
...     _ = ledger.append("push", hashes, version=3)
...     ledger.versions(hashes)
[3]
"""

from mathlete.delivery.asking import Asking, Waiting
from mathlete.delivery.kaggle_client import Kaggle
from mathlete.delivery.ledger import Ledger
from mathlete.delivery.naming import complete_names
from mathlete.delivery.preflight import check_before_push
from mathlete.delivery.push import plan_push, push_build
from mathlete.delivery.submitting import submit_version, wait_for_score

__all__ = [
    "Asking",
    "Kaggle",
    "Ledger",
    "Waiting",
    "check_before_push",
    "complete_names",
    "plan_push",
    "push_build",
    "submit_version",
    "wait_for_score",
]
