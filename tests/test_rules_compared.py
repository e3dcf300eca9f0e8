"""What has changed in the rules: two competitions side by side, and rehearsals under others, which do not count."""

import json
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from mathlete.competitions import Competition, compare_rules, competition
from mathlete.competitions.files import read_competition
from mathlete.rehearsal import Thresholds, check_rehearsal
from mathlete.rehearsal.adapter import AdapterReport, check_adapter_rehearsal
from mathlete.rehearsal.adapter.rehearsing import AdapterScore
from mathlete.rehearsal.report import RehearsalReport
from mathlete.submission import Build, check_parts
from mathlete.submission.adapter import AdapterBuild
from submit.rules import draw_table
from tests.conftest import CommandLine
from tests.test_competitions import CUP

NAMES = ("aimo-2", "aimo-3", "nemotron-like")


@pytest.mark.parametrize("one", NAMES)
@pytest.mark.parametrize("other", NAMES)
def test_two_competitions_side_by_side_fit_80_columns_and_break_no_key(one: str, other: str) -> None:
    differ = compare_rules(competition(one), competition(other))
    assert bool(differ) == (one != other)
    out = Console(file=StringIO(), force_terminal=True, width=80, color_system=None)
    out.print(draw_table(differ, (one, other)))
    drawn = out.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, drawn.splitlines())) <= 80
    assert {*differ} <= {line.split()[0] for line in drawn.splitlines() if line.strip()}


def test_what_differs_and_what_does_not_is_json_too(submit: CommandLine) -> None:
    said = submit("rules", "--competition", "aimo-2", "--against", "aimo-3", "--json").result
    assert (said["competition"], said["against"], said["answer_max"]) == ("aimo-2", "aimo-3", 999)
    assert said["differences"]["points"] == [[0.0, 1.0], [0.0, 0.5, 1.0]]
    assert said["differences"]["submissions_a_day"] == [None, 1]
    assert "wall_s" in said["same"]
    assert not {*said["same"]} & {*said["differences"]}


def test_two_files_of_one_name_are_told_apart_by_their_paths(workdir: Path, submit: CommandLine) -> None:
    for folder, wall_s in (("old", "1800"), ("new", "900")):
        (workdir / folder).mkdir()
        (workdir / folder / "cup.toml").write_text(CUP.replace("wall_s = 1800", f"wall_s = {wall_s}"))
    words = ("rules", "--competition", "old/cup.toml", "--against")
    shown = submit(*words, "new/cup.toml").stdout
    assert "old/cup.toml" in shown
    assert "new/cup.toml" in shown
    # The reserve is a tenth of a short wall.
    assert submit(*words, "new/cup.toml", "--json").result["differences"] == {
        "wall_s": [1800, 900],
        "reserve_s": [180.0, 90.0],
    }
    assert submit(*words, "old/cup.toml").stdout == "old/cup.toml and old/cup.toml have the same rules\n"
    assert "a competition's file must be there, got nowhere/cup.toml" in submit(*words, "nowhere/cup.toml").refusal


def write_rehearsal(build: Build, rules: object) -> None:
    run = {"questions": 50, "right": 30, "fallbacks": 0, "samples": 250, "empty": 0, "tokens_per_s": 9, "refusal": None}
    settings = {"image": ["transformers==5.0.0"]}
    report = {"hashes": asdict(build.hashes()), "outcome": "valid", "runs": [run], "settings": settings, "rules": rules}
    (build.kaggle.parent / RehearsalReport.file_name).write_text(json.dumps(report))


def test_a_rehearsal_under_other_rules_does_not_count(build: Build) -> None:
    rules, how = build.config.competition, {"folder": build.kaggle.parent, "thresholds": Thresholds()}
    # A report of before says no rules; its hashes vouch for the build, and the build for its rules.
    for rehearsed in ({}, rules.to_json()):
        write_rehearsal(build, rehearsed)
        assert check_rehearsal(build.hashes(), rules=rules, **how).refusals == ()  # type: ignore[arg-type]
    now = replace(rules, wall_s=9000, scorer=replace(rules.scorer, wrong=-1.0))
    (refusal,) = check_rehearsal(build.hashes(), rules=now, **how).refusals  # type: ignore[arg-type]
    assert refusal.rule == "the rehearsal must be under the rules as they are now"
    assert refusal.value == "wall_s was 18000 and is 9000; scorer.wrong was 0.0 and is -1.0"
    write_rehearsal(build, {**rules.to_json(), "wall": 1})
    (refusal,) = check_rehearsal(build.hashes(), rules=rules, **how).refusals  # type: ignore[arg-type]
    assert "another version's: a build's rules must have known keys only" in refusal.value


def test_an_adapters_rehearsal_under_other_rules_does_not_count(tmp_path: Path) -> None:
    rules, file = competition("nemotron-like"), tmp_path / "submission.zip"
    file.write_bytes(b"zip")
    build = AdapterBuild(zip=file, competition=rules, named=rules.name, adapter=tmp_path)
    all_right = AdapterScore(right=50, points=50, cut=0)
    report = AdapterReport(
        competition=rules.name,
        rules=rules.to_json(),
        zip=build.hashes().weights,
        engine="vllm",
        problems=50,
        max_tokens=256,
        asked_tokens=7680,
        organiser=all_right,
        greedy=all_right,
        merged=all_right,
        same_as_peft=1.0,
        same_as_merged=1.0,
        facts={},
    )
    (tmp_path / AdapterReport.file_name).write_text(json.dumps(report.to_json()))

    def refuse(now: Competition) -> list[str]:
        here = {"folder": tmp_path, "thresholds": Thresholds()}
        check = check_adapter_rehearsal(replace(build, competition=now), **here)  # type: ignore[arg-type]
        return [f"{one.rule}, got {one.value}" for one in check.refusals]

    assert refuse(rules) == []
    assert rules.sampling is not None
    now = replace(rules, sampling=replace(rules.sampling, max_tokens=3584, temperature=1.0))
    assert refuse(now) == [
        "the rehearsal must be under the rules as they are now, got "
        "sampling.temperature was 0.0 and is 1.0; sampling.max_tokens was 7680 and is 3584"
    ]


def test_preflight_says_which_rule_the_file_has_changed_since(
    built_wheels: Path, workdir: Path, submit: CommandLine
) -> None:
    file = workdir / "cup.toml"
    file.write_text(CUP)
    assert submit("build", "--competition", "cup.toml", "--names.owner", "alice").code == 0
    write_rehearsal(build := Build.load(workdir / "runs" / "submit"), build_rules := read_competition(file).to_json())
    (build.kaggle.parent / RehearsalReport.file_name).rename(workdir / "runs" / "submit" / RehearsalReport.file_name)
    assert build.config.competition.to_json() == build_rules
    file.write_text(CUP.replace("wall_s = 1800", "wall_s = 900"))
    # Refused after the line, for there is no canary in so small a file.
    (workdir / "few.jsonl").write_text('{"id": "a", "problem": "?", "answer": "0"}\n')
    done = submit("rehearse", "--problems", "few.jsonl")
    assert "preflight will not take this rehearsal, the rules have changed since the build: wall_s was" in done.stdout
    assert "neither 0 nor the fallback 1" in done.refusal
    done = submit("preflight")
    changed = "wall_s was 1800 and is 900; reserve_s was 180.0 and is 90.0"
    assert f"the build must be by the rules of cup as they are now, got {changed}.\n" in done.refusal
    assert "    the rehearsal must be under the rules as they are now, got wall_s was 1800" in done.stdout
    file.write_text(CUP.replace("wall_s = 1800", "wall = 1800"))
    assert "known keys only, got wall" in submit("preflight").refusal
    file.unlink()
    shown = submit("preflight").stdout
    assert "rules as the build has them: cup.toml is not there\n" in shown
    assert "ok  rules as they are now\nok  files to upload\nok  rehearsal\n" in shown


def test_machine_and_licence_are_those_that_the_rules_list(build: Build) -> None:
    def check_rules(**changes: object) -> list[str]:
        config = replace(build.config, competition=replace(build.config.competition, **changes))  # type: ignore[arg-type]
        checks = {check.what: check for check in check_parts(replace(build, config=config))}
        refusals = checks["machine and licence by the rules"].refusals
        return [f"{one.rule}, got {one.value}" for one in refusals]

    assert check_rules() == []
    assert check_rules(machines=("NvidiaL4", "NvidiaH100"), licences=("MIT", "Apache 2.0")) == []
    assert check_rules(machines=("NvidiaL4",), licences=("MIT",)) == [
        "aimo-3 runs on NvidiaL4, got NvidiaH100",
        "aimo-3 takes models under MIT, got Apache 2.0",
    ]
