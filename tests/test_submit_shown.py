"""What a push reads out of the notebook's run on Kaggle: machine, speed, and what fits the clock at that speed."""

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mathlete.delivery import Asking, Kaggle, Ledger, Waiting, check_before_push, push_build
from mathlete.delivery.shown import KaggleRun, fit_clock
from mathlete.errors import UserError
from mathlete.kernel import JOURNAL, SUBMISSION, JournalLine, KernelConfig
from mathlete.problems import Problem, read_problems, write_problems
from mathlete.rehearsal import RehearsalSettings, Thresholds, choose_canaries, rehearse
from mathlete.replay import Throughput, Wall
from mathlete.sampling import Sample, SamplingConfig
from mathlete.sampling.record import SampleLog
from mathlete.solve import Policy
from mathlete.submission import Build
from tests.conftest import GOLDEN, POCKET_VAL, CommandLine, with_settings
from tests.kaggle_standin import Scenario, run_on_kaggle, serve

QUICK = Waiting(poll_s=0.01, upload_max_s=5, run_max_s=5, settle_s=0.02, answer_max_s=5)
GPU = {"name": "NVIDIA H100 80GB HBM3", "memory_mib": 81559, "capability": 9.0, "driver": "570.124.06"}
ENGINE = {"torch": "2.10.0+cu128", "cuda": "12.8", "device": "h100", "dtype": "bfloat16", "load_s": 90.0}
WALL = Wall(wall_s=18_000.0, floor_s=300.0, ceiling_s=900.0)


def journal(build: str, lines: list[JournalLine]) -> bytes:
    """Return the journal of a run on an H100."""
    facts = [{"build": build, "machine": {"gpus": [GPU], "cores": 26, "memory_gib": 230.0}}, {"engine": ENGINE}]
    return "".join(f"{json.dumps(one)}\n" for one in [*facts, *(line.to_json() for line in lines)]).encode()


def answered(
    name: str, *, tokens: int, token_s: float, samples: int, load_s: float = 0.0, left_s: float
) -> JournalLine:
    """Return the line of a question whose samples were all drawn at once."""
    took_s = tokens * token_s
    drawn = ((tokens, took_s),) * samples
    facts: dict[str, Any] = {"seconds": took_s + load_s, "load_s": load_s, "left_s": left_s, "samples": samples}
    return JournalLine(id=name, fallback=False, why="", tokens=tokens * samples, drawn=drawn, **facts)


# 60 s until the first question, 90 s of loading, then 8 samples of 100 tokens at 0.02 s each.
LINES = [
    answered("a", tokens=100, token_s=0.02, samples=8, load_s=90.0, left_s=18_000 - 60 - 92),
    answered("b", tokens=100, token_s=0.02, samples=8, left_s=18_000 - 60 - 94),
]


def read_run(folder: Path, build: Build, lines: list[JournalLine]) -> KaggleRun:
    (folder / JOURNAL).write_bytes(journal(build.stamp, lines))
    return KaggleRun.read(folder, build)


def test_a_journal_tells_machine_and_speed(build: Build, tmp_path: Path) -> None:
    run = read_run(tmp_path, build, LINES)
    assert (run.tokens_per_s, run.rows, run.startup_s, run.load_s) == (400.0, 8, 60.0, 90.0)
    first, second = run.describe()
    assert "NVIDIA H100 80GB HBM3 (80 GiB, 9.0) · 26 cores" in first
    assert "torch 2.10.0+cu128, CUDA 12.8, bfloat16 · loaded in 90.0 s" in first
    assert "400 tokens/s: 8 samples side by side, 50.0 each" in second
    assert KaggleRun.from_json(json.loads(json.dumps(run.to_json()))) == run


def test_a_cut_journal_is_completed_by_the_log(build: Build, tmp_path: Path) -> None:
    whole = journal(build.stamp, LINES)
    log = [{"stream_name": "stderr", "time": 1.0, "data": line + "\n"} for line in whole.decode().splitlines()]
    (tmp_path / f"{build.names.kernel}.log").write_text(json.dumps(log))
    (tmp_path / JOURNAL).write_bytes(whole[: len(whole) // 2])
    assert KaggleRun.read(tmp_path, build) == read_run(tmp_path, build, LINES)


def test_a_journal_of_an_earlier_version_gives_the_mean(build: Build, tmp_path: Path) -> None:
    run = read_run(tmp_path, build, [replace(line, drawn=()) for line in LINES])
    assert (run.tokens_per_s, run.drawn) == (400.0, (100,) * 16)


ODD = [
    ([], None),
    ([JournalLine(id="a", fallback=True, why="the clock")], None),
    (
        [JournalLine(id="a", fallback=True, why="only empty completions", samples=2, empty=2, drawn=((0, 0.0),) * 2)],
        None,
    ),
    # Four of eight were enough: the others were being drawn all the same.
    ([answered("a", tokens=100, token_s=0.02, samples=4, left_s=17_000)], 400.0),
]


@pytest.mark.parametrize(("lines", "speed"), ODD)
def test_a_run_without_samples_has_no_speed_and_breaks_nothing(
    lines: list[JournalLine], speed: float | None, build: Build, tmp_path: Path
) -> None:
    run = read_run(tmp_path, build, lines)
    assert run.tokens_per_s == speed
    fit = fit_clock(run, build.config)
    assert bool(fit.lengths) == (speed is not None)
    assert [*fit.describe()]


def test_what_fits_is_said_for_a_few_n_under_the_cap_and_as_drawn(build: Build, tmp_path: Path) -> None:
    config = replace(build.config, policy=Policy(n=8, sampling=SamplingConfig(max_tokens=32_768)))
    fit = fit_clock(read_run(tmp_path, build, LINES), config)
    assert fit.clock_s == 18_000 - 60 - 90 - config.clock.reserve_s
    drawn, capped = fit.lengths
    assert [each.n for each in drawn.forecasts] == [4, 8, 16, 32]
    assert all(each.fits and each.samples == each.n and not each.p_out_of_time for each in drawn.forecasts)
    # 8 x 32768 x 50 tokens at 400 a second are 9.1 h; one takes 655 s, for which not every question has the time.
    own = capped.forecasts[1]
    assert (own.tokens, own.fits, own.hours) == (13_107_200, False, 9.102)
    assert 0 < own.samples < 8
    assert 0 < own.p_out_of_time < 1
    said = "\n".join(fit.describe())
    assert "n=8 as long as the cap: all do NOT fit (32767 s of 17250 s)" in said
    assert "n=8 as long as the placeholders' samples: all fit" in said


def test_a_clock_that_is_over_before_the_first_question_is_said(build: Build, tmp_path: Path) -> None:
    short = replace(build.config.clock, wall_s=700.0, reserve_s=600.0)
    fit = fit_clock(read_run(tmp_path, build, LINES), replace(build.config, clock=short))
    assert "over before the first question" in "\n".join(fit.describe())


def test_a_slower_machine_a_longer_sample_and_more_samples_never_help() -> None:
    policy, questions = Policy(sampling=SamplingConfig(max_tokens=4_000)), 10
    wall = Wall(wall_s=3_000.0, floor_s=250.0, ceiling_s=750.0)
    chance = random.Random(0)
    lengths = [chance.randrange(500, 5_000) for _ in range(40)]

    def forecast(pace: Throughput, samples: list[int], n: int) -> Any:
        (one,) = pace.forecast(samples, policy=policy, wall=wall, questions=questions, n=[n])
        return one

    quick, slow = Throughput(token_s=0.05, rows=8), Throughput(token_s=0.1, rows=8)
    assert forecast(slow, lengths, 8).hours == pytest.approx(2 * forecast(quick, lengths, 8).hours, abs=0.002)
    chances = [forecast(Throughput(token_s=each, rows=8), lengths, 8).p_out_of_time for each in (0.01, 0.1, 0.3, 1.0)]
    assert chances == sorted(chances)
    assert chances[0] == 0.0
    assert chances[-1] > 0.9
    assert forecast(slow, [2 * each for each in lengths], 8).samples <= forecast(slow, lengths, 8).samples
    # Beyond the rows that were measured the machine is not taken to draw more in all.
    assert forecast(slow, lengths, 32).hours == pytest.approx(4 * forecast(slow, lengths, 8).hours, rel=0.01)
    # Samples that wait for a slot take the same in all, but the first of them are as quick as ever.
    waiting = Throughput(token_s=0.1, rows=8, waits=True)
    assert forecast(waiting, lengths, 32).hours == forecast(slow, lengths, 32).hours
    assert forecast(waiting, lengths, 32).p_out_of_time <= forecast(slow, lengths, 32).p_out_of_time


def record(folder: Path, *, tokens: int) -> Path:
    """Make a recording of two problems with eight samples, all of them right."""
    folder.mkdir()
    problems = [Problem(id=name, statement=f"What is {name}?", gold="7") for name in ("p", "q")]
    write_problems(folder / "problems.jsonl", problems)
    with SampleLog(folder / "samples.jsonl") as log:
        for problem in problems:
            for index in range(8):
                facts: Any = {"problem_id": problem.id, "index": index, "seed": index, "text": "7", "answer": "7"}
                log.append(Sample(**facts, tokens=tokens, finish="stop", seconds=1.0))
    return folder


def test_a_recording_says_what_lies_between_and_its_answers_stop_early(build: Build, tmp_path: Path) -> None:
    folder = record(tmp_path / "run", tokens=1_000)
    config = replace(build.config, policy=Policy(n=8, stop="exact", sampling=SamplingConfig(max_tokens=4_000)))
    fit = fit_clock(read_run(tmp_path, build, LINES), config, recordings=[folder])
    drawn, recorded, capped = fit.lengths
    assert [one.forecasts[0].mean_tokens for one in (drawn, recorded, capped)] == [100.0, 1_000.0, 4_000.0]
    # All answers are the same: five of eight decide.
    assert recorded.forecasts[1].samples == 5.0
    assert capped.forecasts[1].samples == 8.0


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Scenario]:
    """Kaggle, as far as the clients can tell: every request of theirs ends here."""
    with serve(tmp_path, monkeypatch) as state:
        state.output = run_on_kaggle(tmp_path)
        yield state


def push(build: Build, folder: Path, said: list[str], **how: Any) -> int:
    # In a thread, whose stack is short: kagglehub reads the source of every frame above it, for its user agent.
    asking = Asking(waiting=QUICK, say=said.append)
    with ThreadPoolExecutor(1) as one:
        return one.submit(lambda: push_build(build, Kaggle(), folder=folder, asking=asking, **how).version).result()


def test_a_push_says_what_its_run_showed_and_preflight_repeats_it(
    kaggle: Scenario, build: Build, tmp_path: Path
) -> None:
    """The journal is one that the pocket model's rehearsal wrote, in real time, with another build's hash."""
    rehearsed = (GOLDEN / "commit_run" / JOURNAL).read_text().splitlines()
    rehearsed[0] = json.dumps({**json.loads(rehearsed[0]), "build": build.stamp})
    kaggle.output |= {
        JOURNAL: "\n".join(rehearsed).encode() + b"\n",
        SUBMISSION: (GOLDEN / "commit_run" / SUBMISSION).read_bytes(),
    }
    said: list[str] = []
    assert push(build, tmp_path, said) == 1
    assert any(line.startswith("ran on no GPU · ") for line in said)
    assert any(" tokens/s: 8 samples side by side" in line for line in said)
    (event,) = [event for event in Ledger(tmp_path).events() if event.kind == "push"]
    assert event.run is not None
    assert event.run["clock"] == json.loads(json.dumps(event.run))["clock"]
    # The same weights for the same machine with another n: what was measured holds, the table is another one.
    more = with_settings(build, tmp_path / "more", policy=replace(build.config.policy, n=16))
    for each, n in ((build, [4, 8, 16, 32]), (more, [8, 16, 32, 64])):
        clock = check_before_push(each, folder=tmp_path, thresholds=Thresholds()).clock
        assert clock is not None
        assert [one.n for one in clock.lengths[0].forecasts] == n
        assert clock.run.tokens_per_s == event.run["tokens_per_s"]
    # Other weights have another speed.
    (build.model / "config.json").write_text('{"other": 1}')
    assert check_before_push(build, folder=tmp_path, thresholds=Thresholds()).clock is None


def test_a_recording_is_refused_before_anything_is_sent_and_kept_for_preflight(
    kaggle: Scenario, build: Build, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"has problems\.jsonl"):
        check_before_push(build, folder=tmp_path, thresholds=Thresholds(), recordings=[tmp_path / "nowhere"])
    kaggle.output[JOURNAL] = journal(
        build.stamp, [replace(LINES[0], id=name) for name in ("000aaa", "111bbb", "222ccc")]
    )
    folder = record(tmp_path / "run", tokens=1_000)
    push(build, tmp_path, [], recordings=[folder])
    clock = check_before_push(build, folder=tmp_path, thresholds=Thresholds()).clock
    assert clock is not None
    assert [one.of for one in clock.lengths] == ["the placeholders' samples", str(folder), "the cap"]


def test_a_ledger_line_of_another_kind_is_refused_in_a_sentence(build: Build, tmp_path: Path) -> None:
    Ledger(tmp_path).append("push", build.hashes(), version=1, run={"shape": build.machine})
    with pytest.raises(UserError, match="delete that line"):
        check_before_push(build, folder=tmp_path, thresholds=Thresholds())


@pytest.mark.slow
def test_a_real_rehearsals_output_is_read_by_a_push(
    built: Path, kaggle: Scenario, submit: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(built)
    build = Build.load(Path("runs/submit"))
    problems = choose_canaries(read_problems(POCKET_VAL), count=3, rules=build.config.competition)
    how = RehearsalSettings(rerun=False, speed=1.0)
    assert rehearse(build, problems, how, folder=tmp_path / "run").refusal is None
    working = tmp_path / "run" / "stage" / "notebook"
    kaggle.account = build.names.owner
    monkeypatch.setenv("KAGGLE_USERNAME", build.names.owner)
    kaggle.output = {name: (working / name).read_bytes() for name in (JOURNAL, SUBMISSION)}
    said: list[str] = []
    push(build, tmp_path / "folder", said)
    print("\n".join(said))
    (event,) = [event for event in Ledger(tmp_path / "folder").events() if event.kind == "push"]
    run: Any = event.run
    assert run["tokens_per_s"] > 0
    assert KernelConfig().policy.n in [each["n"] for each in run["clock"][0]["n"]]
