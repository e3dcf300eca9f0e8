"""The clock and the cap that a replay hands on are the notebook's: whatever words it prints, the build takes them."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import tyro
from hypothesis import assume, given
from hypothesis import strategies as st

from eval.replay import PolicyWords, ReplaySettings
from mathlete.command.command_line import read_leading_flags
from mathlete.competitions import Competition, competition
from mathlete.errors import UserError
from mathlete.kernel import KernelConfig, config_from
from mathlete.replay import Choice, Wall
from mathlete.sampling import Sample, SampleLog
from mathlete.scoring import Pool
from mathlete.shipped import data_folder
from mathlete.solve import BudgetSettings
from submit import answer_settings
from submit.building import LEADING_FLAGS, BuildSettings, build_defaults, require_clock
from tests.conftest import CommandLine
from tests.test_replay import record_samples, write_run

AIMO_3 = competition("aimo-3")
RULES = {
    **{name: competition(name) for name in ("aimo-1", "aimo-2", "aimo-3")},
    "short": replace(AIMO_3, name="short", problems=7, wall_s=3_000, reserve_s=900.0, predict_deadline_s=500),
}
SECONDS = ("wall_s", "floor_s", "ceiling_s", "reserve_s")
PLAIN = Choice(
    policy="all/majority", n=8, max_tokens=None, budget="none", recordings=(), questions=50, score=1, lo=1, hi=1
)
QUICK = ("--n", 1, "--stop", "none", "--simulations", 20)


def read_line(words: str) -> BuildSettings:
    """What `submit build` reads from a line that a replay printed."""
    flags = shlex.split(words)[4:]
    return tyro.cli(BuildSettings, args=flags, default=build_defaults(read_leading_flags(flags, LEADING_FLAGS)))


def share(config: KernelConfig) -> BudgetSettings | None:
    return config.share_clock(config.clock.wall_s)


@given(
    st.sampled_from([*RULES.values()]),
    st.floats(0.01, 1.2),
    st.tuples(st.floats(0, 1), st.floats(1, 9)) | st.none(),
    st.floats(0, 0.5) | st.none(),
    st.sampled_from([0, 0, 0, -1, 13]),
)
def test_a_clock_that_is_handed_on_gives_each_question_what_the_replay_gave(
    rules: Competition, part: float, shares: tuple[float, float] | None, kept: float | None, more: int
) -> None:
    """The parts are of the rules' wall and of an even share, so that most of the words can be kept."""
    questions, wall_s = rules.problems + more, part * rules.notebook.wall_s
    words = f"{wall_s}"
    if shares:
        even_s = wall_s * (1 - (kept or 0)) / questions
        words += f":{even_s * shares[0]}:{even_s * shares[1]}" + ("" if kept is None else f":{wall_s * kept}")
    try:
        wall = Wall.parse(words, questions=questions, rules=rules)
    except UserError:
        # A floor that the reserve leaves no room for; SECONDS alone always fit.
        assert shares
        assume(False)
    assert wall is not None
    # By its words alone, whoever reads them.
    again = (Wall.parse(wall.words, questions=questions, rules=one) for one in (rules, None))
    assert [one and one.words for one in again] == [wall.words] * 2
    choice = replace(PLAIN, budget=wall.words, questions=questions, competition=rules.name)
    fits = questions == rules.problems and wall.wall_s <= rules.notebook.wall_s
    assert (choice.refuse_clock(rules) is None) == fits
    if fits:
        shared = share(KernelConfig(competition=rules).with_budget(choice.budget))
        assert shared is not None
        given_s = (shared.wall_s, shared.floor_s, shared.ceiling_s, shared.reserve_s, shared.questions)
        assert given_s == pytest.approx((wall.wall_s, wall.floor_s, wall.ceiling_s, wall.reserve_s, questions))


@pytest.mark.parametrize(
    ("words", "clock", "told"),
    [
        (("--budget", "18000"), "18000:300:900:600", ""),
        (("--budget", "17400:348:560"), "17400:348:560:0", ""),
        (("--budget", "1500"), "1500:25:75:0", ""),
        (("--budget", "18000:350:560:0"), "18000:350:560:0", ""),
        (("--budget", "18000", "--questions", 30), "", "for the 50 questions of aimo-3, got 18000:500:1500:600 for 30"),
        (("--budget", "600", "--questions", 20), "", "replay it with --questions 50"),
        (("--budget", "20000"), "", "within the 18000 s of aimo-3, got 20000 s"),
        # Another that was tried can be handed on.
        (("--budget", "20000", "600"), "600:10:30:0", "within the 18000 s of aimo-3, got 20000 s"),
        (("--budget", "none", "20000"), "", "within the 18000 s of aimo-3, got 20000 s"),
        (("--budget", "30000", "--competition", "aimo-1"), "30000:500:1500:0", ""),
        (("--budget", "9000", "--competition", "aimo-2", "--questions", 20), "", "for the 50 questions of aimo-2"),
        (("--budget", "9000", "--competition", "a cup.toml", "--questions", 60), "9000:125:375:0", ""),
        (
            ("--budget", "9000", "--competition", "a cup.toml"),
            "",
            "the 60 questions of a cup, got 9000:150:450:0 for 50",
        ),
    ],
)
def test_the_build_takes_the_line_that_a_replay_prints(
    words: tuple[object, ...], clock: str, told: str, evaluate: CommandLine, workdir: Path
) -> None:
    rules = (data_folder() / "competitions" / "aimo-3.toml").read_text()
    own = [line for line in rules.splitlines() if not line.startswith(("problems", "question_m"))]
    (workdir / "a cup.toml").write_text("\n".join(["problems = 60", *own]))
    for file in ((), ("--write-policy", "p.json")):
        shown = evaluate("replay", "pocket", *QUICK, *words, *file).stdout
        *before, line = shown.splitlines()
        said = " ".join(" ".join(before).split())
        assert told in said
        assert ("no clock of the notebook's" in said) == bool(told)
        built = read_line(line)
        named = competition(str(dict(zip(words[::2], words[1::2], strict=False)).get("--competition", "aimo-3")))
        assert competition(built.competition) == named
        wanted = Wall.parse(clock, questions=named.problems) if clock else share(KernelConfig(competition=named))
        shared = share(KernelConfig(competition=named).with_budget(built.solving.budget))
        assert shared is not None
        assert wanted is not None
        assert [getattr(shared, name) for name in SECONDS] == [getattr(wanted, name) for name in SECONDS]


def test_a_policy_files_clock_is_refused_for_other_questions_or_by_other_rules(
    evaluate: CommandLine, submit: CommandLine, workdir: Path
) -> None:
    build = ("build", "--policy-file", "p.json", "--names.owner", "alice", "--run", "b")
    evaluate("replay", "pocket", *QUICK, "--questions", 30, "--budget", 18000, "--write-policy", "p.json")
    refused = " ".join(submit(*build).refusal.split())
    assert "for the 50 questions of aimo-3, got 18000:500:1500:600 for 30, in p.json" in refused
    assert "or add --budget none for the competition's own clock" in refused
    written = json.loads(Path("p.json").read_text())
    assert (written["questions"], written["competition"]) == (30, "aimo-3")
    for other, told in (
        ({"questions": 50, "competition": "cup"}, "one by those of cup, not aimo-3"),
        ({"questions": 50, "budget": "20000:1:9"}, "within the 18000 s of aimo-3, got 20000 s, in p.json"),
    ):
        (workdir / "p.json").write_text(json.dumps({**written, **other}))
        assert told in " ".join(submit(*build).refusal.split())
    # A flag goes first; a file of before does not say by which rules.
    require_clock(read_line("python -m submit build --policy-file p.json --budget none").solving, AIMO_3)
    old = {name: value for name, value in written.items() if name != "competition"}
    (workdir / "p.json").write_text(json.dumps({**old, "questions": 50, "budget": "9000:100:500"}))
    assert Choice.read(workdir / "p.json").refuse_clock(AIMO_3) is None


def test_what_takes_no_notebook_has_no_build(evaluate: CommandLine, workdir: Path) -> None:
    words = ("replay", "pocket", *QUICK, "--budget", 900, "--competition", "nemotron-like", "--write-policy", "p.json")
    shown = evaluate(*words).stdout
    assert "nothing to build: nemotron-like takes no notebook" in " ".join(shown.split())
    assert "submit build" not in shown
    assert (workdir / "p.json").is_file()


CUP = """
slug = "cup"
deliverable = "csv"
answer_type = "text"
problems = 50
wall_s = 3600
columns = ["id", "prompt"]
submission_columns = ["id", "answer"]
runs = 1
points = [0, 1]
"""


@pytest.mark.parametrize("clock", ["900", "none"])
def test_a_policy_for_a_table_is_handed_to_what_answers_it(evaluate: CommandLine, workdir: Path, clock: str) -> None:
    (workdir / "cup.toml").write_text(CUP)
    words = ("replay", "pocket", *QUICK, "--budget", clock, "--competition", "cup.toml")
    for more in ((), ("--write-policy", "p.json")):
        (line,) = [one for one in evaluate(*words, *more).stdout.splitlines() if one.startswith("python -m submit")]
        assert line.startswith("python -m submit answer TABLE --model MODEL --competition cup.toml --policy")
        assert line.endswith("--policy-file p.json" if more else " --budget 900:15:45:0" if clock == "900" else line)
        assert "--budget none" not in line


def test_a_reserve_that_the_rules_keep_back_is_said_to_be_theirs(evaluate: CommandLine) -> None:
    words = ("replay", "pocket", *QUICK, "--questions", 50, "--budget")
    refused = " ".join(evaluate(*words, "18000:350:560").refusal.split())
    assert "got 17400 s, for the rules of aimo-3 keep 600 s back" in refused
    assert "lower FLOOR or RESERVE" in " ".join(evaluate(*words, "18000:350:560:601").refusal.split())


def test_a_policy_file_whose_settings_are_refused_is_named(
    evaluate: CommandLine, submit: CommandLine, workdir: Path
) -> None:
    evaluate("replay", "pocket", *QUICK, "--write-policy", "p.json")
    written = json.loads(Path("p.json").read_text())
    (workdir / "p.json").write_text(json.dumps({**written, "sampling": {**written["sampling"], "stop": ["\\n"]}}))
    refused = " ".join(
        submit("build", "--policy-file", "p.json", "--names.owner", "alice", "--run", "b").refusal.split()
    )
    assert "p.json: --sampling.stop must be the characters meant" in refused
    assert "bash" not in refused


def write_capped(folder: Path, *, tokens: list[int], cut: int, says: Mapping[str, object] | None) -> Path:
    """A run whose samples of so many tokens were cut, with results that say so or not; all others end at 20."""
    asked, drawn = record_samples(3, n=4, seed=cut)
    write_run(folder)
    (folder / "problems.jsonl").write_text("".join(json.dumps(one.to_json()) + "\n" for one in asked))
    (folder / "samples.jsonl").unlink()
    with SampleLog(folder / "samples.jsonl") as log:
        for place, sample in enumerate(drawn):
            log.append(with_length(sample, [*tokens, *[20] * len(drawn)][place], cut=place < len(tokens)))
    if says is not None:
        (folder / "results.json").write_text(json.dumps(says))
    return folder


def with_length(sample: Sample, tokens: int, *, cut: bool) -> Sample:
    return replace(sample, tokens=tokens, finish="length" if cut else "stop")


def says(cap: int, engine: str = "transformers") -> dict[str, object]:
    return {"engine": engine, "policy": {"sampling": {"max_tokens": cap}}}


@pytest.mark.parametrize(
    ("tokens", "results", "cut_at"),
    [
        ([], says(256), None),
        ([256, 256], says(256), 256),
        # The model's context cut them before the cap.
        ([100], says(256), 256),
        ([100, 90], None, 100),
        # A log that does not say its cap stands there with the import's own number.
        ([100], says(256, "imported"), 256),
        ([100], {**says(256, "imported"), "missing": ["max_tokens"]}, 100),
        ([100], {"engine": "x", "policy": 3}, 100),
        ([100], {"engine": "x", "policy": {"sampling": {"max_tokens": None}}}, 100),
    ],
)
def test_a_cap_is_replayed_up_to_the_one_that_cut_samples(
    workdir: Path, tokens: list[int], results: Mapping[str, object] | None, cut_at: int | None
) -> None:
    pool = Pool.read([write_capped(workdir / "a", tokens=tokens, cut=0, says=results)])
    assert pool.cut_at == cut_at
    pool.require_cap(cut_at or 10**6)
    if cut_at:
        with pytest.raises(UserError, match=f"at most {cut_at}, where samples of .*a were cut, got {cut_at + 1}"):
            pool.require_cap(cut_at + 1)


@pytest.mark.parametrize("caps", [(), (200,)])
def test_caps_that_an_earlier_version_replayed_are_replayed_anew(caps: tuple[int, ...]) -> None:
    settings = ReplaySettings(runs=(Path("pocket"),), policies=PolicyWords(max_tokens=caps))
    assert ("caps" in settings.words) == bool(caps)


def test_of_several_runs_the_smallest_cap_that_cut_counts(workdir: Path) -> None:
    folders = [
        write_capped(workdir / "a", tokens=[], cut=0, says=says(100)),
        write_capped(workdir / "b", tokens=[200], cut=1, says=says(200)),
        write_capped(workdir / "c", tokens=[300], cut=2, says=says(300)),
    ]
    assert Pool.read(folders).cut_at == 200


def test_a_larger_cap_than_the_recorded_one_is_refused(evaluate: CommandLine, workdir: Path) -> None:
    for run in ("pocket", "qwen-coder-0.5b-gsm8k"):
        refused = evaluate("replay", run, *QUICK, "--max-tokens", 200, 900, "--write-policy", "p.json").refusal
        assert f"--max-tokens must be at most 256, where samples of {run} were cut, got 900" in refused
        assert "record with a larger cap" in refused
    assert not (workdir / "p.json").exists()
    assert evaluate("replay", "pocket", *QUICK, "--max-tokens", 200, 256).code == 0


def test_a_file_without_a_clock_leaves_the_competitions_to_build_and_answer(workdir: Path) -> None:
    replace(PLAIN, competition="aimo-1").write(workdir / "p.json")
    words = ["--model", "pocket", "--policy-file", "p.json", "--competition", "aimo-3"]
    answer = answer_settings.answer_defaults(read_leading_flags(words, answer_settings.LEADING_FLAGS))
    budget = replace(answer, competition="aimo-3").to_budget(questions=50)
    assert budget == share(KernelConfig(competition=AIMO_3))
    require_clock(read_line("python -m submit build --policy-file p.json").solving, AIMO_3)


@pytest.mark.parametrize("name", ["wall_s", "question_max_s"])
def test_a_notebook_that_says_infinity_is_refused(name: str) -> None:
    """JSON has no such number, though Python writes and reads one."""
    with pytest.raises(UserError, match=name):
        config_from({**KernelConfig().to_json(), name: float("inf")})


@pytest.mark.parametrize(
    ("budget", "questions", "rule"),
    [
        ("18000:300:900:600", 60, "60 questions with 300 s each must fit into the wall less the reserve"),
        ("30000:1:9:0", 60, "--budget must keep within the competition's 18000 s"),
    ],
)
def test_a_files_clock_that_a_table_cannot_have_is_refused_by_its_file(
    workdir: Path, budget: str, questions: int, rule: str
) -> None:
    replace(PLAIN, budget=budget).write(workdir / "p.json")
    words = ["--model", "pocket", "--policy-file", "p.json"]
    answer = answer_settings.answer_defaults(read_leading_flags(words, answer_settings.LEADING_FLAGS))
    answer = replace(answer, competition="aimo-3", solving=replace(answer.solving, policy_file=Path("p.json")))
    with pytest.raises(UserError, match=f"{rule}, got .*, by p.json") as refused:
        answer.to_budget(questions=questions)
    assert refused.value.cure == "add --budget SECONDS for these 60 questions, in place of the file's"
