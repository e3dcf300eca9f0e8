"""Votes in the replay: each against the majority of the same samples, and what may be said of it."""

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from mathlete.competitions import competition
from mathlete.finish_order import FinishOrder, describe_finish_order
from mathlete.metrics import Interval
from mathlete.problems import Problem, write_problems
from mathlete.replay import Grid, Submissions, Wall, replay_pool
from mathlete.replay.ranking import find_best
from mathlete.replay.replaying import _format_span
from mathlete.replay.selection import Known
from mathlete.replay.verdicts import judge_vote
from mathlete.sampling import Sample
from mathlete.sampling.record import SampleLog
from mathlete.scoring import Pool
from mathlete.scoring.harvested import HarvestScores
from mathlete.scoring.pairing import Comparison, Paired
from mathlete.scoring.results import describe_scores
from mathlete.scoring.scores import Counts, Scores
from tests.conftest import CommandLine, sample


def recording(folder: Path, *, sure: float, problems: int = 30) -> Path:
    """Samples that are right as often as not; `sure` is how much higher the log-probability of the right ones is."""
    source = random.Random(1)
    folder.mkdir(parents=True)
    asked = [Problem(id=f"p{number}", statement="?", gold="7") for number in range(problems)]
    write_problems(folder / "problems.jsonl", asked)
    with SampleLog(folder / "samples.jsonl") as log:
        for problem in asked:
            for index in range(16):
                right = source.random() < 0.5
                logprob = -1.5 + source.gauss(0, 0.1) + (sure if right else 0.0)
                log.append(
                    Sample(
                        problem_id=problem.id, index=index, seed=index, text="\\boxed{?}", answer="7" if right else "8",
                        tokens=50, finish="stop", seconds=1.0, logprob_mean=logprob, logprob_tail=logprob,
                    )
                )  # fmt: skip
    return folder


@pytest.mark.parametrize(
    ("sure", "words"),
    sample((1.2, "beats majority at 95%"), (0.0, "does not beat"), slow=[(-1.2, "loses to majority at 95%")]),
)
def test_a_vote_says_whether_it_beats_majority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluate: CommandLine, sure: float, words: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    folder = recording(tmp_path / "run", sure=sure)
    asked = ("--stop", "none", "--vote", "all", "--simulations", 100, "--run", tmp_path / "replay")
    done = evaluate("replay", folder, *asked)
    assert done.code == 0
    said = {line.split(":")[0]: line for line in done.stdout.splitlines() if line.startswith("vote ")}
    assert [*said] == ["vote logprob", "vote tail", "vote length", "vote strength"]
    assert words in said["vote logprob"]
    # All samples are equally long and end in a box, so these two weigh them alike.
    assert said["vote length"] == "vote length: votes as majority does with n = 4, 8, 16"
    assert said["vote strength"] == "vote strength: votes as majority does with n = 4, 8, 16"
    rows = [line for line in done.stdout.splitlines() if line.split()[:1] == ["tail"]]
    assert len(rows) == 1
    assert len(rows[0]) <= 80


def test_few_problems_say_nothing(tmp_path: Path, evaluate: CommandLine) -> None:
    folder = recording(tmp_path / "run", sure=1.2, problems=3)
    asked = ("--n", 4, "--stop", "none", "--vote", "logprob", "--simulations", 100, "--run", tmp_path / "replay")
    told = evaluate("replay", folder, *asked, "--json").result
    assert told["policies"][0]["informative"] == 3
    assert "vote logprob: too few to say: 3 problems differ with n = 4" in told["words"]


def test_what_help_says_of_length_holds_on_the_shipped_recording(tmp_path: Path, evaluate: CommandLine) -> None:
    asked = ("--n", 4, "--stop", "none", "--vote", "all", "--simulations", 100, "--run", tmp_path / "replay")
    done = evaluate("replay", "pocket", *asked)
    assert "vote length: does not beat majority at 95% with n = 4" in done.stdout
    assert "not recorded, and so not tried: what the vote strength weighs samples by" in done.stdout
    assert "length and strength do not beat majority" in " ".join(evaluate.help("replay").replace("│", "").split())


def say_of(number: int) -> list[str]:
    """Sentences on so many of everything."""
    by = Interval(value=0.5, lo=-0.5, hi=1.0)
    scores = Scores(
        problems=number, counts=Counts(samples=number, right=number, unknown=0, unanswered=0, capped=number, tokens=9),
        pass_at_1=1.0, pass_at_1_se=None, k=1, maj_at_k=by, pass_at={}, maj_at={}, unknown_votes=0, fallbacks=number,
    )  # fmt: skip
    forced = HarvestScores(
        weight=0.5, samples=number, unfinished=0, answered=number, right=0, tokens=9, seconds=1.0, without=0.5, gain=by,
        changed=number,
    )  # fmt: skip
    known = Known(
        better="b", worse="a", difference=by, same_questions=number, at_best=0.9, new_questions=number
    )  # fmt: skip
    few = Paired(
        score="pass@1", a=0.5, b=0.6, difference=by, p=0.2, better="neither", more_problems=None, differing=number
    )
    return [
        judge_vote(by, problems=number),
        describe_finish_order(FinishOrder(value=0.5, lo=0.4, hi=0.6, problems=number)),
        describe_scores(scores, cap=" at 9 tokens", stopped=number),
        forced.describe(),
        known.describe(questions=9),
        few.describe(),
        replace(few, more_problems=number).describe(),
        *Comparison(problems=9, left_out=number, k=1, scores=[], stopped_early=False).describe(),
    ]


def test_sentences_count_one_and_many() -> None:
    ones, many = map(" · ".join, (say_of(1), say_of(2)))
    assert not re.search(
        r"\b1 (cut |more )?(problem|sample|submission)s|\b1 (cut )?\w+ (are|were|have|differ|stand)\b", ones
    )
    assert not re.search(r"\b2 (cut |more )?(problem|sample|submission)\b|\b2 (cut )?\w+ (is|was|has|differs)\b", many)


def test_a_span_of_scores_has_a_decimal_at_most() -> None:
    assert [_format_span(Interval(value=9, lo=lo, hi=hi)) for lo, hi in ((8.0, 17.525), (7.25, 12.0))] == [
        "8–17.5",
        "7.2–12",
    ]


def test_a_vote_is_measured_without_the_clock(tmp_path: Path) -> None:
    """The clock takes a third of the right answers, of either vote."""
    pool = Pool.read([recording(tmp_path / "run", sure=0.15, problems=60)])
    wall = Wall(wall_s=150, floor_s=0, ceiling_s=6)
    grid = Grid(n=(8,), max_tokens=(50,), stop=("none",), vote=("majority", "logprob"), walls=(None, wall))
    rules = competition("aimo-3")
    submissions = Submissions(simulations=100, questions=50, rules=rules, slots=1, seed=0)
    plain, clocked, logprob, both = replay_pool(pool, grid, submissions).outcomes
    assert plain.by_vote is clocked.by_vote is None
    assert both.by_vote == logprob.by_vote
    assert both.by_vote is not None
    assert (both.by_vote.value, both.by_vote.lo) == (logprob.change.value, logprob.change.lo)
    assert both.verdict == "worse"
    best = find_best([[clocked, both]], questions=50, rules=rules)
    assert best
    assert best.outcome is both


def test_where_samples_share_their_times_no_stop_is_tried(tmp_path: Path, evaluate: CommandLine) -> None:
    folder = recording(tmp_path / "run", sure=0.0)
    words = ("replay", folder, "--n", 4, "--simulations", 20, "--run", tmp_path / "replay")
    told = evaluate(*words).stdout
    assert "no stopping rule is tried" in told
    assert "finish order: not recorded" in told
    assert "safe on this run" not in told
    message = "the stopping rule beta95+exact can be replayed only where every sample's own seconds were recorded"
    assert message in evaluate(*words, "--stop", "none", "beta95+exact", "--overwrite").refusal
