"""The rehearsal, end to end: the real notebook, engine, gateway and scorer; with each fault put in (minutes)."""

import json
import re
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import pytest

from mathlete.competitions import competition
from mathlete.errors import UserError
from mathlete.kaggle_image import image_packages
from mathlete.kernel import read_journal
from mathlete.problems import Problem, read_problems
from mathlete.rehearsal import RehearsalSettings, choose_canaries, containers, fault_matrix, rehearse, rehearse_fault
from mathlete.rehearsal.fault_matrix import FAULTS
from mathlete.rehearsal.faults import Fault
from mathlete.rehearsal.gateway.behaviours import PACKAGES
from mathlete.rehearsal.gateway.iterator import Environment
from mathlete.rehearsal.runner import notebook_log
from mathlete.rehearsal.scorer import answers_in
from mathlete.rehearsal.verdict import Rehearsed
from mathlete.rehearsal.vllm_faults import VLLM_FAULTS
from mathlete.sampling.samples import SamplingConfig
from mathlete.submission.build import Build
from submit.matrix import QUESTIONS
from tests.conftest import POCKET_VAL, CommandLine, make_once, with_settings


@pytest.fixture
def here(built: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(built)
    return built


def read_asked(count: int) -> list[Problem]:
    return choose_canaries(read_problems(POCKET_VAL), count=count, rules=competition("aimo-3"))


def one(build: Build, folder: Path, *, questions: int = 3, **how: object) -> Rehearsed:
    settings = replace(RehearsalSettings(), **how)  # type: ignore[arg-type]
    return rehearse(build, read_asked(questions), settings, folder=folder)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["old", "new"])
@pytest.mark.parametrize("rerun", [True, False])
def test_the_pocket_build_passes_in_both_layouts_and_both_runs(
    layout: str, rerun: bool, here: Path, tmp_path: Path
) -> None:
    rehearsed = one(Build.load(Path("runs/submit")), tmp_path / "stage", layout=layout, rerun=rerun)
    assert rehearsed.refusal is None
    assert len(rehearsed.answers) == len(rehearsed.journal) == 3
    assert not any("http" in line.why for line in rehearsed.journal)
    # What the progress bar reads while it runs is what the journal holds at the end.
    assert read_journal(notebook_log(tmp_path / "stage")) == rehearsed.journal


@pytest.mark.slow
def test_forced_answers_are_rehearsed_and_counted(here: Path, tmp_path: Path) -> None:
    """A cap that cuts most samples: what votes then is what they were made to say."""
    build = Build.load(Path("runs/submit"))
    sampling = replace(build.config.policy.sampling, max_tokens=24)
    policy = replace(build.config.policy, stop="none", harvest=0.5, sampling=sampling)
    rehearsed = one(with_settings(build, tmp_path / "kaggle", policy=policy), tmp_path / "stage")
    assert rehearsed.refusal is None
    assert sum(line.forced for line in rehearsed.journal) >= 3
    assert sum(line.forced_answers for line in rehearsed.journal) > 0
    for line in rehearsed.journal:
        assert line.seconds <= line.limit_s + line.load_s + 5
        assert not line.fallback or not line.forced_answers


@pytest.mark.slow
def test_a_build_of_vllm_is_rehearsed_without_vllm_and_says_so(workdir: Path, submit: CommandLine) -> None:
    assert submit("build", "--model", "pocket", "--names.owner", "alice", "--engine", "vllm", "--n", 2).code == 0
    words = ("--questions", 2, "--runs", 1, "--vllm", "none", "--image", "none")
    done = submit("rehearse", *words, "--json")
    assert (done.code, [run["outcome"] for run in done.result["runs"]]) == (0, ["valid", "valid"])
    assert "without vLLM, of which this rehearsal says nothing" in done.stderr
    assert all(run["left"] for run in done.result["runs"])
    assert done.result["settings"]["skips_vllm"]
    assert "rehearsal without vLLM, of which it says nothing" in submit("preflight").stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["aimo-1", "aimo-2"])
def test_the_other_competitions_are_rehearsed_too(name: str, here: Path, tmp_path: Path) -> None:
    build = Build.load(Path("runs/submit"))
    build = with_settings(build, tmp_path / "kaggle", competition=competition(name))
    rehearsed = one(build, tmp_path / "stage")
    assert rehearsed.refusal is None
    assert len(rehearsed.answers) == 3


@pytest.mark.slow
@pytest.mark.parametrize("rerun", [True, False])
def test_without_namespaces_the_rehearsal_says_so_and_blocks_the_network_in_python(
    rerun: bool, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "namespaces_work", lambda: False)
    build = Build.load(Path("runs/submit"))
    rehearsed = one(build, tmp_path / "stage", rerun=rerun)
    assert rehearsed.refusal is None
    assert rehearsed.figures().isolation == "interpreter"
    settings = RehearsalSettings(rerun=rerun)
    fault = FAULTS["network-in-cell"].inject
    refused = rehearse(build, read_asked(3), settings, folder=tmp_path / "network", fault=fault)
    assert refused.refusal is not None
    assert "(rehearsal)" in (tmp_path / "network" / "stage" / "notebook.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("after", "speed"), [(2.0, 50.0), (1.2, 100.0)])
def test_a_failure_while_the_machine_got_busier_is_tried_again_on_a_slower_clock(
    after: float, speed: float, here: Path, tmp_path: Path
) -> None:
    build = Build.load(Path("runs/submit"))
    # One token is never an answer, so both tries are refused.
    policy = replace(build.config.policy, sampling=SamplingConfig(max_tokens=1))
    speechless = with_settings(build, tmp_path / "kaggle", policy=policy)
    busy = iter([1.0, after])
    settings, folder = RehearsalSettings(), tmp_path / "stage"
    rehearsed = rehearse(speechless, read_asked(2), settings, folder=folder, measure=lambda: next(busy))
    assert rehearsed.refusal is not None
    assert "without an answer" in rehearsed.refusal.value
    assert f"speed_up({speed})" in (folder / "submission.ipynb").read_text()


@pytest.mark.parametrize("where", ["tmp/work", "home/work"])
def test_a_checkout_below_tmp_or_home_has_its_interpreter_but_not_its_code_in_the_notebook(where: str) -> None:
    checkout = Path("/", where)
    inside, outside = checkout / ".venv", Path("/usr")
    assert containers._needs_mount([inside, outside], hidden=checkout) == [inside]
    assert (inside in containers._needs_mount([inside], hidden=None)) == (not where.startswith("home"))


@pytest.fixture(scope="session")
def built_of_vllm(tmp_path_factory: pytest.TempPathFactory, submit: CommandLine) -> Path:
    """A folder in which the pocket model was built for vLLM, in runs/submit and kaggle."""

    def build(folder: Path) -> None:
        words = ("--model", "pocket", "--names.owner", "mathlete-demo", "--engine", "vllm", "--n", 4)
        with chdir(folder):
            assert submit("build", *words, "--json").result["engine"] == "vllm"

    return make_once(tmp_path_factory, "built-of-vllm", build)


def load_build(fault: Fault, request: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> Build:
    """Return the build that a fault strikes, from the folder that the test stands in then."""
    if fault.needs == "vllm":
        patch.chdir(request.getfixturevalue("built_of_vllm"))
    return Build.load(Path("runs/submit"))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_ends_in_a_valid_submission_or_a_refusal(
    name: str, here: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = FAULTS[name]
    build = load_build(fault, request, monkeypatch)
    result = rehearse_fault(fault, build, read_asked(QUESTIONS), RehearsalSettings(), folder=tmp_path / name)
    rehearsed = result.rehearsed
    assert rehearsed.outcome == fault.expect_with("0.9.0"), rehearsed.refusal
    assert result.struck
    assert result.unsaid == ()
    if rehearsed.refusal:
        assert rehearsed.refusal.rule
        assert rehearsed.refusal.value
        assert rehearsed.refusal.cure
    else:
        assert len(rehearsed.answers) == QUESTIONS


@pytest.mark.slow
def test_the_fault_of_contributing_is_put_in_and_survived(root: Path, here: Path, tmp_path: Path) -> None:
    part = (root / "CONTRIBUTING.md").read_text(encoding="utf-8").split("\n### A fault\n")[1]
    (code,) = re.findall(r"^```python\n(.*?)^```", part, re.M | re.S)
    fault = eval(code.strip(), vars(fault_matrix))  # the page's own line, among those of the matrix
    build = Build.load(Path("runs/submit"))
    result = rehearse_fault(fault, build, read_asked(QUESTIONS), RehearsalSettings(), folder=tmp_path)
    rehearsed = result.rehearsed
    assert result.struck
    assert rehearsed.refusal is None
    assert len(rehearsed.answers) == QUESTIONS
    assert "ZeroDivisionError" in str([line.why for line in rehearsed.journal])


@pytest.mark.slow
def test_build_rehearse_and_preflight_are_three_commands(here: Path, submit: CommandLine) -> None:
    assert submit("image", "--python", "this").code == 0
    report = submit("rehearse", "--questions", "8", "--json").result
    assert report["outcome"] == "valid"
    assert report["penalised_score"] > 0
    assert f"transformers=={image_packages()['transformers']}" in report["settings"]["image"]
    assert submit("preflight", "--json").result["go"] is True
    assert submit("push", "--json").result["pushed"] is False


SHAPES = ("none", "list", "dict", "no-rows", "two-rows", "negative", "text-column", "null-once", "column-count")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["", "predict-raises", *(f"predict-returns-{shape}" for shape in SHAPES)])
def test_the_real_package_and_our_gateway_end_alike(name: str, root: Path, here: Path, tmp_path: Path) -> None:
    """Kaggle's package is in the competition's download only; put it where this test looks to run it."""
    real = root / "runs" / "competition-data" / "aimo-2"
    if not (real / "kaggle_evaluation").is_dir():
        pytest.skip(f"needs the competition's kaggle_evaluation in {real.relative_to(root)}")
    build = Build.load(Path("runs/submit"))
    build = with_settings(build, tmp_path / "kaggle", competition=competition("aimo-2"))
    ends = []
    for package in (real, None):
        folder = tmp_path / ("real" if package else "ours")
        fault = FAULTS[name].inject if name else None
        rehearsed = rehearse(build, read_asked(3), RehearsalSettings(real_package=package), folder=folder, fault=fault)
        told = next(folder.rglob("gateway/result.json"), None)
        result = json.loads(told.read_text()) if told else {}
        ends.append(
            (rehearsed.refusal is None, result.get("Succeeded"), result.get("ErrorName"), len(rehearsed.answers))
        )
    assert ends[0] == ends[1]
    assert ends[1][0] == (not name)


def test_there_are_at_least_forty_faults_and_they_are_listed(root: Path, submit: CommandLine) -> None:
    listed = submit("rehearse", "--fault", "list", "--json").result
    assert listed["faults"] == len(FAULTS) >= 40
    documented = re.findall(
        r"^\| `([\w-]+)` \| ((?:valid|refused)[^|]*) \|", (root / "docs/rehearsal.md").read_text(), re.M
    )
    assert documented == [(fault.name, fault.ends) for fault in FAULTS.values()]
    with_1_4 = submit("rehearse", "--fault", "list", "--behaviour", "1.4.0").stdout
    assert re.search(r"port-taken +refused", with_1_4)


def test_a_flag_that_a_fault_does_not_read_is_refused(submit: CommandLine) -> None:
    refusal = submit("rehearse", "--fault", "all", "--questions", "3", "--stand-in", "pocket").refusal
    assert "--run and --json are read, got questions 3, stand_in pocket" in refusal


OTHERS = [version for version in PACKAGES if version != "0.9.0"]


@pytest.mark.slow
@pytest.mark.parametrize("version", OTHERS)
def test_the_build_passes_with_each_version(version: str, here: Path, tmp_path: Path) -> None:
    build, settings = Build.load(Path("runs/submit")), RehearsalSettings(behaviour=version)
    assert rehearse(build, read_asked(3), settings, folder=tmp_path / "plain").refusal is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "name"), [(version, name) for version in OTHERS for name in FAULTS if name not in VLLM_FAULTS]
)
def test_a_fault_ends_with_another_version_as_the_matrix_says(
    version: str, name: str, here: Path, tmp_path: Path
) -> None:
    fault, settings = FAULTS[name], RehearsalSettings(behaviour=version)
    build = Build.load(Path("runs/submit"))
    result = rehearse_fault(fault, build, read_asked(QUESTIONS), settings, folder=tmp_path / name)
    assert result.struck
    assert result.rehearsed.outcome == fault.expect_with(version), result.rehearsed.refusal
    if result.rehearsed.refusal is None:
        assert len(result.rehearsed.answers) == QUESTIONS


@pytest.mark.slow
def test_the_commit_run_fails_where_its_port_is_another(here: Path, tmp_path: Path) -> None:
    build, settings = Build.load(Path("runs/submit")), RehearsalSettings(behaviour="1.4.0", rerun=False)
    result = rehearse_fault(FAULTS["port-taken"], build, read_asked(3), settings, folder=tmp_path / "taken")
    assert result.struck
    assert result.rehearsed.refusal is not None
    assert "port 50051 is taken" in result.rehearsed.refusal.value


def test_an_unknown_fault_is_told_the_nearest(submit: CommandLine) -> None:
    assert "did you mean disk-full" in submit("rehearse", "--fault", "disk-ful").refusal


def test_questions_whose_answer_is_the_fallback_are_no_canaries() -> None:
    golds, rules = ("0", "7", "-3", "x+1", "12"), competition("aimo-3")
    problems = [Problem(id=gold, statement="?", gold=gold) for gold in golds]
    assert [problem.gold for problem in choose_canaries(problems, count=2, rules=rules)] == ["7", "12"]
    with pytest.raises(UserError, match="2 of 3"):
        choose_canaries(problems, count=3, rules=rules)


def test_aimo_1_gives_the_next_question_only_after_an_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test.csv").write_text("id,problem\n000123,a\n424e18,b\n")
    environment = Environment(
        tmp_path / "test.csv", folder=tmp_path, id_column="id", submission_columns=("id", "answer")
    )
    questions = environment.iter_test()
    first = next(questions)
    assert next(questions) is None
    assert "You must call `predict()`" in capsys.readouterr().out
    assert first is not None
    environment.predict(first[1].assign(answer=7))
    second = next(questions)
    assert second is not None
    environment.predict(second[1].assign(answer=9))
    assert sorted(answers_in(tmp_path / "submission.parquet")) == ["000123", "424e18"]
    assert str(second[0].iloc[0]["id"]) in ("000123", "424e18")
