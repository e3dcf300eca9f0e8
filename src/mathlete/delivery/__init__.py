"""What leaves this machine: the checks before a push, the push itself, the submission, and the ledger of all of them.

`check_before_push` names every reason not to push. `push_build` uploads what changed through a connected `Kaggle`,
waits for the notebook's run and checks its output. `Ledger` keeps what became of each submission.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> from mathlete.submission import Hashes
>>> hashes = Hashes(notebook="n", code="c", weights="w", wheels="h", metadata="m", image="")
>>> with TemporaryDirectory() as folder:
...     ledger = Ledger(Path(folder))
...     _ = ledger.append("push", hashes, version=3)
...     ledger.versions(hashes.id)
[3]
"""

from mathlete.delivery.kaggle_client import Kaggle
from mathlete.delivery.ledger import Ledger
from mathlete.delivery.naming import complete_names
from mathlete.delivery.preflight import check_before_push
from mathlete.delivery.push import Waiting, plan_push, push_build

__all__ = ["Kaggle", "Ledger", "Waiting", "check_before_push", "complete_names", "plan_push", "push_build"]
