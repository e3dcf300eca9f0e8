"""A build whose engine is vLLM: who chooses it and why, its lock, its two notebooks."""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from mathlete.errors import UserError
from mathlete.kaggle_image import VLLM_LOCK, vllm_lock
from mathlete.kernel.config import KernelConfig
from mathlete.kernel.steps import plan_steps
from mathlete.models.hardware import GPUS
from mathlete.sampling import SamplingConfig
from mathlete.sampling.served import VllmSettings
from mathlete.solve import Policy
from mathlete.submission.build import Build
from mathlete.submission.contents import Contents
from mathlete.submission.embedded_fit import settle_steps
from mathlete.submission.engine_choice import choose_engine, count_shared
from mathlete.submission.metadata import KERNEL_FILE, VllmFrom
from mathlete.submission.mounts import code_cells
from mathlete.submission.notebook import notebook_text
from mathlete.submission.vllm_memory import find_crowding
from mathlete.submission.vllm_notebook import write_downloads
from submit.mounting import require_vllm_here
from tests.conftest import NAMES, CommandLine

CONFIG = KernelConfig()


def model_of(folder: Path, **config: object) -> Path:
    folder.mkdir(exist_ok=True)
    content = {"architectures": ["Qwen2ForCausalLM"], "num_attention_heads": 28, "torch_dtype": "bfloat16", **config}
    (folder / "config.json").write_text(json.dumps(content))
    return folder


W8A8: dict[str, object] = {"quantization_config": {"quant_method": "compressed-tensors"}}
W3A16: dict[str, object] = {
    **{"quant_method": "compressed-tensors", "format": "pack-quantized"},
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 3, "strategy": "channel"}}},
}
AWQ: dict[str, object] = {
    "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
}
FP8: dict[str, object] = {"quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic"}}
SCALES: dict[str, object] = {"num_bits": 8, "type": "float", "strategy": "tensor"}
SCALED: dict[str, object] = {"quantization_config": {"quant_method": "compressed-tensors", "kv_cache_scheme": SCALES}}
MLA: dict[str, object] = {
    **{"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "num_attention_heads": 128},
    **{"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128},
}
INT8: dict[str, object] = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}
CONTEXT: dict[str, object] = {"max_position_embeddings": 32768}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
ODD: dict[str, object] = {"num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 1024}
DECODER: dict[str, object] = {**CONTEXT, "num_hidden_layers": 28, "num_key_value_heads": 4, "hidden_size": 3584}
DRAFT = '{"model": "%s", "num_speculative_tokens": 3}'
EXTRA = [
    ("stream_interval", "0", "stream_interval must be at least 1, got 0"),
    ("block_size", "-5", "block_size must be at least 1, got -5"),
    ("num_gpu_blocks_override", "10", "got num_gpu_blocks_override, which vLLM holds against other settings"),
    ("cpu_offload_gb", "-1", "cpu_offload_gb must be at least 0, got -1"),
    ("max_num_batched_tokens", "16", "256 of 16"),
    ("max_long_partial_prefills", "2", "which vLLM 0.19.1 itself refuses"),
    ("runner", "pooling", "got runner, which writes no text"),
    ("convert", "embed", "got convert, which writes no text"),
    ("load_format", "dummy", "load_format must be one of auto, safetensors, got dummy"),
    ("hf_overrides", '{"max_position_embeddings": 10}', "which changes the model's shape"),
    ("seed", "4294967296", "must be at least 0, at most 4.29497e+09, got 4294967296"),
]
CHOICES: list[tuple[str, dict[str, object], VllmSettings, str, str]] = [
    ("NvidiaH100", {}, VllmSettings(), "vllm", "has a GPU that vLLM serves"),
    ("NvidiaTeslaT4", {}, VllmSettings(), "vllm", "has a GPU that vLLM serves"),
    ("NvidiaTeslaP100", {}, VllmSettings(), "", "no GPU that is known here"),
    ("NvidiaH100", {"architectures": ["NoSuchForCausalLM"]}, VllmSettings(), "", "NoSuchForCausalLM"),
    ("NvidiaH100", {"architectures": None}, VllmSettings(), "", "must know the kind of model, got none"),
    ("NvidiaH100", {"quantization_config": {"quant_method": "hqq"}}, VllmSettings(), "", "storage is checked here"),
    (
        "NvidiaH100",
        {"quantization_config": W3A16},
        VllmSettings(),
        "",
        "kernels for the weights on h100, got 3-bit int",
    ),
    ("NvidiaRtxPro6000", W8A8, VllmSettings(), "vllm", "has a GPU"),
    ("NvidiaTeslaT4", {}, VllmSettings(kv_dtype="fp8"), "", "--vllm.kv-dtype fp8 needs compute capability 8.9"),
    ("NvidiaL4", {}, VllmSettings(kv_dtype="fp8"), "vllm", ""),
    ("NvidiaL4", {}, VllmSettings(tensor_parallel=8), "", "must not be more than the machine's GPUs, got 8 of 4"),
    ("NvidiaL4", {"num_attention_heads": 14}, VllmSettings(tensor_parallel=4), "", "must divide the model's attention"),
    ("NvidiaL4", {"num_attention_heads": 14}, VllmSettings(), "vllm", ""),
    ("NvidiaL4", INT8, VllmSettings(), "vllm", ""),
    ("NvidiaL4", INT8, VllmSettings(tensor_parallel=4), "", "and be 1 for weights of bitsandbytes, got 4 for 1"),
    ("NvidiaH100", {}, VllmSettings(max_model_len=256), "", "must hold a whole completion and a question"),
    ("NvidiaH100", {}, VllmSettings(extra={"blocksize": "32"}), "", "must name arguments of vLLM"),
    ("NvidiaH100", {}, VllmSettings(extra={"block_size": "abc"}), "", "block_size must be a whole number, got abc"),
    ("NvidiaH100", {}, VllmSettings(extra={"block_size": "true"}), "", "block_size must be a whole number, got true"),
    ("NvidiaH100", {}, VllmSettings(extra={"cpu_offload_gb": "1e999"}), "", "must be a number, got 1e999"),
    ("NvidiaH100", {}, VllmSettings(extra={"skip_mm_profiling": "3"}), "", "must be true or false, got 3"),
    ("NvidiaH100", {}, VllmSettings(extra={"moe_backend": "trtion"}), "", "moe_backend must be one of auto, triton"),
    ("NvidiaH100", {}, VllmSettings(extra={"block_size": "32", "moe_backend": "triton"}), "vllm", ""),
    *(("NvidiaH100", {}, VllmSettings(extra={name: word}), "", says) for name, word, says in EXTRA),
    (
        "NvidiaH100",
        {},
        VllmSettings(at_once=4096),
        "",
        "must be within the tokens that vLLM reads in one step, max_num",
    ),
    ("NvidiaH100", {}, VllmSettings(at_once=4096, extra={"max_num_batched_tokens": "4096"}), "vllm", ""),
    ("NvidiaH100", {}, VllmSettings(at_once=4096, extra={"performance_mode": "throughput"}), "vllm", ""),
    ("NvidiaH100", CONTEXT, VllmSettings(extra={"enable_chunked_prefill": "false"}), "vllm", ""),
    ("NvidiaH100", {}, VllmSettings(extra={"load_format": "safetensors", "stream_interval": "1"}), "vllm", ""),
    ("NvidiaH100", {}, VllmSettings(extra={"quantization": "fp9"}), "", "got fp9, which it does not know"),
    ("NvidiaTeslaT4", {}, VllmSettings(extra={"quantization": "mxfp4"}), "", "got mxfp4, which needs 8"),
    ("NvidiaTeslaT4", {}, VllmSettings(extra={"quantization": "fp8"}), "vllm", ""),
    ("NvidiaH100", {}, VllmSettings(extra={"quantization": "awq"}), "", "got awq for dense weights"),
    ("NvidiaH100", AWQ, VllmSettings(extra={"quantization": "fp8"}), "", "got fp8 for awq weights"),
    ("NvidiaH100", AWQ, VllmSettings(extra={"quantization": "awq_marlin"}), "vllm", ""),
    ("NvidiaH100", {}, VllmSettings(extra={"data_parallel_size": "2"}), "", "the machine's GPUs, or for fewer"),
    ("NvidiaH100", {}, VllmSettings(extra={"data_parallel_size": "0"}), "", "data_parallel_size must be at least 1"),
    ("NvidiaL4", {}, VllmSettings(extra={"distributed_executor_backend": "ray"}), "", "must be one of mp, got ray"),
    ("NvidiaL4", {}, VllmSettings(extra={"distributed_executor_backend": "mp"}), "vllm", ""),
    ("NvidiaH100", {}, VllmSettings(extra={"speculative_config": DRAFT % "alice/small"}), "", "model, alice/small"),
    ("NvidiaH100", {}, VllmSettings(extra={"speculative_config": DRAFT % "/kaggle/input/x"}), "", "l, /kaggle/input/x"),
    ("NvidiaL4", {}, VllmSettings(tensor_parallel=2, extra={"pipeline_parallel_size": "2"}), "vllm", ""),
    ("NvidiaTeslaT4", {}, VllmSettings(attention_backend="FLASH_ATTN"), "", "on compute capability 7.5, got FLASH"),
    ("NvidiaH100", {}, VllmSettings(attention_backend="FLASHATTN"), "", "on compute capability 9, got FLASHATTN"),
    ("NvidiaL4", DECODER, VllmSettings(attention_backend="FLASHINFER"), "vllm", ""),
    (
        "NvidiaH100",
        {**DECODER, "head_dim": 32},
        VllmSettings(attention_backend="FLASHINFER"),
        "",
        "heads of 32 numbers",
    ),
    (
        "NvidiaH100",
        DECODER,
        VllmSettings(attention_backend="FLASHMLA"),
        "",
        "FLASHMLA, which is for keys and values of",
    ),
    ("NvidiaH100", DECODER, VllmSettings(attention_backend="TRITON_MLA"), "", "which is for keys and values of low"),
    ("NvidiaH100", MLA, VllmSettings(attention_backend="FLASHMLA"), "vllm", ""),
    ("NvidiaH100", MLA, VllmSettings(attention_backend="FLASH_ATTN"), "", "which has no kernels for those of low rank"),
    ("NvidiaH100", MLA, VllmSettings(attention_backend="FLASH_ATTN_MLA", kv_dtype="fp8"), "", "no cache of fp8 there"),
    ("NvidiaL4", {"model_type": "gpt_oss"}, VllmSettings(attention_backend="FLASH_ATTN"), "", "no sinks of attention"),
    ("NvidiaL4", {"model_type": "gpt_oss"}, VllmSettings(attention_backend="TRITON_ATTN"), "vllm", ""),
    ("NvidiaL4", DECODER, VllmSettings(attention_backend="FLASH_ATTN", kv_dtype="fp8"), "", "no cache of fp8 there"),
    ("NvidiaH100", DECODER, VllmSettings(attention_backend="FLASH_ATTN", kv_dtype="fp8"), "vllm", ""),
    ("NvidiaH100", DECODER, VllmSettings(kv_dtype="fp8_e5m2"), "", "which vLLM chooses there, has no such cache"),
    ("NvidiaL4", DECODER, VllmSettings(kv_dtype="fp8_e5m2"), "vllm", ""),
    ("NvidiaTeslaT4", SCALED, VllmSettings(), "", "a cache of fp8 needs compute capability 8.9 or later, got 7.5"),
    ("NvidiaL4", SCALED, VllmSettings(attention_backend="FLEX_ATTENTION"), "", "which takes no cache of fp8 there"),
    (
        "NvidiaH100",
        DECODER,
        VllmSettings(attention_backend="FLASH_ATTN", extra={"block_size": "24"}),
        "",
        "blocks of 24",
    ),
    (
        "NvidiaH100",
        {**MLA, "kv_lora_rank": 500},
        VllmSettings(attention_backend="FLASHMLA"),
        "",
        "heads of 564 numbers",
    ),
    ("NvidiaTeslaT4", {}, VllmSettings(kv_gib=64), "", "fit into a GPU of 15.0 GiB with the weights, got 64, beside"),
    ("NvidiaH100", DECODER, VllmSettings(kv_gib=1e-9), "", "must fit beside the weights in vLLM, got 8,"),
    ("NvidiaL4", DECODER, VllmSettings(gpu_memory_utilization=1.0), "", "must leave CUDA its own 0.3 GiB of each GPU"),
    ("NvidiaTeslaT4", {"model_type": "gemma2"}, VllmSettings(), "", "in float16, which t4 has alone, got gemma2"),
    ("NvidiaL4", {"model_type": "gemma2"}, VllmSettings(), "vllm", ""),
    ("NvidiaH100", CONTEXT, VllmSettings(max_model_len=65536), "", "within the model's context, got 65536 of 32768"),
    ("NvidiaH100", {**CONTEXT, "rope_scaling": YARN}, VllmSettings(max_model_len=65536), "vllm", ""),
    # Three GPUs would divide its heads, and neither its key-value heads nor its feed-forward layers.
    ("NvidiaL4", {**CONTEXT, **ODD}, VllmSettings(tensor_parallel=3), "", "must divide the model's attention heads"),
    ("NvidiaL4", {**CONTEXT, **ODD}, VllmSettings(), "vllm", ""),
]


@pytest.mark.parametrize(("machine", "config", "vllm", "engine", "says"), CHOICES)
def test_the_engine_is_chosen_by_machine_and_model_and_says_why(
    tmp_path: Path, machine: str, config: dict[str, object], vllm: VllmSettings, engine: str, says: str
) -> None:
    model, asked = model_of(tmp_path, **config), replace(CONFIG, vllm=vllm)
    choose = partial(choose_engine, model=model, machine=machine, config=asked, weights=2**30)
    # Settings that nothing reads are named, however the embedded engine came to be chosen.
    idle = " ".join(f"--vllm.{name.replace('_', '-')}" for name in vllm.list_changed())
    chosen = choose("embedded")
    assert (chosen.engine, chosen.reason) == ("transformers", "asked for" + (f"; {idle} not used" if idle else ""))
    if engine:
        assert choose("vllm").engine == choose("auto").engine == "vllm"
        return
    with pytest.raises(UserError) as refused:
        choose("vllm")
    assert says in str(refused.value)
    assert refused.value.cure
    # A wrong word of vLLM's is no reason to take the other engine.
    if idle and choose("auto", config=CONFIG).engine == "vllm":
        with pytest.raises(UserError, match=re.escape(refused.value.rule)):
            choose("auto")
    else:
        chosen = choose("auto")
        assert (chosen.engine, says in chosen.reason) == ("transformers", True)
        assert not idle or chosen.reason.endswith(f"; {idle} not used")


def test_weights_that_vllm_cannot_split_must_fit_into_one_gpu(tmp_path: Path) -> None:
    for config, shared in (({}, 4), (INT8, 1), ({"num_attention_heads": 6}, 3)):
        assert count_shared(CONFIG, "NvidiaL4", model_of(tmp_path, **config)) == shared


@pytest.mark.parametrize("name", ["FLASHINFERR", "TRITON", "MLA", "xyz"])
def test_only_attention_kernels_that_serve_the_model_are_proposed(tmp_path: Path, name: str) -> None:
    for own, others in ((DECODER, "MLA"), (MLA, "FLASHINFER,")):
        config = replace(CONFIG, vllm=VllmSettings(attention_backend=name))
        with pytest.raises(UserError) as refused:
            choose_engine("vllm", model=model_of(tmp_path, **own), machine="NvidiaH100", config=config, weights=0)
        assert others not in refused.value.cure.replace("did you mean ", "")
        assert "TRITON" in refused.value.cure


LLAMA_70B: dict[str, object] = {
    **{"num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "hidden_size": 8192},
    "max_position_embeddings": 131072,
}
WINDOWS: dict[str, object] = {**LLAMA_70B, "sliding_window": 4096}
CROWDED = [
    # config, vLLM's settings, GPUs, GiB of weights, what is said
    (LLAMA_70B, VllmSettings(), 1, 66, "40,960 tokens, 12.5 GiB, where 3.9 are left"),
    (LLAMA_70B, VllmSettings(kv_dtype="fp8"), 1, 66, "40,960 tokens, 6.2 GiB"),
    (LLAMA_70B, VllmSettings(), 2, 66, ""),
    (LLAMA_70B, VllmSettings(max_model_len=8192), 1, 66, ""),
    (LLAMA_70B, VllmSettings(kv_gib=1), 2, 66, "where 1.0 are left"),
    # A size that is named is taken as it is: beside the weights, and what computing takes.
    (LLAMA_70B, VllmSettings(kv_gib=79), 1, 15, "79, beside 15.0 GiB of weights and 1.8 for computing"),
    (LLAMA_70B, VllmSettings(kv_gib=60), 1, 15, ""),
    (LLAMA_70B, VllmSettings(kv_gib=60), 1, 30, "60, beside 30.0 GiB"),
    (LLAMA_70B, VllmSettings(kv_gib=60), 2, 30, ""),
    (WINDOWS, VllmSettings(kv_gib=60), 1, 30, "60, beside 30.0 GiB"),
    (WINDOWS, VllmSettings(gpu_memory_utilization=0.3), 1, 30, "30.0 GiB"),
    # Half of the layers on each, and weights that stay in main memory.
    (LLAMA_70B, VllmSettings(tensor_parallel=1, extra={"pipeline_parallel_size": "2"}), 2, 66, ""),
    (LLAMA_70B, VllmSettings(extra={"cpu_offload_gb": "10"}), 1, 66, ""),
    ({**WINDOWS, "use_sliding_window": False}, VllmSettings(), 1, 66, "40,960 tokens, 12.5 GiB"),
    # Of layers that keep a window, or other things than keys and values, nothing is known here.
    (WINDOWS, VllmSettings(), 1, 66, ""),
    ({**LLAMA_70B, "kv_lora_rank": 512}, VllmSettings(), 1, 66, ""),
    ({**LLAMA_70B, "layer_types": ["full_attention", "linear_attention"]}, VllmSettings(), 1, 66, ""),
    ({"num_hidden_layers": "many"}, VllmSettings(), 1, 66, ""),
]


@pytest.mark.parametrize(("model", "vllm", "shared", "gib", "says"), CROWDED)
def test_a_context_that_has_no_room_beside_the_weights_is_refused(
    model: dict[str, object], vllm: VllmSettings, shared: int, gib: int, says: str
) -> None:
    config = replace(CONFIG, vllm=vllm, policy=Policy(sampling=SamplingConfig(max_tokens=32768)))
    refused = find_crowding(config, gpu=GPUS["h100"], shared=shared, weights=gib * 2**30, model=model)
    assert bool(refused) == bool(says)
    if refused is not None:
        assert says in str(refused.value)
        assert refused.cure


UNLOADABLE = [
    # what the config says, GiB of weights, machine, why the embedded engine cannot load it
    ({}, 5, "NvidiaL4", ""),
    (INT8, 5, "NvidiaL4", ""),
    ({"quantization_config": {**W3A16, "format": "float-quantized"}}, 5, "NvidiaL4", "compressed-tensors weights"),
    (AWQ, 5, "NvidiaL4", "does not read awq weights"),
    (FP8, 5, "NvidiaL4", "does not read fp8 weights"),
    ({}, 40, "NvidiaL4", "40.0 GiB of weights and its cache do not fit into one GPU"),
    ({}, 40, "NvidiaH100", ""),
    ({"model_type": "gpt_oss"}, 5, "NvidiaH100", "attention with sinks"),
    ({"model_type": "no_such"}, 5, "NvidiaH100", "must know the kind of a model by itself"),
]


@pytest.mark.parametrize(("own", "gib", "machine", "says"), UNLOADABLE)
def test_the_ladder_has_an_embedded_step_only_where_that_engine_can_load_the_model(
    tmp_path: Path, own: dict[str, object], gib: int, machine: str, says: str
) -> None:
    model = model_of(tmp_path, **{"model_type": "qwen2", **own})
    how = {"machine": machine, "weights": gib * 2**30}
    config, told = settle_steps(replace(CONFIG, engine="vllm"), model=model, **how)  # type: ignore[arg-type]
    assert (says in told, config.embedded, bool(told)) == (True, not says, bool(says))
    last = plan_steps(config, gpus=1, model={})[-1]
    assert last.engine == ("vllm" if says else "transformers")
    assert settle_steps(CONFIG, model=model, **how) == (CONFIG, "")  # type: ignore[arg-type]


FIND_ALONE = """
import json, os
BUILT = {"wheels": {}, "config": "", "weights": {}, "vllm": os.environ["LOCK"]}
root = os.environ["ROOT"]
"""


@pytest.mark.parametrize(
    ("kind", "there", "says"),
    [
        ("notebook", "same", "wheels and model are as built"),
        ("dataset", "same", "wheels and model are as built"),
        ("notebook", "other", "holds other wheels of vLLM"),
        ("notebook", "nothing", "notebooks alice/mathlete-vllm is not mounted"),
    ],
)
def test_the_notebook_finds_vllms_wheels_compares_them_and_does_without(
    tmp_path: Path, kind: VllmFrom, there: str, says: str
) -> None:
    text = notebook_text(replace(CONFIG, engine="vllm"), NAMES, Contents(vllm="0" * 64), vllm=kind)
    assert "vllm=VLLM" in code_cells(text)[-1]
    find = next(cell for cell in code_cells(text) if "VLLM = find_input" in cell)
    for folder in ("datasets/alice/mathlete-wheels", f"models/{NAMES.model_source}", "competitions/x"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "competitions" / CONFIG.competition.slug).mkdir()
    lock = b"the lock"
    if there != "nothing":
        place = tmp_path / f"{kind}s" / "alice" / "mathlete-vllm" / "deep"
        place.mkdir(parents=True)
        (place / VLLM_LOCK).write_bytes(lock if there == "same" else b"another")
    code = FIND_ALONE + find.replace('"/kaggle/input"', repr(str(tmp_path))).replace(
        "find_changes(WHEELS", "(lambda *_, **__: [])(WHEELS"
    )
    variables = {
        **os.environ,
        "LOCK": sha256(lock).hexdigest(),
        "ROOT": str(tmp_path),
        "KAGGLE_IS_COMPETITION_RERUN": "",
    }
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
    del variables["KAGGLE_IS_COMPETITION_RERUN"]
    commit = subprocess.run(
        [sys.executable, "-S", "-c", code], env=variables, capture_output=True, text=True, check=False
    )
    assert (commit.returncode == 0) == (there == "same")


def test_the_notebook_that_downloads_has_internet_and_the_very_lock(tmp_path: Path) -> None:
    lock = vllm_lock().read_text()
    folder = write_downloads(tmp_path, NAMES, lock=lock, image="")
    metadata = json.loads((folder / KERNEL_FILE).read_text())
    assert (metadata["id"], metadata["enable_internet"], metadata["enable_gpu"]) == (NAMES.vllm_id, True, False)
    cells = code_cells((folder / metadata["code_file"]).read_text())
    code = cells[0].replace("assert sys", "sys")
    code = code[: code.index("subprocess.check_call")]
    subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, check=True)
    assert (tmp_path / VLLM_LOCK).read_text() == lock
    assert "--require-hashes" in cells[0]


def test_a_build_of_vllm_mounts_the_download_and_passes_preflights_checks(
    built_wheels: Path, submit: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mathlete.submission.checks import check_parts

    words = ("build", "--names.owner", "alice", "--names.model-version", "1", "--policy", "all", "--n", "2")
    done = submit(*words, "--engine", "auto", "--vllm.gpu-memory-utilization", "0.8")
    assert "engine vllm: NvidiaH100 has a GPU that vLLM serves" in done.stdout
    build = Build.load(Path("runs/submit"))
    assert (build.config.engine, build.vllm, build.vllm_wheels) == ("vllm", "notebook", None)
    assert build.config.vllm == VllmSettings(gpu_memory_utilization=0.8)
    assert json.loads((build.kaggle / KERNEL_FILE).read_text())["kernel_sources"] == ["alice/mathlete-vllm"]
    assert "VLLM" not in notebook_text(CONFIG, NAMES)
    refusals = {one.what: one.refusals for one in check_parts(build)}
    assert {what: found for what, found in refusals.items() if found} == {}
    before = build.hashes().id
    (build.downloads / "vllm.ipynb").write_text("{}")
    assert build.hashes().id != before
    (build.downloads / "vllm.ipynb").unlink()
    alone = replace(build, config=replace(build.config, embedded=False))
    assert "vLLM, without an embedded step after it" in [one.what for one in check_parts(alone)]
    with pytest.raises(UserError, match="weights that the embedded engine can load"):
        require_vllm_here(alone, "none")
    tight = replace(build, config=replace(build.config, vllm=VllmSettings(kv_gib=900.0)))
    assert "what they leave, in another `submit build`" in str([one.refusals for one in check_parts(tight)])
    with monkeypatch.context() as patch:
        patch.setattr(Build, "find_unloadable", lambda *_, **__: "40.0 GiB of weights and its cache do not fit")
        with pytest.raises(UserError, match=r"got .*: 40\.0 GiB of weights and its cache do not fit"):
            require_vllm_here(alone, "none")
    monkeypatch.setattr("mathlete.submission.checks.find_unloadable", lambda *_, **__: "it does not read awq weights")
    assert "must not end on an embedded engine" in str([one.refusals for one in check_parts(build)])
    refused = {one.what for one in check_parts(build) if one.refusals}
    assert refused == {"vLLM, where it is the engine"}
    assert "submit image --engine vllm" in submit("rehearse", "--questions", "1").stderr
    assert asdict(build.names)["vllm"] == "mathlete-vllm"
