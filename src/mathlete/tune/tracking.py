"""The loss curve for trackio's dashboard, where the package is: a local one, in the run's own folder."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from mathlete.reporters import PROJECT

_FOLDER = "trackio"
_LOG = """
import json, sys
curve, project, name = sys.argv[1:]
points = [json.loads(line) for line in open(curve, encoding="utf-8")]
import trackio
trackio.init(project=project, name=name, embed=False, auto_log_gpu=False, auto_log_cpu=False)
for point in points:
    trackio.log(point, step=point["step"])
trackio.finish()
"""


def log_to_trackio(curve: Path, *, name: str) -> str:
    """Log a finished run's curve into `trackio/` beside it; return how to look at it, or why there is nothing.

    In a process of its own: trackio reads its folder's name once, when it is imported, and prints what it does. Once
    the run is finished, so that a run that was killed and went on has no point twice.
    """
    if find_spec("trackio") is None:
        return 'trackio: not installed (pip install "mathlete[trackio]" -c constraints.txt)'
    folder = curve.parent / _FOLDER
    environment = {**os.environ, "TRACKIO_DIR": str(folder.resolve()), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", _LOG, str(curve), PROJECT, name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"trackio: nothing logged ({done.stderr.strip().splitlines()[-1][:200]})"
    return f"trackio: TRACKIO_DIR={folder} trackio show --project {PROJECT}"
