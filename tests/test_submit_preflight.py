"""Preflight and ledger: a build that would lose the day does not pass, and every event is kept."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from mathlete.delivery import Ledger
from mathlete.delivery.ledger import Event, predicted_interval
from mathlete.delivery.uploads import Upload
from mathlete.errors import UserError
from mathlete.export import EXPORT_FORMATS
from mathlete.export.formats import table
from mathlete.export.formats.table import StoredFormat
from mathlete.export.model_card import write_export_card
from mathlete.kernel import JournalLine
from mathlete.models import ModelSource, find_model
from mathlete.rehearsal.evidence import Thresholds, check_rehearsal
from mathlete.rehearsal.report import Conditions, RehearsalReport
from mathlete.rehearsal.verdict import RunFigures
from mathlete.runs import write_json
from mathlete.submission import checks, release
from mathlete.submission.build import Build
from mathlete.submission.metadata import DATASET_FILE, INSTANCE_FILE, KERNEL_FILE, MODEL_FILE, NOTEBOOK
from mathlete.submission.refusal import Refusal
from mathlete.submission.wheelhouse import SUMS
from tests.conftest import POCKET, CommandLine, sample

Json = dict[str, Any]
RUN: Json = {
    "questions": 50,
    "right": 30,
    "fallbacks": 1,
    "samples": 250,
    "empty": 0,
    "tokens_per_s": 200.0,
    "refusal": None,
}
INT8 = {"quant_method": "bitsandbytes", "load_in_8bit": True}


@pytest.fixture
def build(build: Build) -> Build:
    """A build that was rehearsed, of a model whose base is named."""
    (build.model / "config.json").write_text(json.dumps({"_name_or_path": "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"}))
    write_rehearsal(build)
    return build


def write_rehearsal(build: Build, *, outcome: str = "valid", run: Json | None = None, **more: object) -> None:
    settings = {"image": ["transformers==5.0.0"]}
    runs = [{**RUN, **(run or {})}] * 2
    report = {"hashes": asdict(build.hashes()), "outcome": outcome, "runs": runs, "settings": settings, **more}
    (build.kaggle.parent / RehearsalReport.file_name).write_text(json.dumps(report))


def of_rehearsal(build: Build) -> list[Refusal]:
    return list(
        check_rehearsal(
            build.hashes(), folder=build.kaggle.parent, thresholds=Thresholds(), rules=build.config.competition
        ).refusals
    )


def test_a_good_rehearsal_passes(build: Build) -> None:
    assert of_rehearsal(build) == []


FIGURES: list[tuple[Json, str]] = [
    ({"fallbacks": 11}, "share of fallbacks"),
    ({"empty": 51}, "share of empty completions"),
    ({"right": 4}, "share of canaries solved"),
    ({"right": 0, "fallbacks": 50, "samples": 0, "tokens_per_s": None}, "share of canaries solved"),
    ({"tokens_per_s": None}, "tokens a second"),
    ({"tokens_per_s": 0.5}, "tokens a second"),
]


@pytest.mark.parametrize(("run", "says"), FIGURES)
def test_a_model_that_hardly_answers_cannot_pass(run: Json, says: str, build: Build) -> None:
    write_rehearsal(build, run=run)
    checked = of_rehearsal(build)
    assert any(says in problem.rule for problem in checked)
    assert all(problem.cure for problem in checked)


def test_a_refused_rehearsal_a_commit_run_and_none_at_all_do_not_count(build: Build) -> None:
    write_rehearsal(build, outcome="refused", run={"refusal": "it hangs"})
    assert [problem.value for problem in of_rehearsal(build)] == ["it hangs"]
    write_rehearsal(build, commit=True)
    assert "the rerun must be rehearsed" in of_rehearsal(build)[0].rule
    # An earlier version of this project wrote no `image`.
    for settings in ('{"image": []}', '{"layout": "new"}'):
        write_rehearsal(build, settings=json.loads(settings))
        assert "the versions that the image has" in of_rehearsal(build)[0].rule
    (build.kaggle.parent / RehearsalReport.file_name).unlink()
    assert "there must be a rehearsal" in of_rehearsal(build)[0].rule


CHANGES: list[tuple[str, Callable[[Build], object]]] = [
    ("weights", lambda build: (build.model / "model.safetensors").write_bytes(b"other")),
    ("wheels", lambda build: (build.wheels / "new-1-py3-none-any.whl").write_bytes(b"x")),
    ("code", lambda build: (build.wheels / "mathlete-0.1.0-py3-none-any.whl").write_bytes(b"x")),
    ("notebook", lambda build: (build.kaggle / NOTEBOOK).write_text("{}")),
    ("metadata", lambda build: (build.kaggle / INSTANCE_FILE).write_text("{}")),
]


@pytest.mark.parametrize(("part", "change"), CHANGES)
def test_a_rehearsal_older_than_the_artefacts_does_not_count(
    part: str, change: Callable[[Build], object], build: Build
) -> None:
    change(build)
    (problem,) = of_rehearsal(build)
    assert part in problem.value


def metadata(build: Build, **changes: object) -> None:
    value = json.loads((build.kaggle / KERNEL_FILE).read_text())
    (build.kaggle / KERNEL_FILE).write_text(json.dumps({**value, **changes}))


def weights(build: Build, **config: object) -> None:
    (build.model / "config.json").write_text(json.dumps(config))


def mount_version(build: Build, version: int) -> None:
    own = build.names.model_source
    other = f"{build.names.model_instance}/{version}"
    for file in (build.kaggle / KERNEL_FILE, build.notebook):
        file.write_text(file.read_text().replace(own, other))


def big(build: Build) -> None:
    with (build.model / "model.safetensors").open("wb") as file:
        file.truncate(int(0.9 * 80 * 2**30))


def lose_a_shard(build: Build) -> None:
    shutil.copyfile(POCKET / "model.safetensors", build.model / "model-00001-of-00002.safetensors")


WRONG: list[tuple[Callable[[Build], Iterator[Refusal]], Callable[[Build], None], str]] = [
    (checks._wheels, lambda b: weights(b, quantization_config={"quant_method": "fp8"}), "must know how to serve"),
    (checks._wheels, lambda b: weights(b, quantization_config={"quant_method": "exl2"}), "must know how to serve"),
    (checks._sizes, big, "must leave memory"),
    (checks._names, lambda b: metadata(b, dataset_sources=["alice/other-wheels"]), "must look for what"),
    (checks._names, lambda b: metadata(b, id="alice/another-one", title="another one"), "id must be the build's"),
    (checks._names, lambda b: mount_version(b, 7), "must mount the version that the build has"),
    (lambda b: checks._cutoff(b, ""), lambda b: weights(b, _name_or_path="some/unknown"), "must be known"),
    (lambda b: checks._cutoff(b, ""), lambda b: weights(b, vocab_size=None), "must be known"),
    (lambda b: checks._cutoff(b, "2026-06-01"), lambda b: None, "released before 2026-03-15"),
    (lambda b: checks._cutoff(b, "June"), lambda b: None, "must be a day"),
    (checks._wheels, lambda b: weights(b, quantization_config=INT8), "must hold what the weights need"),
    (checks._wheels, lambda b: None, "must be those of SHA256SUMS"),
    (checks._gates, lambda b: write_json(b.model / "started.json", {}), "must have passed the gates"),
    (checks._export, lose_a_shard, "a model must have all files of its weights"),
]


@pytest.mark.parametrize(("look", "spoil", "says"), WRONG)
def test_each_check_names_rule_value_and_cure(
    look: Callable[[Build], Iterator[Refusal]], spoil: Callable[[Build], None], says: str, build: Build
) -> None:
    spoil(build)
    checks = list(look(build))
    assert any(says in problem.rule for problem in checks), checks
    assert all(problem.value and problem.cure for problem in checks)


def test_a_format_without_kernels_for_the_gpu_is_refused(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MOUNTED_FORMATS", (StoredFormat(stored_as="fp8", least=8.9),))
    weights(build, quantization_config={"quant_method": "fp8"})
    assert list(checks._gpu(build)) == []
    metadata(build, machine_shape="NvidiaTeslaT4")
    (refusal,) = checks._gpu(build)
    assert ("8.9" in refusal.rule, refusal.value) == (True, "NvidiaTeslaT4 has 7.5")


def test_what_is_right_passes_each_check(build: Build) -> None:
    for look in (checks._gates, checks._gpu, checks._sizes, checks._names, lambda b: checks._cutoff(b, "")):
        assert list(look(build)) == []


def test_a_build_of_a_refused_model_passes_with_the_reason_it_was_made_for(build: Build) -> None:
    write_json(build.model / "started.json", {})
    assert list(checks._gates(replace(build, accept_refused="the best we have"))) == []


@pytest.mark.parametrize(
    ("card", "base"),
    [
        (None, "config's"),
        ("no front matter", "config's"),
        ("---\nbase_model: a/DeepSeek-R1-Distill-Qwen-7B\n---\n", "a/DeepSeek-R1-Distill-Qwen-7B"),
        ('---\nbase_model: "a/DeepSeek-R1-Distill-Qwen-7B"\n---\n', "a/DeepSeek-R1-Distill-Qwen-7B"),
        ("---\nbase_model:\n- a/DeepSeek-R1-Distill-Qwen-7B\n---\n", "['a/DeepSeek-R1-Distill-Qwen-7B']"),
        ("---\nbase_model: [\n---\n", "config's"),
    ],
)
def test_the_base_is_read_out_of_the_card_as_the_hub_reads_it(card: str | None, base: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_name_or_path": "config's", "vocab_size": 152064}))
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert release._base_name(tmp_path) == base


def test_the_card_of_an_export_tells_its_base(build: Build, tmp_path: Path) -> None:
    source = ModelSource(name="deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", location=str(tmp_path))
    write_export_card(build.model, export_format=EXPORT_FORMATS["int8"], source=source, made_of={}, figures={})
    assert release._base_name(build.model) == source.name
    assert list(checks._cutoff(build, "")) == []
    # The pocket model's says no more than its name, and its vocabulary tells the rest.
    weights(build, vocab_size=576)
    write_export_card(
        build.model, export_format=EXPORT_FORMATS["int8"], source=find_model("pocket"), made_of={}, figures={}
    )
    assert list(checks._cutoff(build, "")) == []


def test_the_ledger_knows_a_submission_by_what_it_is_made_of(build: Build, tmp_path: Path) -> None:
    ledger, hashes = Ledger(tmp_path), build.hashes()
    ledger.append("build", hashes)
    ledger.append("rehearsal", hashes, outcome="valid", score=30.0, problems=50)
    ledger.append("push", hashes, version=3)
    ledger.append("score", hashes, score=31)
    ledger.append("build", replace(hashes, weights="other"))
    first, second = ledger.entries()
    assert (first.id, first.rehearsal, first.version, first.score) == (hashes.id, "valid 30/50", "3", "31")
    assert first.predicted == "22 to 38 of 50"
    assert (second.rehearsal, second.predicted, second.score) == ("–", "–", "–")


def test_a_line_cut_by_a_kill_is_dropped_and_the_rest_kept(build: Build, tmp_path: Path) -> None:
    ledger, file = Ledger(tmp_path), tmp_path / "ledger.jsonl"
    ledger.append("build", build.hashes())
    whole = file.read_bytes()
    for cut in range(1, len(whole)):
        file.write_bytes(whole + whole[:cut])
        assert len(ledger.events()) == 1
    ledger.append("push", build.hashes(), version=1)
    assert [event.kind for event in ledger.events()] == ["build", "push"]
    assert file.read_bytes().startswith(whole)


def test_a_line_that_is_no_event_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_text('{"other": 1}\n')
    with pytest.raises(UserError, match=r"ledger\.jsonl:1"):
        Ledger(tmp_path).events()


def test_many_processes_may_append_at_once(build: Build, tmp_path: Path) -> None:
    ledger, hashes = Ledger(tmp_path), build.hashes()
    children = []
    for _ in range(4):
        if (child := os.fork()) == 0:
            for number in range(25):
                ledger.append("score", hashes, score=number)
            os._exit(0)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    assert len(ledger.events()) == 100


@pytest.mark.parametrize("right", [0.0, 12.5, 50.0])
def test_the_interval_holds_the_share_that_was_seen(right: float) -> None:
    low, high = predicted_interval(right, 50, problems=50)
    assert 0 <= low <= right <= high <= 50


def save_version(build: Build, folder: Path) -> None:
    build.save(folder / "runs" / "submit")


def test_submit_sends_nothing_without_confirm_and_nothing_that_was_not_pushed(
    build: Build, workdir: Path, submit: CommandLine
) -> None:
    save_version(build, workdir)
    assert "must have been pushed" in submit("submit").refusal
    Ledger(workdir / "runs/submit").append("push", build.hashes(), version=3)
    assert submit("submit", "--json").result["submitted"] is False


def test_a_push_that_preflight_refuses_is_not_even_a_dry_run(build: Build, workdir: Path, submit: CommandLine) -> None:
    save_version(build, workdir)
    shown = submit("push", "--yes")
    assert shown.code == 2
    assert "NO  rehearsal" in shown.stdout
    assert "error: " in shown.stderr


CONTENTS = {"missing": None, "empty": b"", "binary": b"\xff\xfe\x00", "list": b"[]", "object": b"{}", "text": b'"x"'}
PARTS = [
    *(f"kaggle/{name}" for name in (KERNEL_FILE, NOTEBOOK, MODEL_FILE, INSTANCE_FILE, DATASET_FILE)),
    *("runs/submit/build.json", "runs/submit/rehearsal.json", "model/config.json", "wheels/SHA256SUMS"),
]
SPOILED = [
    (part, content) for part in PARTS for content in CONTENTS if (part, content) != ("model/config.json", "object")
]


def thin(rows: list[Any], *, step: int) -> list[Any]:
    """Return the rows for `parametrize`, of which one in so many runs always."""
    return sample(*rows[::step], slow=[row for index, row in enumerate(rows) if index % step])


@pytest.mark.parametrize(("part", "content"), thin(SPOILED, step=19))
def test_a_broken_file_is_one_sentence(
    part: str, content: str, build: Build, workdir: Path, submit: CommandLine
) -> None:
    save_version(build, workdir)
    shutil.copy(build.kaggle.parent / RehearsalReport.file_name, "runs/submit")
    file, data = {"runs": workdir}.get(part.split("/")[0], build.kaggle.parent) / part, CONTENTS[content]
    (build.wheels / SUMS).touch()
    assert file.is_file()
    if data is None:
        file.unlink()
    else:
        file.write_bytes(data)
    shown = submit("preflight")
    assert shown.code == 2
    assert shown.stderr.count("error: ") == 1
    assert file.name in shown.stdout + shown.stderr


WRONG_TYPES: list[tuple[str, Json]] = [
    ("runs/submit/build.json", {"names": 3}),
    ("runs/submit/build.json", {"names": {"colour": "blue"}}),
    ("runs/submit/build.json", {"config": []}),
    ("runs/submit/build.json", {"kaggle": None}),
    ("runs/submit/rehearsal.json", {"runs": 3}),
    ("runs/submit/rehearsal.json", {"settings": None}),
    ("model/config.json", {"vocab_size": "many"}),
    ("model/config.json", {"quantization_config": {"quant_method": []}}),
    (f"kaggle/{KERNEL_FILE}", {"model_sources": {"a": 1}}),
    (f"kaggle/{KERNEL_FILE}", {"code_file": None}),
    (f"kaggle/{KERNEL_FILE}", {"code_file": "a\x00b"}),
    (f"kaggle/{KERNEL_FILE}", {"keywords": [[]], "docker_image": 7, "title": []}),
    (f"kaggle/{INSTANCE_FILE}", {"licenseName": []}),
    (f"kaggle/{DATASET_FILE}", {"id": [], "licenses": 3, "title": {}}),
    (f"kaggle/{NOTEBOOK}", {"cells": 3}),
    (f"kaggle/{NOTEBOOK}", {"metadata": []}),
]


@pytest.mark.parametrize(("part", "change"), thin(WRONG_TYPES, step=6))
def test_a_value_of_another_type_is_one_sentence(
    part: str, change: Json, build: Build, workdir: Path, submit: CommandLine
) -> None:
    save_version(build, workdir)
    shutil.copy(build.kaggle.parent / RehearsalReport.file_name, "runs/submit")
    file = {"runs": workdir}.get(part.split("/")[0], build.kaggle.parent) / part
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    shown = submit("preflight")
    assert shown.code == 2
    assert shown.stderr.count("error: ") == 1


def test_a_score_is_written_by_its_id(build: Build, workdir: Path, submit: CommandLine) -> None:
    name = Ledger(Path("runs/submit")).append("build", build.hashes())
    assert submit("ledger", "--id", "nothing", "--score", "31").code == 2
    (row,) = submit("ledger", "--id", name, "--score", "31", "--json").result["submissions"]
    assert (row["id"], row["score"]) == (name, "31.0")
    assert row["built"].startswith(time.strftime("%Y", time.gmtime()))


def test_records_survive_their_json(build: Build) -> None:
    report = RehearsalReport(
        written=1.5,
        competition="aimo-3",
        hashes=asdict(build.hashes()),
        runs=(RunFigures(**RUN), RunFigures(**{**RUN, "outcome": "refused", "refusal": "it hangs"})),
        outcome="refused",
        problems=50,
        settings=Conditions(layout="old", image=("transformers==5.0.0",)),
    )
    assert RehearsalReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    event = Event(time=2.0, kind="score", id="a", hashes={"code": "c"}, score=31.0, number=7)
    assert Event.from_json(json.loads(json.dumps(event.to_json())), where="") == event
    upload = Upload(hash="h", version=3, done=False)
    assert Upload.from_json(json.loads(json.dumps(upload.to_json()))) == upload
    line = JournalLine(id="a", answer=3, fallback=False, why="", seconds=1.5, votes=(("3", 2), ("x", 1)))
    assert JournalLine.from_json({**json.loads(json.dumps(line.to_json())), "later": 1}) == line


@pytest.mark.parametrize(
    ("limit", "value"), [("right-min", "1.5"), ("fallbacks-max", "20"), ("tokens-per-s-min", "-1")]
)
@pytest.mark.parametrize("command", ["preflight", "push"])
def test_a_limit_that_refuses_nothing_is_refused(
    command: str, limit: str, value: str, build: Build, workdir: Path, submit: CommandLine
) -> None:
    build.save(Path("runs/submit"))
    assert f"--limits.{limit} must be" in submit(command, f"--limits.{limit}", value).refusal
