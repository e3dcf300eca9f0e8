"""The order of training rows, and the limits of what merge and 8-bit export may cost."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mathlete.errors import UserError
from mathlete.problems import Problem
from mathlete.tune.settings import Survival
from mathlete.tune.survival import compare_greedy, kl, require_survival, survival_table
from mathlete.tune.trainers import schedule

LENGTHS = st.lists(st.integers(1, 400), min_size=1, max_size=300)


@given(lengths=LENGTHS, epochs=st.integers(1, 3), batch=st.integers(1, 32), seed=st.integers(0, 9))
def test_every_epoch_holds_every_row_once(lengths: list[int], epochs: int, batch: int, seed: int) -> None:
    order = schedule(lengths, rows=epochs * len(lengths), batch=batch, seed=seed)
    for start in range(0, len(order), len(lengths)):
        assert sorted(order[start : start + len(lengths)]) == list(range(len(lengths)))


@given(lengths=LENGTHS, rows=st.integers(1, 500), batch=st.integers(1, 32), seed=st.integers(0, 9))
def test_a_longer_schedule_begins_with_the_shorter(lengths: list[int], rows: int, batch: int, seed: int) -> None:
    order = schedule(lengths, rows=rows, batch=batch, seed=seed)
    assert len(order) == rows
    assert schedule(lengths, rows=rows + 40, batch=batch, seed=seed)[:rows] == order


@given(lengths=st.lists(st.integers(1, 400), min_size=64, max_size=300), batch=st.integers(2, 32))
def test_batches_of_similar_length_hold_less_padding_than_shuffled_ones(lengths: list[int], batch: int) -> None:
    def padded(order: list[int]) -> int:
        some = [[lengths[index] for index in order[at : at + batch]] for at in range(0, len(order), batch)]
        return sum(len(one) * max(one) for one in some)

    order = schedule(lengths, rows=len(lengths), batch=batch, seed=0)
    whole = sorted(range(len(lengths)), key=lambda index: lengths[index])
    assert padded(order) <= padded(list(range(len(lengths)))) + batch * max(lengths)
    assert padded(whole) <= padded(order) + batch * max(lengths)


@pytest.mark.parametrize("seed", range(20))
def test_kl_is_never_negative_and_zero_only_for_the_same(seed: int) -> None:
    torch.manual_seed(seed)
    one = torch.log_softmax(torch.randn(50, 300), dim=-1)
    other = torch.log_softmax(one + 1e-6 * torch.randn(50, 300), dim=-1)
    assert kl(one, one) == 0
    assert 0 < kl(one, other) < 1e-9


FIGURES: dict[str, Any] = {
    "kl_merged": 1e-5,
    "kl_int8": 5e-4,
    "kl_tokens": 100,
    "greedy_problems": 200,
    "greedy_answered": 200,
    "greedy_unchanged": 0.995,
    "greedy_right_trained": 150,
    "greedy_right_int8": 149,
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kl_merged": 2e-4}, r"KL\(trained \|\| merged\) must be at most 0.0001 nats a token, got 2.00e-04"),
        ({"kl_int8": 2e-3}, r"KL\(trained \|\| int8\) must be at most 0.001 nats a token, got 2.00e-03"),
        ({"kl_int8": math.nan}, r"KL\(trained \|\| int8\) must be .*, got nan"),
        ({"kl_merged": math.inf}, r"KL\(trained \|\| merged\) must be .*, got inf"),
        ({"greedy_unchanged": 0.985}, "at least 99% of greedy answers unchanged, got 98.5% of 200"),
    ],
)
def test_a_breach_names_the_hop_its_figure_and_the_cure(changed: dict[str, Any], message: str) -> None:
    require_survival(FIGURES, Survival())
    with pytest.raises(UserError, match=message):
        require_survival({**FIGURES, **changed}, Survival())


def test_models_that_answer_nothing_are_told_and_are_no_breach() -> None:
    silent = {**FIGURES, "greedy_answered": 0, "greedy_unchanged": None}
    require_survival(silent, Survival())
    assert "none answered" in [cell for column in survival_table(silent, Survival()).columns for cell in column.cells]


def test_greedy_answers_are_compared_as_answers_not_as_text() -> None:
    problems = [Problem(id=name, statement="?", gold="1/2") for name in "abcd"]
    before = {"a": r"\frac12", "b": "0.5", "c": None, "d": None}
    after = {"a": "0.5", "b": "0.7", "c": "1/2", "d": None}
    found = compare_greedy(problems, before=before, after=after)
    assert (found.problems, found.answered, found.unchanged) == (4, 3, 1)
    assert (found.right_before, found.right_after) == (2, 2)
    assert found.share == pytest.approx(1 / 3)
