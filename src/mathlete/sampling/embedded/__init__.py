"""The engine of this project: its own decode loop on transformers models, on a CPU or a CUDA device.

`open_transformers` loads a model and gives the `TransformersSampler` that the notebook, evaluation and rehearsal draw
with. `draw_greedy` is for measurements: its batches follow from the problems alone, so that the same model gives the
same answers every time.

>>> from contextlib import closing
>>> from mathlete.models import find_model
>>> from mathlete.problems import Problem
>>> from mathlete.sampling import SamplingConfig
>>> problem = Problem(id="sum", statement="What is 3 + 4?", gold="7")
>>> with closing(open_transformers(find_model("pocket"))) as engine:
...     samples = [*engine.stream(problem, seeds={0: 11, 1: 12}, config=SamplingConfig(max_tokens=8))]
>>> sorted((sample.index, sample.seed, sample.tokens <= 8) for sample in samples)
[(0, 11, True), (1, 12, True)]
"""

from mathlete.sampling.embedded.coverage import check_covered
from mathlete.sampling.embedded.greedy import draw_greedy
from mathlete.sampling.embedded.transformers_engine import TransformersSampler, choose_dtype, open_transformers

__all__ = ["TransformersSampler", "check_covered", "choose_dtype", "draw_greedy", "open_transformers"]
