"""The commands that stand beside `train`, `eval` and `submit`: `mathlete doctor`.

`DOCTOR` is its table of commands. `examine_machine` returns what the doctor knows, a `Diagnosis` of this machine and
installation, which never tells what credentials say.

>>> [*DOCTOR]
['doctor']
"""

from mathlete.programs.diagnosis import Diagnosis, examine_machine
from mathlete.programs.doctor import DOCTOR

__all__ = ["DOCTOR", "Diagnosis", "examine_machine"]
