"""Where a model says how its weights are stored, and who reads that."""

import importlib
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from mathlete.errors import UserError
from mathlete.export.formats.compressed import write_w8a8
from mathlete.export.formats.weights import WriteOptions
from mathlete.kernel import KernelConfig
from mathlete.models import ModelSource, find_model, load_model
from mathlete.models.descriptions import reads_text_part
from mathlete.runs import read_json, write_json
from mathlete.submission.embedded_fit import find_unloadable
from mathlete.submission.engine_choice import choose_engine, find_refusal
from mathlete.submission.serving import check_serving
from mathlete.submission.weights import list_needed, name_storage
from tests.test_submit_schemes import awq, packed
from tests.test_submit_vllm import model_of

MODELOPT: dict[str, object] = {
    "producer": {"name": "modelopt", "version": "0.23.0"},
    "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]},
}


@pytest.mark.parametrize(
    ("config", "beside", "word"),
    [
        ({}, MODELOPT, "modelopt"),
        ({"quantization_config": awq()}, MODELOPT, "awq"),
        ({"text_config": {"quantization_config": awq()}}, None, "awq"),
        ({"compression_config": packed(4, strategy="channel")}, None, "compressed-tensors"),
        (
            {},
            {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}},
            "dense",
        ),
        ({}, None, "dense"),
    ],
)
def test_every_file_that_says_how_weights_are_stored_is_read(
    tmp_path: Path, config: dict[str, object], beside: dict[str, object] | None, word: str
) -> None:
    model = model_of(tmp_path, **config)
    if beside is not None:
        write_json(model / "hf_quant_config.json", beside)
    assert name_storage(model) == word
    source = ModelSource(name="stored", location=str(model))
    assert source.is_quantized() == (word != "dense")
    if word == "dense" or "quantization_config" in config:
        source.require_described()
        return
    # vLLM reads it, transformers would take such weights for dense ones.
    with pytest.raises(UserError, match=r"transformers of the image would take them for dense ones"):
        source.require_described(on_kaggle=True)
    if "text_config" in config and reads_text_part():
        source.require_described()
        return
    with pytest.raises(UserError, match=r"transformers would take them for dense ones(?s:.*)with --model$"):
        source.require_described()


@pytest.mark.parametrize(
    ("looks_at", "reads"),
    [
        (lambda config: hasattr(config, "quantization_config"), False),  # as 5.0.0 does
        (lambda config: getattr(config.get_text_config(decoder=True), "quantization_config", None), True),
    ],
)
def test_the_transformers_that_is_here_is_asked_whether_it_reads_the_part_for_texts(
    looks_at: Callable[[object], object], reads: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = importlib.import_module("transformers.quantizers.auto")
    monkeypatch.setattr(auto, "get_hf_quantizer", lambda config, *_: looks_at(config))
    reads_text_part.cache_clear()
    source = ModelSource(name="", location=str(model_of(tmp_path, text_config={"quantization_config": awq()})))
    with nullcontext() if reads else pytest.raises(UserError, match="quantization_config in text_config of"):
        source.require_described()
    reads_text_part.cache_clear()


OTHERS: list[tuple[dict[str, object], dict[str, object] | None, str, bool | None]] = [
    # config.json, the file of ModelOpt, machine, whether vLLM serves it (None: as `choose_engine` says)
    ({"compression_config": packed(strategy="channel")}, None, "NvidiaH100", True),
    ({"compression_config": packed(3, strategy="channel")}, None, "NvidiaH100", False),
    ({"compression_config": packed(strategy="channel")}, None, "NvidiaTeslaP100", False),
    ({}, MODELOPT, "NvidiaH100", None),
    ({}, MODELOPT, "NvidiaTeslaT4", None),
]


@pytest.mark.parametrize(("own", "beside", "machine", "served"), OTHERS)
def test_a_cure_names_vllm_only_where_a_build_for_it_would_be_taken(
    own: dict[str, object], beside: dict[str, object] | None, machine: str, served: bool | None, tmp_path: Path
) -> None:
    model, config = tmp_path / "model", KernelConfig()
    shutil.copytree(find_model("pocket").location, model)
    write_json(model / "config.json", {**read_json(model / "config.json"), **own})
    if beside is not None:
        write_json(model / "hf_quant_config.json", beside)
    with pytest.raises(UserError, match=r"config\.json must say in quantization_config") as refused:
        check_serving(model, config, weights=False, machine=machine)
    named = "(--engine vllm)" in refused.value.cure
    try:
        choose_engine("vllm", model=model, machine=machine, config=config, weights=0)
    except UserError:
        assert not named
    else:
        assert named
    assert served in (None, named)


def test_weights_of_an_older_modelopt_are_none_that_an_engine_takes_for_dense(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(find_model("pocket").location, model)
    write_json(model / "hf_quant_config.json", MODELOPT)
    wrong = find_refusal(model=model_of(model), machine="NvidiaTeslaT4", config=KernelConfig(), weights=2**30)
    assert (
        "whose storage is checked here: int8, compressed-tensors, dense, nf4, mxfp4, gptq, awq, fp8, got modelopt"
        in str(wrong)
    )
    with pytest.raises(UserError, match=r"got modelopt weights(?s:.*)another of Kaggle's with --model-source"):
        list_needed(model, engine="vllm")
    shutil.copy(Path(find_model("pocket").location) / "config.json", model)
    # On Kaggle alone are the weights of a model that is mounted: its index tells of scales where that file is not here.
    (model / "hf_quant_config.json").unlink()
    check_serving(model, KernelConfig(), weights=False)
    write_json(model / "model.safetensors.index.json", {"weight_map": {"model.layers.0.up_proj.weight_scale": ""}})
    with pytest.raises(UserError, match=r"described by a quantization_config(?s:.*)got model\.layers\.0"):
        check_serving(model, KernelConfig(), weights=False)
    (model / "model.safetensors.index.json").unlink()
    write_json(model / "hf_quant_config.json", MODELOPT)
    with pytest.raises(UserError, match=r"config\.json must say in quantization_config how"):
        load_model(find_model(str(model)))


def test_what_transformers_does_not_read_is_served_by_vllm_alone(tmp_path: Path) -> None:
    model = Path(shutil.copytree(find_model("pocket").location, tmp_path / "model"))
    write_w8a8(model, Path(find_model("pocket").location), WriteOptions(dtype="float32", threshold=6.0))
    check_serving(model, KernelConfig())
    assert find_unloadable(model, machine="NvidiaL4", weights=1) == ""
    config = read_json(model / "config.json")
    write_json(model / "config.json", {"compression_config": config.pop("quantization_config"), **config})
    check_serving(model, KernelConfig(engine="vllm"))
    assert "got compression_config of" in find_unloadable(model, machine="NvidiaL4", weights=1)
    for weights in (True, False):
        with pytest.raises(UserError, match=r"got compression_config of .* alone(?s:.*)write what compression_config"):
            check_serving(model, KernelConfig(), weights=weights)
    with pytest.raises(UserError, match="got compression_config of"):
        load_model(find_model(str(model)))
