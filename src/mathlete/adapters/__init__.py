"""Adapters as files: what one that was made elsewhere fits, and what an organiser's vLLM would load of one.

`ForeignAdapter` is a folder that peft or Unsloth wrote; `require_base` checks that it fits a base before a run takes
it. `AdapterFiles` are the two files of an adapter, in a folder or in a zip that is handed in, and
`find_served_faults` names each reason why vLLM would refuse them, or serve another model than was trained without a
word. Nothing here loads a model.

>>> config = {"peft_type": "LORA", "r": 64, "lora_alpha": 32, "target_modules": ["q_proj"]}
>>> from mathlete.competitions import AdapterRules
>>> rules = AdapterRules(base=("owner/base",), max_rank=32)
>>> [fault.rule for fault in find_config_faults(config, rules=rules)]
['an adapter must have a rank of at most 32']
"""

from mathlete.adapters.base import ServedBase
from mathlete.adapters.files import AdapterFiles
from mathlete.adapters.foreign import ADAPTER_CONFIG, WEIGHTS, AdapterBase, ForeignAdapter, is_same_base
from mathlete.adapters.served import find_config_faults, find_served_faults

__all__ = [
    "ADAPTER_CONFIG",
    "WEIGHTS",
    "AdapterBase",
    "AdapterFiles",
    "ForeignAdapter",
    "ServedBase",
    "find_config_faults",
    "find_served_faults",
    "is_same_base",
]
