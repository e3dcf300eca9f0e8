"""Looks at Kaggle are repeated, acts happen once: every request of a push and a submission, with every lost answer."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from mathlete.delivery import Asking, Kaggle, Ledger, Waiting, push_build, submit_version, wait_for_score
from mathlete.delivery.asking import Unanswered
from mathlete.errors import UserError
from mathlete.submission.build import Build
from mathlete.submission.stamps import with_stamp
from tests.conftest import NAMES, CommandLine, sample
from tests.kaggle_standin import HANG_S, Fault, Scenario, run_on_kaggle, serve

QUICK = Waiting(poll_s=0.01, upload_max_s=5, run_max_s=5, settle_s=0.03, answer_max_s=HANG_S / 3)
ONCE = {"Dataset": 1, "Model": 1, "ModelInstance": 1, "Kernel": 1, "Submission": 1}


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Scenario]:
    """Kaggle, as far as the clients can tell: every request of theirs ends here."""
    with serve(tmp_path, monkeypatch) as state:
        state.output = run_on_kaggle(tmp_path)
        yield state


@dataclass
class Work:
    """One build on its way to a score, and what was said on that way."""

    build: Build
    folder: Path
    waiting: Waiting = QUICK
    said: list[str] = field(default_factory=list)

    @property
    def asking(self) -> Asking:
        return Asking(waiting=self.waiting, say=self.said.append)

    def connect(self) -> Kaggle:
        return self.asking.once(lambda: Kaggle(answer_max_s=self.waiting.answer_max_s), rule="Kaggle must let you in")

    def push(self, *, again: bool = False) -> int:
        return push_build(self.build, self.connect(), folder=self.folder, asking=self.asking, again=again).version

    def submit(self, *, again: bool = False) -> int:
        hashes, ledger = self.build.hashes(), Ledger(self.folder)
        version = ledger.versions(hashes)[-1]
        how: Any = {"hashes": hashes, "version": version, "message": "first", "ledger": ledger, "asking": self.asking}
        return submit_version(self.build, self.connect(), **how, again=again)

    def score(self) -> float:
        self.push()
        return wait_for_score(self.connect(), self.submit(), asking=self.asking)

    def in_thread(self, call: Any) -> Any:
        # In a thread, whose stack is short: kagglehub reads the source of every frame above it, for its user agent.
        with ThreadPoolExecutor(1) as one:
            return one.submit(call).result()


@pytest.fixture
def work(build: Build, tmp_path: Path) -> Work:
    return Work(build=build, folder=tmp_path)


KINDS = ("429", "500", "502", "503", "504", "520", "cut", "hang", "page")
LOOKS = (
    *("GetDataset", "GetDatasetStatus", "GetModel", "GetModelInstance", "GetKernel", "GetKernelSessionStatus"),
    *("ListKernelSessionOutput", "GET", "ListSubmissions", "GetSubmissionLimits", "GetSubmission"),
)
ACTS = ("StartBlobUpload", "CreateDataset", "CreateModel", "CreateModelInstance", "SaveKernel", "CreateCodeSubmission")
ROWS = [
    *((request, kind, False) for request in LOOKS for kind in KINDS),
    *((request, kind, after) for request in ACTS for kind in KINDS for after in (False, True)),
]
FAST = [
    *(("GetKernelSessionStatus", "503", False), ("GET", "500", False)),
    *(("SaveKernel", "502", True), ("CreateCodeSubmission", "503", False)),
]


@pytest.mark.parametrize(("request_", "kind", "after"), sample(*FAST, slow=[row for row in ROWS if row not in FAST]))
def test_a_lost_answer_costs_nothing(request_: str, kind: str, *, after: bool, kaggle: Scenario, work: Work) -> None:
    """One row: the first answers to a request are lost, before or after it counted; it counts once all the same."""
    kaggle.fail = {request_: [Fault(kind, after=after)] * (3 if request_ in LOOKS else 1)}
    # To repeat what can't be taken back is left to the user, where Kaggle shows nothing of it.
    if request_ == "CreateCodeSubmission" and not after and kind != "429":
        with pytest.raises(UserError, match=r"may have counted(.|\n)*looks first"):
            work.in_thread(work.score)
        assert kaggle.acts()["Submission"] == 0
    assert work.in_thread(work.score) == 31
    assert kaggle.acts() == ONCE
    assert not kaggle.fail[request_]
    if request_ in ACTS and kind != "429":
        assert any("may have counted" in line for line in work.said)
    kaggle.calls.clear()
    assert work.in_thread(work.submit) == 77
    assert kaggle.acts() == ONCE


VERSIONS = [
    (request, kind, after)
    for request in ("CreateDatasetVersion", "CreateModelInstanceVersion")
    for kind in KINDS
    for after in (False, True)
]


@pytest.mark.parametrize(
    ("request_", "kind", "after"),
    sample(VERSIONS[-5], slow=[*VERSIONS[:-5], *VERSIONS[-4:]]),
)
def test_a_lost_answer_to_a_next_version_makes_no_second_one(
    request_: str, kind: str, *, after: bool, kaggle: Scenario, work: Work
) -> None:
    kaggle.versions.update({"Dataset": 4, "Model": 1, "ModelInstance": 6})
    work.build = replace(work.build, names=replace(work.build.names, model_version=7))
    kaggle.fail = {request_: [Fault(kind, after=after)]}
    assert work.in_thread(work.push) == 1
    assert kaggle.acts() == {"Dataset": 5, "Model": 1, "ModelInstance": 7, "Kernel": 1, "Submission": 0}


def kill(*arguments: object, **more: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", sample("push.wait_for_run", slow=["push.say_where", "push.check_output"]))
def test_a_push_killed_after_the_save_goes_on_with_the_version(
    where: str, kaggle: Scenario, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(f"mathlete.delivery.{where}", kill)
        with pytest.raises(KeyboardInterrupt):
            work.in_thread(work.push)
    assert work.in_thread(work.push) == 1
    assert kaggle.acts()["Kernel"] == 1


def test_a_push_killed_before_it_could_write_the_version_down_finds_it(
    kaggle: Scenario, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Ledger.append

    def die_at(self: Ledger, kind: Any, *arguments: Any, **more: Any) -> str:
        if kind == "saved":
            raise KeyboardInterrupt
        return real(self, kind, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", die_at)
        with pytest.raises(KeyboardInterrupt):
            work.in_thread(work.push)
    assert work.in_thread(work.push) == 1
    assert kaggle.acts()["Kernel"] == 1
    assert any("looked at first" in line for line in work.said)


def test_a_version_that_somebody_else_saved_is_not_taken_for_this_one(kaggle: Scenario, work: Work) -> None:
    other = '{"cells": [{"source": "another notebook"}]}'
    kaggle.versions["Kernel"], kaggle.source = 4, other
    kaggle.fail = {"SaveKernel": [Fault("503")]}
    assert work.in_thread(work.push) == 5


def test_a_submission_is_found_by_its_mark_where_the_ledger_knows_none(kaggle: Scenario, work: Work) -> None:
    work.in_thread(work.push)
    assert work.in_thread(work.submit) == 77
    lines = (work.folder / "ledger.jsonl").read_text().splitlines(keepends=True)
    (work.folder / "ledger.jsonl").write_text("".join(line for line in lines if '"submission"' not in line))
    assert work.in_thread(work.submit) == 77
    assert len(kaggle.submitted) == 1
    assert kaggle.submitted[0]["submissionDescription"] == f"[{work.build.hashes().id} v1] first"


def test_a_second_submission_is_made_when_it_is_asked_for(kaggle: Scenario, work: Work) -> None:
    kaggle.left = 2
    work.in_thread(work.score)
    kaggle.fail = {"CreateCodeSubmission": [Fault("500", after=True)]}
    assert work.in_thread(lambda: work.submit(again=True)) == 78
    assert kaggle.acts()["Submission"] == 2
    with pytest.raises(UserError, match="none left"):
        work.in_thread(lambda: work.submit(again=True))
    assert kaggle.acts()["Submission"] == 2


def tied(build: Build, build_hash: str) -> None:
    """Write a build's hash into the notebook, or take it out."""
    text = build.notebook.read_text()
    build.notebook.write_text(with_stamp(text, build_hash) if build_hash else text.replace('"build', '"no-build'))
    assert build.stamp == build_hash


def test_a_stale_complete_is_not_taken_for_this_version(kaggle: Scenario, work: Work, tmp_path: Path) -> None:
    old, new = "0" * 12, "a1" * 6
    tied(work.build, new)
    kaggle.statuses = ["COMPLETE", "COMPLETE", "QUEUED", "RUNNING", "COMPLETE"]
    kaggle.outputs = [run_on_kaggle(tmp_path, answers=(0, 0, -1), build=old)] * 2
    kaggle.output = run_on_kaggle(tmp_path, build=new)
    assert work.in_thread(work.push) == 1
    assert new in (tmp_path / "output" / "journal.jsonl").read_text()
    assert any(f"session before, COMPLETE, of build {old}" in line for line in work.said)


def test_a_stale_error_is_not_this_versions(kaggle: Scenario, work: Work, tmp_path: Path) -> None:
    kaggle.statuses = ["ERROR", "QUEUED", "RUNNING", "COMPLETE"]
    kaggle.outputs = [run_on_kaggle(tmp_path, build="0" * 12)]
    assert work.in_thread(work.push) == 1


def test_a_stale_complete_of_a_notebook_without_a_hash_gives_way(kaggle: Scenario, work: Work, tmp_path: Path) -> None:
    tied(work.build, "")
    kaggle.statuses = ["COMPLETE", "QUEUED", "RUNNING", "COMPLETE"]
    kaggle.outputs = [run_on_kaggle(tmp_path, answers=(0, 0, -1), build="")]
    kaggle.output = run_on_kaggle(tmp_path, build="")
    assert work.in_thread(work.push) == 1


ANOTHERS = [("0" * 12, "of build 000000000000"), ("", "must carry the hash of its build")]


@pytest.mark.parametrize(("carried", "says"), ANOTHERS)
def test_an_output_of_another_build_is_refused(
    carried: str, says: str, kaggle: Scenario, work: Work, tmp_path: Path
) -> None:
    tied(work.build, "a1" * 6)
    kaggle.output = run_on_kaggle(tmp_path, build=carried)
    # Of one that never comes all passes; an end is seen at the second look, which a busy machine takes long for.
    work.waiting = replace(QUICK, run_max_s=0.3 if carried else 30.0)
    with pytest.raises(UserError) as caught:
        work.in_thread(work.push)
    assert says in "\n".join([*work.said, str(caught.value)])
    assert not (tmp_path / "output").exists()
    assert Ledger(work.folder).versions(work.build.hashes()) == []


def test_each_version_is_asked_for_by_its_number(kaggle: Scenario, work: Work) -> None:
    work.in_thread(work.push)
    asked = {name: body.get("versionLabel") for name, body in kaggle.calls}
    assert (asked["GetKernelSessionStatus"], asked["ListKernelSessionOutput"]) == ("v1", "v1")


def test_states_that_are_not_known_are_shown_and_waited_for(kaggle: Scenario, work: Work) -> None:
    kaggle.statuses = ["QUEUED", "HIBERNATING", "RUNNING", "COMPLETE"]
    kaggle.scores = ["PENDING", "RECOUNTED", "COMPLETE"]
    kaggle.wheels = ["403", "404", "BLOBS_RECEIVED", "SHREDDING", "READY"]
    assert work.in_thread(work.score) == 31
    assert sum("not known here" in line for line in work.said) == 2
    assert any("HTTP 403" in line for line in work.said)


def test_a_full_set_of_gpu_sessions_is_waited_out(kaggle: Scenario, work: Work) -> None:
    kaggle.full = 4
    assert work.in_thread(work.push) == 1
    assert kaggle.names().count("SaveKernel") == 5
    assert any("session count of 2" in line for line in work.said)


def test_the_quota_is_told_before_anything_is_sent(kaggle: Scenario, work: Work) -> None:
    work.in_thread(work.push)
    assert "GPU quota of this week: 29.0 h left · submissions: 0 today, 1 left" in work.said
    kaggle.fail = {"GetAcceleratorQuotaStatistics": [Fault("503")]}
    assert work.in_thread(lambda: work.push(again=True)) == 2
    assert any("not known: HTTP 503" in line for line in work.said)


def test_credentials_of_another_account_send_nothing(
    kaggle: Scenario, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", "bob")
    with pytest.raises(UserError, match="bob in KAGGLE_USERNAME and KAGGLE_KEY, the build is for alice"):
        work.in_thread(work.push)
    assert kaggle.names() == []


def test_dropped_sources_are_remembered_with_the_version(kaggle: Scenario, work: Work) -> None:
    kaggle.save = {"invalidModelSources": ["alice/mathlete-model/transformers/int8/1"]}
    for _ in range(2):
        with pytest.raises(UserError, match="saved version 1 without some"):
            work.in_thread(work.push)
    assert kaggle.acts()["Kernel"] == 1


def test_retry_after_is_kept_to_as_seconds_and_as_a_date(kaggle: Scenario, work: Work) -> None:
    client = work.connect()
    # A date has whole seconds.
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=2.5), usegmt=True)
    for retry_after, least_s in (("0.4", 0.4), (date, 0.6)):
        kaggle.fail = {"ListSubmissions": [Fault("429", retry_after=retry_after)]}
        began = time.monotonic()
        assert work.asking.once(lambda: client.submissions("cup"), rule="the list") == []
        assert time.monotonic() - began >= least_s


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("kind", ["empty", "typed"])
def test_a_reply_without_its_number_may_have_counted(kind: str, *, after: bool, kaggle: Scenario, work: Work) -> None:
    kaggle.fail = {"SaveKernel": [Fault(kind, after=after)], "CreateCodeSubmission": [Fault(kind, after=after)]}
    assert work.in_thread(work.push) == 1
    if after:
        assert work.submit() == kaggle.submitted[0]["ref"]
    else:
        # A second submission could not be taken back.
        with pytest.raises(UserError, match="may have counted"):
            work.submit()
        work.submit()
    assert kaggle.acts() == ONCE


def test_a_retry_after_that_is_no_time_is_none(kaggle: Scenario, work: Work) -> None:
    client, odd = work.connect(), ("nan", "inf", "-1", "soon", "0x10", "Mon, 99 Nov 2026 00:00:00 GMT")
    kaggle.fail = {"ListSubmissions": [Fault("429", retry_after=one) for one in odd]}
    assert work.asking.once(lambda: client.submissions("cup"), rule="the list") == []


@pytest.mark.parametrize("score", ["", "nan", "inf", "pending"])
def test_a_score_that_is_no_number_is_none(score: str, kaggle: Scenario, work: Work) -> None:
    number = work.connect().submit(NAMES, competition_slug="cup", version=1, message="first")
    kaggle.score = score
    with pytest.raises(UserError, match="must end with a score"):
        wait_for_score(work.connect(), number, asking=work.asking)


def test_a_look_ends_at_its_limit_with_what_was_last_heard() -> None:
    def look() -> int:
        raise Unanswered("it must be there", value="HTTP 503: down", cure="wait")

    said: list[str] = []
    asking = Asking(waiting=replace(QUICK, poll_s=0.05), say=said.append)
    with pytest.raises(UserError, match=r"not within 0\.2 s: HTTP 503: down") as caught:
        asking.until(look, limit_s=0.2, rule="it must be there")
    assert "run the same command again" in caught.value.cure
    assert len(said) == 1


def test_the_command_submits_a_version_once(kaggle: Scenario, build: Build, workdir: Path, submit: CommandLine) -> None:
    build.save(Path("runs/submit"))
    ledger = Ledger(Path("runs/submit"))
    ledger.append("push", build.hashes(), version=1)
    words = ("submit", "--yes", "--wait", "--waiting.poll-s", "0.01", "--json")
    assert submit(*words).result["score"] == 31
    assert submit(*words).result["number"] == 77
    assert len(kaggle.submitted) == 1
    assert [event.kind for event in ledger.events()] == ["push", "submission", "score", "score"]
