"""Forced answers: what closes a text that was cut, what it says then, whose vote that is, and what it never changes."""

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.competitions import competition
from mathlete.errors import UserError
from mathlete.models import find_model, load_prompt_format
from mathlete.problems import Problem
from mathlete.reasoning import MARKS, close_text
from mathlete.replay import Grid, Submissions, replay_pool
from mathlete.replay.sampler import ReplaySampler
from mathlete.sampling import Sample, SampleLog, SamplingConfig, find_ending, read_samples
from mathlete.sampling.box import opens_box
from mathlete.sampling.harvest import Finish, Harvest
from mathlete.scoring import Pool
from mathlete.solve import Policy, Solution, solve
from mathlete.solve.clock import VirtualClock
from mathlete.solve.voting import VOTES
from submit.building import Solving
from tests.conftest import CommandLine, dear

PROBLEM = Problem(id="p", statement="What is 3 + 4?", gold="7")
_BOX = "\\boxed{"
_SENTENCE = f"\n\nThe final answer is {_BOX}"
_THINK = f"\n</think>\n\n{_BOX}"

_FINAL = "<|end|><|start|>assistant<|channel|>final<|message|>"

CLOSINGS = [
    # name, marks, whether the prompt opens them, what was said, what follows
    ("in thoughts that the prompt opened", "think", True, "3 + 4", _THINK),
    ("in thoughts that it opened", "think", False, "<think>\n3 + 4", _THINK),
    ("no thoughts at all", "think", False, "We add 3 and", _SENTENCE),
    ("behind its thoughts", "think", True, "7\n</think>\n\nSo we", _SENTENCE),
    ("in a box", "think", True, "7\n</think>\n\nSo \\boxed{1", _SENTENCE),
    ("in thoughts once more", "think", True, "7\n</think>\n\n<think>\nno", _THINK),
    ("in a program", "think", False, "Run\n```python\nx = 3", f"\n```{_SENTENCE}"),
    ("behind a program", "think", False, "Run\n```python\nx\n```\nso", _SENTENCE),
    ("a program in thoughts", "think", True, "```python\nx", _THINK),
    ("before its first word", "think", True, "", _THINK),
    ("marks without line breaks", "magistral", False, "[THINK]3 + 4", f"[/THINK]{_BOX}"),
    ("channels", "harmony", False, "<|channel|>analysis<|message|>3", f"{_FINAL}{_BOX}"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "marks", "opened", "said", "follows"), CLOSINGS)
def test_a_text_is_closed_where_it_was_cut(name: str, marks: str, opened: bool, said: str, follows: str) -> None:
    assert close_text(said, marks=MARKS[marks], opened=opened) == follows
    assert opens_box(said + follows)


BOXES = [("7}. So", "7}"), (r"\frac{1}{2}} and", r"\frac{1}{2}}"), (r"\{1\}}", r"\{1\}}"), ("7", None), ("{7}", None)]


@pytest.mark.parametrize(("text", "kept"), BOXES)
def test_a_box_that_was_begun_ends_the_sample(text: str, kept: str | None) -> None:
    ending = find_ending(text, in_box=True)
    assert (ending.text if ending else None) == kept
    assert ending is None or ending.finish == "boxed"


def draw(index: int, answer: str | None, forced: str | None = None, finish: Finish | None = None) -> Sample:
    """A sample: with an answer, or cut; then with what it was made to answer, "-" for no box."""
    text = f"so</think>\\boxed{{{answer}}}" if answer else "hm"
    ended: Finish = finish or ("stop" if answer else "length")
    one = Sample(
        problem_id="p", index=index, seed=index, text=text, answer=answer, tokens=9, finish=ended, seconds=1.0 + index
    )
    if forced is None:
        return one
    closed, answer = f"{_THINK}{forced}}}", None if forced == "-" else forced
    said = Harvest(text=closed, answer=answer, tokens=2, finish="boxed" if answer else "length", seconds=0.5)
    return replace(one, harvest=said)


VOTING = [
    # samples as (answer, forced), weight, the votes as (answer, samples, forced ones, weight)
    ([("7", None), (None, "8"), (None, "8")], 0.0, [("7", 1, 0, 1.0)]),
    ([("7", None), (None, "8"), (None, "8")], 0.25, [("7", 1, 0, 1.0), ("8", 0, 2, 0.5)]),
    ([("7", None), (None, "8"), (None, "8")], 1.0, [("8", 0, 2, 2.0), ("7", 1, 0, 1.0)]),
    ([(None, "8"), ("8", None), ("7", None)], 0.5, [("8", 1, 1, 1.5), ("7", 1, 0, 1.0)]),
    ([(None, "7.0"), ("7", None)], 0.5, [("7", 1, 1, 1.5)]),
    ([(None, "8"), (None, None)], 0.001, [("8", 0, 1, 1 / 1024)]),
    ([(None, "-"), (None, "-")], 1.0, []),
]


@pytest.mark.parametrize(("samples", "weight", "told"), VOTING)
def test_a_forced_answer_votes_with_its_weight(
    samples: list[tuple[str | None, str | None]], weight: float, told: list[tuple[str, int, int, float]]
) -> None:
    drawn = [draw(index, *each) for index, each in enumerate(samples)]
    votes = Policy(n=len(drawn), harvest=weight).count_votes(drawn)
    assert [(vote.answer, vote.count, len(vote.harvested), vote.weight) for vote in votes] == told
    assert not any(Policy(harvest=weight).count_votes(drawn, settled=True) != Policy().count_votes(drawn) for _ in "1")


SAMPLES = st.lists(
    st.tuples(st.sampled_from([None, "7", "8"]), st.sampled_from([None, "-", "7", "8", "9"])), min_size=1, max_size=8
)


def solve_recorded(recorded: list[Sample], policy: Policy, known: int = 0) -> tuple[Solution, list[Sample]]:
    """Solve over recorded samples of which the first so many are there already."""
    clock, kept = VirtualClock(), list[Sample]()
    sampler = ReplaySampler(recorded, advance_to=clock.advance_to, now=clock.now)
    bare = [replace(one, harvest=None) for one in recorded[:known]]
    solution = solve(
        PROBLEM, sampler=sampler, clock=clock, policy=policy, recorded=bare, on_harvest=kept.append, thinking=True
    )
    return solution, kept


@given(samples=SAMPLES, vote=st.sampled_from([*VOTES]), stop=st.sampled_from(["none", "exact", "votes2", "beta95"]))
@dear(30)
def test_forced_answers_change_no_rule_and_nothing_without_weight(
    samples: list[tuple[str | None, str | None]], vote: str, stop: str
) -> None:
    recorded = [draw(index, answer, None if answer else forced) for index, (answer, forced) in enumerate(samples)]
    policy = Policy(n=len(recorded), vote=vote, stop=stop)
    plain, kept = solve_recorded([replace(one, harvest=None) for one in recorded], policy)
    off, none = solve_recorded(recorded, policy)
    on, forced = solve_recorded(recorded, replace(policy, harvest=0.5))
    assert not none
    assert not kept
    assert off.votes == plain.votes
    # The same samples came, and the same rule ended it; only what was cut has said something more.
    assert (on.ended, len(on.samples)) == (plain.ended, len(plain.samples))
    assert [replace(one, harvest=None) for one in on.samples] == [replace(one, harvest=None) for one in off.samples]
    assert all(one.harvest and one.was_cut and one.answer is None for one in forced)
    if on.ended == "rule":
        assert not forced
        assert on.votes == plain.votes
    else:
        assert {one.index for one in forced} == {one.index for one in recorded if one.harvest}
    own = {vote.answer: vote.count for vote in on.votes if vote.count}
    assert own == {vote.answer: vote.count for vote in plain.votes}
    # Killed between samples and forced answers, or in the middle of those, it comes to the same.
    again, _ = solve_recorded(recorded, replace(policy, harvest=0.5), known=len(on.samples))
    assert (again.votes, again.ended, again.answer) == (on.votes, on.ended, on.answer)


def test_an_engine_that_cannot_go_on_says_so() -> None:
    from tests.test_solve_many import Engine

    with pytest.raises(UserError, match="--harvest needs an engine that can go on from what a sample has said"):
        [*Engine().force_answers(PROBLEM, cut=[draw(0, None)], max_tokens=8)]


_GOOD: dict[str, object] = {"text": "", "answer": None, "tokens": 1, "finish": "stop", "seconds": 1.0}
ODD: list[dict[str, object]] = [
    {"text": 3},
    {"answer": 7},
    {"tokens": -1},
    {"tokens": True},
    {"finish": "no"},
    {"x": 2},
]


@pytest.mark.parametrize("row", [3, {}, *({**_GOOD, **part} for part in ODD)])
def test_a_forced_answer_that_is_none_is_refused(row: object) -> None:
    with pytest.raises(UserError, match=r"s.jsonl:1: .*harvest"):
        Sample.from_json({**draw(0, None).to_json(), "harvest": row}, where="s.jsonl:1")
    assert Sample.from_json({**draw(0, None).to_json(), "harvest": _GOOD}, where="s").to_json()["harvest"] == _GOOD


@pytest.mark.parametrize(
    ("finish", "tokens", "fits"),
    [("boxed", 5, [5, 8, 99]), ("stop", 5, [5, 8, 99]), ("length", 8, [8]), ("length", 0, [1, 5, 8, 99])],
)
def test_a_forced_answer_stays_where_another_cap_would_draw_it_too(
    finish: Finish, tokens: int, fits: list[int]
) -> None:
    said = Harvest(text="", answer=None, tokens=tokens, finish=finish, seconds=1.0)
    assert [cap for cap in (1, 5, 8, 99) if said.fits(cap)] == fits


def test_a_sample_has_one_line_again_once_all_answers_are_there(tmp_path: Path) -> None:
    path, other = tmp_path / "s.jsonl", draw(1, "\u2028").to_json()
    odd = json.dumps(dict(reversed(other.items())), ensure_ascii=False)
    with SampleLog(path) as log:
        for one in (draw(0, "7"), draw(2, None)):
            log.append(one)
    path.write_text(path.read_text() + odd + "\n")
    before = path.read_text().split("\n")
    with SampleLog(path) as log:
        log.append(draw(2, None, "8"))
    # A kill here leaves two lines of one sample, which are read as one.
    read = [(one.index, one.harvest and one.harvest.answer) for one in read_samples(path)]
    assert read == [(0, None), (2, "8"), (1, None)]
    with SampleLog(path) as log:
        log.join_harvest()
        log.append(draw(3, "7"))
    after = path.read_text().split("\n")
    assert (after[0], after[2]) == (before[0], before[2])
    assert len(after) == len(before) + 1
    assert json.loads(after[1]) == draw(2, None, "8").to_json()


@pytest.fixture(scope="module")
def engine() -> Callable[[list[Sample]], list[Sample]]:
    """What the embedded engine makes of samples of the pocket model that were cut."""
    from mathlete.sampling.embedded import open_transformers

    def force(cut: list[Sample]) -> list[Sample]:
        with closing(open_transformers(find_model("pocket"))) as sampler:
            return sorted(sampler.force_answers(PROBLEM, cut=cut, max_tokens=8), key=lambda one: one.index)

    return force


def test_the_engine_fills_the_box_of_each_sample(engine: Callable[[list[Sample]], list[Sample]]) -> None:
    texts = ["3+4=7", "3+4=", "nonsense"]
    cut = [replace(draw(index, None), text=text) for index, text in enumerate(texts)]
    tails = engine(cut)
    assert [one.index for one in tails] == [0, 1, 2]
    assert all(one.text.startswith(_THINK) for one in tails)
    assert tails[0].text == f"{_THINK}7}}"
    assert tails[0].finish == "boxed"
    # What each says is what it would say alone.
    assert [one.text for one in engine(cut[:1])] == [tails[0].text]


def test_where_nothing_was_cut_the_forced_answers_are_none() -> None:
    problem, whole = Problem(id="p", statement="?", gold="7"), [draw(0, "7"), draw(1, "8")]
    cut = [draw(0, "7"), draw(1, None)]
    assert [Pool.of([problem], {"p": samples}).is_harvested for samples in (whole, cut)] == [True, False]
    # Where a log did not say how they ended, nobody knows that none was cut.
    assert not replace(Pool.of([problem], {"p": whole}), missing=frozenset({"finish"})).is_harvested
    submissions = Submissions(simulations=10, questions=1, rules=competition("aimo-3"), slots=None, seed=0)
    grid = Grid(n=(2,), max_tokens=(99,), stop=("none",), vote=("majority",), walls=(None,), harvest=(0.0, 0.25))
    outcomes = replay_pool(Pool.of([problem], {"p": whole}), grid, submissions).outcomes
    assert [one.change.value for one in outcomes] == [0.0, 0.0]


def test_a_finished_run_is_extended_by_forced_answers_alone(workdir: Path, evaluate: CommandLine) -> None:
    words = ("pocket_val", "--model", "pocket", "--n", 2, "--limit", 6, "--sampling.max-tokens", 48, "--run", "r")
    plain = evaluate(*words, "--json").result
    before = Path("r/samples.jsonl").read_text().splitlines()
    refused = evaluate("replay", "r", "--harvest", 0.5, "--run", "none").refusal
    assert "forced answers can be replayed only where they were recorded" in refused
    own = [replace(one, harvest=None) for one in read_samples(Path("r/samples.jsonl"))]
    cut = [one for one in own if one.needs_harvest]
    assert cut
    assert "harvest" not in plain
    assert "harvest" not in Path("r/results.json").read_text()
    forced = evaluate(*words, "--harvest", 0.5, "--json")
    told, samples = forced.result["harvest"], read_samples(Path("r/samples.jsonl"))
    assert [replace(one, harvest=None) for one in samples] == own
    assert {(one.problem_id, one.index) for one in samples if one.harvest} == {
        (one.problem_id, one.index) for one in cut
    }
    assert told["samples"] == len(cut) == told["answered"]
    assert told["weight"] == 0.5
    # They are no sample's own answer: all else that is counted stays.
    for name in ("right", "pass_at_1", "unanswered", "tokens", "samples"):
        assert forced.result[name] == plain[name]
    assert f"{len(cut)} cut samples were closed" in forced.stderr
    # The replay weighs them anew.
    replayed = ("replay", "r", "--n", 2, "--stop", "none", "--simulations", 50, "--harvest", 0, 0.5, "--json")
    plain_policy, weighed = evaluate(*replayed).result["policies"]
    assert "harvest" not in plain_policy
    assert weighed["harvest"] == 0.5
    assert weighed["score"] - plain_policy["score"] == pytest.approx(told["gain"]["value"] * 6, abs=0.6)
    # What is chosen is handed on in words, and the report says what they gave.
    handed = (*replayed[:-4], "--harvest", 0.5, "--run", "h", "--write-policy", "p.json")
    assert " --harvest 0.5 " in f"{evaluate(*handed).stdout} "
    assert Solving().with_file(Path("p.json")).to_policy().harvest == 0.5
    assert f"{len(cut)} cut samples were closed" in Path("r/report.html").read_text()
    # Another weight draws nothing; none leaves the run as it was.
    whole = Path("r/samples.jsonl").read_bytes()
    assert evaluate(*words, "--harvest", 1, "--json").result["harvest"]["samples"] == len(cut)
    assert Path("r/samples.jsonl").read_bytes() == whole
    again = evaluate(*words, "--json").result
    assert {**again, "seconds": 0, "tokens_per_s": 0} == {**plain, "seconds": 0, "tokens_per_s": 0}
    assert len(before) == len(samples)
    assert "--overwrite" in evaluate(*words, "--harvest", 1, "--harvest-tokens", 1).refusal


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--harvest", "1.5"], "--harvest must be 0 to 1, got 1.5"),
        (["--harvest", "0.5", "--harvest-tokens", "0"], "--harvest-tokens must be 1 to 1024, got 0"),
        (
            [
                "--harvest",
                "0.5",
                "--engine",
                "openai",
                "--servers.urls",
                "http://localhost:9/v1",
                "--servers.api",
                "chat",
            ],
            "--harvest needs an engine that can go on from what a sample has said, got --servers.api chat",
        ),
    ],
)
def test_words_that_cannot_be_are_refused(workdir: Path, words: list[str], told: str, evaluate: CommandLine) -> None:
    assert told in evaluate("pocket_val", "--model", "pocket", "--limit", 1, *words, "--run", "r").refusal


def test_vllm_and_the_tools_leave_room_for_what_closes_a_sample() -> None:
    assert Policy(sampling=SamplingConfig(max_tokens=100)).longest_tokens == 100
    policy = Policy(sampling=SamplingConfig(max_tokens=100), harvest=0.1)
    prompts = load_prompt_format(find_model("pocket"))
    for marks in MARKS.values():
        said = close_text(marks.before, marks=marks, opened=False)
        assert 100 + len(prompts.ids(said)) + policy.harvest_tokens <= policy.longest_tokens


def test_a_sample_queue_that_breaks_is_heard_of() -> None:
    from tests.test_sampling_tools import Recorded

    class Broken(Recorded):
        def begin(
            self,
            problem: Problem,
            *,
            seeds: Mapping[int, int],
            config: SamplingConfig,
            results: "SimpleQueue[Sample | Exception]",
            said: str = "",
            until_code: bool = False,
        ) -> Callable[[], None]:
            results.put(RuntimeError("the sampling engine stopped"))
            return self.count

    engine = Broken({})
    with pytest.raises(RuntimeError, match="stopped"):
        [*engine.force_answers(PROBLEM, cut=[draw(0, None), draw(1, None)], max_tokens=8)]
    assert engine.cancelled == 2
