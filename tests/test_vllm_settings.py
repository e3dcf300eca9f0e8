"""Settings of the vllm engine become arguments of vLLM, by machine and cap."""

import json
from dataclasses import asdict
from typing import Any

import pytest

from mathlete.engines import EngineSettings
from mathlete.errors import UserError
from mathlete.models import find_model
from mathlete.sampling.served import RaySettings, ServerSettings
from mathlete.sampling.served.vllm_engine import VllmSampler, _engine_args, _name_cure
from mathlete.sampling.served.vllm_settings import VllmSettings
from tests import vllm_like
from tests.test_sampling_vllm_border import CONFIG, PROBLEM, PROMPTS, SAID, TOKENS, reply


def test_settings_become_the_arguments_of_vllm() -> None:
    own: dict[str, Any] = {"gpus": 2, "heads": 12, "context": 4096, "max_tokens": 1024}
    settings = VllmSettings(attention_backend="TRITON_ATTN", eager=True, prefix_caching=False, extra={"swap": "[1]"})
    assert VllmSettings(**json.loads(json.dumps(asdict(settings)))) == settings
    arguments = settings.to_arguments(**own)
    assert (arguments["tensor_parallel_size"], arguments["max_model_len"]) == (2, 4096)
    assert arguments["attention_config"] == {"backend": "TRITON_ATTN"}
    assert (arguments["enforce_eager"], arguments["enable_prefix_caching"], arguments["swap"]) == (True, False, [1])
    assert arguments["kv_cache_memory_bytes"] is None
    # vLLM keeps prefixes by itself, but for kinds of model that it does so for at a price.
    assert VllmSettings().to_arguments(**own)["enable_prefix_caching"] is None
    assert arguments["stream_interval"] == 16
    for cap, told in ((None, 16), (160, 8), (20, 1)):
        assert VllmSettings().to_arguments(**{**own, "max_tokens": cap})["stream_interval"] == told
    assert VllmSettings(extra={"stream_interval": "1"}).to_arguments(**own)["stream_interval"] == 1


@pytest.mark.parametrize(
    ("settings", "machine", "parallel", "context"),
    [
        (VllmSettings(), {"gpus": 4, "heads": 28, "max_tokens": 32768}, 4, 40960),
        (VllmSettings(), {"gpus": 4, "heads": 14, "max_tokens": None}, 2, None),
        (VllmSettings(), {"gpus": 3, "heads": None, "max_tokens": 10**6}, 3, 131072),
        (VllmSettings(), {"gpus": 0, "heads": 12, "max_tokens": 160}, 1, 8352),
        (VllmSettings(tensor_parallel=1, max_model_len=500), {"gpus": 4, "heads": 28, "max_tokens": 160}, 1, 500),
    ],
)
def test_gpus_and_context_follow_machine_and_cap(
    settings: VllmSettings, machine: dict[str, int], parallel: int, context: int | None
) -> None:
    arguments = settings.to_arguments(context=131072, **machine)
    assert (arguments["tensor_parallel_size"], arguments["max_model_len"]) == (parallel, context)


@pytest.mark.parametrize(
    ("engine", "own", "told"),
    [
        ("transformers", VllmSettings(eager=True), "--vllm.eager is for --engine vllm, got --engine transformers"),
        (
            "vllm",
            ServerSettings(urls=("http://localhost:1/v1",)),
            "--servers.urls is for --engine openai, got --engine",
        ),
        ("transformers", RaySettings(at_once=3), "--ray.at-once is for --engine ray, got --engine transformers"),
    ],
)
def test_settings_of_an_engine_that_does_not_draw_are_refused(engine: str, own: VllmSettings, told: str) -> None:
    settings = EngineSettings(name=engine, source=find_model("pocket"), own=(own,))
    with pytest.raises(UserError, match=told):
        settings.check()


def test_log_probabilities_are_asked_for_where_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """And of the first two questions, by which logits that are no numbers are found."""
    vllm_like.stand_in(monkeypatch)
    for scores, asked_for in ((True, [0, 0, 0]), (False, [0, 0, None])):
        sampler = VllmSampler(VllmSettings(), source=find_model("pocket"), prompts=PROMPTS, scores=scores)
        llm, asked = vars(sampler)["_engine"], list[int | None]()
        llm.then, generate = [reply(TOKENS)], llm.generate
        llm.generate = lambda prompt, params, name, to=asked, ask=generate: (
            to.append(params.logprobs),
            ask(prompt, params, name),
        )[1]
        drawn = [one for _ in range(3) for one in sampler.stream(PROBLEM, seeds={0: 1}, config=CONFIG)]
        sampler.close()
        assert asked == asked_for
        assert [(one.text, one.tokens, one.finish) for one in drawn] == [(SAID, len(TOKENS), "boxed")] * 3
        assert [one.logprob_mean for one in drawn] == [-0.5, -0.5, -0.5 if scores else None]


@pytest.mark.slow
@pytest.mark.skipif(not vllm_like.HERE, reason="vllm is not installed; it needs an environment of its own")
def test_what_stands_for_vllm_has_its_names_and_fields() -> None:
    assert vllm_like.differences() == []


@pytest.mark.parametrize(
    ("said", "settings", "cure"),
    [
        ("Unknown quantization method: exl3", {}, "name a folder in a format"),
        ("Engine core initialization failed. See root cause above.", {}, "--vllm.max-model-len 16384"),
        ("No available memory for the cache blocks.", {"extra": {"a": "1"}}, "--vllm.max-model-len 16384"),
        ("The max seq len (40960) is larger than", {}, "--vllm.max-model-len 16384"),
        (
            "num_speculative_tokens must be provided with ngram_gpu",
            {"extra": {"block_size": "32", "speculative_config": '{"method": "ngram_gpu"}'}, "kv_gib": 1.0},
            "said above; give --vllm.extra speculative_config otherwise, or leave it out",
        ),
        (
            "num_speculative_tokens must be provided unless the draft model's config has it",
            {"extra": {"speculative_config": '{"method": "ngram"}'}, "eager": True},
            "said above; give --vllm.extra speculative_config otherwise, or leave it out",
        ),
        ("Unknown method: 'medusa3'", {"extra": {"speculative_config": '{"method": "medusa3"}'}}, "extra speculative"),
        ("Unknown method of loading", {"extra": {"speculative_config": '{"method": "ngram"}'}}, "said above"),
        ("World size (4) is larger than the number of GPUs (2)", {"tensor_parallel": 4}, "give --vllm.tensor-parallel"),
        ("please pass trust_remote_code=True", {"extra": {"enable_expert_parallel": "true"}}, "said above"),
        ("AutoConfig could not be read automatically", {"extra": {"load_format": "auto"}}, "said above"),
        ("the class Multiprocessing is not here", {"extra": {"distributed_executor_backend": "mp"}}, "said above"),
        ("TritonAttn has none", {"extra": {"moe_backend": "triton"}}, "said above"),
        ("Block size 24 is not supported", {"extra": {"block_size": "24"}, "eager": True}, "give --vllm.extra block_s"),
        ("FLASHMLA is not valid", {"attention_backend": "FLASHMLA", "kv_gib": 1.0}, "give --vllm.attention-backend ot"),
        (
            "max_num_seqs is too large",
            {"at_once": 9, "kv_gib": 1.0},
            "above; give --vllm.at-once otherwise, or leave it",
        ),
        ("unknown quantization fp9", {"extra": {"quantization": "fp9"}}, "give --vllm.extra quantization otherwise"),
        # What was given and is not in its words is not to blame.
        ("'NoneType' object has no attribute 'boi_token_id'", {"eager": True, "kv_gib": 1.0}, "said above"),
        ("no such kernel", {}, "see what it said above"),
    ],
)
def test_a_vllm_that_does_not_come_up_has_the_cure_of_its_cause(said: str, settings: dict[str, Any], cure: str) -> None:
    told = _name_cure(said, VllmSettings(**settings), 14336)
    assert cure in told
    assert told.endswith(cure) or not cure.endswith("above")
    assert ("memory" in told) == ("16384" in cure)


@pytest.mark.parametrize(
    ("own", "asked"),
    [
        ({"architectures": ["Qwen2ForCausalLM"]}, False),
        ({}, False),
        ({"architectures": ["Gemma3ForConditionalGeneration"], "vision_config": {}}, True),
        ({"architectures": ["FuyuForCausalLM"]}, True),
        ({"architectures": ["LaterForConditionalGeneration"], "vision_config": {"depth": 4}}, True),
        ({"architectures": ["LaterForConditionalGeneration"], "audio_config": {"depth": 4}}, True),
    ],
)
def test_a_model_that_sees_or_hears_is_asked_for_text_alone_and_a_plain_one_for_nothing(
    own: dict[str, object], asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    vllm_like.stand_in(monkeypatch)
    source = find_model("pocket")
    monkeypatch.setattr(type(source), "read_config", lambda _: own)
    arguments = _engine_args(VllmSettings(), source, max_tokens=64)
    assert arguments.get("language_model_only", "not named") == (True if asked else "not named")
    assert arguments["skip_tokenizer_init"] is True


@pytest.mark.parametrize(("level", "told"), [(None, False), ("ERROR", False), ("INFO", True)])
def test_who_hears_more_than_errors_hears_of_each_file_of_the_weights(
    level: str | None, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    vllm_like.stand_in(monkeypatch)
    monkeypatch.delenv("VLLM_LOGGING_LEVEL", raising=False)
    if level:
        monkeypatch.setenv("VLLM_LOGGING_LEVEL", level)
    assert _engine_args(VllmSettings(), find_model("pocket"), max_tokens=64)["use_tqdm_on_load"] is told
