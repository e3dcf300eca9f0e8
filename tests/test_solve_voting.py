import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.sampling.samples import Sample
from mathlete.solve.stopping import UNIT
from mathlete.solve.voting import VOTES, count_votes, weigher

SAMPLE = Sample(
    problem_id="p", index=0, seed=0, text="</think>\\boxed{7}", answer="7", tokens=50, finish="boxed", seconds=1.0
)
floats = st.none() | st.floats(allow_nan=True, allow_infinity=True)
samples = st.builds(
    lambda index, answer, tokens, mean, tail: replace(
        SAMPLE, index=index, answer=answer, tokens=tokens, logprob_mean=mean, logprob_tail=tail
    ),
    st.integers(0, 99),
    st.sampled_from(["7", "8", "0", None]),
    st.integers(0, 500),
    floats,
    floats,
)


@pytest.mark.parametrize(
    ("kind", "change", "share"),
    [
        ("majority", {}, 1.0),
        ("logprob", {"logprob_mean": 0.0}, 1.0),
        ("logprob", {"logprob_mean": math.log(0.5)}, 0.75),
        ("logprob", {"logprob_mean": -1e9}, 0.5),
        ("logprob", {"logprob_mean": 3.0}, 1.0),
        ("logprob", {"logprob_mean": None}, 0.5),
        ("logprob", {"logprob_mean": math.nan}, 0.5),
        ("logprob", {"logprob_mean": -math.inf}, 0.5),
        ("tail", {"logprob_tail": math.log(0.5)}, 0.75),
        ("tail", {"logprob_mean": 0.0, "logprob_tail": math.nan}, 0.5),
        ("length", {"tokens": 0}, 1.0),
        ("length", {"tokens": 50}, 0.75),
        ("length", {"tokens": 100}, 0.5),
        ("length", {"tokens": 900}, 0.5),
        ("strength", {}, 1.0),
        ("strength", {"text": "so we get 4 apples and then 7"}, 0.25),
    ],
)
def test_a_sample_s_vote_weighs_what_the_table_says(kind: str, change: dict[str, object], share: float) -> None:
    changed = replace(SAMPLE, **change)  # type: ignore[arg-type]
    assert weigher(kind, max_tokens=100)(changed) == round(UNIT * share)


@given(sample=samples, kind=st.sampled_from([*VOTES]))
def test_a_vote_is_never_more_than_one_whatever_was_recorded(sample: Sample, kind: str) -> None:
    weight = weigher(kind, max_tokens=100)(sample)
    assert 0 <= weight <= UNIT
    if kind in ("logprob", "tail", "length"):
        assert weight >= UNIT // 2


@given(samples=st.lists(samples, max_size=9, unique_by=lambda one: one.index), kind=st.sampled_from([*VOTES]),
       data=st.data())  # fmt: skip
def test_no_vote_changes_with_the_arrival_order(samples: list[Sample], kind: str, data: st.DataObject) -> None:
    weigh = weigher(kind, max_tokens=100)
    order = data.draw(st.permutations(samples))
    assert count_votes(order, weigh=weigh) == count_votes(samples, weigh=weigh)


def test_one_sample_without_a_number_neither_wins_nor_poisons_the_vote() -> None:
    sure = [replace(SAMPLE, index=index, logprob_mean=-0.1) for index in range(2)]
    strange = replace(SAMPLE, index=2, answer="8", logprob_mean=math.nan)
    votes = count_votes([*sure, strange], weigh=weigher("logprob", max_tokens=100))
    assert [vote.answer for vote in votes] == ["7", "8"]
    assert all(math.isfinite(vote.weight) for vote in votes)


def test_there_is_no_prejudice_against_answers_that_look_like_a_fallback() -> None:
    votes = [replace(SAMPLE, index=index, answer="0") for index in range(3)]
    votes += [replace(SAMPLE, index=index, answer="12") for index in (3, 4)]
    assert count_votes(votes, weigh=weigher("majority", max_tokens=100))[0].answer == "0"
