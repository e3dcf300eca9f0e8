from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.errors import UserError
from mathlete.solve.policy import Policy
from mathlete.solve.stopping import (
    RULES,
    UNIT,
    Course,
    dirichlet_posterior,
    fewest_samples,
    posterior,
    stopping_rule,
)

labels = st.lists(st.integers(-1, 3), min_size=1, max_size=12)


def course(answers: list[int], *, n: int | None = None, weights: Any = UNIT, indexes: Any = None) -> Course:
    row = np.array([answers])
    order = np.arange(len(answers)) if indexes is None else np.array(indexes)
    return Course(
        labels=row,
        weights=np.broadcast_to(np.array(weights), row.shape),
        indexes=order[None],
        n=len(answers) if n is None else n,
    )


def stop(answers: list[int], rule: str, **more: Any) -> int:
    return int(course(answers, **more).stops_after(rule)[0])


@given(answers=labels, data=st.data())
def test_exact_stop_gives_the_answer_of_all_samples_however_votes_weigh(
    answers: list[int], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(answers))))
    weights = data.draw(st.lists(st.integers(0, UNIT), min_size=len(answers), max_size=len(answers)))
    votes = course(answers, weights=weights, indexes=order)
    end = int(votes.stops_after("exact")[0])
    assert votes.standing.leader[0, end - 1] == votes.standing.leader[0, -1]


@given(answers=labels, data=st.data())
def test_the_last_standing_is_the_count_whatever_the_arrival_order(answers: list[int], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(answers))))
    weights = data.draw(st.lists(st.integers(0, UNIT), min_size=len(answers), max_size=len(answers)))
    arrived = course([answers[i] for i in order], weights=[weights[i] for i in order], indexes=order)
    votes = {kind: sum(w for w, k in zip(weights, answers, strict=True) if k == kind) for kind in set(answers) - {-1}}
    ranked = sorted(votes, key=lambda kind: (-votes[kind], answers.index(kind)))
    standing = arrived.standing
    assert standing.leader[0, -1] == (ranked[0] if ranked else -1)
    assert standing.first[0, -1] == (votes[ranked[0]] if ranked else 0)
    assert standing.second[0, -1] == (votes[ranked[1]] if len(ranked) > 1 else 0)


@given(rows=st.lists(st.lists(st.tuples(st.integers(-1, 3), st.integers(0, UNIT)), min_size=9, max_size=9), min_size=1))
def test_each_standing_of_many_rows_is_that_of_the_arrivals_until_then(rows: list[list[tuple[int, int]]]) -> None:
    both = np.array(rows)
    indexes = np.tile(np.arange(9)[::-1], (len(rows), 1))
    many = Course(labels=both[..., 0], weights=both[..., 1], indexes=indexes, n=9)
    for row, arrivals in enumerate(rows):
        for end in range(1, 10):
            kinds, weights = zip(*arrivals[:end], strict=True)
            alone = course([*kinds], weights=[*weights], indexes=[*range(8, 8 - end, -1)])
            for name in ("leader", "first", "second"):
                assert getattr(many.standing, name)[row, end - 1] == getattr(alone.standing, name)[0, -1]
        answered = [kind for kind, _ in arrivals if kind >= 0]
        assert many.answers[row].tolist() == answered + [-1] * (9 - len(answered))


@given(
    answers=labels, rule=st.sampled_from(["beta95", "dirichlet95", "esc4", "votes4", "4of5", "aimo2", "hopeless4of5"])
)
def test_an_answerless_sample_stops_nothing(answers: list[int], rule: str) -> None:
    answered = [label for label in answers if label >= 0]
    flags = stopping_rule(rule)(course(answers))[0]
    assert answers[0] >= 0 or not flags[0]
    if answered:
        alone = stopping_rule(rule)(course(answered))[0]
        assert flags[-1] == alone[-1]


@pytest.mark.parametrize(
    ("rule", "answers", "end"),
    [
        ("none", [0, 0, 0, 0], 4),
        ("exact", [0, 0, 0, 1], 3),
        ("exact", [0, 0, 1, 1], 4),
        ("exact", [0, -1, -1, 0], 4),
        ("beta95", [0, 0, 0, 0, 0, 0], 4),
        ("beta95", [0, 1, 0, 0, 0, 0, 0, 1], 7),
        ("beta95+exact", [0, 1, 0, 0, 0, 1], 5),
        ("beta95+exact", [0, 0, 0, 1, 1], 3),
        ("dirichlet95", [0, 0, 0, 0, 1], 4),
        ("esc4", [0, 1, 1, 1, 1, 1, 1, 1, 1], 8),
        ("votes4", [0, 1, 0, 1, 0, -1, 0, 1], 7),
        ("4of5", [0, 1, 0, 0, 0, 1], 5),
        ("4of5", [0, 1, 1, 0, 0, 0, 0], 7),
        ("aimo2", [0, 1, 1, 0, 0, 0, 0, 0], 7),
        ("hopeless6of8", [0, 1, 2, 3, 4, 5, 0, 1, 1], 8),
        ("hopeless6of8", [0, 1, -1, -1, -1, -1, -1, -1, 2], 9),
    ],
)
def test_rule_stops_where_it_should(rule: str, answers: list[int], end: int) -> None:
    assert stop(answers, rule) == end


@given(answers=st.lists(st.integers(-1, 9), min_size=1, max_size=16), data=st.data())
def test_no_rule_stops_before_its_fewest_samples(answers: list[int], data: st.DataObject) -> None:
    rule = data.draw(st.sampled_from([*RULES, "beta99", "hopeless3of4", "beta95+exact", "hopeless6of8+votes6"]))
    weights = data.draw(st.lists(st.integers(0, UNIT), min_size=len(answers), max_size=len(answers)))
    assert stop(answers, rule, weights=weights) >= fewest_samples(rule, len(answers))


def test_beta95_stops_at_the_known_counts() -> None:
    stops = [(a, b) for a in range(12) for b in range(5) if posterior(a, b) >= 0.95 > posterior(a - 1, b) and a > b]
    assert stops == [(4, 0), (6, 1), (8, 2), (9, 3), (11, 4)]


@pytest.mark.parametrize("counts", [(1, 1), (3, 1), (6, 2), (9, 9)])
def test_dirichlet_of_two_is_beta(counts: tuple[int, int]) -> None:
    assert dirichlet_posterior(counts) == pytest.approx(posterior(*counts), abs=1e-6)


@pytest.mark.parametrize("words", ["beta", "exact+", "esc0", "beta95/votes", ""])
def test_unknown_policy_is_named(words: str) -> None:
    with pytest.raises(UserError, match="must be a known one"):
        Policy().with_words(words)


def test_a_vote_alone_is_told_where_it_stands() -> None:
    with pytest.raises(UserError, match=r"behind a slash, got majority, a vote\.\n.*all/majority"):
        Policy().with_words("majority")
