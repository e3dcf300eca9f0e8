"""Refused means refused at every door: what a gate of a run refused is taken by no command without a reason."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mathlete import gates as gates_room
from mathlete.competitions import competition
from mathlete.errors import UserError
from mathlete.export import EXPORT_FORMATS
from mathlete.export.formats import choose_export
from mathlete.gates import (
    CARD,
    SURVIVAL,
    GateOutcome,
    Refused,
    find_run_export,
    judge_breaches,
    outcome_of,
    require_passed,
    set_aside,
)
from mathlete.kernel import KernelConfig
from mathlete.runs import MANIFEST, read_json, run_step, write_json
from mathlete.scoring import comparison
from mathlete.submission.adapter import AdapterBuild
from submit.adapters import require_gates
from submit.building import find_cap
from submit.mounting import find_export
from tests.conftest import POCKET, CommandLine, Done
from tests.test_logs_own import own_run

WEIGHTS = "adapter_model.safetensors"
BREACH = Refused("tuning may cost at most 5% of the accuracy", value="100%", cure="train less")
REASON = ("--accept-refused", "a first look")


def make_step(name: str, folder: Path, build: Callable[[Path], object], **inputs: Path) -> None:
    def fill(into: Path) -> dict[str, object]:
        build(into)
        return {}

    run_step(name, folder=folder, inputs=inputs, settings={}, build=fill)


def make_adapter(folder: Path, *, seed: int = 0) -> None:
    """Write what is an adapter by its files; no model is made of it."""
    torch.manual_seed(seed)
    save_file({"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.rand(2, 2)}, folder / WEIGHTS)
    config = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "base_model_name_or_path": str(POCKET)}
    write_json(folder / "adapter_config.json", config)


def copy_pocket(folder: Path) -> None:
    shutil.copytree(POCKET, folder, dirs_exist_ok=True)


@pytest.fixture
def run(workdir: Path) -> Path:
    """A training run of which every gate let all pass, and an evaluation of its export."""
    folder = Path("r")
    make_step("tune", folder / "adapter", make_adapter)
    weights = {WEIGHTS: folder / "adapter" / WEIGHTS}
    make_step("effect", folder / "effect", lambda into: write_json(into / "effect.json", {}), **weights)
    make_step("merge", folder / "merged", copy_pocket, **weights)
    make_step("export", folder / "export", copy_pocket, **weights)
    own_run("e", range(6))
    results = read_json(Path("e/results.json"))
    write_json(Path("e/results.json"), {**results, "model": "r/export"})
    return folder


def refuse(step: Path) -> None:
    """Leave of a step what its gate leaves that refuses."""
    Path(step, MANIFEST).unlink()
    with pytest.raises(Refused):
        judge_breaches([BREACH], reason=" ", folder=step)


def kill(step: Path) -> None:
    Path(step, MANIFEST).unlink()


GATES = ("adapter", "effect", "merged", "export")
"""Folders of steps with a gate: of the trial before training, of forgetting, of the merge, of the export."""
JUDGED = {
    "adapter": {"adapter", "effect", "merged"},
    "merged": {"effect", "merged"},
    "export": {"effect", "merged", "export"},
}
"""{what is taken of a run: the gates that concern it}."""


@pytest.mark.parametrize("end", [refuse, kill])
@pytest.mark.parametrize("gate", GATES)
def test_a_gate_concerns_what_was_made_on_its_way(run: Path, gate: str, end: Callable[[Path], None]) -> None:
    Path("link").symlink_to(run / "adapter")
    assert [require_passed(run / name) for name in JUDGED] == [GateOutcome()] * 3
    end(run / gate)
    words = "tuning may cost at most 5% of the accuracy, got 100%" if end is refuse else "was begun and never finished"
    for name, gates in JUDGED.items():
        # A merge that was killed says nothing of the adapter that it was to take.
        if gate not in gates or (gate == "merged" and name == "adapter" and end is kill):
            assert require_passed(run / name) == GateOutcome()
            continue
        for folder in (run / name, Path("link")) if name == "adapter" else (run / name,):
            with pytest.raises(Refused) as refused:
                require_passed(folder)
            assert words in str(refused.value)
        assert require_passed(run / name, reason="look:\n# at\tit").reason == "look: # at it"


@pytest.mark.parametrize(("base", "judges"), [("dequant", True), ("original", False)])
@pytest.mark.parametrize("end", ["passed", "accepted", "refused", "killed"])
def test_a_merge_judges_an_adapter_where_it_met_what_that_was_trained_on(
    run: Path, base: str, judges: bool, end: str
) -> None:
    manifest = run / "merged" / MANIFEST
    figures = outcome_of([BREACH], reason="a first look").to_json() if end == "accepted" else {}
    write_json(manifest, {**read_json(manifest), "settings": {"base": base}, "figures": figures})
    if end in ("refused", "killed"):
        mark = {**read_json(run / "merged" / "started.json"), "settings": {"base": base}}
        write_json(run / "merged" / "started.json", mark)
        (refuse if end == "refused" else kill)(run / "merged")
    if judges and end == "refused":
        with pytest.raises(Refused, match="tuning may cost"):
            require_passed(run / "adapter")
    else:
        carried = outcome_of([BREACH], reason="a first look") if judges and end == "accepted" else GateOutcome()
        assert require_passed(run / "adapter") == carried


def test_a_verdict_is_of_the_weights_it_was_passed_on(run: Path) -> None:
    refuse(run / "effect")
    Path("r/adapter", MANIFEST).unlink()
    make_step("tune", run / "adapter", lambda into: make_adapter(into, seed=1))
    assert require_passed(run / "adapter") == GateOutcome()  # trained anew since, and not measured
    with pytest.raises(Refused):
        require_passed(run / "merged")


def test_steps_that_never_began_refuse_nothing(run: Path) -> None:
    for name in ("effect", "merged", "export"):
        shutil.rmtree(run / name)
    assert require_passed(run / "adapter") == GateOutcome()


def test_what_was_accepted_on_the_way_stays_with_the_model(run: Path) -> None:
    accepted = outcome_of([BREACH], reason="why not")
    for step, figures in (("effect", accepted.to_json()), ("adapter", {"trial": accepted.to_json()})):
        manifest = read_json(run / step / MANIFEST)
        write_json(run / step / MANIFEST, {**manifest, "figures": figures})
        assert require_passed(run / "export") == accepted
        write_json(run / step / MANIFEST, manifest)
    write_json(run / "effect" / MANIFEST, {**read_json(run / "effect" / MANIFEST), "figures": accepted.to_json()})
    # One reason does not excuse what another gate refuses.
    refuse(run / "merged")
    with pytest.raises(Refused):
        require_passed(run / "export")
    assert require_passed(run / "export", reason="this too").reason == "why not; this too"


SMALL = ("--limit", 1, "--n", 1, "--sampling.max-tokens", 4)
DOORS: dict[str, tuple[str, tuple[object, ...]]] = {
    "eval": ("eval", ("pocket_val", *SMALL, "--model", "r/export", "--run", "x")),
    "replay": ("eval", ("replay", "e", "--simulations", 20, "--n", 1, "--run", "x")),
    "import": ("eval", ("import", "e", "--run", "x")),
    "train --model": ("train", ("math", "--model", "r/merged", "--until", "format", "--run", "x")),
    "train --adapter": (
        "train",
        ("math", "--model", "pocket", "--adapter", "r/adapter", "--adapter-base", "16bit", "--run", "x"),
    ),
    "build a model": ("submit", ("build", "--model", "r/export", "--names.owner", "alice", "--run", "x")),
    "build an adapter": ("submit", ("build", "--model", "r", "--competition", "nemotron-like", "--run", "x")),
    "build an adapter's folder": (
        "submit",
        ("build", "--model", "r/adapter", "--competition", "nemotron-like", "--run", "x"),
    ),
    "preflight": ("submit", ("preflight", "--run", "b")),
    "rehearse": ("submit", ("rehearse", "--run", "b", "--adapter.engine", "peft")),
    "answer": ("submit", ("answer", "q.csv", "--model", "r/export", "--run", "x")),
    "hub push": ("hub", ("push", "r")),
    "hub push an adapter": ("hub", ("push", "r", "--part", "adapter")),
    "kaggle push": ("kaggle", ("push", "r", "--model", "alice/m", "--licence", "MIT")),
}


@pytest.fixture
def build(run: Path) -> AdapterBuild:
    """A build of the run's adapter, from before a gate refused it."""
    Path("b").mkdir()
    Path("b/submission.zip").write_bytes(b"a zip")
    rules = competition("nemotron-like")
    made = AdapterBuild(zip=Path("b/submission.zip"), competition=rules, named="nemotron-like", adapter=run / "adapter")
    made.save(Path("b"))
    return made


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.usefixtures("build")
def test_no_door_takes_what_a_gate_on_the_way_refused(door: str, run: Path) -> None:
    Path("q.csv").write_text("id,problem\n1,What is 1 + 1?\n")
    refuse(run / "effect")
    name, words = DOORS[door]
    refusal = CommandLine(name)(*words).refusal
    assert "a model must have passed the gates of its run, got tuning may cost at most 5% of the accuracy" in refusal
    assert "--accept-refused REASON" in refusal
    assert not Path("x").exists() or not [*Path("x").rglob("*.*")]


def test_a_build_goes_on_with_the_reason_that_it_was_made_for(build: AdapterBuild, run: Path) -> None:
    refuse(run / "effect")
    with pytest.raises(UserError, match="build it with --accept-refused REASON"):
        require_gates(build)
    require_gates(replace(build, accept_refused="a first look"))


@pytest.mark.parametrize("end", ["refused", "killed", "accepted"])
def test_a_merge_judges_only_what_was_made_of_it(run: Path, end: str) -> None:
    """A merge into the other base, tried after the export was made, says nothing about that export."""
    weights = {WEIGHTS: run / "adapter" / WEIGHTS}
    save_file({"w": torch.zeros(2)}, run / "merged" / "model.safetensors")
    shutil.rmtree(run / "export")
    make_step("export", run / "export", copy_pocket, merged=run / "merged", **weights)
    outcome = outcome_of([BREACH], reason="a first look" if end == "accepted" else "")

    def merge(weights_of_it: torch.Tensor) -> None:
        shutil.rmtree(run / "merged")
        make_step(
            "merge", run / "merged", lambda into: save_file({"w": weights_of_it}, into / "model.safetensors"), **weights
        )
        if end == "killed":
            (run / "merged" / MANIFEST).unlink()
            (run / "merged" / "model.safetensors").unlink()
        elif end == "refused":
            refuse(run / "merged")
        else:
            manifest = run / "merged" / MANIFEST
            write_json(manifest, {**read_json(manifest), **outcome.to_json()})

    merge(torch.ones(2))
    for _ in range(2):
        assert require_passed(run / "export") == GateOutcome()
        # Deleted to free the disk, which makes it no other's merge.
        (run / "merged" / "model.safetensors").unlink(missing_ok=True)
    if end == "killed":
        return
    merge(torch.zeros(2))
    if end == "accepted":
        assert require_passed(run / "export") == outcome
        return
    for _ in range(2):
        with pytest.raises(Refused, match="tuning may cost"):
            require_passed(run / "export")
        # Deleted to free the disk, which takes no verdict back.
        (run / "merged" / "model.safetensors").unlink(missing_ok=True)


def push(*words: object) -> Done:
    return CommandLine("hub")("push", "r", *words)


def test_a_push_never_sends_another_part_in_place_of_a_refused_one(run: Path) -> None:
    write_json(run / "export" / SURVIVAL, outcome_of([BREACH], reason="").to_json())
    refuse(run / "export")
    refusal = push().refusal
    assert "got tuning may cost" in refusal
    assert "or push what passed with --part merged or adapter" in refusal
    assert "r/merged" in push("--part", "merged").stdout
    assert "accepted: a first look" in push(*REASON).stdout
    assert "- accepted: a first look" in Path("r/export", CARD).read_text()


def test_every_command_takes_the_export_that_a_run_was_finished_with(run: Path, evaluate: CommandLine) -> None:
    """Where int8 is refused, the cure is another format in its place."""
    weights = {WEIGHTS: run / "adapter" / WEIGHTS}
    make_step("export-fp8", run / "export-fp8", copy_pocket, **weights)
    make_step("export-w8a16", run / "export-w8a16", copy_pocket, **weights)
    refuse(run / "export")
    # It was asked for, so no other takes its place.
    assert "or push what passed with --part merged or adapter or export-fp8 or export-w8a16" in push().refusal
    set_aside(run / "export")
    other = run / "export-w8a16"
    assert find_run_export(run) == other
    kaggle = CommandLine("kaggle")("push", "r", "--model", "alice/m", "--licence", "MIT")
    assert "r/export-w8a16" in push().stdout
    assert "r/export-w8a16" in kaggle.stdout
    assert "got tuning may cost" in push("--part", "export").refusal
    assert f"use {other}, which the run was finished with" in push("--part", "export").refusal
    told = evaluate("pocket_val", *SMALL, "--run", "x", "--model", "r").refusal
    assert f"use {other}, the model that this run made" in told
    assert f"evaluate its model, `python -m eval SUITE --model {other}`" in evaluate("losses", "r").refusal
    for engine in ("auto", "vllm", "embedded"):
        assert choose_export(run, engine=engine, machine="NvidiaTeslaT4").folder == other
    assert find_export("r", engine="embedded", machine="NvidiaTeslaT4", config=KernelConfig())[0] == str(other)
    assert find_cap("r", asks_hub=False) == find_cap(str(other), asks_hub=False)
    assert comparison._read_export_figures(run) == {}
    Path(other, MANIFEST).unlink()
    assert find_run_export(run) == run / "export-fp8"


def test_the_best_export_of_a_run_is_the_one_that_a_build_takes() -> None:
    order = [name for name in gates_room._BEST if "-" not in name]
    assert order[:3] == ["w8a16", "fp8", "w8a8"]
    assert {*gates_room._BEST} == {one.name for one in EXPORT_FORMATS.values() if one.engine == "vllm"} - {"int8"}


def test_a_reason_is_no_markup_in_a_card(tmp_path: Path) -> None:
    write_json(tmp_path / "started.json", {"key": "k"})
    reason = "I look\n## at <b>it</b> [here](https://a.b)\n- and *there*"
    require_passed(tmp_path, reason=reason).note_in_card(tmp_path)
    *_, last = Path(tmp_path, CARD).read_text().splitlines()
    assert last == r"- accepted: I look ## at \<b\>it\</b\> \[here\](https://a.b) - and \*there\*"


def test_an_unfinished_run_is_told_as_one_and_stays_one_through_an_import(
    workdir: Path, evaluate: CommandLine, train: CommandLine
) -> None:
    own_run("whole", range(3))
    own_run("part", range(3, 6))
    write_json(Path("part/started.json"), {"key": "k", "step": "eval"})
    Path("part/results.json").unlink()
    replay = ("replay", "part", "--simulations", 20, "--n", 1, "--run", "x")
    by_file = ("import", "whole/samples.jsonl", "part/samples.jsonl", "--problems", "part/problems.jsonl")
    for words in (replay, ("import", "whole", "part", "--run", "joined"), (*by_file, "--run", "joined")):
        refusal = evaluate(*words).refusal
        assert "a run must be finished before it is used, got part was begun and never finished" in refusal
        assert "Fix: let its command, `python -m eval`, go on to the end, or accept it with --accept-" in refusal
    assert not Path("joined").exists()
    for source in ("part", "part/samples.jsonl"):
        refusal = train("math", "--source", "whole", source, "--until", "format", "--run", "r").refusal
        assert "a run must be finished before it is used, got part was begun and never finished" in refusal
    assert not Path("r").exists()
    assert "part was begun" not in train("math", "--source", "part", "--until", "format", "--run", "r", *REASON).stderr
    done = evaluate("import", "whole", "part", "--run", "joined", *REASON)
    line = "accepted, because a first look: part was begun and never finished"
    assert line in done.stdout
    manifest, results = (json.loads(Path("joined", name).read_text()) for name in (MANIFEST, "results.json"))
    for facts in (manifest["settings"], results):
        assert facts["accept_refused"] == "a first look"
        assert facts["breaches"] == ["part was begun and never finished: it has no manifest.json"]
    # It was said once: what is made of it says it again by itself.
    assert line in evaluate("import", "joined", "--no-texts", "--run", "small").stdout
    assert json.loads(Path("small/results.json").read_text())["accept_refused"] == "a first look"
    assert line in evaluate("replay", "small", "--simulations", 20, "--n", 1, "--run", "y").stdout
    assert json.loads(Path("y", MANIFEST).read_text())["settings"]["accept_refused"] == "a first look"


def test_reasons_of_all_slices_are_kept(workdir: Path, evaluate: CommandLine) -> None:
    for name, numbers in (("one", range(3)), ("two", range(3, 6))):
        own_run(name, numbers)
        items = [*json.loads(Path(name, "results.json").read_text()).items()]
        at = [key for key, _ in items].index("prompt_sha")
        facts = {"breaches": [f"{name} is far off"], "accept_refused": name}
        Path(name, "results.json").write_text(json.dumps(dict([*items[:at], *facts.items(), *items[at:]])))
    assert evaluate("import", "one", "two", "--run", "joined").code == 0
    results = json.loads(Path("joined/results.json").read_text())
    assert (results["breaches"], results["accept_refused"]) == (["one is far off", "two is far off"], "one; two")
