"""What may be said of a change, and so handed in: one rule for every word of a replay."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.competitions import competition
from mathlete.metrics import Interval, judge_change
from mathlete.problems import Problem
from mathlete.replay.outcomes import Change, Cost, Outcome, Score
from mathlete.replay.policies import describe_unweighed, list_recorded_votes
from mathlete.replay.ranking import find_best
from mathlete.replay.selection import Candidate, CandidateChoice, Known
from mathlete.replay.simulation import Wall
from mathlete.replay.verdicts import describe_safety, judge_policy, judge_vote
from mathlete.sampling import Sample
from mathlete.scoring import Pool
from mathlete.scoring.comparison import describe_difference
from mathlete.scoring.harvested import HarvestScores
from mathlete.shipped import suggest_recording
from mathlete.solve import Policy
from tests.conftest import CommandLine
from tests.test_replay_selection import pool, write_run

BOTH = {"logprob_mean": -1.0, "logprob_tail": -1.0}
UNSAFE = Change(value=0.2, lo=-0.5, hi=0.8, informative=12)
AIMO_3 = competition("aimo-3")
NOTHING = Interval(value=0, lo=0, hi=0)
PLAIN = Outcome(
    n=8, max_tokens=9, stop="none", vote="majority", wall=None, change=NOTHING, informative=0, p_overrun=0,
    spent=Cost(arrivals=1, wall_s=1, generated_s=1), saved=Cost(arrivals=0, wall_s=0, generated_s=0), submission_s=9,
    submission_p95_s=9, score=Score(new_set=NOTHING, subset=NOTHING, same_set=NOTHING, all_runs=NOTHING),
    by_stop=Change(value=0, lo=0, hi=0, informative=0),
)  # fmt: skip


def tried(score: float, change: tuple[float, float, float], informative: int, **more: Any) -> Outcome:
    value, lo, hi = change
    by, of_score = Interval(value=value, lo=lo, hi=hi), replace(PLAIN.score, new_set=Interval(value=score, lo=0, hi=50))
    return replace(PLAIN, score=of_score, change=by, informative=informative, **more)


def stopped(stop: str, score: float, change: tuple[float, float, float], informative: int, **more: Any) -> Outcome:
    by = Change(value=change[0], lo=change[1], hi=change[2], informative=informative)
    return tried(score, change, informative, **{"stop": stop, "submission_s": 5, "by_stop": by, **more})


def voted(score: float, change: float, by_vote: tuple[float, float, float, int] | None, **more: Any) -> Outcome:
    """Under a clock that costs 6 of 50."""
    wall = Wall(wall_s=900, floor_s=9, ceiling_s=90)
    by = by_vote and Change(value=by_vote[0], lo=by_vote[1], hi=by_vote[2], informative=by_vote[3])
    vote = {"vote": "logprob", **more} if by else {}
    return tried(score, (change, change - 2, change + 2), 40, wall=wall, by_vote=by, **vote)


def say_of(by: Interval, number: int) -> list[str]:
    """What every command says of a change on which so many problems differ."""
    one = tried(5.0, (by.value, by.lo, by.hi), number, vote="logprob")
    forced = HarvestScores(
        weight=0.5, samples=9, unfinished=0, answered=9, right=9, tokens=9, seconds=1.0, without=0.5, gain=by,
        changed=number,
    )  # fmt: skip
    return [
        judge_policy(one),
        judge_vote(by, problems=number).replace("beats majority", "better").replace("loses to majority", "worse"),
        describe_difference(by, differing=number).rpartition(": ")[2],
        forced.describe().rpartition(", ")[2],
    ]


@given(st.floats(-2, 2), st.floats(0, 1), st.floats(0, 1), st.integers(0, 20))
def test_every_word_that_claims_a_difference_claims_what_the_one_rule_does(
    value: float, below: float, above: float, number: int
) -> None:
    by = Interval(value=value, lo=value - below, hi=value + above)
    shown = judge_change(by, differing=number)
    for words in say_of(by, number):
        assert words.startswith("better") == (shown == "better"), words
        assert words.startswith("worse") == (shown == "worse"), words
    known = Known(
        better="b", worse="a", difference=by, same_questions=1, at_best=0.9, new_questions=1, informative=number
    )
    silent = "not shown" in known.describe(questions=5)
    assert [tried(5.0, (value, by.lo, by.hi), number, vote="length").is_shown, not silent] == [shown == "better"] * 2


@pytest.mark.parametrize(
    ("outcomes", "chosen"),
    [
        # An unsafe stop with the highest score, one whose gain is that of a single problem, and the safe one beside it.
        ([tried(39.42, (0, 0, 0), 0), stopped("aimo2", 39.59, (0.16, -0.86, 1.43), 12)], "none"),
        ([tried(13.44, (0, 0, 0), 0), stopped("votes4", 13.87, (0.42, 0.0, 1.25), 1)], "none"),
        ([tried(13.44, (0, 0, 0), 0), stopped("exact", 13.44, (0, 0, 0), 0)], "exact"),
        # A gain that is not shown counts for nothing, one that is shown does.
        ([tried(9.0, (0, 0, 0), 0, submission_s=1), stopped("beta95", 9.1, (0.1, -0.1, 1.0), 20)], "none"),
        ([tried(9.0, (0, 0, 0), 0, submission_s=1), stopped("beta95", 9.5, (0.5, 0.1, 1.0), 20)], "beta95"),
        # Safe with one n, not with another: lucky with the first.
        (
            [
                tried(9.0, (0, 0, 0), 0),
                stopped("votes4", 9.0, (0, 0, 0), 0),
                stopped("votes4", 8, (-1, -2, 0), 20, n=16),
            ],
            "none",
        ),
        # Nothing else was tried: it is handed in, and said to be so.
        ([stopped("aimo2", 39.59, (0.16, -0.86, 1.43), 12)], "aimo2, though"),
    ],
)
def test_a_stop_is_handed_in_that_is_safe(outcomes: list[Outcome], chosen: str) -> None:
    best = find_best([outcomes], questions=50, rules=AIMO_3)
    assert best
    assert best.outcome.stop + ", though" * (not best.is_fit) == chosen
    unsafe = [one for one in outcomes if not one.stops_safely(questions=50)]
    said = describe_safety(outcomes, questions=50)
    assert all(any(f"not shown safe: {one.stop} (" in line for line in said) for one in unsafe)
    assert ("stop" in best.passed_over) == bool(unsafe)


def test_a_rule_that_has_too_few_samples_to_stop_is_not_called_safe() -> None:
    outcomes = [replace(stopped(stop, 9.0, (0, 0, 0), 0), n=4) for stop in ("none", "exact", "votes4", "aimo2", "esc8")]
    safe, idle = describe_safety(outcomes, questions=50)
    assert safe.endswith("lost at the low end): exact")
    assert idle == "never stops before the last sample, with so few: votes4, aimo2, esc8"
    assert describe_safety([replace(outcomes[2], n=n) for n in (4, 8)], questions=50)[0].endswith(": votes4")


@pytest.mark.parametrize(
    ("score", "by_stop", "stop"),
    [
        (36.6, (-0.3, -0.9, 0.1, 40), "votes4"),
        # No more than what it may lose at the low end, or than the gain that a few problems give.
        (36.6, (-0.3, -3.0, 0.1, 40), "exact"),
        (36.6, (1.5, 0.0, 3.0, 40), "votes4"),
        (36.6, (1.5, 0.0, 3.0, 3), "exact"),
        # A clock that cuts nothing.
        (34.2, (-0.3, -0.9, 0.1, 40), "exact"),
    ],
)
def test_an_unsafe_stop_is_handed_in_where_it_pays_under_its_clock(
    score: float, by_stop: tuple[float, float, float, int], stop: str
) -> None:
    wall = Wall(wall_s=900, floor_s=9, ceiling_s=90)
    exact = stopped("exact", 34.5, (-5.6, -7.5, -4.0), 40, wall=wall, by_stop=PLAIN.by_stop)
    value, lo, hi, number = by_stop
    by = Change(value=value, lo=lo, hi=hi, informative=number)
    unsafe = stopped("votes4", 30.0, (-2, -3, -1), 40, n=4)
    loose = stopped("votes4", score, (score - 40.1, -7.5, -2.0), 40, wall=wall, by_stop=by)
    best = find_best([[exact, loose, unsafe]], questions=50, rules=AIMO_3)
    assert best
    assert (best.outcome.stop, best.is_fit, best.passed_over[-1:]) == (stop, True, ("stop",))


def test_what_is_selected_is_what_is_handed_in() -> None:
    candidates = [
        Candidate(name=name, score=score, public=9, expected_maximum=9, selected=0.5)
        for name, score in (("plain", 13.47), ("luck", 14.6))
    ]
    choice = CandidateChoice(
        select=2, candidates=candidates, by_replay=14.6, by_public=14.32, hindsight=15, known=[], chosen="plain"
    )
    unfit = replace(choice, unfit="no stop is safe; try another")
    assert unfit.describe(questions=50)[0] == f"{choice.describe(questions=50)[0]}, though no stop is safe; try another"
    assert CandidateChoice.from_json(unfit.to_json()) == unfit
    said = choice.describe(questions=50)[0]
    assert said.startswith(
        "select plain: 13.47 of 50 expected where it counts (luck has 14.60, a gain that is not shown)"
    )
    assert CandidateChoice.from_json(choice.to_json()) == choice
    # What is below 0 is the simulation's noise.
    assert replace(choice, by_public=14.7).regret == 0


@pytest.mark.usefixtures("workdir")
def test_the_best_models_policy_is_handed_in(evaluate: CommandLine) -> None:
    shares = [number / 29 for number in range(30)]
    write_run("lost", pool("lost", shares))
    write_run("won", pool("won", [min(1, share + 0.2) for share in shares], seed=1))
    words = ("--n", 2, "--simulations", 200, "--stop", "none", "--select", 2, "--write-policy", "p.json", "--json")
    for first, other in (("lost", "won"), ("won", "lost")):
        shown = " ".join(evaluate("replay", first, "--versus", other, *words).stderr.split())
        assert "select won · n=2 · none: " in shown
        assert "to hand in the policy of won with the highest score:" in shown
        assert '"recordings": ["won"]' in " ".join(Path("p.json").read_text().split()).replace("[ ", "[").replace(
            " ]", "]"
        )


@pytest.mark.parametrize(
    ("fields", "lacking"),
    [
        ([{"logprob_mean": -1.0}], {"tail"}),
        ([{"logprob_tail": -1.0}], {"logprob"}),
        ([{}], {"logprob", "tail"}),
        ([{"logprob_mean": -1.0, "logprob_tail": -1.0}], set()),
        # Some logs of several had no tail.
        ([BOTH, {"logprob_mean": -1.0}], {"tail"}),
        ([BOTH, {}], {"logprob", "tail"}),
        # A few: their numbers were not finite.
        ([*[BOTH] * 99, {"logprob_mean": -1.0}], set()),
        ([*[BOTH] * 31, {}], set()),
        ([*[BOTH] * 93, *[{}] * 7], {"logprob", "tail"}),
        ([*[BOTH] * 98, {}, {**BOTH, "text": ""}], set()),
        ([BOTH, {**BOTH, "text": ""}], {"strength"}),
        ([{**BOTH, "text": ""}], {"strength"}),
        ([{**BOTH, "tokens": 0}], {"length"}),
        # What has no answer does not vote.
        ([BOTH, {"answer": None}], set()),
        ([{"answer": None}], {"logprob", "tail"}),
    ],
)
def test_a_vote_is_tried_only_where_its_own_field_was_recorded(
    fields: list[Mapping[str, Any]], lacking: set[str]
) -> None:
    samples = [
        Sample(**{
            "problem_id": "a", "index": index, "seed": index, "text": "x", "answer": "2", "tokens": 9, "finish": "stop",
            "seconds": 1.0, **given,
        })
        for index, given in enumerate(fields)
    ]  # fmt: skip
    recorded = Pool.of([Problem(id="a", statement="?", gold="2")], {"a": samples})
    assert {"majority", "logprob", "tail", "length", "strength"} - {*list_recorded_votes(recorded)} == lacking


def test_a_vote_is_tried_only_where_each_of_the_runs_has_its_field(tmp_path: Path) -> None:
    for name, number, fields in (("with", 999, BOTH), ("without", 2, {"logprob_mean": -1.0})):
        given: Mapping[str, Any] = fields
        samples = [
            Sample(
                problem_id="a", index=index, seed=len(fields), text=f"{index}", answer="2", tokens=9, finish="stop",
                seconds=1.0, **given,
            )
            for index in range(number)
        ]  # fmt: skip
        write_run(str(tmp_path / name), Pool.of([Problem(id="a", statement="?", gold="2")], {"a": samples}))
    both = Pool.read([tmp_path / "with", tmp_path / "without"])
    assert [both.count_without(name) for name in ("logprob_tail", "logprobs")] == [2, 0]
    assert {*Policy.known_votes()} - {*list_recorded_votes(both)} == {"tail"}
    with_few = replace(both, missing=frozenset())
    assert describe_unweighed([replace(PLAIN, vote="tail"), PLAIN, replace(PLAIN, vote="logprob")], with_few) == [
        "the vote tail: 2 samples have no log-probabilities of the last tokens to be weighed by"
    ]


@pytest.mark.parametrize(
    ("outcomes", "chosen"),
    [
        # What a clock costs is not the vote's loss; of by_vote, those on fewer problems than ten are none.
        ([voted(30, -6, None), voted(33, -3, (3, 1, 5, 40))], "logprob"),
        ([voted(30, -6, None), voted(33, -3, (3, -1, 7, 40))], "majority"),
        ([voted(30, -6, None), voted(33, -3, (3, 1, 5, 9))], "majority"),
        ([voted(30, -6, None), voted(33, -3, (3, 1, 5, 40), vote="majority", harvest=0.5)], "majority 0.5"),
        ([voted(30, -6, None), voted(33, -3, (3, -1, 5, 40), vote="majority", harvest=0.5)], "majority"),
    ],
)
def test_what_a_clock_costs_is_no_loss_of_the_votes(outcomes: list[Outcome], chosen: str) -> None:
    best = find_best([outcomes], questions=50, rules=AIMO_3)
    assert best
    assert f"{best.outcome.vote} {best.outcome.harvest or ''}".strip() == chosen
    assert [Outcome.from_json(one.to_json(questions=50)) for one in outcomes] == outcomes


def test_of_policies_that_print_alike_the_quickest_is_handed_in() -> None:
    # Of equal votes, on other draws: what is left between the scores, less the changes, is the simulation's.
    exact = stopped("exact", 12.4374, (0, 0, 0), 0, submission_s=7)
    outcomes = [exact, stopped("votes4", 12.4403, (0.0015, 0, 0.004), 3, submission_s=8)]
    for tried_so in (outcomes, outcomes[::-1]):
        best = find_best([tried_so], questions=50, rules=AIMO_3)
        assert best
        assert best.outcome.stop == "exact"
    slow = replace(exact, submission_s=9)
    best = find_best(
        [[slow, stopped("votes4", 12.44, (-0.004, -0.01, 0), 20, submission_s=8)]], questions=50, rules=AIMO_3
    )
    assert best
    assert best.outcome.stop == "votes4"


@pytest.mark.parametrize(
    ("outcomes", "chosen", "cure"),
    [
        # A vote that is shown only with an unsafe stop, beside a safe stop: that vote is not worth the stop.
        (
            [
                stopped("exact", 9.0, (0.3, -0.1, 0.8), 20, vote="logprob", by_stop=PLAIN.by_stop),
                stopped("aimo2", 9.5, (0.5, 0.1, 0.9), 20, vote="logprob", by_stop=UNSAFE),
            ],
            "exact",
            "no vote that was tried is shown to beat majority with a safe stop; try --vote majority too",
        ),
        (
            [stopped("aimo2", 9.5, (0.1, -0.1, 0.9), 20, vote="logprob", by_stop=UNSAFE)],
            "aimo2",
            "no vote that was tried is shown to beat majority; try --vote majority too",
        ),
        (
            [stopped("aimo2", 9.5, (0.5, 0.1, 0.9), 20, vote="logprob", by_stop=UNSAFE)],
            "aimo2",
            "no stop that was tried is shown to be safe; try --stop none too",
        ),
    ],
)
def test_what_is_not_handed_in_says_the_reason_that_is_true(outcomes: list[Outcome], chosen: str, cure: str) -> None:
    best = find_best([outcomes], questions=50, rules=AIMO_3)
    assert best
    assert (best.outcome.stop, best.unfit, best.describe_rule()) == (chosen, cure, f", though {cure}")


@pytest.mark.parametrize("folder", ["runs/base", "runs/pocket", "/somewhere/else", "..", ""])
def test_of_a_path_that_is_not_there_no_recording_is_named(folder: str) -> None:
    assert suggest_recording(Path(folder)) == "check the path"


@pytest.mark.parametrize("name", ["POCKET", "qwen-coder-0.5b"])
def test_a_recording_that_ships_is_named_to_who_misspells_it(name: str) -> None:
    shipped = "pocket" if name == "POCKET" else "qwen-coder-0.5b-gsm8k"
    assert f"did you mean {shipped}?" in suggest_recording(Path(name))
