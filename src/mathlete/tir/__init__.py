"""Tool-integrated reasoning: the model writes Python, a sandbox runs it, and the model goes on from what it printed.

`ToolSampler` is a sampler over an engine that can continue a partial completion; `ToolSettings` says how often a sample
may run a program, and for how long. `Pythons` is the sandbox alone: interpreters behind system-call filter, namespaces
and `ProgramLimits`, one for each sample, whose variables live on from program to program.

>>> from contextlib import closing
>>> limits = ProgramLimits(timeout_s=5, memory_mib=512, output_chars=200, cpu_s=10)
>>> with closing(Pythons(limits)) as pythons, closing(pythons.open()) as python:
...     python.run("x = 2**10").output, python.run("x + 1").output
('', '1025\\n')
"""

from mathlete.tir.protection import ProgramLimits
from mathlete.tir.python import Pythons
from mathlete.tir.tools import ToolSampler, ToolSettings

__all__ = ["ProgramLimits", "Pythons", "ToolSampler", "ToolSettings"]
