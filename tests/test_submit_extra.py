"""`--vllm.extra` and the room in vLLM: each argument is classed, what is offered is held, both doors count the same."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mathlete.errors import UserError
from mathlete.kaggle_image import vllm_facts
from mathlete.kernel import steps
from mathlete.kernel.config import KernelConfig
from mathlete.models import Shape
from mathlete.models.hardware import GPUS
from mathlete.sampling import SamplingConfig
from mathlete.sampling.served import VllmSettings, VllmShape, vllm_settings, vllm_shape
from mathlete.solve import Policy
from mathlete.submission import checks, vllm_extra, vllm_fit
from mathlete.submission.build import Build
from mathlete.submission.engine_choice import choose_engine
from mathlete.submission.serving import check_serving
from mathlete.submission.vllm_memory import find_crowding
from tests.conftest import ROOT
from tests.test_submit_slugs import write_metadata

QWEN: dict[str, object] = {
    **{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "torch_dtype": "bfloat16"},
    **{"num_attention_heads": 28, "num_key_value_heads": 4, "hidden_size": 3584, "intermediate_size": 18944},
    **{"num_hidden_layers": 28, "max_position_embeddings": 32768},
}
EXPERTS = {**QWEN, "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_experts": 128}
GPT2: dict[str, object] = {
    **{"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_positions": 1024},
    **{"n_head": 25, "n_embd": 1600, "n_layer": 48},
}
STORED: dict[str, dict[str, object]] = {
    "fp8": {"quant_method": "fp8", "activation_scheme": "dynamic"},
    "bitsandbytes": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True},
}
NGRAM: dict[str, object] = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}
FOLDER: dict[str, object] = {"model": "/kaggle/input/small", "num_speculative_tokens": 3}


def refuse(
    folder: Path,
    *,
    machine: str = "NvidiaH100",
    model: dict[str, object] = QWEN,
    vllm: VllmSettings,
    gib: float = 2,
    **sampling: Any,
) -> str:
    """Return what `--engine vllm` refuses; "" where it builds."""
    (folder / "config.json").write_text(json.dumps(model))
    policy = Policy(sampling=SamplingConfig(**{"max_tokens": 256, **sampling}))
    config = replace(KernelConfig(), vllm=vllm, policy=policy)
    try:
        choose_engine("vllm", model=folder, machine=machine, config=config, weights=int(gib * 2**30))
    except UserError as error:
        return str(error)
    return ""


def test_each_argument_of_vllm_is_offered_or_refused_for_a_reason_and_none_by_default() -> None:
    facts = vllm_facts()
    classed = [*facts.offered, *(name for names in facts.refused.values() for name in names)]
    assert sorted(classed) == sorted(facts.arguments)
    # What is offered has a kind, words or a rule of its own; bounds are of nothing else.
    alone = {name for name, words in facts.offered.items() if not words and name not in facts.values}
    assert alone == {"quantization", "speculative_config", "limit_mm_per_prompt"}
    assert facts.bounds.keys() <= facts.offered.keys()
    ours = next(names for reason, names in facts.refused.items() if "this project relies on" in reason)
    assert {*ours} == {*vars(vllm_settings)["_NAMED"], *vars(vllm_settings)["_SET_HERE"]}
    assert {*facts.undivided} < {*facts.architectures}


def test_the_documentation_lists_what_is_offered() -> None:
    text = (ROOT / "docs/vllm.md").read_text(encoding="utf-8")
    (line,) = (part for part in text.split("\n\n") if part.startswith("`--vllm.extra` takes "))
    assert [word for word in line.partition(" in a notebook")[0].split("`") if word in vllm_facts().arguments] == [
        *vllm_facts().offered
    ]


@pytest.mark.parametrize("mode", ["raw_logits", "raw_logprobs", "processed_logits", "processed_logprobs"])
def test_what_samples_record_is_no_setting_in_a_notebook_nor_in_an_evaluation(mode: str) -> None:
    with pytest.raises(UserError, match="must not name what is set otherwise, got logprobs_mode"):
        VllmSettings(extra={"logprobs_mode": mode}).check()


def test_what_is_not_offered_is_refused_whatever_its_value() -> None:
    names = sorted({*vllm_facts().arguments} - {*vllm_facts().offered})
    config = replace(KernelConfig(), vllm=VllmSettings(extra=dict.fromkeys(names, "1")))
    refused = [*vllm_extra.find_wrong_extra(config, model=QWEN)]
    assert [str(one.value).partition(", which ")[0] for one in refused] == names


EXTRA: list[tuple[str, object, dict[str, Any], str]] = [
    # Arguments that 0.19.1 refuses when it boots, or at each request (create_engine_config of its CPU build).
    ("load_format", "safetensor", {}, "did you mean safetensors"),
    ("optimization_level", 7, {}, "must be one of 0, 1, 2, 3, got 7"),
    ("optimization_level", True, {}, "must be one of 0, 1, 2, 3, got true"),
    ("optimization_level", 0, {}, ""),
    ("enable_chunked_prefill", "True", {}, "spelled as JSON spells it, got True.\n  Fix: write true"),
    ("distributed_executor_backend", "mpp", {}, "must be one of mp"),
    ("max_cudagraph_capture_size", -5, {}, "at least 1, got -5"),
    ("max_cudagraph_capture_size", 1024, {}, ""),
    ("limit_mm_per_prompt", {"image": 0, "video": 0}, {}, ""),
    ("limit_mm_per_prompt", {"image": 2}, {}, "must be an object in JSON that rules kinds"),
    ("limit_mm_per_prompt", 3, {}, "must be an object in JSON that rules kinds"),
    ("enable_expert_parallel", True, {}, "needs a model whose layers have experts"),
    ("enable_expert_parallel", True, {"model": EXPERTS}, ""),
    ("moe_backend", "triton", {"model": EXPERTS}, ""),
    (
        "moe_backend",
        "triton",
        {"model": {**EXPERTS, "quantization_config": STORED["awq"]}},
        "is for experts in 16 bits",
    ),
    ("speculative_config", NGRAM, {}, ""),
    (
        "speculative_config",
        FOLDER,
        {},
        "made by ngram: a build mounts no second model that drafts, got draft_model",
    ),
    ("speculative_config", None, {}, ""),
    ("speculative_config", "ngram", {}, "must be an object in JSON"),
    ("speculative_config", [NGRAM], {}, "must be an object in JSON"),
    ("speculative_config", {}, {}, "got no method"),
    ("speculative_config", {**NGRAM, "method": "ngrams"}, {}, "did you mean ngram"),
    ("speculative_config", {"method": "ngram"}, {}, "num_speculative_tokens must be a whole number, 1 to 64, got none"),
    ("speculative_config", {**NGRAM, "num_speculative_tokens": 0}, {}, "1 to 64, got 0"),
    ("speculative_config", {**NGRAM, "num_speculative_tokens": True}, {}, "1 to 64, got True"),
    (
        "speculative_config",
        {**NGRAM, "prompt_lookup_min": 5},
        {},
        "must not be more than prompt_lookup_max, got 5 and 4",
    ),
    ("speculative_config", {**NGRAM, "tensor_parallel_size": 1}, {}, "words that are held here, got tensor_parallel_"),
    ("speculative_config", {**FOLDER, "method": "eagle3"}, {}, "got eagle3, /kaggle/input/small"),
    ("speculative_config", {"method": "eagle3", "num_speculative_tokens": 3}, {}, "got eagle3"),
    ("speculative_config", NGRAM, {"min_p": 0.05}, "--sampling.min-p must be 0 beside a draft"),
    ("async_scheduling", "yes", {}, "must be true or false, got yes.\n  Fix: write true"),
    ("async_scheduling", "0", {}, "Fix: write false"),
    ("async_scheduling", "3", {}, "Fix: leave it out"),
]


@pytest.mark.parametrize(("name", "value", "given", "says"), EXTRA)
def test_an_argument_is_held_against_vllms_own_rule(
    tmp_path: Path, name: str, value: object, given: dict[str, Any], says: str
) -> None:
    word = value if isinstance(value, str) else json.dumps(value)
    refused = refuse(tmp_path, vllm=VllmSettings(extra={name: word}), **given)
    assert says in refused
    assert bool(refused) == bool(says)


def both(**words: str) -> VllmSettings:
    return VllmSettings(tensor_parallel=1, extra=words)


BESIDE = [
    ("NvidiaH100", both(speculative_config=json.dumps(NGRAM), async_scheduling="true"), "is not for a draft by ngram"),
    ("NvidiaH100", both(max_num_batched_tokens="200"), "got 256 of 200"),
    ("NvidiaL4", both(speculative_config=json.dumps(NGRAM), pipeline_parallel_size="2"), "nothing is known of both"),
    # All that takes more GPUs, together: the machine has four.
    ("NvidiaL4", both(pipeline_parallel_size="2", data_parallel_size="2"), ""),
    (
        "NvidiaL4",
        both(pipeline_parallel_size="4", data_parallel_size="4"),
        "4 and data_parallel_size 4, each with 1, of",
    ),
    ("NvidiaL4", replace(both(pipeline_parallel_size="2"), tensor_parallel=2), ""),
    ("NvidiaL4", replace(both(pipeline_parallel_size="2", data_parallel_size="2"), tensor_parallel=2), "with 2, of 4"),
    ("NvidiaL4", both(nnodes="2"), "nnodes, which is for several machines"),
]


@pytest.mark.parametrize(("machine", "vllm", "says"), BESIDE)
def test_arguments_are_held_beside_each_other(tmp_path: Path, machine: str, vllm: VllmSettings, says: str) -> None:
    refused = refuse(tmp_path, machine=machine, vllm=vllm)
    assert says in refused
    assert bool(refused) == bool(says)


def test_layers_are_cut_of_models_that_vllm_can_cut(tmp_path: Path) -> None:
    model = {**QWEN, "architectures": ["SmolVLMForConditionalGeneration"]}
    refused = refuse(tmp_path, machine="NvidiaL4", model=model, vllm=both(pipeline_parallel_size="2"))
    assert "must be able to cut the model's layers" in refused


@pytest.mark.parametrize(
    ("stored", "word", "good"),
    [
        ("fp8", "moe_wna16", False),
        ("bitsandbytes", "moe_wna16", False),
        ("gptq", "moe_wna16", True),
        ("awq", "moe_wna16", True),
        ("gptq", "gptq_marlin", True),
        ("awq", "awq_marlin", True),
        ("fp8", "fp8", True),
        ("awq", "gptq_marlin", False),
    ],
)
def test_a_quantisation_is_one_that_vllm_makes_of_what_is_stored(
    tmp_path: Path, stored: str, word: str, good: bool
) -> None:
    model = {**QWEN, "quantization_config": STORED[stored]}
    assert bool(refuse(tmp_path, model=model, vllm=VllmSettings(extra={"quantization": word}))) != good


def test_a_quantisation_of_other_weights_of_the_same_method_is_refused(tmp_path: Path) -> None:
    for change, word in (
        ({"desc_act": True}, "moe_wna16"),
        ({"sym": False}, "gptq_marlin"),
        ({"bits": 3}, "moe_wna16"),
    ):
        model = {**QWEN, "quantization_config": {**STORED["gptq"], **change}}
        assert refuse(tmp_path, model=model, vllm=VllmSettings(extra={"quantization": word}))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (1024, "must hold a whole completion and a question, got 1024 for completions of 1024"),
        (1000, "give 3072"),
        # What the model's context leaves beside the same cap without the flag is taken with it too.
        (1024 + 512, ""),
        (32769, "within the model's context"),
    ],
)
def test_a_context_holds_a_question_and_a_whole_completion(tmp_path: Path, asked: int, says: str) -> None:
    refused = refuse(tmp_path, vllm=VllmSettings(max_model_len=asked), max_tokens=1024)
    assert says in refused
    assert bool(refused) == bool(says)
    assert vars(steps)["_SAFE_PROMPT"] == vllm_fit.QUESTION_TOKENS
    # Of a model that attends to less, all that it attends to.
    small = {**QWEN, "max_position_embeddings": 1536}
    assert not refuse(tmp_path, model=small, vllm=VllmSettings(max_model_len=1536), max_tokens=1024)


def test_the_models_own_prompt_is_held_against_the_context_that_vllm_is_given() -> None:
    export = ROOT / "data/pocket/model"
    config = replace(KernelConfig(), policy=Policy(sampling=SamplingConfig(max_tokens=32)), engine="vllm")
    check_serving(export, config)
    with pytest.raises(UserError, match="context of 33 tokens beside its prompt") as refused:
        check_serving(export, replace(config, vllm=VllmSettings(max_model_len=33)))
    cure = int(refused.value.cure.rpartition(" ")[2])
    left = f"{cure - 32} tokens are left for a question"
    assert check_serving(export, replace(config, vllm=VllmSettings(max_model_len=cure))).startswith(left)
    assert check_serving(export, config) == ""
    # What closes a forced answer counts too, and the cap that the cure names is taken.
    for harvest_tokens in (32, 200):
        forced = replace(config.policy, harvest=0.5, harvest_tokens=harvest_tokens)
        forced = replace(forced, sampling=SamplingConfig(max_tokens=900))
        with pytest.raises(UserError, match="beside its prompt") as refused:
            check_serving(export, replace(config, policy=forced, vllm=VllmSettings(max_model_len=500)))
        cap = int(refused.value.cure.partition("--sampling.max-tokens ")[2].partition(",")[0])
        forced = replace(forced, sampling=SamplingConfig(max_tokens=cap))
        check_serving(export, replace(config, policy=forced, vllm=VllmSettings(max_model_len=500)))


LLAMA_70B: dict[str, object] = {
    **{"num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "hidden_size": 8192},
    "max_position_embeddings": 131072,
}


@pytest.mark.parametrize("gib", [50, 60, 66, 68, 69])
@pytest.mark.parametrize("block", ["16", "256", "4096", "200000"])
@pytest.mark.parametrize("harvest", [0.0, 0.5])
def test_what_is_said_to_have_room_has_room(gib: int, block: str, harvest: float) -> None:
    """Whole blocks count, and what the cure asks for is taken."""
    policy = Policy(sampling=SamplingConfig(max_tokens=32768), harvest=harvest, harvest_tokens=200)
    config = replace(KernelConfig(), policy=policy)
    config = replace(config, vllm=VllmSettings(extra={"block_size": block}))
    given: dict[str, Any] = {"gpu": GPUS["h100"], "shared": 1, "weights": gib * 2**30, "model": LLAMA_70B}
    refused = find_crowding(config, **given)
    if refused is None or "--vllm.max-model-len" not in refused.cure:
        assert refused or gib == 50
        return
    words, cap = refused.cure.split(), 32768
    length = int(words[words.index("--vllm.max-model-len") + 1].rstrip(","))
    if "--sampling.max-tokens" in words:
        cap = int(words[words.index("--sampling.max-tokens") + 1])
        assert cap < 32768
    # No more of the cap is taken than a question needs.
    closing = policy.longest_tokens - 32768
    assert cap == min(32768, length - closing - vllm_fit.QUESTION_TOKENS)
    tried = replace(config, vllm=replace(config.vllm, max_model_len=length))
    tried = replace(tried, policy=replace(policy, sampling=SamplingConfig(max_tokens=cap)))
    assert tried.policy.longest_tokens + vllm_fit.QUESTION_TOKENS <= length
    assert find_crowding(tried, **given) is None
    assert [*vllm_fit._check_context(tried, model=LLAMA_70B)] == []


ROOM: list[tuple[str, dict[str, object], VllmSettings, float, str]] = [
    # Weights in 32 bits are loaded in 16.
    ("NvidiaL4X1", {**QWEN, "torch_dtype": "float32"}, VllmSettings(), 28.4, ""),
    ("NvidiaL4X1", {**QWEN, "torch_dtype": None, "dtype": "float32"}, VllmSettings(), 28.4, ""),
    (
        "NvidiaL4X1",
        {**QWEN, "torch_dtype": None, "text_config": {**QWEN, "dtype": "float32"}},
        VllmSettings(),
        28.4,
        "",
    ),
    (
        "NvidiaL4X1",
        QWEN,
        VllmSettings(),
        28.4,
        "must leave memory for keys and values on one GPU of 22.5 GiB, got 28.4 GiB",
    ),
    # What stays in main memory is counted, in either door, and held against that.
    ("NvidiaH100", QWEN, VllmSettings(extra={"cpu_offload_gb": "40"}), 90, ""),
    ("NvidiaH100", QWEN, VllmSettings(extra={"cpu_offload_gb": "229"}), 290, "into the 234 GiB of the machine's main"),
    ("NvidiaTeslaT4", QWEN, VllmSettings(extra={"cpu_offload_gb": "12"}), 40, ""),
    ("NvidiaTeslaT4", QWEN, VllmSettings(extra={"cpu_offload_gb": "95"}), 200, "got 190 GiB of 2 GPUs"),
    ("NvidiaL4X1", QWEN, VllmSettings(extra={"cpu_offload_gb": "400"}), 40, ""),
    # No more can stay there than the weights are.
    ("NvidiaTeslaT4", QWEN, VllmSettings(extra={"cpu_offload_gb": "64"}), 10, ""),
    # The share of memory that vLLM is given, and no other.
    ("NvidiaH100", QWEN, VllmSettings(gpu_memory_utilization=0.95, max_model_len=9000), 70, ""),
    # Dense weights that vLLM makes smaller as it loads them; embedding and head stay as they are.
    ("NvidiaL4X1", QWEN, VllmSettings(extra={"quantization": "bitsandbytes"}), 28.4, ""),
    ("NvidiaL4X1", QWEN, VllmSettings(extra={"quantization": "fp8"}), 28.4, ""),
    ("NvidiaL4X1", QWEN, VllmSettings(extra={"quantization": "fp8"}), 45, "on one GPU of 22.5 GiB, got 2"),
    ("NvidiaL4X1", {**QWEN, "vocab_size": 10**6}, VllmSettings(extra={"quantization": "fp8"}), 28.4, "got 2"),
    ("NvidiaTeslaT4", QWEN, VllmSettings(extra={"quantization": "bitsandbytes"}), 28.4, ""),
    ("NvidiaH100", QWEN, VllmSettings(gpu_memory_utilization=0.5), 45, "on one GPU of 79.6 GiB, got 45.0 GiB"),
]


@pytest.mark.parametrize(("machine", "model", "vllm", "gib", "says"), ROOM)
def test_build_and_preflight_count_the_same_room(
    build: Build, machine: str, model: dict[str, object], vllm: VllmSettings, gib: float, says: str
) -> None:
    refused = refuse(build.model, machine=machine, model=model, vllm=vllm, gib=gib)
    assert says in refused
    assert bool(refused) == bool(says)
    with (build.model / "model.safetensors").open("wb") as file:
        file.truncate(int(gib * 2**30))
    write_metadata(build.kaggle, machine_shape=machine)
    policy = Policy(sampling=SamplingConfig(max_tokens=256))
    config = replace(build.config, engine="vllm", vllm=vllm, policy=policy)
    found = [one for one in checks._sizes(replace(build, config=config)) if "private quota" not in one.rule]
    assert bool(found) == bool(says)
    assert all(says in f"{one.rule}, got {one.value}" for one in found)


def test_heads_and_layers_have_older_names(tmp_path: Path) -> None:
    shape = VllmShape.of(GPT2)
    assert (shape.shares, shape.layers, shape.keys, shape.width) == (25, 48, 25, 64)
    given: dict[str, Any] = {"model": GPT2, "machine": "NvidiaTeslaT4", "max_tokens": 256}
    assert "must divide the model's attention heads" in refuse(tmp_path, vllm=VllmSettings(tensor_parallel=2), **given)
    assert not refuse(tmp_path, vllm=VllmSettings(), **given)
    for config, keys in (
        ({"multi_query": True, "n_head": 16}, 1),
        ({"n_heads": 32, "attn_config": {"kv_n_heads": 8}}, 8),
    ):
        assert VllmShape.of(config).keys == keys


@pytest.mark.slow
def test_older_names_are_those_of_transformers() -> None:
    """Of all decoders of its library that vLLM serves."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    older, served = vars(vllm_shape)["_OLDER"], 0
    for kind, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        if name in vllm_facts().architectures:
            served += 1
            names = getattr(CONFIG_MAPPING[kind], "attribute_map", {})
            assert [names[word] for word in older if word in names and names[word] not in older[word]] == [], kind
    assert served > 50


def test_how_weights_are_stored_may_stand_in_the_part_for_texts(tmp_path: Path) -> None:
    inner = {**QWEN, "quantization_config": {**STORED["gptq"], "bits": 5}}
    model: dict[str, object] = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": inner}
    assert Shape.read_quantization(model) == {**STORED["gptq"], "bits": 5}
    assert "got 5-bit gptq" in refuse(tmp_path, model=model, vllm=VllmSettings())
