"""The push against a stand-in of Kaggle's API on the loopback, with Kaggle's real clients; nothing else is asked."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mathlete.competitions import competition
from mathlete.delivery.asking import Asking, Waiting
from mathlete.delivery.kaggle_client import Kaggle
from mathlete.delivery.naming import next_model_version
from mathlete.delivery.push import plan_push, push_build
from mathlete.delivery.uploads import UPLOADS
from mathlete.errors import UserError
from mathlete.kaggle_image import VLLM_LOCK
from mathlete.kernel import JOURNAL
from mathlete.rehearsal import check_output
from mathlete.runs import read_json
from mathlete.submission.build import Build
from mathlete.submission.metadata import INSTANCE_FILE, NOTEBOOK, write_metadata
from mathlete.submission.vllm_notebook import write_downloads
from tests.conftest import NAMES, sample
from tests.kaggle_standin import Fault, Json, Scenario, run_on_kaggle, serve

QUICK = Waiting(poll_s=0.01, upload_max_s=5, run_max_s=5, settle_s=0.02, answer_max_s=5)


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Scenario]:
    """Kaggle, as far as the clients can tell: every request of theirs ends here."""
    with serve(tmp_path, monkeypatch) as state:
        state.output = run_on_kaggle(tmp_path)
        yield state


@pytest.fixture
def build(build: Build) -> Build:
    """A build with weights of a megabyte: what is in its files does not matter to a push."""
    (build.model / "model.safetensors").write_bytes(bytes(range(256)) * 4000)
    (build.wheels / "manifest.json").write_text("{}")
    return build


def push_in_thread(build: Build, folder: Path, *, again: bool = False, waiting: Waiting = QUICK) -> Any:
    # In a thread, whose stack is short: kagglehub reads the source of every frame above it, for its user agent.
    asking = Asking(waiting=waiting, say=lambda text: None)
    with ThreadPoolExecutor(1) as one:
        return one.submit(lambda: push_build(build, Kaggle(), folder=folder, asking=asking, again=again)).result()


def test_a_push_uploads_saves_waits_and_checks(kaggle: Scenario, build: Build, tmp_path: Path) -> None:
    assert push_in_thread(build, tmp_path).version == 1
    names = kaggle.names()
    assert [name for name in names if name.startswith(("Create", "Save"))] == [
        "CreateDataset",
        "CreateModel",
        "CreateModelInstance",
        "SaveKernel",
    ]
    assert {blob["name"] for blob in kaggle.blobs.values()} == {
        "mathlete-0.1.0-py3-none-any.whl",
        "model.safetensors",
        "config.json",
    }
    assert all(len(blob["data"]) == blob["size"] for blob in kaggle.blobs.values())
    sent = dict(kaggle.calls)["SaveKernel"]
    assert sent["enableInternet"] is False
    assert sent["machineShape"] == "NvidiaH100"
    assert sent["modelDataSources"] == ["alice/mathlete-model/transformers/int8/1"]
    assert dict(kaggle.calls)["CreateModelInstance"]["body"]["licenseName"] == "Apache 2.0"


@pytest.fixture
def served(build: Build) -> Build:
    """The build with vLLM as its engine, and the notebook that downloads its wheels."""
    write_downloads(build.kaggle, NAMES, lock="a==1 --hash=sha256:0", image="")
    rules, licence = competition("aimo-3"), "Apache 2.0"
    write_metadata(
        build.kaggle, NAMES, rules=rules, machine=None, image="", licence=licence, weights="int8", vllm="notebook"
    )
    return replace(build, vllm="notebook")


def test_the_wheels_of_vllm_are_downloaded_by_a_notebook_that_is_saved_once(
    kaggle: Scenario, served: Build, tmp_path: Path
) -> None:
    assert "downloads the wheels on Kaggle" in "".join(plan_push(served, folder=tmp_path))
    push_in_thread(served, tmp_path)
    saves = [body for name, body in kaggle.calls if name == "SaveKernel"]
    assert [(save["slug"], save["enableInternet"]) for save in saves] == [
        ("alice/mathlete-vllm", True),
        ("alice/mathlete-submission", False),
    ]
    assert saves[1]["kernelDataSources"] == ["alice/mathlete-vllm"]
    push_in_thread(served, tmp_path, again=True)
    assert [name for name in kaggle.names() if name == "SaveKernel"] == ["SaveKernel"] * 3
    assert "unchanged" in "".join(line for line in plan_push(served, folder=tmp_path, again=True) if "vLLM" in line)


def test_a_download_that_fails_on_kaggle_stops_the_push_before_the_notebook(
    kaggle: Scenario, served: Build, tmp_path: Path
) -> None:
    kaggle.statuses = ["QUEUED", "RUNNING", "ERROR"]
    with pytest.raises(UserError, match="mathlete-vllm must download vLLM's wheels, got ERROR") as refused:
        push_in_thread(served, tmp_path)
    assert "--vllm-wheels" in refused.value.cure
    assert kaggle.names().count("SaveKernel") == 1


def test_vllms_wheels_from_here_are_a_data_set_of_their_own(kaggle: Scenario, build: Build, tmp_path: Path) -> None:
    folder = tmp_path / "vllm-wheels"
    folder.mkdir()
    (folder / "vllm-0.19.1-py3-none-any.whl").write_bytes(b"vllm")
    (folder / VLLM_LOCK).write_text("vllm==0.19.1")
    push_in_thread(replace(build, vllm="dataset", vllm_wheels=folder), tmp_path)
    assert kaggle.acts()["Dataset"] == 2
    assert {"vllm-0.19.1-py3-none-any.whl", VLLM_LOCK} <= {blob["name"] for blob in kaggle.blobs.values()}


def test_what_did_not_change_is_not_sent_again(kaggle: Scenario, build: Build, tmp_path: Path) -> None:
    push_in_thread(build, tmp_path)
    assert sum("unchanged" in line for line in plan_push(build, folder=tmp_path, again=True)) == 2
    kaggle.calls.clear()
    assert push_in_thread(build, tmp_path, again=True).version == 2
    assert "StartBlobUpload" not in kaggle.names()
    assert kaggle.acts() == {"Dataset": 1, "Model": 1, "ModelInstance": 1, "Kernel": 2, "Submission": 0}


def test_a_build_that_is_pushed_is_not_saved_again_unasked(kaggle: Scenario, build: Build, tmp_path: Path) -> None:
    push_in_thread(build, tmp_path)
    kaggle.calls.clear()
    assert push_in_thread(build, tmp_path).version == 1
    assert kaggle.names() == []
    assert "version 1 of this build is saved" in plan_push(build, folder=tmp_path)[0]
    # An edited notebook is another one, though the build's id is the same.
    notebook = build.notebook.read_text()
    build.notebook.write_text(notebook.replace('"cells"', '"cells" '))
    assert push_in_thread(build, tmp_path).version == 2


def test_changed_weights_need_the_next_version_and_are_refused_before_anything_is_sent(
    kaggle: Scenario, build: Build, tmp_path: Path
) -> None:
    push_in_thread(build, tmp_path)
    (build.model / "config.json").write_text('{"changed": true}')
    (build.wheels / "more-1-py3-none-any.whl").write_bytes(b"more")
    kaggle.calls.clear()
    with pytest.raises(UserError, match="the next one on Kaggle is 2"):
        push_in_thread(build, tmp_path)
    assert not [name for name in kaggle.names() if name.startswith(("Create", "Save", "Start"))]
    assert next_model_version(NAMES, weights=build.hashes().weights, folder=tmp_path) == 2
    second = replace(build, names=replace(NAMES, model_version=2))
    assert push_in_thread(second, tmp_path).version == 2
    assert {"CreateDatasetVersion", "CreateModelInstanceVersion"} <= set(kaggle.names())


def test_a_push_killed_after_the_upload_goes_on_with_the_version_it_made(
    kaggle: Scenario, build: Build, tmp_path: Path
) -> None:
    push_in_thread(build, tmp_path)
    uploads = read_json(tmp_path / UPLOADS)
    for upload in uploads.values():
        upload["done"] = False  # type: ignore[index]
    (tmp_path / UPLOADS).write_text(json.dumps(uploads))
    kaggle.calls.clear()
    push_in_thread(build, tmp_path, again=True)
    assert "StartBlobUpload" not in kaggle.names()


REFUSALS = [
    ({"full": 10**6}, "batch GPU session"),
    ({"save": {"error": "You have used your GPU quota"}}, "GPU quota"),
    ({"save": {"invalidModelSources": ["alice/mathlete-model/transformers/int8/1"]}}, "model_sources alice/math"),
    ({"save": {"invalidDatasetSources": ["alice/mathlete-wheels"]}}, "dataset_sources alice/mathlete-wheels"),
    ({"save": {"invalidCompetitionSources": ["x"]}}, "competition_sources x"),
    ({"statuses": ["RUNNING", "ERROR"]}, "ERROR it ran out of memory"),
    ({"statuses": ["CANCEL_ACKNOWLEDGED"]}, "CANCEL_ACKNOWLEDGED"),
    ({"fail": {"SaveKernel": [Fault("401")]}}, "HTTP 401"),
    ({"fail": {"SaveKernel": [Fault("429")] * 10**6}}, "HTTP 429"),
    ({"fail": {"SaveKernel": [Fault("502")] * 10**6}}, "may have counted"),
    ({"fail": {"StartBlobUpload": [Fault("401")]}}, "HTTP 401"),
    ({"fail": {"GetModelInstance": [Fault("401")]}}, "HTTP 401"),
    ({"fail": {"GetModelInstance": [Fault("503")] * 10**6}}, "HTTP 503"),
    ({"wheels": ["FAILED"]}, "FAILED"),
    ({"fail": {"GetDatasetStatus": [Fault("404")] * 10**6}}, "If it was deleted on Kaggle, delete the entry"),
]


@pytest.mark.parametrize(("scenario", "says"), sample(*REFUSALS[:4], slow=REFUSALS[4:]))
def test_what_kaggle_refuses_or_drops_stops_the_push(
    scenario: Json, says: str, kaggle: Scenario, build: Build, tmp_path: Path
) -> None:
    for name, value in scenario.items():
        setattr(kaggle, name, value)
    endless = kaggle.full or any(len(faults) > 1 for faults in kaggle.fail.values())
    waiting = replace(QUICK, upload_max_s=0.3, run_max_s=0.3) if endless else QUICK
    with pytest.raises(UserError, match=says) as caught:
        push_in_thread(build, tmp_path, waiting=waiting)
    assert caught.value.cure


def test_a_tag_that_kaggle_does_not_know_costs_nothing(kaggle: Scenario, build: Build, tmp_path: Path) -> None:
    kaggle.save = {"invalidTags": ["gpu"]}
    assert push_in_thread(build, tmp_path).version == 1


def test_a_cut_upload_goes_on_where_it_was_cut(kaggle: Scenario, build: Build, tmp_path: Path) -> None:
    kaggle.cut_after = 300_000
    push_in_thread(build, tmp_path)
    (weights,) = [blob for blob in kaggle.blobs.values() if blob["name"] == "model.safetensors"]
    assert weights["data"] == (build.model / "model.safetensors").read_bytes()
    assert kaggle.names().count("CreateModelInstance") == 1


def test_a_notebook_above_1_mb_is_refused_with_kaggles_words(kaggle: Scenario, build: Build, tmp_path: Path) -> None:
    notebook = read_json(build.kaggle / NOTEBOOK)
    notebook["cells"][0]["source"] = "x" * 1_100_000  # type: ignore[index]
    (build.kaggle / NOTEBOOK).write_text(json.dumps(notebook))
    with pytest.raises(UserError, match="less than 1 megabytes"):
        push_in_thread(build, tmp_path)


OUTPUTS = [
    (run_on_kaggle, {"answers": (0, 0, -1)}, "out of range"),
    (run_on_kaggle, {"fallback": True}, "the model must answer on Kaggle"),
]


@pytest.mark.parametrize(("make", "how", "says"), OUTPUTS)
def test_an_output_that_would_score_nothing_is_refused(
    make: Any, how: Json, says: str, build: Build, tmp_path: Path
) -> None:
    for name, content in make(tmp_path, **how).items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says):
        check_output(tmp_path, build)


def test_a_line_of_the_journal_that_a_full_disk_cost_is_read_in_the_log(build: Build, tmp_path: Path) -> None:
    output = run_on_kaggle(tmp_path)
    facts, _, answers = output[JOURNAL].partition(b"\n")
    for name, content in {**output, JOURNAL: answers, f"{build.names.kernel}.log": facts}.items():
        (tmp_path / name).write_bytes(content)
    assert "3 questions, 0 fallbacks" in check_output(tmp_path, build)


def test_an_output_without_a_file_is_refused(build: Build, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must write submission\.parquet"):
        check_output(tmp_path, build)


def test_more_than_50_files_are_not_uploaded_as_one_archive(kaggle: Scenario, build: Build, tmp_path: Path) -> None:
    for number in range(51):
        (build.wheels / f"w{number}-1-py3-none-any.whl").write_bytes(b"w")
    with pytest.raises(UserError, match="at most 50 files"):
        push_in_thread(build, tmp_path)


def test_without_credentials_nothing_is_asked(kaggle: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_KEY")
    with pytest.raises(UserError, match="credentials"):
        Kaggle()
    assert not kaggle.calls


def test_a_redirection_the_client_would_ignore_is_refused(kaggle: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
    with pytest.raises(UserError, match="ignores other values"):
        Kaggle()


def test_a_version_is_submitted_and_its_score_read(kaggle: Scenario) -> None:
    client = Kaggle()
    slug = "ai-mathematical-olympiad-progress-prize-3"
    number = client.submit(NAMES, competition_slug=slug, version=3, file_name="submission.parquet", message="first")
    assert [client.submission(number).score for _ in range(2)] == ["", "31"]
    sent = dict(kaggle.calls)["CreateCodeSubmission"]
    assert (sent["kernelSlug"], sent["kernelVersion"]) == ("mathlete-submission", 3)


def test_kaggles_own_command_pushes_the_same_folder(kaggle: Scenario, build: Build, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("kaggle")), "kernels", "push", "-p", str(build.kaggle)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "version 1 successfully pushed" in done.stdout, done.stdout + done.stderr
    Kaggle().save_kernel(build.kaggle)
    first, second = (body for name, body in kaggle.calls if name == "SaveKernel")
    assert first == second
    assert read_json(build.kaggle / INSTANCE_FILE)["framework"] == "transformers"
