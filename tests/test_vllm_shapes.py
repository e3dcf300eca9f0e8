"""Of which models vLLM keeps the keys and values of all tokens in each layer, by their config.json."""

from collections.abc import Sequence

import pytest

from mathlete.kaggle_image import vllm_facts
from mathlete.kernel import KernelConfig
from mathlete.models import Device
from mathlete.sampling import SamplingConfig
from mathlete.sampling.served import VllmShape
from mathlete.solve import Policy
from mathlete.submission.vllm_memory import find_crowding

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
