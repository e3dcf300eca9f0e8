"""An adapter served beside its base as the organiser serves it: sampled, scored, and compared with what was trained.

`rehearse_adapter` serves the zip of an `AdapterBuild` by vLLM, in an environment that `AdapterRehearsalSettings` name,
and writes an `AdapterReport`; `check_adapter_rehearsal` reads that before the zip is handed in.

>>> from mathlete.competitions import competition
>>> plan = plan_sampling(competition("nemotron-like"), cap=256)
>>> {name: (how.temperature, how.max_tokens) for name, how in plan.items()}
{'greedy': (0.0, 256)}
"""

from mathlete.rehearsal.adapter.evidence import check_adapter_rehearsal
from mathlete.rehearsal.adapter.rehearsing import (
    AdapterRehearsalSettings,
    AdapterReport,
    plan_sampling,
    rehearse_adapter,
)

__all__ = [
    "AdapterRehearsalSettings",
    "AdapterReport",
    "check_adapter_rehearsal",
    "plan_sampling",
    "rehearse_adapter",
]
