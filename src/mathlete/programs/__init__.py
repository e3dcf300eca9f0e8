"""The commands that stand beside `train`, `eval` and `submit`: `mathlete hub`, `mathlete kaggle` and `mathlete doctor`.

`HUB`, `KAGGLE` and `DOCTOR` are their tables of commands. `examine_machine` returns what the doctor knows, a
`Diagnosis` of this machine and installation, which never tells what credentials say.

>>> [*HUB], [*KAGGLE], [*DOCTOR]
(['push'], ['push'], ['doctor'])
"""

from mathlete.programs.diagnosis import Diagnosis, examine_machine
from mathlete.programs.doctor import DOCTOR
from mathlete.programs.hub import HUB
from mathlete.programs.kaggle_models import KAGGLE

__all__ = ["DOCTOR", "HUB", "KAGGLE", "Diagnosis", "examine_machine"]
