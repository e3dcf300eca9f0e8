import threading
import time
from collections.abc import Generator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.errors import UserError
from mathlete.sampling.samples import Sample
from mathlete.solve.budget import Budget, BudgetSettings, Speed
from mathlete.solve.clock import RealClock, VirtualClock, until

SAMPLE = Sample(problem_id="p", index=0, seed=0, text="", tokens=1, finish="stop", seconds=0.0)


@given(
    questions=st.integers(1, 60),
    floor=st.floats(0, 300),
    spare=st.floats(0, 5000),
    above=st.floats(0, 900, exclude_min=True),
    data=st.data(),
)
def test_the_sum_never_exceeds_the_wall_and_no_question_is_starved(
    questions: int, floor: float, spare: float, above: float, data: st.DataObject
) -> None:
    """The engine chooses how much of its allowance it takes; the worst takes all of it."""
    clock = VirtualClock()
    wall = floor * questions + spare + 1
    budget = Budget(
        BudgetSettings(wall_s=wall, floor_s=floor, ceiling_s=floor + above, questions=questions), clock=clock
    )
    for _ in range(questions):
        allowed = budget.next_question_s()
        assert floor - 1e-6 <= allowed <= floor + above + 1e-6
        clock.advance_to(clock.now() + allowed * data.draw(st.sampled_from([0.0, 0.3, 1.0])))
    assert clock.now() <= wall + 1e-6


def test_an_overshoot_is_shared_by_those_who_come_after() -> None:
    clock = VirtualClock()
    budget = Budget(BudgetSettings(wall_s=1000, floor_s=90, ceiling_s=200, questions=10), clock=clock)
    assert budget.next_question_s() == pytest.approx(190)
    clock.advance_to(640)
    for _ in range(9):
        allowed = budget.next_question_s()
        assert allowed == pytest.approx(40)
        clock.advance_to(clock.now() + allowed)
    assert clock.now() == pytest.approx(1000)
    assert budget.next_question_s() == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (BudgetSettings(wall_s=100, floor_s=3, ceiling_s=9, questions=0), "questions must be at least 1"),
        (BudgetSettings(wall_s=100, floor_s=3, ceiling_s=9, questions=50), "must fit into the wall"),
        (BudgetSettings(wall_s=100, floor_s=9, ceiling_s=3, questions=5), "floor must be"),
        (BudgetSettings(wall_s=100, floor_s=0, ceiling_s=0, questions=5), "ceiling must be above 0"),
        (BudgetSettings(wall_s=100, reserve_s=100, floor_s=1, ceiling_s=3, questions=5), "reserve must be"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused(settings: BudgetSettings, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Budget(settings, clock=VirtualClock())


def test_a_hung_engine_is_left_at_the_deadline_and_closed_once_it_comes_back() -> None:
    release, closed = threading.Event(), threading.Event()

    def hung() -> Generator[Sample, None, None]:
        try:
            yield SAMPLE
            release.wait()
            yield SAMPLE
        finally:
            closed.set()

    clock = RealClock()
    started = time.monotonic()
    assert list(until(hung(), clock=clock, deadline=clock.now() + 0.2)) == [SAMPLE]
    assert 0.2 <= time.monotonic() - started < 5
    assert not closed.is_set()
    release.set()
    assert closed.wait(5)


def test_an_error_of_the_engine_reaches_the_caller() -> None:
    def break_stream() -> Generator[Sample, None, None]:
        yield SAMPLE
        raise RuntimeError("out of memory")

    clock = RealClock()
    with pytest.raises(RuntimeError, match="out of memory"):
        list(until(break_stream(), clock=clock, deadline=clock.now() + 30))


def test_leaving_early_closes_the_stream() -> None:
    closed = threading.Event()

    def endless() -> Generator[Sample, None, None]:
        try:
            while True:
                yield SAMPLE
        finally:
            closed.set()

    clock = RealClock()
    stream = until(endless(), clock=clock, deadline=clock.now() + 30)
    assert next(stream) == SAMPLE
    stream.close()
    assert closed.is_set()


def test_speed_is_learned_and_tells_how_many_samples_fit() -> None:
    speed = Speed()
    assert speed.samples_that_fit(seconds=1, n=16) == 16
    for rows in (1, 4, 8, 16) * 5:
        speed.learn(tokens=1000, seconds=1000 * (0.01 + 0.001 * rows), rows=rows)
    assert speed.tokens_per_s(rows=16) == pytest.approx(16 / 0.026)
    assert [speed.samples_that_fit(seconds=s, n=16) for s in (5, 15, 18.5, 60)] == [1, 5, 8, 16]
