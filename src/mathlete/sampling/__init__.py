r"""Samples: what an engine is given, what it gives back, and the file that keeps it.

An engine is a `Sampler`: it takes a problem, a seed for each sample and a `SamplingConfig`, and yields each `Sample` as
it finishes. One that can also continue a partial completion is a `Continuing`, which tool use is built on. A
`SampleLog` writes a run's samples as they come; `read_samples` reads them back. The engines themselves are in
`mathlete.sampling.embedded` (the decode loop of this project) and `mathlete.sampling.served` (vLLM, servers, Ray);
`mathlete.engines` opens them by name.

A new engine sees tokens, and adds each to a `SampleBuilder`, or it sees text, and looks at it with `find_ending`. So
every engine ends and cuts a sample at the same place.

>>> find_ending("3 + 4 is 7.\n</think>\n\nSo \\boxed{7}. And now")
Ending(text='3 + 4 is 7.\n</think>\n\nSo \\boxed{7}', finish='boxed')
>>> sample = Sample(problem_id="p", index=0, seed=1, text="\\boxed{7}", tokens=5, finish="stop", seconds=0.5)
>>> Sample.from_json(sample.to_json(), where="here") == sample
True
"""

from mathlete.sampling.completion import CompletionReader, SampleBuilder, find_ending
from mathlete.sampling.continuing import Continuing
from mathlete.sampling.fence import last_program
from mathlete.sampling.record import SampleLog, read_samples
from mathlete.sampling.samples import Sample, Sampler, SamplingConfig

__all__ = [
    "CompletionReader",
    "Continuing",
    "Sample",
    "SampleBuilder",
    "SampleLog",
    "Sampler",
    "SamplingConfig",
    "find_ending",
    "last_program",
    "read_samples",
]
