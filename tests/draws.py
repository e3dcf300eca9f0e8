"""Samples drawn from an engine, for the tests of all engines."""

from mathlete.problems import Problem
from mathlete.sampling import Sample, Sampler, SamplingConfig


def draw_samples(engine: Sampler, problem: Problem, n: int, config: SamplingConfig) -> dict[int, Sample]:
    """Return {index: sample} of a problem's first n; the seeds need 53 bits, as a run's do."""
    seeds = {index: 2**52 + index for index in range(n)}
    return {sample.index: sample for sample in engine.stream(problem, seeds=seeds, config=config)}
