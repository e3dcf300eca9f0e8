"""Forced answers by vLLM: those of the embedded engine, and what it was saying at a deadline."""

from contextlib import closing

import pytest

from mathlete.models import find_model
from mathlete.sampling import SamplingConfig
from mathlete.sampling.served.vllm_engine import VllmSampler
from tests.test_sampling_vllm import PROBLEMS, WARNINGS, collected, engine, needs_vllm, scripted, words

__all__ = ["collected", "engine", "scripted"]  # fixtures
pytestmark = [pytest.mark.filterwarnings(each) for each in WARNINGS]


@pytest.mark.slow
@needs_vllm
def test_forced_answers_are_the_embedded_engine_s(engine: VllmSampler, scripted: VllmSampler) -> None:
    from mathlete.sampling.embedded.transformers_engine import open_transformers

    cut = [*engine.stream(PROBLEMS[0], seeds={i: i for i in range(8)}, config=SamplingConfig(max_tokens=6))]
    theirs = {one.index: one for one in engine.force_answers(PROBLEMS[0], cut=cut, max_tokens=16)}
    with closing(open_transformers(find_model("pocket"), precision="dense")) as embedded:
        mine = {one.index: one for one in embedded.force_answers(PROBLEMS[0], cut=cut, max_tokens=16)}
    assert len(mine) == 8
    assert words(theirs) == words(mine)
    assert "boxed" in {one.finish for one in mine.values()}
    # What goes on for ever is told as far as it came.
    config = SamplingConfig(temperature=1, max_tokens=200, timeout_s=0.5)
    late = [*scripted.stream_all(PROBLEMS[0], seeds={i: i for i in range(400)}, config=config)]
    assert {one.finish for one in late} >= {"clock"}
    begun = [one for one in late if one.finish == "clock" and one.text.startswith("a")]
    assert begun
    assert all(one.text == "a" * one.tokens for one in begun)
