"""Packing: every row whole and once, and the same loss and gradients as rows that share nothing."""

from collections.abc import Iterable
from itertools import chain, pairwise
from typing import Any

import datasets
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mathlete.corpus import open_source
from mathlete.errors import UserError
from mathlete.models import find_model, load_model, load_prompt_format
from mathlete.rows.packing import best_fit, pack_rows
from mathlete.rows.settings import Filters, Rows
from mathlete.rows.token_rows import make_row

BUDGET = 256


@pytest.fixture(scope="module")
def rows() -> datasets.Dataset:
    prompts = load_prompt_format(find_model("pocket"))
    made = [
        make_row(one, prompts=prompts, rows=Rows(), filters=Filters(duplicates="keep"))
        for one in chain.from_iterable(open_source("pocket", limit=24))
    ]
    return datasets.Dataset.from_list(made)


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(50, 120))
def test_every_row_is_packed_once_and_none_is_cut(lengths: list[int], budget: int) -> None:
    sequences = best_fit(lengths, budget=budget)
    assert sorted(index for some in sequences for index in some) == list(range(len(lengths)))
    sizes = [sum(lengths[index] for index in some) for some in sequences]
    assert all(0 < size <= budget for size in sizes)
    # Two sequences that would fit into one are not left apart.
    assert all(one + other > budget for one, other in pairwise(sorted(sizes)))


def loss_and_gradients(model: Any, batches: list[dict[str, torch.Tensor]]) -> tuple[float, torch.Tensor]:
    """Sum of the tokens' losses over all batches, and its gradient."""
    model.zero_grad()
    total = 0.0
    for batch in batches:
        labels = batch.pop("labels")
        # As the trainer calls it: with a cache the model sees no borders.
        logits = model(**batch, use_cache=False).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    gradients = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
    return total, gradients.clone()


def one_by_one(rows: Iterable[Any]) -> list[dict[str, torch.Tensor]]:
    return [{name: torch.tensor([row[name]]) for name in ("input_ids", "labels")} for row in rows]


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model(find_model("pocket"))


@pytest.fixture(scope="module")
def apart(model: Any, rows: datasets.Dataset) -> tuple[float, torch.Tensor]:
    """Loss and gradients of the rows, each a batch of its own."""
    return loss_and_gradients(model, one_by_one(rows))


@pytest.mark.parametrize("batch", [1, 2])
def test_packed_rows_have_the_loss_and_the_gradients_of_rows_apart(
    model: Any, rows: datasets.Dataset, apart: tuple[float, torch.Tensor], batch: int
) -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    sequences = list(pack_rows(rows, budget=BUDGET))
    assert len(sequences) < len(rows) / 2
    together = [collate(sequences[at : at + batch]) for at in range(0, len(sequences), batch)]
    expected, gradients = apart
    result, packed_gradients = loss_and_gradients(model, together)
    assert result == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(packed_gradients, gradients, rtol=1e-3, atol=1e-4 * float(gradients.abs().max()))


def test_without_the_borders_the_loss_would_be_another(
    model: Any, rows: datasets.Dataset, apart: tuple[float, torch.Tensor]
) -> None:
    run_on = one_by_one(pack_rows(rows, budget=BUDGET))
    assert loss_and_gradients(model, run_on)[0] > 1.05 * apart[0]


def test_a_row_longer_than_a_sequence_is_an_error(rows: datasets.Dataset) -> None:
    longest = max(rows["tokens"])
    with pytest.raises(UserError, match=f"--tune.pack must hold the longest row, got {longest - 1} for {longest}"):
        pack_rows(rows, budget=longest - 1)
    assert sum(map(sum, pack_rows(rows, budget=longest)["seq_lengths"])) == sum(rows["tokens"])
