"""A format is one entry of the table: a made-up one is written, measured, carded and checked with no other change."""

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from packaging.requirements import Requirement

from mathlete.errors import UserError
from mathlete.export import EXPORT_FORMATS, Export, Forgetting, Survival, TunedModel, export_model, measure_effect
from mathlete.export.effect import rows_of_traces
from mathlete.export.formats import (
    DEFAULT_FORMAT,
    MOUNTED_FORMATS,
    ExportFormat,
    choose_export,
    find_formats,
    read_storage,
)
from mathlete.export.formats.table import ServingEngine
from mathlete.export.formats.weights import WriteOptions, dense_weights
from mathlete.export.records import Hop, SurvivalFigures
from mathlete.export.served import ENGINES
from mathlete.export.settings import FormatName
from mathlete.gates import set_aside
from mathlete.kaggle_image import image_packages
from mathlete.kernel.config import KernelConfig
from mathlete.models import ModelSource, find_model, load_model, load_prompt_format
from mathlete.pocket import generate_items
from mathlete.rows import RowFiles
from mathlete.runs import write_json
from mathlete.sampling.served import VllmSettings
from mathlete.submission import Build, Names, checks
from mathlete.submission.weights import list_needed, list_storage
from submit.mounting import find_export

POCKET = find_model("pocket")


def write_copy(folder: Path, merged: Path, options: WriteOptions) -> None:
    """Write the merged model as it is, in the type it computes in."""
    source = ModelSource(name="merged", location=str(merged))
    load_model(source, precision="dense", dtype=options.dtype).save_pretrained(folder)


COPY = ExportFormat(
    name="copy",
    title="plain 16-bit weights",
    bits=16,
    write=write_copy,
    weights=dense_weights,
    engine=None,
    least=8.0,
    stored_as="copied",
    wheels=("copier>=1",),
    usage="load_model(THIS_FOLDER)",
)


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPORT_FORMATS, "copy", COPY)


@pytest.fixture
def tuned(tmp_path: Path) -> TunedModel:
    """The pocket model with one layer moved, as if every weight had been trained, and four held-out rows."""
    model = load_model(POCKET, precision="dense", dtype="float16")
    torch.manual_seed(0)
    weight = model.get_parameter("model.layers.0.self_attn.q_proj.weight")
    weight.data += 0.01 * torch.randn_like(weight)
    model.save_pretrained(tmp_path / "adapter")
    load_prompt_format(POCKET).tokenizer.save_pretrained(tmp_path / "adapter")
    load_prompt_format(POCKET).save(tmp_path / "adapter")
    items = generate_items(families=("easy",), count=4, seed=1, split="test")
    rows = rows_of_traces([item.traced for item in items], load_prompt_format(POCKET))
    rows.save_to_disk(RowFiles(tmp_path / "data").heldout)
    return TunedModel(source=POCKET, data=tmp_path / "data", adapter=tmp_path / "adapter", base="original")


def export_copy(folder: Path, tuned: TunedModel) -> list[Hop]:
    """Measure the effect and exports the trained model itself; the hops that are shown."""
    (folder / "effect").mkdir()
    measure_effect(
        folder / "effect",
        tuned=tuned,
        max_tokens=96,
        forgetting=Forgetting(),
        mirror=None,
        seed=0,
        advance=lambda *_: None,
        say=lambda _: None,
    )
    shown: list[Hop] = []
    export_model(
        folder / COPY.folder,
        name="copy",
        tuned=tuned,
        effect=folder / "effect",
        merged=tuned.adapter,
        limits=Survival(max_tokens=96),
        formats=Export(formats=("copy",)),
        advance=lambda *_: None,
        show=lambda hops, tokens: shown.extend(hops),
    )
    return shown


def test_a_made_up_format_is_written_measured_and_carded(copied: None, tuned: TunedModel, tmp_path: Path) -> None:
    (hop,) = export_copy(tmp_path, tuned)
    assert (hop.name, hop.engine, hop.kl, hop.unchanged) == ("copy", "transformers", 0.0, 1.0)
    folder = tmp_path / "export-copy"
    assert hop.bytes == (folder / "model.safetensors").stat().st_size
    figures = SurvivalFigures.read(folder)
    assert figures.hops == (hop,)
    (layer,) = figures.layers
    assert (layer.layer, layer.noise, layer.kept) == ("model.layers.0.self_attn.q_proj", 0.0, 1.0)
    assert layer.signal > 0.01
    card = (folder / "README.md").read_text(encoding="utf-8")
    for line in ('tags: ["math", "reasoning", "copy"]', "# pocket, tuned, in 16 bits: plain 16-bit weights",
                 "    load_model(THIS_FOLDER)", "- kl_copy: 0.0"):  # fmt: skip
        assert line in card.splitlines()


def test_a_made_up_format_is_checked_for_the_gpu_that_serves(copied: None) -> None:
    assert EXPORT_FORMATS["copy"].require("l4") == (
        "copy: l4 takes it, in bfloat16 because compute capability 8.9 is 8.0 or later, which has bf16"
    )
    with pytest.raises(UserError, match=r"copy runs on compute capability 8 or later, got --export\.gpu t4"):
        EXPORT_FORMATS["copy"].require("t4")
    with pytest.raises(UserError, match="Fix: use copy or f16 or fp8 or int8 or q4_0 or q8_0 or w4a16 or"):
        EXPORT_FORMATS["w8a8"].require("b200")


def test_a_made_up_format_is_checked_before_a_submission(copied: None, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "copied"}}))
    (tmp_path / "kernel-metadata.json").write_text(json.dumps({"machine_shape": "NvidiaTeslaT4"}))
    build = Build(kaggle=tmp_path, model=tmp_path, wheels=tmp_path, names=Names(owner="a"), config=KernelConfig())
    (refusal,) = checks._gpu(build)
    assert (refusal.rule, refusal.value) == (
        "copied weights need compute capability 8.0",
        "NvidiaTeslaT4 has 7.5",
    )
    assert "no copier" in [refusal.value for refusal in checks._wheels(build)]


def test_the_command_line_and_the_checks_know_the_tables_formats() -> None:
    assert get_args(FormatName) == tuple(EXPORT_FORMATS)
    assert {entry.folder for entry in EXPORT_FORMATS.values()} == {
        "export",
        "export-w8a16",
        "export-w8a8",
        "export-fp8",
        "export-w4a16",
        "export-w8a16-gptq",
        "export-w4a16-gptq",
        "export-w4a16-awq",
        "export-q8_0",
        "export-q4_0",
        "export-f16",
    }
    assert EXPORT_FORMATS[DEFAULT_FORMAT].folder == "export"
    assert all(entry.name == name for name, entry in EXPORT_FORMATS.items())
    assert {*get_args(ServingEngine)} == {entry.engine for entry in EXPORT_FORMATS.values()} == {*ENGINES}
    stored = {entry.stored_as for entry in EXPORT_FORMATS.values()} - {None}
    assert stored <= {*list_storage()}
    # No word is that of an export and of what is only mounted.
    assert [one.stored_as for one in MOUNTED_FORMATS if one.stored_as in stored] == []


def test_an_export_says_itself_what_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry = replace(COPY, stored_as="nf4", least=8.0, wheels=("other-library>=2",))
    monkeypatch.setitem(EXPORT_FORMATS, "copy", entry)
    assert find_formats("nf4") == (entry,)
    bitsandbytes = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": bitsandbytes}))
    assert list_needed(tmp_path) == ("other-library>=2",)


def test_what_kaggles_image_lacks_is_shipped(tmp_path: Path) -> None:
    """Each format that a notebook loads names what transformers needs for it, where the image has it not."""
    needed = {"int8": "bitsandbytes", "nf4": "bitsandbytes", "compressed-tensors": "compressed-tensors"}
    image = image_packages()
    for one in (*EXPORT_FORMATS.values(), *MOUNTED_FORMATS):
        names = [Requirement(wheel).name for wheel in one.wheels]
        assert names == [name for word, name in needed.items() if word == one.stored_as and name not in image]


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "mxfp4", "torchao"])
def test_weights_that_nothing_here_serves_are_refused(method: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": method}}))
    with pytest.raises(UserError, match=f"must know how to serve the weights.* got {method} weights"):
        list_needed(tmp_path)
    build = Build(kaggle=tmp_path, model=tmp_path, wheels=tmp_path, names=Names(owner="a"), config=KernelConfig())
    assert any(f"{method} weights" in refusal.value for refusal in checks._wheels(build))


@pytest.mark.parametrize(("method", "least"), [("mxfp4", 8.0), ("gptq", 6.0), ("awq", 7.5), ("fp8", 7.5)])
def test_weights_that_vllm_alone_serves_need_its_engine(method: str, least: float, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": method}}))
    assert list_needed(tmp_path, engine="vllm") == ()
    with pytest.raises(UserError) as refused:
        list_needed(tmp_path)
    assert "vllm" not in refused.value.cure
    with pytest.raises(UserError, match="vLLM reads this one"):
        list_needed(tmp_path, other="vLLM reads this one (--engine vllm)")
    assert [one.least for one in find_formats(method)] == [least]


@pytest.mark.parametrize(("wheel", "good"), [("compressed_tensors-0.20.1-py3-none-any.whl", True), ("x-1.whl", False)])
def test_wheels_are_known_by_their_names_whatever_the_hyphens(wheel: str, good: bool, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "compressed-tensors"}}))
    (tmp_path / wheel).touch()
    build = Build(kaggle=tmp_path, model=tmp_path, wheels=tmp_path, names=Names(owner="a"), config=KernelConfig())
    assert ("no compressed-tensors" not in [refusal.value for refusal in checks._wheels(build)]) == good


@pytest.mark.parametrize(
    ("machine", "engine", "there", "chosen"),
    [
        ("NvidiaH100", "vllm", ("int8", "w8a16", "fp8"), "fp8: what vLLM serves best on NvidiaH100"),
        ("NvidiaL4", "auto", ("int8", "w8a16", "fp8"), "fp8: what"),
        ("NvidiaRtxPro6000", "vllm", ("int8", "w8a8", "fp8"), "fp8: what"),
        ("NvidiaTeslaT4", "vllm", ("int8", "w8a16", "fp8"), "w8a16: what"),
        ("NvidiaTeslaT4", "auto", ("int8", "w8a8", "fp8"), "w8a8: on NvidiaTeslaT4 vLLM would serve w8a16 best"),
        ("NvidiaTeslaT4", "vllm", ("int8", "w8a16", "w8a16-gptq"), "w8a16-gptq: what vLLM serves best"),
        ("NvidiaH100", "vllm", ("int8", "w8a16-gptq", "w4a16-awq"), "w8a16-gptq: on NvidiaH100 vLLM would serve fp8"),
        ("NvidiaH100", "vllm", ("int8",), "int8: on NvidiaH100 vLLM would serve fp8 best, which the run lacks"),
        ("NvidiaH100", "embedded", ("int8", "fp8"), "int8: the embedded engine multiplies it"),
        ("NvidiaH100", "embedded", ("fp8", "w8a8"), "w8a8: the embedded engine loads it; int8 the run lacks"),
        ("NvidiaTeslaT4", "vllm", ("fp8",), None),
    ],
)
def test_the_machine_chooses_the_export_of_a_run(
    machine: str, engine: str, there: tuple[str, ...], chosen: str | None, tmp_path: Path
) -> None:
    for name in there:
        folder = tmp_path / EXPORT_FORMATS[name].folder
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    if chosen is None:
        with pytest.raises(UserError, match="a run must hold an export for the machine: w8a16 or w8a8 or int8"):
            choose_export(tmp_path, engine=engine, machine=machine)
        return
    choice = choose_export(tmp_path, engine=engine, machine=machine)
    assert choice.reason.startswith(chosen)
    assert choice.folder == tmp_path / EXPORT_FORMATS[chosen.split(":")[0]].folder


@pytest.mark.parametrize(
    ("engine", "refused", "chosen"),
    [
        ("auto", (), "fp8: what vLLM serves best"),
        ("auto", ("fp8",), "w8a16: what vLLM serves of the run's, not fp8: no kernel of fp8"),
        ("auto", ("fp8", "w8a16"), "int8: what vLLM serves of the run's, not fp8: no kernel of fp8"),
        (
            "auto",
            ("fp8", "w8a16", "int8"),
            "int8: the embedded engine multiplies it, and vLLM serves none of the run's",
        ),
        # Who asks for vLLM is told why it cannot serve the best.
        ("vllm", ("fp8", "w8a16", "int8"), "fp8: what vLLM serves best"),
        ("embedded", (), "int8: the embedded engine multiplies it"),
    ],
)
def test_auto_chooses_engine_and_export_together(
    engine: str, refused: tuple[str, ...], chosen: str, tmp_path: Path
) -> None:
    for name in ("int8", "w8a16", "fp8"):
        folder = tmp_path / EXPORT_FORMATS[name].folder
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    why = {EXPORT_FORMATS[name].folder: f"no kernel of {name}" for name in refused}
    choice = choose_export(
        tmp_path, engine=engine, machine="NvidiaH100", refuse=lambda export: why.get(export.name, "")
    )
    assert choice.reason.startswith(chosen)
    assert choice.folder == tmp_path / EXPORT_FORMATS[chosen.split(":")[0]].folder


@pytest.mark.parametrize(("extra", "chosen"), [("32", "export-fp8"), ("abc", "export")])
def test_a_run_is_built_with_the_export_of_the_engine_that_will_draw(tmp_path: Path, extra: str, chosen: str) -> None:
    fp8 = {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {}}
    int8 = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    for name, how in (("export", int8), ("export-fp8", fp8)):
        (tmp_path / name).mkdir()
        content = {**json.loads(Path(POCKET.location, "config.json").read_text()), "quantization_config": how}
        (tmp_path / name / "config.json").write_text(json.dumps(content))
    config = KernelConfig(vllm=VllmSettings(extra={"block_size": extra}))
    named, _ = find_export(str(tmp_path), engine="auto", machine="NvidiaH100", config=config)
    assert named == str(tmp_path / chosen)


def test_fp8_needs_its_own_gpu_though_it_is_stored_as_others_are() -> None:
    config = {"quantization_config": {"quant_method": "compressed-tensors", "format": "float-quantized"}}
    assert [one.fits(7.5) for one in find_formats(read_storage(config), config)] == [False]
    others = {one.layout: one.fits(7.5) for one in find_formats(read_storage(config))}
    assert others == {"pack-quantized": True, "int-quantized": True, "float-quantized": False}


def test_what_gates_refused_is_no_advice(tmp_path: Path) -> None:
    for name in ("export", "export-fp8"):
        write_json(tmp_path / name / "config.json", {})
    write_json(tmp_path / "export" / "started.json", {})
    set_aside(tmp_path / "export")
    choice = choose_export(tmp_path, engine="embedded", machine="NvidiaH100")
    assert choice.reason == "fp8: the embedded engine loads it; int8 its gates refused"
    with pytest.raises(UserError, match=r"must hold an export for the machine(?s:.*)--export\.formats w8a16"):
        choose_export(tmp_path, engine="embedded", machine="NvidiaTeslaT4")
