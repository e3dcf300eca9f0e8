"""Greedy samples for measurements, decoded in an order that follows from the problems alone.

LLM.int8 looks for outliers in the whole batch, so that a sample may depend on its neighbours. Neighbours that depend on
threads and arrival would make every measurement of an 8-bit model another one.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mathlete.models import Shape
from mathlete.problems import Problem
from mathlete.prompts import PromptFormat
from mathlete.sampling import CompletionReader, Sample, SamplingConfig
from mathlete.sampling.embedded.coverage import check_covered, check_decodes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mathlete.sampling.embedded.batch import SampleRequest

_KV_BYTES, _MAX_ROWS = 4 * 2**30, 256
"""Size of the KV cache, and rows, of a batch at most. The free memory of a machine must not choose them."""
_UNLIMITED = 2**62
"""Tokens: the batches are made to fit already."""


def draw_greedy(
    model: "PreTrainedModel", *, prompts: PromptFormat, problems: Sequence[Problem], max_tokens: int
) -> Iterator[Sample]:
    """Yield one greedy sample a problem as it finishes. The model cannot be used afterwards.

    Raises:
        UserError: attention that the decode loop does not cover.
    """
    import torch

    from mathlete.sampling.embedded.batch import Batch

    check_covered(model.config)
    check_decodes(model)
    reader = CompletionReader(prompts, eos_ids=set())
    with torch.inference_mode():
        for requests in _batches(_requests(model, prompts, problems, max_tokens), model):
            batch = Batch(model, reader=reader, max_rows=len(requests), max_tokens=_UNLIMITED)
            batch.admit(requests)
            while len(batch):
                yield from (sample for _, sample in batch.step())


def _requests(
    model: "PreTrainedModel", prompts: PromptFormat, problems: Sequence[Problem], max_tokens: int
) -> "list[SampleRequest]":
    from mathlete.sampling.embedded.batch import SampleRequest

    config = SamplingConfig(temperature=0.0, top_p=1.0, max_tokens=max_tokens)
    context = Shape.read_context(model.config.get_text_config().to_dict()) or 2**31
    requests = []
    for problem in problems:
        prompt = prompts.prompt_ids(problem.statement)
        room = max(1, min(max_tokens, context - len(prompt)))
        waiting = deque([(0, 0)])
        requests.append(
            SampleRequest(problem_id=problem.id, prompt=prompt, config=config, max_tokens=room, waiting=waiting)
        )
    return requests


def _batches(requests: "list[SampleRequest]", model: "PreTrainedModel") -> "Iterator[deque[SampleRequest]]":
    from mathlete.sampling.embedded.kv import token_bytes

    longest = max(request.longest for request in requests)
    # Two bytes a number whatever the model's type is, so that a batch is the same on every machine.
    size = max(1, min(_MAX_ROWS, _KV_BYTES // (token_bytes(model, itemsize=2) * longest)))
    for start in range(0, len(requests), size):
        yield deque(requests[start : start + size])
