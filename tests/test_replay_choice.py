"""A choice is carried from the replay into the notebook without a word lost."""

import json
import shlex
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import tyro
from hypothesis import given
from hypothesis import strategies as st

from mathlete.command.command_line import read_leading_flags
from mathlete.competitions import competition
from mathlete.errors import UserError
from mathlete.kernel import KernelConfig
from mathlete.metrics import Interval
from mathlete.mistakes import require_words
from mathlete.prompts import PromptSettings
from mathlete.replay import Choice
from mathlete.replay.drawn import DrawnAs
from mathlete.replay.outcomes import Cost, Outcome, Score
from mathlete.replay.ranking import find_best
from mathlete.replay.simulation import Wall
from mathlete.sampling import SamplingConfig
from mathlete.scoring import RunSettings
from mathlete.shipped import data_folder
from mathlete.solve import BudgetSettings, Policy
from mathlete.tir import ToolSettings
from submit import answer_settings
from submit.building import LEADING_FLAGS, BuildSettings, build_defaults
from tests.conftest import CommandLine

NO_FLAGS = read_leading_flags([], LEADING_FLAGS)


def choose(evaluate: CommandLine, folder: Path, *words: object) -> Choice:
    file = folder / "policy.json"
    assert evaluate("replay", "pocket", "--simulations", 100, *words, "--write-policy", file, "--json").result[
        "policies"
    ]
    return Choice.read(file)


def test_the_best_of_the_policies_is_built(evaluate: CommandLine, workdir: Path) -> None:
    words = ("--n", 1, 3, "--stop", "none", "votes2", "--budget", "9000:100:500:250", "9000:free", "--questions", 5)
    choice = choose(evaluate, workdir, *words)
    assert (choice.budget, choice.max_tokens, choice.questions) == ("9000:100:500:250", 256, 5)
    built = build_defaults(read_leading_flags(["--policy-file", "policy.json"], LEADING_FLAGS))
    assert (built.solving.policy, built.solving.n, built.solving.budget) == (choice.policy, choice.n, choice.budget)
    config = KernelConfig().with_budget(built.solving.budget)
    assert (config.clock.wall_s, config.clock.question_min_s, config.clock.question_max_s, config.clock.reserve_s) == (
        9000,
        100,
        500,
        250,
    )


def test_a_cap_that_was_tried_is_the_notebooks(evaluate: CommandLine, workdir: Path) -> None:
    assert choose(evaluate, workdir, "--n", 2, "--stop", "none", "--max-tokens", 7).max_tokens == 7
    built = build_defaults(read_leading_flags(["--policy-file=policy.json"], LEADING_FLAGS))
    assert built.solving.sampling.max_tokens == 7


def test_the_notebook_draws_as_the_recording_was_drawn(evaluate: CommandLine, workdir: Path) -> None:
    drawn = SamplingConfig(temperature=0.9, min_p=0.02, top_k=50, stop=("-- Q:", "a b"), max_tokens=77, enough=2)
    for folder, sampling in (("one", drawn), ("other", SamplingConfig())):
        shutil.copytree(data_folder() / "recordings" / "pocket", folder)
        (workdir / folder / "manifest.json").unlink()
        results = json.loads(Path(folder, "results.json").read_text())
        results["policy"]["sampling"] = sampling.to_json()
        Path(folder, "results.json").write_text(json.dumps(results))
    differ = DrawnAs.read([Path("one"), Path("other")])
    assert (differ.list_unsaid(forced=False), differ.tools, differ.prompt) == (["sampling", "cap"], {}, {})
    assert DrawnAs.read([Path("nowhere")]) == DrawnAs()
    words = ("replay", "one", "--simulations", 100, "--n", 1, "--stop", "none", "--write-policy", "policy.json")
    assert "--sampling.min-p 0.02 --sampling.top-k 50 --sampling.stop='-- Q:' 'a b'" in " ".join(
        evaluate(*words).stdout.split()
    )
    built = build_defaults(read_leading_flags(["--policy-file=policy.json"], LEADING_FLAGS))
    assert built.solving.sampling == replace(drawn, enough=None)


def test_what_no_command_line_can_carry_is_carried_by_the_file(evaluate: CommandLine, workdir: Path) -> None:
    policy = replace(RECORDED.policy, sampling=replace(RECORDED.policy.sampling, stop=("---", "--x")))
    record(workdir / "one", replace(RECORDED, policy=policy))
    words = ("replay", "one", "--simulations", 100, "--n", 2, "--stop", "none")
    shown = " ".join(evaluate(*words).stdout.split())
    assert "no command line can carry --sampling.stop: several words begin with a hyphen; add --write-policy" in shown
    assert "python -m submit" not in shown
    assert "--sampling.stop" not in evaluate(*words, "--write-policy", "p.json").stdout
    built = build_defaults(read_leading_flags(["--policy-file", "p.json"], LEADING_FLAGS))
    assert built.solving.sampling.stop == ("---", "--x")


RECORDED = RunSettings(
    suite="s", suite_sha="s", problems=50, precision="nf4", dtype="bfloat16",
    policy=Policy(
        n=32, seed=7, stop="exact", vote="length", select=4, harvest=0.3, harvest_tokens=200,
        sampling=SamplingConfig(
            temperature=0.9, top_p=0.8, min_p=0.1, top_k=50, repetition_penalty=1.1, stop=("Q:", "a b"), max_tokens=77,
            timeout_s=9.0, enough=2,
        ),
    ),
    budget=BudgetSettings(wall_s=900.0, floor_s=1.0, ceiling_s=90.0, questions=50),
    tools=asdict(ToolSettings(turns=2, timeout_s=3.0, memory_mib=512, output_chars=99, at_once=3, instruction="On.")),
    prompt={"instruction": "Just say \\boxed{it}.", "template_args": ["think=false", "a=b c"], "organiser": ""},
    opens_thoughts="yes", engine="transformers", model_sha="m",
)  # fmt: skip
OF_THE_REPLAY = ("n", "seed", "stop", "vote", "select", "harvest", "budget", "timeout_s", "enough")
"""What is replayed, or another in the notebook by its nature: seeds, and waits of a clock."""
OF_THE_MODEL = ("suite", "suite_sha", "problems", "precision", "dtype", "opens_thoughts", "engine", "model_sha")
"""What was asked, and of what; a precision is named beside the words."""


def record(folder: Path, settings: RunSettings) -> None:
    shutil.copytree(data_folder() / "recordings" / "pocket", folder)
    (folder / "manifest.json").unlink()
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps({**results, **settings.to_json()}))


def test_whatever_changes_a_sample_is_carried_from_the_recording_into_the_notebook(
    evaluate: CommandLine, workdir: Path
) -> None:
    record(workdir / "one", RECORDED)
    tools, prompt = ToolSettings(**(RECORDED.tools or {})), PromptSettings.from_json(RECORDED.prompt)  # type: ignore[arg-type]
    pairs = [(RECORDED.policy.sampling, SamplingConfig()), (tools, ToolSettings()), (prompt, PromptSettings())]
    usual = [name for own, plain in pairs for name, value in vars(own).items() if value == vars(plain)[name]]
    # It is refused by name, alone.
    assert usual == ["organiser"]
    words = ("replay", "one", "--simulations", 100, "--n", 2, "--stop", "none", "--write-policy", "p.json")
    shown = " ".join(evaluate(*words).stdout.split())
    assert "changed the samples too: precision nf4, sampling.timeout-s 9.0" in shown
    said = Choice.read(Path("p.json")).words
    assert f"p.json: {said}" in shown
    file = build_defaults(read_leading_flags(["--policy-file", "p.json"], LEADING_FLAGS))
    typed = tyro.cli(BuildSettings, args=shlex.split(said), default=build_defaults(NO_FLAGS))
    for built in (file, typed):
        policy, own = built.solving.to_policy(), RECORDED.policy
        # A cap on forced answers says nothing where there are none.
        assert policy == replace(
            own, n=2, seed=0, stop="none", vote="majority", select=0, harvest=0.0, harvest_tokens=32,
            sampling=replace(own.sampling, timeout_s=None, enough=None),
        )  # fmt: skip
        assert (built.drawing.tools, built.drawing.prompt) == (tools, prompt)
    flags = read_leading_flags(["--model", "pocket", "--policy-file", "p.json"], answer_settings.LEADING_FLAGS)
    answered = answer_settings.answer_defaults(flags)
    assert (answered.model.tools, answered.model.prompt, answered.solving) == (tools, prompt, file.solving)
    carried = {*vars(RECORDED.policy.sampling), "policy", "sampling", "harvest_tokens", "tools", "prompt"}
    assert {*vars(RECORDED), *vars(RECORDED.policy), *vars(RECORDED.policy.sampling)} == {
        *OF_THE_REPLAY, *OF_THE_MODEL, *carried,
    }  # fmt: skip


def test_forced_answers_have_the_cap_of_the_recordings_and_none_where_none_is_asked_for() -> None:
    drawn = DrawnAs(harvest_tokens=200)
    forced, free = (
        Choice.of(
            outcome("majority", 0, 0, 5, weight),
            capped=False,
            questions=9,
            recordings=[],
            drawn=drawn,
            rules=competition("aimo-3"),
        )
        for weight in (0.5, 0.0)
    )
    assert "--harvest 0.5 --harvest-tokens 200" in forced.words
    assert free.harvest_tokens is None
    # One that differs between recordings is named where it is needed.
    apart = DrawnAs(sampling={}, max_tokens=9, tools={}, prompt={})
    assert [apart.list_unsaid(forced=forced) for forced in (True, False)] == [["cap on forced answers"], []]


def test_settings_of_another_version_are_named_and_not_carried(evaluate: CommandLine, workdir: Path) -> None:
    record(workdir / "one", RECORDED)
    results = json.loads(Path("one/results.json").read_text())
    for group in (results["policy"]["sampling"], results["tools"], results["prompt"]):
        group["max_p"] = 0.5
    results["prompt"]["organiser"] = ["x"]
    Path("one/results.json").write_text(json.dumps(results))
    words = ("replay", "one", "--simulations", 100, "--n", 1, "--stop", "none", "--write-policy", "p.json")
    shown = " ".join(evaluate(*words).stdout.split())
    assert "sampling.max-p 0.5, tools.max-p 0.5, prompt.organiser ['x'], prompt.max-p 0.5" in shown
    assert "max_p" not in Path("p.json").read_text()
    known = Choice.read(Path("p.json"))
    assert (known.draw_tools(ToolSettings()), known.sampling["top_k"]) == (ToolSettings(**(RECORDED.tools or {})), 50)  # type: ignore[arg-type]


def test_what_recordings_do_not_say_is_named_and_stays_the_builds(evaluate: CommandLine, workdir: Path) -> None:
    record(workdir / "one", RECORDED)
    record(workdir / "other", replace(RECORDED, prompt={"instruction": "x"}))
    samples = [json.loads(line) for line in Path("other/samples.jsonl").read_text().splitlines()]
    others = [json.dumps({**one, "seed": one["seed"] + 1}) for one in samples]
    Path("other/samples.jsonl").write_text("\n".join([*others, ""]))
    words = ("replay", "one", "other", "--simulations", 100, "--n", 1, "--stop", "none", "--write-policy", "p.json")
    assert "so these are not carried: prompt" in " ".join(evaluate(*words).stdout.split())
    told = json.loads(Path("p.json").read_text())
    assert "prompt" not in told
    # Files of versions before.
    old = {name: value for name, value in told.items() if name not in ("harvest_tokens", "tools", "prompt")}
    Path("p.json").write_text(json.dumps({**old, "max_tokens": None, "sampling": {}}))
    usual = build_defaults(NO_FLAGS)
    built = build_defaults(read_leading_flags(["--policy-file", "p.json"], LEADING_FLAGS))
    assert (built.drawing, built.solving.sampling) == (usual.drawing, usual.solving.sampling)


def test_an_organisers_prompt_is_refused_by_name(submit: CommandLine, evaluate: CommandLine, workdir: Path) -> None:
    record(workdir / "one", replace(RECORDED, prompt={"organiser": "nemotron-like"}))
    evaluate("replay", "one", "--simulations", 100, "--n", 1, "--stop", "none", "--write-policy", "p.json")
    refused = " ".join(submit("build", "--policy-file", "p.json", "--names.owner", "alice").refusal.split())
    assert "a notebook's prompt is its own, got --prompt.organiser nemotron-like" in refused
    assert "--prompt.organiser '' in place of the policy file's" in refused
    words = ("build", "--policy-file", "p.json", "--names.owner", "alice", "--prompt.organiser", "", "--run", "x")
    require_words(list(words))
    assert submit(*words).code == 0


@pytest.mark.usefixtures("workdir")
def test_a_replay_prints_its_table_each_time_and_ends_with_the_line_to_paste(evaluate: CommandLine) -> None:
    words = ("replay", "pocket", "--simulations", 100, "--n", 2, "--stop", "none", "exact", "--run", "rp")
    for skipped in (False, True):
        shown = evaluate(*words).stdout
        assert ("nothing changed, skipped: rp" in shown) == skipped
        assert "change [95%]" in shown
        last = shown.splitlines()[-1]
        assert last.startswith("python -m submit build --model MODEL --policy ")
        assert last.endswith("/majority --n 2 --sampling.max-tokens 256")


@pytest.mark.usefixtures("workdir")
def test_a_clock_without_allowances_is_not_handed_on(evaluate: CommandLine) -> None:
    words = ("--n", 1, "--stop", "none", "--budget", "99:free", "--write-policy", "policy.json")
    refused = evaluate("replay", "pocket", "--simulations", 100, *words).refusal
    assert "a policy to hand on needs a clock with allowances" in refused
    assert not Path("policy.json").exists()
    told = evaluate("replay", "pocket", "--simulations", 100, *words[:-2], "--select", 2).stdout
    unfit = "no notebook has a clock without allowances; try --budget SECONDS or none too"
    assert f"nothing to hand in: {unfit}" in told
    assert f"though {unfit}" in told


def test_a_policy_file_replaces_no_other_file(workdir: Path, evaluate: CommandLine) -> None:
    words = ("replay", "pocket", "--n", 1, "--stop", "none", "--simulations", 20, "--write-policy")
    for content in ("notes", '{"policy": "all/majority"}'):
        Path("own.json").write_text(content)
        refused = evaluate(*words, "own.json").refusal
        assert "--write-policy may only replace a policy file, got own.json" in refused
        assert Path("own.json").read_text() == content
    for _ in range(2):
        assert evaluate(*words, "policy.json").code == 0
    assert Choice.read(Path("policy.json")).n == 1


def outcome(vote: str, lo: float, informative: int, score: float, harvest: float) -> Outcome:
    of_score = Interval(value=score, lo=score, hi=score)
    nothing = Cost(arrivals=1, wall_s=1, generated_s=1)
    return Outcome(
        n=2, max_tokens=9, stop="none", vote=vote, wall=None, harvest=harvest, informative=informative,
        change=Interval(value=score - 5, lo=lo, hi=9), p_overrun=0, spent=nothing, saved=nothing, submission_s=1,
        submission_p95_s=1, score=Score(new_set=of_score, subset=of_score, same_set=of_score, all_runs=of_score),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("tried", "chosen"),
    [
        ([("majority", 0, 0, 5.0, 0), ("length", -1, 40, 5.5, 0)], "majority"),
        ([("majority", 0, 0, 5.0, 0), ("length", 0.1, 9, 5.5, 0)], "majority"),
        ([("majority", 0, 0, 5.0, 0), ("length", 0.1, 10, 5.5, 0)], "length"),
        ([("majority", 0, 0, 5.0, 0), ("tail", 0.1, 40, 5.2, 0), ("length", -1, 40, 5.5, 0)], "tail"),
        ([("majority", 0, 0, 5.0, 0), ("majority", -1, 40, 5.5, 0.5)], "majority"),
        ([("majority", 0, 0, 5.0, 0), ("majority", 0.1, 40, 5.5, 0.5)], "majority --harvest 0.5"),
        ([("length", -1, 40, 5.5, 0), ("strength", -1, 40, 5.0, 0)], "length"),
    ],
)
def test_a_vote_is_chosen_that_is_shown_to_beat_majority(
    tried: list[tuple[str, float, int, float, float]], chosen: str
) -> None:
    outcomes = [outcome(*one) for one in tried]
    best = find_best([outcomes], questions=9, rules=competition("aimo-3"))
    assert best
    choice = Choice.of(
        best.outcome, capped=False, questions=9, recordings=[], drawn=DrawnAs(), rules=competition("aimo-3")
    )
    assert choice.words.removesuffix(" --budget none").replace(" --n 2", "") == f"--policy all/{chosen}"


@pytest.mark.usefixtures("workdir")
def test_a_replay_of_a_real_recording_hands_in_no_vote_that_is_not_shown(evaluate: CommandLine) -> None:
    words = ("replay", "qwen-coder-0.5b-gsm8k", "--simulations", 100, "--n", 8, "--stop", "none")
    shown = evaluate(*words, "--vote", "all").stdout
    assert "what the vote strength weighs samples by" in shown
    assert "of majority's and those whose vote is shown to beat it:" in " ".join(shown.split())
    assert shown.splitlines()[-1].endswith(" --policy all/majority --n 8 --sampling.max-tokens 256")
    alone = evaluate(*words, "--vote", "length").stdout
    assert "nothing to hand in: no vote that was tried is shown to beat majority" in " ".join(alone.split())
    assert "submit build" not in alone
    refused = evaluate(*words, "--vote", "strength").refusal
    assert "only where every sample's text was recorded" in refused


PLAIN: dict[str, object] = {
    **{"policy": "all/majority", "n": 8, "max_tokens": None, "budget": "none", "recordings": [], "questions": 5},
    **{"score": 1, "lo": 1, "hi": 1},
}


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        *(
            json.dumps({**PLAIN, **wrong})
            for wrong in (
                {"tools": {"turns": 2.0}},
                {"tools": {"turns": True}},
                {"tools": "x"},
                {"prompt": {"organiser": 3}},
                {"prompt": {"template_args": [3]}},
                {"sampling": {"top_k": 2.5}},
                {"harvest_tokens": -5},
                {"max_tokens": 0},
                {"n": 0},
            )
        ),
        '{"policy": "all/majority", "n": 8}',
        '{"policy": 3, "n": 8, "max_tokens": null, "budget": "none", "recordings": [], '
        '"questions": 5, "score": 1, "lo": 1, "hi": 1}',
    ],
)
def test_a_file_that_is_no_choice_is_named(workdir: Path, text: str) -> None:
    file = workdir / "policy.json"
    file.write_text(json.dumps(PLAIN))
    assert Choice.read(file).n == 8
    file.write_text(text)
    with pytest.raises(UserError, match=r"policy\.json"):
        Choice.read(file)


def test_a_policy_file_that_is_not_there_is_asked_for_by_its_path(submit: CommandLine, workdir: Path) -> None:
    (workdir / "policy.json").write_text("{}")
    refused = submit("build", "--policy-file", "polcy.json").refusal
    assert "write-policy` wrote, got polcy.json" in refused
    assert "did you mean policy.json?; check the path" in refused


@pytest.mark.parametrize("words", ["18001", "9000:free", "9000:1:2:3:4", "x", "9000:1:inf", "9000:1:9:nan"])
def test_the_notebook_keeps_to_the_competitions_clock(words: str) -> None:
    with pytest.raises(UserError, match=r"budget"):
        KernelConfig().with_budget(words)


@given(st.integers(60, 17_400), st.booleans())
def test_a_replayed_clock_is_the_notebooks_second_by_second(wall_s: int, shared: bool) -> None:
    rules = KernelConfig()
    wall = Wall.parse(f"{wall_s}:{wall_s / 100}:{wall_s / 10}" if shared else str(wall_s), questions=rules.problems)
    assert wall is not None
    clock = rules.with_budget(wall.words).clock
    assert (clock.wall_s, clock.question_min_s, clock.question_max_s, clock.reserve_s) == pytest.approx(
        (wall.wall_s, wall.floor_s, wall.ceiling_s, wall.reserve_s)
    )


@pytest.mark.parametrize(("words", "kept_s"), [("18000", 600), ("17700", 300), ("17400", 0), ("18000:300:900:60", 60)])
def test_what_the_rules_keep_back_is_of_the_whole_clock(words: str, kept_s: float) -> None:
    assert KernelConfig().with_budget(words).clock.reserve_s == kept_s


@pytest.mark.parametrize("words", ["", "none"])
def test_no_clock_of_ones_own_is_the_competitions(words: str) -> None:
    rules = KernelConfig()
    assert rules.with_budget(words) is rules
    assert rules.clock.reserve_s > 0
