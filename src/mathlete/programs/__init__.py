"""The commands that stand beside `train`, `eval` and `submit`: `mathlete hub` and `mathlete doctor`.

`HUB` and `DOCTOR` are their tables of commands. `examine_machine` returns what the doctor knows, a `Diagnosis` of this
machine and installation, which never tells what credentials say.

>>> [*HUB], [*DOCTOR]
(['push'], ['doctor'])
"""

from mathlete.programs.diagnosis import Diagnosis, examine_machine
from mathlete.programs.doctor import DOCTOR
from mathlete.programs.hub import HUB

__all__ = ["DOCTOR", "HUB", "Diagnosis", "examine_machine"]
