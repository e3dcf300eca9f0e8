"""The zip of an adapter, where that is what a competition takes: made, checked, and read back.

`build_adapter` writes the zip of an adapter and returns an `AdapterBuild`, whose `check` names what the organiser's
vLLM would refuse or serve wrong. `AdapterBuild.load` reads it back from a folder that `holds_adapter_build`, and
`extract_adapter` unpacks the zip as the organiser does.

>>> from mathlete.competitions import competition
>>> rules_of(competition("nemotron-like")).max_rank
32
"""

from mathlete.submission.adapter.build import AdapterBuild, build_adapter, holds_adapter_build, rules_of
from mathlete.submission.adapter.zips import extract_adapter

__all__ = ["AdapterBuild", "build_adapter", "extract_adapter", "holds_adapter_build", "rules_of"]
