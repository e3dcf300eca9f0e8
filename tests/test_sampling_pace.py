"""What a large model's decode loop on a CPU does otherwise: packed weights, few rows first, as many threads as pay."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
import torch

from mathlete.prompts import PromptFormat
from mathlete.sampling.embedded import transformers_engine
from mathlete.sampling.embedded.batch import Batch
from mathlete.sampling.embedded.pace import Pace, Threads
from mathlete.sampling.embedded.packing import PackedLinear, pack_linears
from mathlete.sampling.embedded.transformers_engine import TransformersSampler
from tests.test_sampling_engine import GREEDY, WARM, byte_tokenizer, draw_all, generate_text, problem, tiny_model

packs = pytest.mark.skipif(
    pack_linears(torch.nn.Sequential(torch.nn.Linear(2, 2))) == 0, reason="no oneDNN on x86 here"
)


@pytest.fixture(scope="module")
def prompts() -> PromptFormat:
    return PromptFormat(tokenizer=byte_tokenizer(), instruction="")


@packs
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
def test_a_packed_layer_computes_what_the_layer_does(dtype: torch.dtype, bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(96, 200, bias=bias)
    torch.nn.init.normal_(layer.weight, std=0.1, generator=generator)
    layer = layer.to(dtype)
    with torch.inference_mode():
        packed = PackedLinear(layer)
        for shape in [(1, 1), (3, 1), (32, 1), (200, 1), (2, 70)]:
            inputs = torch.randn(*shape, 96, generator=generator).to(dtype)
            exact = torch.nn.functional.linear(inputs.double(), *(part.double() for part in layer.parameters()))
            assert packed(inputs).dtype is dtype
            # One rounding of the result, which is a few units large.
            assert (packed(inputs).double() - exact).abs().max() < (1e-5 if dtype is torch.float32 else 2e-2)


@packs
def test_only_plain_layers_are_packed_and_a_head_leaves_the_embedding_it_shares() -> None:
    class Own(torch.nn.Linear):
        pass

    model: Any = tiny_model()
    model.model.layers[0].mlp.up_proj = Own(32, 64, bias=False)
    embedding = model.model.embed_tokens.weight.clone()
    assert pack_linears(model) == 2 * 7 + 1 - 1
    assert isinstance(model.model.layers[0].mlp.up_proj, Own)
    assert isinstance(model.lm_head, PackedLinear)
    assert torch.equal(model.model.embed_tokens.weight, embedding)


@packs
def test_a_paced_engine_with_packed_weights_gives_what_generate_gives(
    prompts: PromptFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [generate_text(tiny_model(), prompts, number) for number in range(4)]
    monkeypatch.setattr(transformers_engine, "_SMALL", 0)
    with closing(TransformersSampler(tiny_model(), prompts=prompts, max_rows=64)) as engine:
        drawn = [draw_all(engine, number, 1, GREEDY)[0] for number in range(4)]
    assert [(sample.tokens, sample.text) for sample in drawn] == wanted


def test_the_first_rows_stay_among_themselves_until_one_is_done(
    prompts: PromptFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    done: list[int] = []
    step = Batch.step

    def watched(batch: Batch) -> Any:
        sizes.append(len(batch))
        finished = step(batch)
        done.append(len(finished))
        return finished

    monkeypatch.setattr(Batch, "step", watched)
    monkeypatch.setattr(transformers_engine, "_SMALL", 0)
    with closing(TransformersSampler(tiny_model(), prompts=prompts, max_rows=64)) as engine:
        assert len(draw_all(engine, 0, 60, WARM)) == 60
    first = next(position for position, count in enumerate(done) if count)
    assert {*sizes[: first + 1]} == {8}
    assert max(sizes) > 8


def test_after_a_minute_without_a_sample_more_rows_are_tried() -> None:
    pace = Pace()
    for _ in range(61):
        assert pace.most_rows(96) == 8
        pace.add(8, 1.0)
    assert pace.most_rows(96) == 16


def test_rows_are_added_only_while_a_sample_takes_no_more_than_minutes() -> None:
    def grown(seconds_a_row: float, *, tokens: int) -> int:
        """Return the rows that a machine comes to whose steps take 0.1 s and so much for each row."""
        pace, rows = Pace(), 8
        pace.finish(tokens)
        for _ in range(100):
            pace.add(rows, 0.1 + seconds_a_row * rows)
            rows = pace.most_rows(5000)
        return rows

    assert grown(0.004, tokens=240) == 256  # 1.12 s a step, 270 s a sample
    assert grown(0.04, tokens=240) == 16  # of 32 rows a sample would take 330 s
    # A sample of 20,000 tokens takes hours: at most three times as many as among the first rows.
    assert grown(0.04, tokens=20_000) == 16


def test_a_size_that_was_slow_on_a_busy_machine_is_tried_again() -> None:
    pace = Pace()
    pace.finish(tokens=10)
    for rows, seconds in ((8, 1.0), (16, 9.0)):
        for _ in range(8):
            pace.add(rows, seconds)
    assert pace.most_rows(96) == 8
    for _ in range(256):
        pace.add(8, 1.0)
    assert pace.most_rows(96) == 16


def test_threads_follow_the_load_and_a_single_core_has_one() -> None:
    threads, taken = Threads(8), []
    for _ in range(400):
        taken.append(threads.count)
        threads.add(32, {1: 1.0, 2: 0.7, 4: 2.0, 8: 5.0}[threads.count])
    assert taken[0] == 8
    assert max(taken[-200:], key=taken[-200:].count) == 2
    assert taken[-200:].count(2) > 180
    single = Threads(1)
    for _ in range(50):
        single.add(8, 1.0)
        assert single.count == 1


@pytest.fixture
def two_batches(prompts: PromptFormat, monkeypatch: pytest.MonkeyPatch) -> Iterator[TransformersSampler]:
    """An engine that takes its model for a large one, with a batch on each of two threads."""
    monkeypatch.setattr(transformers_engine, "_SMALL", 0)
    engine = TransformersSampler(tiny_model(), prompts=prompts, max_rows=64, threads=2)
    yield engine
    engine.close()


def test_two_batches_share_the_samples_and_draw_what_one_does(
    two_batches: TransformersSampler, prompts: PromptFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: dict[int, int] = {}
    step = Batch.step

    def counted(batch: Batch) -> Any:
        assert torch.get_num_threads() == 1
        batches[id(batch)] = batches.get(id(batch), 0) + len(batch)
        return step(batch)

    monkeypatch.setattr(Batch, "step", counted)
    with ThreadPoolExecutor(4) as pool:
        mixed = list(pool.map(lambda number: draw_all(two_batches, number, 16, WARM), range(4)))
    assert len(batches) == 2
    assert min(batches.values()) > 0
    monkeypatch.undo()
    with closing(TransformersSampler(tiny_model(), prompts=prompts, max_rows=8)) as plain:
        alone = [draw_all(plain, number, 16, WARM) for number in range(4)]
    assert [{i: s.text for i, s in samples.items()} for samples in mixed] == [
        {i: s.text for i, s in samples.items()} for samples in alone
    ]


def test_an_error_in_one_of_two_batches_ends_every_stream(
    two_batches: TransformersSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[Batch] = []
    step = Batch.step

    def fails(batch: Batch) -> Any:
        if not failed:
            failed.append(batch)
        if batch is failed[0]:
            raise MemoryError("no room")
        return step(batch)

    monkeypatch.setattr(Batch, "step", fails)

    def draw(number: int) -> str:
        with pytest.raises(RuntimeError, match="the sampling engine stopped: no room"):
            draw_all(two_batches, number, 200, WARM)
        return "raised"

    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(draw, range(4))] == ["raised"] * 4
    with pytest.raises(RuntimeError, match="no room"):
        draw_all(two_batches, 0, 1, WARM)


def test_two_batches_wait_for_requests_and_forget_cancelled_ones(two_batches: TransformersSampler) -> None:
    for _ in range(3):
        assert len(draw_all(two_batches, 0, 1, WARM)) == 1
    stream = two_batches.stream(problem(1), seeds={index: index for index in range(100)}, config=WARM)
    next(stream)
    stream.close()
    assert len(draw_all(two_batches, 2, 30, WARM)) == 30
