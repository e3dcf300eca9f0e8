"""What goes to Kaggle, made of an export: notebook, metadata and wheels, and the checks of each.

`build_submission` writes the parts and returns a `Build`, `Build.load` reads it back, and `check_parts` names what
Kaggle would refuse or accept in silence. `Hashes.id` is the submission's name wherever it is recorded.

>>> names = Names(owner="alice", variation="int8", model_version=2)
>>> names.kernel_id, names.model_source
('alice/mathlete-submission', 'alice/mathlete-model/transformers/int8/2')
>>> Hashes(notebook="n", code="c", weights="w", wheels="h", metadata="m", image="").id
'18446dab8dd2'
"""

from mathlete.submission.build import Build, Hashes, build_submission
from mathlete.submission.checks import check_parts
from mathlete.submission.metadata import Names
from mathlete.submission.notebook import with_cell
from mathlete.submission.refusal import Check, Refusal
from mathlete.submission.vllm_wheels import build_vllm_wheels
from mathlete.submission.wheelhouse import build_wheelhouse

__all__ = [
    "Build",
    "Check",
    "Hashes",
    "Names",
    "Refusal",
    "build_submission",
    "build_vllm_wheels",
    "build_wheelhouse",
    "check_parts",
    "with_cell",
]
