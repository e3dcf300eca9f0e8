"""The order of training rows."""

from hypothesis import given
from hypothesis import strategies as st

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
    def count_padding(order: list[int]) -> int:
        some = [[lengths[index] for index in order[at : at + batch]] for at in range(0, len(order), batch)]
        return sum(len(one) * max(one) for one in some)

    order = schedule(lengths, rows=len(lengths), batch=batch, seed=0)
    whole = sorted(range(len(lengths)), key=lambda index: lengths[index])
    assert count_padding(order) <= count_padding(list(range(len(lengths)))) + batch * max(lengths)
    assert count_padding(whole) <= count_padding(order) + batch * max(lengths)
