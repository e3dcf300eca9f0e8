"""What fits into a machine's memory: the context that a build chooses, and what is said where no engine has room."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mathlete.errors import UserError
from mathlete.kernel import KernelConfig
from mathlete.models.hardware import GPUS
from mathlete.sampling import SamplingConfig
from mathlete.sampling.served import VllmSettings
from mathlete.solve import Policy
from mathlete.submission.engine_choice import EngineWord, choose_engine
from mathlete.submission.weights import tell_other_weights
from tests.test_submit_extra import QWEN, STORED, refuse

R1_32B: dict[str, object] = {
    **{**QWEN, "num_attention_heads": 40, "num_key_value_heads": 8, "hidden_size": 5120, "intermediate_size": 27648},
    **{"num_hidden_layers": 64, "max_position_embeddings": 131072},
}


@pytest.mark.parametrize("word", ["auto", "vllm"])
@pytest.mark.parametrize(
    ("gib", "vllm", "length"),
    [
        (55, VllmSettings(), None),
        (61, VllmSettings(), 32768 + 3072),
        (61.4, VllmSettings(), 32768 + 2048),
        (61, VllmSettings(max_model_len=33000), 33000),
        (61, VllmSettings(kv_dtype="fp8"), None),
    ],
)
def test_a_context_that_nobody_named_is_as_long_as_has_room(
    tmp_path: Path, gib: float, vllm: VllmSettings, length: int | None, word: EngineWord
) -> None:
    """A much slower engine is taken for no less."""
    (tmp_path / "config.json").write_text(json.dumps(R1_32B))
    config = KernelConfig(policy=Policy(sampling=SamplingConfig(max_tokens=32768)), vllm=vllm)
    given: dict[str, Any] = {"model": tmp_path, "machine": "NvidiaH100", "weights": int(gib * 2**30)}
    chosen = choose_engine(word, config=config, **given)
    assert (chosen.engine, chosen.vllm) == ("vllm", replace(vllm, max_model_len=length))
    named = length is not None and vllm.max_model_len is None
    assert (f"--vllm.max-model-len {length}" in chosen.reason) == named
    # The very settings pass where they are asked again.
    assert choose_engine(word, config=replace(config, vllm=chosen.vllm), **given).engine == "vllm"


@pytest.mark.parametrize(
    ("machine", "vllm", "cap", "begins"),
    [
        ("NvidiaH100", VllmSettings(max_model_len=50000), 32768, "build with --vllm.max-model-len 36"),
        ("NvidiaH100", VllmSettings(), 60000, "build with --sampling.max-tokens 34"),
        ("NvidiaH100", VllmSettings(kv_dtype="fp8", max_model_len=100000), 32768, "build with --vllm.max-model-len 73"),
    ],
)
def test_what_a_context_without_room_is_cured_by(
    tmp_path: Path, machine: str, vllm: VllmSettings, cap: int, begins: str
) -> None:
    refused = refuse(tmp_path, machine=machine, model=R1_32B, vllm=vllm, gib=61, max_tokens=cap)
    assert f"Fix: {begins}" in refused or f", or {begins}" in refused
    assert ("with --vllm.kv-dtype fp8" in refused) == (vllm.kv_dtype == "auto")


@pytest.mark.parametrize(
    ("machine", "gib", "words"),
    [
        ("NvidiaTeslaT4", 27.5, {}),
        ("NvidiaTeslaT4", 27.5, {"tensor_parallel": 1}),
        ("NvidiaL4X1", 27.5, {}),
        ("NvidiaTeslaT4", 57, {}),
    ],
)
def test_no_build_ends_on_an_embedded_engine_without_room(
    tmp_path: Path, machine: str, gib: float, words: dict[str, Any]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**QWEN, "num_hidden_layers": 60}))
    given: dict[str, Any] = {"model": tmp_path, "machine": machine, "weights": int(gib * 2**30)}
    config = KernelConfig(vllm=VllmSettings(**words))
    for word in ("auto", "embedded"):
        with pytest.raises(UserError) as refused:
            choose_engine(word, config=config, **given)
        assert "one GPU of" in f"{refused.value.rule} {refused.value.value}"
        assert refused.value.cure
        assert "--engine" not in refused.value.cure
    with pytest.raises(UserError, match="vLLM") as refused:
        choose_engine("auto", config=config, **given)


def test_an_embedded_engine_without_room_is_cured_by_one_that_has_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    given: dict[str, Any] = {"model": tmp_path, "machine": "NvidiaL4", "weights": 30 * 2**30}
    with pytest.raises(UserError, match="build with --engine vllm, which has room"):
        choose_engine("embedded", config=KernelConfig(), **given)
    assert choose_engine("auto", config=KernelConfig(), **given).engine == "vllm"


def test_the_format_that_is_refused_is_no_cure() -> None:
    weights = {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True}
    w8a16 = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"g": {"weights": weights}},
    }
    for stored, named in ((STORED["awq"], True), (w8a16, False)):
        cure = tell_other_weights(GPUS["t4"], model={**QWEN, "quantization_config": stored}, embedded=False)
        assert (" w8a16 " in cure) == named
        assert " as int8 or " in cure
