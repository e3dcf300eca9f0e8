"""What has room in vLLM: which models keep all keys and values, by their config.json, and which words are wrong."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mathlete.errors import UserError
from mathlete.kaggle_image import vllm_facts
from mathlete.kernel import KernelConfig
from mathlete.models import Device, Shape
from mathlete.sampling import SamplingConfig
from mathlete.sampling.served import VllmSettings, VllmShape
from mathlete.solve import Policy
from mathlete.submission.engine_choice import EngineWord, choose_engine
from mathlete.submission.vllm_memory import find_crowding
from submit.building import find_cap
from tests.test_submit_vllm import model_of

PLAIN: dict[str, object] = {
    **{"num_hidden_layers": 48, "num_attention_heads": 16, "num_key_value_heads": 2, "hidden_size": 2048},
    **{"head_dim": 256, "max_position_embeddings": 262144},
}
"""Qwen3-Next-80B's numbers."""
OTHERS: list[dict[str, object]] = [
    {"full_attention_interval": 4, "linear_num_key_heads": 16},  # Qwen3-Next, Qwen3.5
    {"linear_num_value_heads": 32},
    {"attn_layer_period": 8, "attn_layer_offset": 4, "mamba_d_state": 16},  # Jamba
    {"attn_layer_indices": [9, 18, 27], "mamba_n_heads": 128},  # Bamba
    {"hybrid_override_pattern": "M-M*-"},  # Nemotron-H
    {"layers_block_type": ["mamba", "hybrid"]},  # Zamba2
    {"hybrid_layer_ids": [6, 12]},
    {"hybrid_layer_pattern": [0, 1, 1]},  # MiMo-V2: windows
    {"attn_type_list": [0, 0, 1]},  # MiniMax-Text-01
    {"full_attn_idxs": [2, 5, 8]},  # LFM2
    {"linear_attn_config": {"full_attn_layers": [4, 8]}},  # Kimi-linear
    {"layer_group_size": 5},  # Ring-linear
    {"mamba_d_ssm": 1024},  # Falcon-H1
    {"mamba_step": 2},  # Plamo 2
    {"state_size": 16},
    {"block_types": ["recurrent", "attention"]},
    {"attention_chunk_size": 8192},  # Llama 4
    {"num_kv_shared_layers": 15},  # Gemma 3n
    {"interleaved_sliding_window": [4096, None]},
    {"layer_types": ["linear_attention", "full_attention"]},
    {"sliding_window": 4096},
    {"kv_lora_rank": 512},
    {"block_configs": [{"attention": {"no_op": True}}]},
]


@pytest.mark.parametrize("own", OTHERS, ids=lambda own: next(iter(own)))
def test_layers_that_keep_less_than_all_keys_and_values_are_not_counted(own: dict[str, object]) -> None:
    assert VllmShape.of(PLAIN).layers == 48
    assert VllmShape.of({**PLAIN, **own}).layers is None
    assert VllmShape.of({"text_config": {**PLAIN, **own}}).layers is None


@pytest.mark.parametrize(
    "own", [{}, {"full_attention_interval": None}, {"moe_layer_interval": 1}, {"no_rope_layers": [1]}]
)
def test_words_of_plain_decoders_tell_of_no_other_layers(own: dict[str, object]) -> None:
    assert VllmShape.of({**PLAIN, **own}).layers == 48


def test_a_hybrid_without_layer_types_has_room_where_it_has_room() -> None:
    gpu = Device.of_machine("NvidiaRtxPro6000")
    assert gpu is not None
    config = KernelConfig(policy=Policy(sampling=SamplingConfig(max_tokens=81920)))
    models = (PLAIN, {**PLAIN, "full_attention_interval": 4})
    refused = [find_crowding(config, gpu=gpu, shared=1, weights=int(76.4 * 2**30), model=one) for one in models]
    assert [bool(one) for one in refused] == [True, False]


QWEN_32B: dict[str, object] = {
    **{"architectures": ["Qwen3ForCausalLM"], "num_hidden_layers": 64, "num_attention_heads": 64, "head_dim": 128},
    **{"num_key_value_heads": 8, "hidden_size": 5120, "intermediate_size": 25600, "max_position_embeddings": 40960},
    "quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
}
TP, USED = "--vllm.tensor-parallel", "--vllm.gpu-memory-utilization"
WORDED = [
    # machine, settings, how the cure begins
    ("NvidiaL4", VllmSettings(tensor_parallel=1), f"leave {TP} out, or export or mount weights of fewer bits"),
    ("NvidiaH100", VllmSettings(gpu_memory_utilization=0.3), f"leave {USED} out, or export"),
    ("NvidiaH100", VllmSettings(gpu_memory_utilization=0.45, eager=True), f"leave {USED} out, or export"),
    ("NvidiaL4", VllmSettings(tensor_parallel=1, gpu_memory_utilization=0.3), f"leave {TP} and {USED} out, or"),
    (
        "NvidiaL4",
        VllmSettings(tensor_parallel=1, extra={"data_parallel_size": "4"}),
        f"leave {TP} and --vllm.extra",
    ),
    # What the refusal says of one word would not do.
    ("NvidiaL4", VllmSettings(tensor_parallel=1, kv_gib=12), f"leave {TP} out"),
    # It names the word itself.
    ("NvidiaH100", VllmSettings(kv_gib=60), "43.8 at most, or leave it out"),
    ("NvidiaL4", VllmSettings(tensor_parallel=3), "leave it out"),
]


@pytest.mark.parametrize("word", ["vllm", "auto"])
@pytest.mark.parametrize(("machine", "vllm", "begins"), WORDED)
def test_a_word_that_alone_is_wrong_is_named_by_the_cure(
    machine: str, vllm: VllmSettings, begins: str, word: EngineWord, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"model": model_of(tmp_path, **QWEN_32B), "machine": machine, "weights": 34 * 2**30}
    config = replace(KernelConfig(), vllm=vllm)
    with pytest.raises(UserError) as refused:
        choose_engine(word, config=config, **given)
    assert refused.value.cure.startswith(begins)
    for flag, less in vllm.list_without():
        if refused.value.cure.startswith(f"leave {flag} out"):
            assert choose_engine("vllm", config=replace(config, vllm=less), **given).engine == "vllm"


def test_a_word_is_not_named_where_there_is_no_room_without_it_either(tmp_path: Path) -> None:
    config = replace(KernelConfig(), vllm=VllmSettings(tensor_parallel=1))
    with pytest.raises(UserError, match="Fix: export or mount weights of fewer bits"):
        choose_engine("vllm", model=model_of(tmp_path, **QWEN_32B), machine="NvidiaL4", config=config, weights=2**37)


@pytest.mark.slow
def test_transformers_own_hybrids_are_seen_without_their_layer_types() -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    known, seen = frozenset(vllm_facts().architectures), 0
    for kind, names in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        if known.isdisjoint([names] if isinstance(names, str) else names):
            continue
        config = CONFIG_MAPPING[kind]().get_text_config().to_dict()
        types: Sequence[str] = config.pop("layer_types", None) or config.pop("layers_block_type", None) or ()
        if {*types} - {"full_attention"}:
            seen += 1
            assert VllmShape.of({**config, **PLAIN}).layers is None, kind
    assert seen >= 20


GEMMA: dict[str, Any] = {
    # As google/gemma-3-4b-it has it.
    **{"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3"},
    "text_config": {
        **{"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34},
        **{"sliding_window": 1024, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}},
    },
}


@pytest.mark.parametrize("own", [{}, {"text_config": {**GEMMA["text_config"], "model_type": "gemma3"}}])
def test_a_number_that_a_config_leaves_out_is_its_kinds_own(own: dict[str, object], tmp_path: Path) -> None:
    shape = VllmShape.of({**GEMMA, **own})
    assert (shape.longest, shape.shares, shape.keys, shape.width) == (131072, 8, 4, 256)
    model = model_of(tmp_path, **GEMMA)
    assert find_cap(str(model), asks_hub=False) == 32768
    config = KernelConfig(vllm=VllmSettings(max_model_len=200000))
    with pytest.raises(UserError, match="within the model's context, got 200000 of 131072"):
        choose_engine("vllm", model=model, machine="NvidiaH100", config=config, weights=2**33)


@pytest.mark.parametrize(
    ("config", "keys", "width"),
    [
        ({"model_type": "qwen3", "num_attention_heads": 16, "hidden_size": 1024}, 32, 128),
        # `null` is said: as many as there are heads.
        (
            {"model_type": "mistral", "num_attention_heads": 16, "num_key_value_heads": None, "hidden_size": 1024},
            16,
            64,
        ),
        ({"model_type": "no-such-kind", "num_attention_heads": 16, "hidden_size": 1024}, 16, 64),
    ],
)
def test_what_is_said_is_not_left_out(config: dict[str, object], keys: int, width: int) -> None:
    shape = VllmShape.of(config)
    assert (shape.keys, shape.width) == (keys, width)
    numbers = {"vocab_size": 8, "intermediate_size": 64, "num_hidden_layers": 2}
    plain = Shape.from_config({**config, **numbers})
    assert (plain.kv_heads, plain.head_width) == (keys, width)


@pytest.mark.slow
def test_numbers_that_a_config_leaves_out_are_those_of_transformers() -> None:
    """`python tests/config_defaults.py` writes them anew."""
    from tests.config_defaults import FILE, find_defaults

    assert json.loads(FILE.read_text(encoding="utf-8"))["kinds"] == find_defaults()
