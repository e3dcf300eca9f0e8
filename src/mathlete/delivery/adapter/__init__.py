"""What becomes of an adapter's zip: checked, and handed in as it was rehearsed.

`check_adapter_before_push` names every reason not to hand it in, `plan_adapter` what that would do, and
`submit_adapter` uploads and submits the zip through a connected `Kaggle`. The ledger is the notebooks'.

>>> from inspect import signature
>>> "hashes" in signature(submit_adapter).parameters  # of the zip that was checked: another one is not sent
True
"""

from mathlete.delivery.adapter.checking import check_adapter_before_push, plan_adapter
from mathlete.delivery.adapter.submitting import submit_adapter

__all__ = ["check_adapter_before_push", "plan_adapter", "submit_adapter"]
