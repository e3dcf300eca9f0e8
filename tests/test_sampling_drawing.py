from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mathlete.reasoning import THINK
from mathlete.sampling.box import box_end
from mathlete.sampling.embedded.drawing import draw, slice_size, uniforms
from tests.conftest import dear


def draw_ids(logits: torch.Tensor, uniform: torch.Tensor, *, temperature: float, top_p: float) -> list[int]:
    rows = len(uniform)
    chosen = draw(
        logits.expand(rows, -1),
        uniform=uniform,
        temperature=torch.full((rows,), temperature),
        top_p=torch.full((rows,), top_p, dtype=torch.float64),
    )
    tokens: list[int] = chosen.ids.tolist()
    return tokens


def warp_by_transformers(logits: torch.Tensor, *, temperature: float, top_p: float) -> torch.Tensor:
    from transformers.generation.logits_process import TemperatureLogitsWarper, TopPLogitsWarper

    ids = torch.zeros(1, 1, dtype=torch.long)
    warmed = TemperatureLogitsWarper(temperature)(ids, logits[None])
    kept: torch.Tensor = TopPLogitsWarper(top_p)(ids, warmed)[0].softmax(-1).double()
    return kept


@dear(20)
@given(
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([0.01, 0.5, 2.0, 8.0]),
    temperature=st.sampled_from([0.3, 0.6, 1.0, 2.0]),
    top_p=st.sampled_from([0.1, 0.5, 0.95, 0.999]),
    vocabulary=st.sampled_from([5, 64, 300, 700]),
)
def test_every_token_has_its_share_of_the_unit_interval(
    seed: int, spread: float, temperature: float, top_p: float, vocabulary: int
) -> None:
    """A grid of uniforms gives each token its transformers probability, whether or not its nucleus fits the slice."""
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed)) * spread
    wanted = warp_by_transformers(logits, temperature=temperature, top_p=top_p)
    grid = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    counts = torch.bincount(
        torch.tensor(draw_ids(logits, grid, temperature=temperature, top_p=top_p)), minlength=vocabulary
    )
    # One token at the edge of the nucleus may fall in or out by float32 rounding; no cell is off by more than a step.
    assert ((counts / 2000 - wanted).abs() <= 2 / 2000).sum() >= vocabulary - 1
    assert (counts / 2000 - wanted).abs().max() < 0.02


def test_whole_vocabulary_is_reached_with_top_p_1() -> None:
    logits = torch.zeros(500)
    grid = (torch.arange(500, dtype=torch.float64) + 0.5) / 500
    assert sorted(draw_ids(logits, grid, temperature=1.0, top_p=1.0)) == list(range(500))


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
@pytest.mark.parametrize("top_p", [1e-9, 0.5, 1.0])
def test_edges_of_the_unit_interval_give_a_token_of_the_nucleus(uniform: float, top_p: float) -> None:
    logits = torch.tensor([0.0, 2.0, -torch.inf, 1.0])
    (token,) = draw_ids(logits, torch.tensor([uniform], dtype=torch.float64), temperature=1.0, top_p=top_p)
    assert warp_by_transformers(logits, temperature=1.0, top_p=top_p)[token] > 0


def test_greedy_rows_stand_beside_warm_ones() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [0.0, 3.0, 1.0]])
    chosen = draw(
        logits,
        uniform=torch.tensor([0.9999, 0.9999], dtype=torch.float64),
        temperature=torch.tensor([0.0, 1.0]),
        top_p=torch.tensor([1.0, 1.0], dtype=torch.float64),
    )
    assert chosen.ids.tolist() == [1, 0]
    assert chosen.logprobs.tolist() == pytest.approx([-0.16984602, -3.1698460])


def test_rows_of_a_large_vocabulary_are_drawn_in_parts_as_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    # More than a million numbers; a third of the rows is too flat for its slice.
    logits = torch.randn(40, 60_000, generator=generator) * torch.tensor([0.5, 3.0, 8.0]).repeat(14)[:40, None]
    given: dict[str, Any] = {
        "uniform": torch.rand(40, dtype=torch.float64, generator=generator),
        "temperature": torch.linspace(0, 1.5, 40),
        "top_p": torch.linspace(0.5, 1, 40, dtype=torch.float64),
    }
    whole = draw(logits, **given)
    alone = [draw(logits[row : row + 1], **{name: t[row : row + 1] for name, t in given.items()}) for row in range(40)]
    assert torch.equal(whole.ids, torch.cat([one.ids for one in alone]))
    assert torch.equal(whole.logprobs, torch.cat([one.logprobs for one in alone]))


def test_uniforms_are_uniform_and_independent_of_their_neighbours() -> None:
    seeds = torch.arange(50).repeat_interleave(400)
    numbers = uniforms(seeds, torch.arange(400).repeat(50))
    counts = torch.histc(numbers, bins=20, min=0, max=1)
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 43.8  # chi-square, 19 degrees of freedom, 99.9%
    assert len(set(numbers.tolist())) == 20_000
    serial = torch.corrcoef(torch.stack((numbers[:-1], numbers[1:])))[0, 1]
    assert abs(float(serial)) < 0.025
    assert torch.equal(uniforms(seeds[7:8], torch.tensor([7])), numbers[7:8])


def test_slices_grow_with_the_vocabulary() -> None:
    assert [slice_size(v) for v in (5, 448, 151_936)] == [5, 8, 256]


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        ("\\boxed{7}.", 9),
        ("\\boxed {7} and \\boxed{8}", 10),
        ("\\fbox{7}", 0),
        ("\\fboxed{7}", 10),
        ("\\boxed{\\frac{1}{2}}$", 19),
        ("\\boxed{\\{1, 2\\}}", 16),
        ("\\boxed{1 \\\\} 2", 12),
        ("\\boxed{7", 0),
        ("\\boxed{\\}", 0),
        ("boxed{7}", 0),
        ("", 0),
    ],
)
def test_box_end(answer: str, end: int) -> None:
    before = "\\boxed{1}" + THINK.closing
    assert box_end(before + answer) == (len(before) + end if end else None)
    assert box_end(answer) is None


@given(st.text(alphabet="\\{}boxed1 </think>", max_size=60))
def test_a_box_once_closed_stays_where_it_is(text: str) -> None:
    whole = THINK.closing + text
    end = box_end(whole)
    if end is not None:
        assert whole[end - 1] == "}"
        assert box_end(whole[:end]) == end
        assert all(box_end(whole[:cut]) is None for cut in range(end))
