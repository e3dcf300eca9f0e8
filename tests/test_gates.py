"""Refused means refused, and the gates see what is wrong: merges that are wrong on purpose, on every model at hand."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench import gates
from mathlete.export import GateTrial, Survival, TunedModel
from mathlete.export.distributions import kl_divergence, log_probabilities
from mathlete.export.effect import rows_of_traces
from mathlete.export.exact import EXACT, store_in, widen
from mathlete.export.limits import find_merge_breaches
from mathlete.export.merge import save_merged
from mathlete.export.noise import NOISY, Exact, measure_16bit, measure_exactly, measure_noise, other_dtype
from mathlete.export.settings import MergeBase
from mathlete.gates import (
    ACCEPT,
    SURVIVAL,
    GateOutcome,
    Refused,
    find_run_export,
    is_set_aside,
    judge_breaches,
)
from mathlete.models import Device, ModelSource, find_model, load_model, load_prompt_format
from mathlete.models.hardware import GPUS
from mathlete.pocket import generate_items
from mathlete.rows import RowFiles
from mathlete.runs import MANIFEST, read_json, write_json
from mathlete.tune import AdapterFolder, Lora, Recipe, load_4bit_base
from tests.conftest import CommandLine
from tests.test_logs_own import own_run
from train import exports, steps
from train.presets import POCKET as PRESET
from train.steps import MathRun

WEIGHTS = "MATHLETE_WEIGHTS"
"""Environment variable that names a folder of models in folders: every one is tried."""


def real_models() -> list[Any]:
    folder = os.environ.get(WEIGHTS)
    if not folder:
        skip = pytest.mark.skip(reason=f"{WEIGHTS} names no folder of real models")
        return [pytest.param("none", marks=[pytest.mark.slow, skip])]
    models = sorted(file.parent for file in Path(folder).glob("*/config.json"))
    return [pytest.param(str(model), id=model.name, marks=pytest.mark.slow) for model in models]


@dataclass(frozen=True)
class Untrained:
    """A model with a random adapter, measured."""

    tuned: TunedModel
    reference: torch.Tensor
    noise: float

    def breaches(self, wrong: TunedModel) -> list[Refused]:
        """What the gate says of a merge, stored in 16 bits."""
        merged = store_in(store_in(wrong.merge(dtype="float16"), "float16"), EXACT)
        kl = kl_divergence(self.reference, log_probabilities(merged, self.tuned.load_rows()))
        base = wrong.base
        return [*find_merge_breaches({"float16": kl}, dtype="float16", limits=Survival(), noise=self.noise, base=base)]


def untrained(model: str, folder: Path) -> Untrained:
    """Fill an adapter at random and measure it on rows of the pocket generator's easy problems."""
    source = find_model(model)
    recipe = Recipe(lora=Lora(rank=16, alpha=32))
    AdapterFolder(folder / "adapter").fill_at_random(source, recipe=recipe)
    traced = [item.traced for item in generate_items(families=["hard"], count=3, seed=0, split="test")]
    rows_of_traces(traced, load_prompt_format(source)).save_to_disk(RowFiles(folder / "data").heldout)
    tuned = TunedModel(source=source, data=folder / "data", adapter=folder / "adapter")
    trained = tuned.load(dtype=EXACT)
    rows = tuned.load_rows()
    exact = measure_exactly(trained, rows)
    return Untrained(tuned, exact.log_probs, max(exact.noise))


@pytest.fixture(scope="module")
def pocket(tmp_path_factory: pytest.TempPathFactory) -> Untrained:
    return untrained("pocket", tmp_path_factory.mktemp("pocket"))


def without_a_layer(adapter: Path) -> None:
    """Forget the update of every linear layer in the middle block."""
    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    blocks = sorted({int(name.split(".layers.")[1].split(".")[0]) for name in weights})
    middle = f".layers.{blocks[len(blocks) // 2]}."
    changed = {name: torch.zeros_like(value) if middle in name else value for name, value in weights.items()}
    assert any(middle in name for name in weights)
    save_file(changed, file)


def with_half_of_alpha(adapter: Path) -> None:
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "lora_alpha": config["lora_alpha"] // 2}))


WRONG: list[tuple[str, Callable[[Path], None] | None]] = [
    ("a layer is skipped", without_a_layer),
    ("alpha is halved", with_half_of_alpha),
    ("another base", None),
]


def check_the_gate(model: Untrained, folder: Path) -> None:
    """The merge as it should be passes, and each wrong one is refused."""
    assert model.breaches(model.tuned) == []
    for what, change in WRONG:
        wrong = replace(model.tuned, base="original")
        if change is not None:
            adapter = Path(shutil.copytree(model.tuned.adapter, folder / what))
            change(adapter)
            wrong = replace(model.tuned, adapter=adapter)
        assert len(model.breaches(wrong)) == 1, what


def test_a_merge_that_is_wrong_on_purpose_is_refused(pocket: Untrained, tmp_path: Path) -> None:
    check_the_gate(pocket, tmp_path)


@pytest.mark.parametrize("model", real_models())
def test_a_wrong_merge_of_a_real_model_is_refused(model: str, tmp_path: Path) -> None:
    check_the_gate(untrained(model, tmp_path), tmp_path)


def test_the_trained_model_is_in_one_format(pocket: Untrained) -> None:
    """Also where bitsandbytes would repack its 4 bits: the same distributions as in training, however often asked."""
    rows = pocket.tuned.load_rows()
    base: Any = load_4bit_base(pocket.tuned.source)
    first = log_probabilities(base, rows)
    assert kl_divergence(first, log_probabilities(base, rows)) == 0
    assert kl_divergence(first, log_probabilities(base.train(), rows)) == 0
    dense = log_probabilities(load_4bit_base(pocket.tuned.source, dense=True), rows)
    assert kl_divergence(first, dense) < 1e-12
    assert pocket.noise < 1e-12


@pytest.mark.parametrize("base", ["dequant", "original"])
def test_the_noise_of_16_bits_is_that_of_the_model_as_served(
    pocket: Untrained, tmp_path: Path, base: MergeBase
) -> None:
    """Of merged weights, whatever they will be merged into: an adapter apart from them loses more."""
    save_merged(tmp_path, pocket.tuned, dtype=NOISY)
    rows, source = pocket.tuned.load_rows(), ModelSource(name="merged", location=str(tmp_path))
    served = kl_divergence(pocket.reference, log_probabilities(load_model(source, dtype=NOISY), rows))
    tuned = replace(pocket.tuned, base=base)
    assert measure_16bit(tuned, rows, reference=pocket.reference) == served
    apart = kl_divergence(pocket.reference, log_probabilities(tuned.load(dtype=NOISY), rows))
    assert apart != served


def test_no_adapter_apart_from_its_base_says_what_16_bits_change(
    pocket: Untrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    heldout = pocket.tuned.heldout(4)
    answers = heldout.draw_answers(pocket.tuned.load(dtype=EXACT))
    monkeypatch.setattr(AdapterFolder, "load", None)
    exact = Exact(pocket.reference, noise=(0.0, 0.0))
    noise, again = measure_noise(pocket.tuned, heldout, exact=exact, answers=answers)
    assert again == heldout.draw_answers(pocket.tuned.load_served(dtype=other_dtype()))
    assert noise.kl == measure_16bit(pocket.tuned, heldout.rows, reference=pocket.reference)


def test_what_answers_in_16_bits_is_the_model_as_served(pocket: Untrained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a GPU's answers, which all others are held against, would lack what its adapter loses."""
    monkeypatch.setattr(TunedModel, "load", lambda self, **how: how)
    monkeypatch.setattr(TunedModel, "load_served", lambda self, **how: how)
    loaded: Any = pocket.tuned.load_answering()
    assert loaded == {}
    monkeypatch.setattr(Device, "current", lambda: GPUS["h100"])
    loaded = pocket.tuned.load_answering()
    assert loaded == {"dtype": "bfloat16"}


def test_a_widened_model_computes_what_one_in_fp32_does() -> None:
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.inference_mode():
        wide = widen(load_model(find_model("pocket"), dtype="float16"))(input_ids=ids).logits
        narrow: Any = load_model(find_model("pocket"), dtype="float16")
        plain = narrow.to(torch.float32)(input_ids=ids).logits
    assert wide.dtype == torch.float32
    assert torch.equal(wide, plain)


def test_the_calibration_goes_on_and_says_what_was_not_run(tmp_path: Path) -> None:
    cells, page = tmp_path / "cells.jsonl", tmp_path / "page.md"
    page.write_text(f"before\n{gates.START}old\n{gates.END}after\n")
    line = {"model": "pocket", "cell": "noise: bfloat16", "kl": 1e-5, "top1": 0.9994, "tokens": 354}
    cells.write_text(json.dumps(line) + "\n" + json.dumps({**line, "cell": "export: q8_0", "refused": "no"}) + "\n")
    settings = gates.BenchSettings(cells=("noise: bfloat16", "export: q8_0"), out=cells, table=page)
    gates.main(settings)  # nothing is missing
    text = page.read_text()
    assert (text.startswith("before\n"), text.endswith("after\n"), "\nold\n" in text) == (True, True, False)
    assert "| noise: bfloat16 | 1.0e-05, 99.9% | not run | not run | not run |" in text
    assert "| export: q8_0 | not written | not run | not run | not run |" in text
    assert [child.name for child in tmp_path.iterdir() if child.is_dir()] == []


SMALL = ("math", "--model", "pocket", "--source", "p.jsonl", "--tune.steps", 2, "--tune.batch", 2, "--run", "r",
         "--survival.max-tokens", 4, "--forgetting.problems", 3, "--survival.greedy", 0,
         "--survival.trial-rows", 1, "--rows.heldout", 1)  # fmt: skip
STRICT = ("--survival.kl-int8", "1e-9", "--survival.times-noise", 0)


def test_the_gates_are_tried_before_the_training_and_a_reason_goes_with_the_model(
    workdir: Path, train: CommandLine, evaluate: CommandLine
) -> None:
    assert train("pocket-problems", "p.jsonl", "--families", "easy", "--count", 30).code == 0
    refused = train(*SMALL, *STRICT)
    assert "before any training, with a random adapter on a few rows: KL(trained || int8) must be" in refused.refusal
    assert "gates tried before training" in refused.stdout
    assert [*Path("r").rglob("*.safetensors")] == []
    accepted = train(*SMALL, *STRICT, "--accept-refused", "only to be looked at")
    assert accepted.code == 0
    # Told as each is made: of the trial before the training, and of the export.
    told = " ".join(accepted.stdout.split())
    assert told.count("accepted, because only to be looked at: KL(trained || int8) must be") >= 2
    assert "3 general problems can't show a loss of accuracy, 6 can" in told
    adapter: Any
    export: Any
    adapter, export = (read_json(Path("r", step, MANIFEST)) for step in ("adapter", "export"))
    saved: Any = read_json(Path("r/export", SURVIVAL))
    for figures in (adapter["figures"]["trial"], export["figures"], saved):
        assert figures["accept_refused"] == "only to be looked at"
        assert "KL(trained || int8) must be" in figures["breaches"][0]
    assert "only to be looked at" in Path("r/export/README.md").read_text()
    assert not Path("r/adapter", GateTrial.file).exists()
    # It was said once, and stays with the model.
    words = ("pocket_val", "--limit", 1, "--n", 1, "--sampling.max-tokens", 4, "--model", "r/export")
    assert evaluate(*words, "--run", "e").code == 0
    assert read_json(Path("e/results.json"))["accept_refused"] == "only to be looked at"


def begun_run(*formats: str) -> MathRun:
    after = replace(PRESET.after, export=replace(PRESET.after.export, formats=formats or ("int8",)))
    return MathRun(settings=replace(PRESET, run=Path("r"), after=after), model=find_model("pocket"), say=print)


def test_what_was_accepted_before_a_kill_is_still_in_the_manifest(workdir: Path) -> None:
    outcome = GateOutcome(breaches=("int8 is far off",), reason="a first look").to_json()
    folder = Path("adapter")
    AdapterFolder(folder).checkpoint(1).mkdir(parents=True)
    AdapterFolder(folder).mark_complete(1)
    assert begun_run().try_gates(folder, Path("data"), advance=lambda *_: None) == {}
    write_json(folder / GateTrial.file, outcome)
    assert begun_run().try_gates(folder, Path("data"), advance=lambda *_: None) == {"trial": outcome}


@pytest.mark.parametrize(
    ("formats", "refused", "told"),
    [
        (["int8"], ["int8"], ["int8"]),
        (["w8a16"], ["int8"], []),
        (["w8a16", "q8_0"], ["int8", "q8_0"], ["q8_0"]),
        (["int8", "w8a16", "q8_0"], ["int8", "q8_0"], ["int8", "q8_0"]),
    ],
)
def test_a_run_is_refused_for_the_formats_that_it_asks_for_and_names_all_of_them(
    formats: list[str], refused: list[str], told: list[str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    made = []

    def export(*_: object, name: str, **__: object) -> None:
        made.append(name)
        if name in refused:
            raise Refused(f"{name} must be near", value="far", cure=f"leave {name} out, or {ACCEPT}")

    for step in ("make_rows", "train", "measure", "merge"):
        monkeypatch.setattr(steps, step, lambda *_: Path())
    monkeypatch.setattr(exports, "export", export)
    try:
        steps.take_steps(begun_run(*formats))
        words = ""
    except Refused as error:
        words = str(error)
    assert made == [*dict.fromkeys(["int8", *formats])]
    assert [name for name in refused if f"{name} must be near, got far" in words] == told
    assert [name for name in refused if f"leave {name} out" in words] == told
    assert ("int8, which --export.formats does not name, is refused" in capsys.readouterr().out) == (not told)


def test_a_refused_format_that_is_not_asked_for_is_set_aside_and_made_once(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def export_model(output: Path, *, name: str, accept_refused: str, **_: object) -> dict[str, object]:
        made.append(name)
        write_json(output / "config.json", {})
        if name == "int8":
            refusal = Refused("int8 must be near", value="far", cure=f"use another, or {ACCEPT}")
            judge_breaches([refusal], reason=accept_refused, folder=output)
        return {}

    monkeypatch.setattr(exports, "export_model", export_model)
    monkeypatch.setattr("train.steps.describe_step", lambda step: step.name)
    for name in ("r/adapter", "r/data", "merged", "effect"):
        Path(name).mkdir(parents=True)
        Path(name, "answers.jsonl").touch()

    def write(*formats: str, **after: Any) -> None:
        run = begun_run(*formats)
        run = replace(run, settings=replace(run.settings, after=replace(run.settings.after, **after)))
        exports.write_exports(run, run.describe_tuned(Path("r/adapter")), effect=Path("effect"), merged=Path("merged"))

    own, other = Path("r/export"), Path("r/export-w8a16")
    with pytest.raises(Refused):
        write("int8")
    assert (find_run_export(Path("r")), is_set_aside(own)) == (own, False)
    write("w8a16")
    assert (find_run_export(Path("r")), is_set_aside(own)) == (other, True)
    write("w8a16")
    assert made == ["int8", "int8", "w8a16"]
    # Asked for, or with its refusal accepted, it is made again; after it was asked for, once more.
    with pytest.raises(Refused):
        write("int8", "w8a16")
    assert find_run_export(Path("r")) == own
    write("w8a16")
    write("w8a16", accept_refused="a first look")
    assert made == ["int8", "int8", "w8a16", "int8", "int8", "int8"]
    assert find_run_export(Path("r")) == own


def test_the_start_of_a_training_is_judged_before_it(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is the source may be extended meanwhile: that must not cost the training."""
    own_run("e", range(3))
    corpus = replace(PRESET.data.corpus, source=("e",))
    run = begun_run()
    run = replace(run, settings=replace(run.settings, data=replace(PRESET.data, corpus=corpus)))
    assert run.start == GateOutcome()

    def train_in(*_: object, **__: object) -> dict[str, object]:
        write_json(Path("e/started.json"), {"key": "k", "step": "eval"})
        Path("e", MANIFEST).unlink(missing_ok=True)
        return {}

    for name, does in (
        ("train_in", train_in),
        ("try_gates", lambda *_, **__: {}),
        ("end", lambda _, step: step.folder),
    ):
        monkeypatch.setattr(MathRun, name, does)
    monkeypatch.setattr(TunedModel, "write_adapter_card", lambda _: None)
    Path("data/train").mkdir(parents=True)
    assert Path(steps.train(run, Path("data")), MANIFEST).is_file()
    with pytest.raises(Refused, match="e was begun and never finished"):
        _ = replace(run).start
