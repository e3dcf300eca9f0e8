"""The notebook run here as Kaggle would run it: two containers, no network, the gateway's protocol, a strict scorer.

`rehearse` runs a build's notebook and judges what it leaves, `write_report` records that for preflight, and
`rehearse_fault` puts one of `FAULTS` into the run. `fetch_image` gets the versions of Kaggle's image to run on.

>>> from mathlete.competitions import competition
>>> from mathlete.problems import Problem
>>> problems = [Problem(id=gold, statement="?", gold=gold) for gold in ("0", "7", "x + 1", "12")]
>>> [problem.gold for problem in choose_canaries(problems, count=2, rules=competition("aimo-3"))]
['7', '12']
>>> FAULTS["disk-full"].says, FAULTS["disk-full"].expect
('/kaggle/working is full', 'valid')
"""

from mathlete.rehearsal.draft import RehearsalSettings, choose_canaries
from mathlete.rehearsal.evidence import Thresholds, check_rehearsal
from mathlete.rehearsal.fault_matrix import FAULTS
from mathlete.rehearsal.faults import rehearse_fault
from mathlete.rehearsal.image import fetch_image
from mathlete.rehearsal.report import write_report
from mathlete.rehearsal.runner import rehearse
from mathlete.rehearsal.verdict import check_output

__all__ = [
    "FAULTS",
    "RehearsalSettings",
    "Thresholds",
    "check_output",
    "check_rehearsal",
    "choose_canaries",
    "fetch_image",
    "rehearse",
    "rehearse_fault",
    "write_report",
]
