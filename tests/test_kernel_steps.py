"""The ladder's steps: each changes what its cause is about, serves the model, and keeps what mended another before."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain, pairwise, repeat
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.competitions import competition
from mathlete.kaggle_image import vllm_facts
from mathlete.kernel.causes import find_cause_of_end
from mathlete.kernel.config import KernelConfig, config_from
from mathlete.kernel.engine import EngineError
from mathlete.kernel.ladder import Ladder
from mathlete.kernel.steps import EngineStep, plan_steps
from mathlete.sampling import SamplingConfig
from mathlete.sampling.served import VllmSettings, VllmShape
from mathlete.solve import Policy
from tests.conftest import dear

ENDED = "the engine's process ended with code 1: "
OUT_OF_MEMORY = f"{ENDED}GPU memory: torch.OutOfMemoryError: CUDA out of memory."
NO_CACHE = f"{ENDED}no memory for the cache: ValueError: No available memory for the cache blocks."
TOO_LONG = f"{ENDED}a context that does not fit into the cache: ValueError: max seq len is larger than"
NCCL = f"{ENDED}NCCL, which joins the GPUs: RuntimeError: NCCL error: unhandled system error"
FEWER = f"{ENDED}fewer GPUs than it wants: ValueError: World size (4) is larger than the number of available GPUs (2)"
KERNEL = f"{ENDED}a kernel that this GPU lacks: FileNotFoundError: missing cubin for sm120"
COMPILING = f"{ENDED}compiling: torch._inductor.exc.InductorError: gcc returned 1"
OTHER = f"{ENDED}a port that is taken: OSError: [Errno 98] Address already in use"
CAUSES = [OUT_OF_MEMORY, NO_CACHE, TOO_LONG, NCCL, KERNEL, COMPILING, OTHER, "no progress"]

DENSE = {
    "model_type": "qwen2",
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "max_position_embeddings": 131072,
}
LOW_RANK = {"num_attention_heads": 20, "hidden_size": 2048, "kv_lora_rank": 512, "max_position_embeddings": 202752}
MODELS: list[Mapping[str, object]] = [
    {},
    DENSE,
    {**DENSE, "max_position_embeddings": 4096},
    {**DENSE, "quantization_config": {"quant_method": "bitsandbytes"}},
    {**LOW_RANK, "model_type": "glm4_moe_lite"},
    {"model_type": "kimi_k25", "text_config": {**LOW_RANK, "model_type": "kimi_k2"}},
    {**LOW_RANK, "model_type": "deepseek_v32", "index_topk": 2048},
    {**LOW_RANK, "model_type": "minicpm3"},
]
EXTRA = {"block_size", "disable_custom_all_reduce"}
SETTINGS = st.builds(
    VllmSettings,
    tensor_parallel=st.sampled_from([None, None, 1, 2, 4]),
    gpu_memory_utilization=st.floats(0.3, 1.0),
    kv_gib=st.none() | st.floats(1.0, 70.0),
    kv_dtype=st.sampled_from(["auto", "fp8"]),
    max_model_len=st.none() | st.integers(600, 4096),
    at_once=st.integers(1, 512),
    eager=st.booleans(),
    attention_backend=st.sampled_from(["auto", "FLASH_ATTN", "TRITON_ATTN", "TRITON_MLA", "FLASHINFER"]),
    extra=st.sampled_from([{}, {"block_size": "32"}, {"disable_custom_all_reduce": "true"}]),
)


def walk(steps: list[EngineStep], *causes: str) -> list[EngineStep]:
    """Return the steps that are taken after these causes, one after another, as the ladder takes them."""
    taken, *rest = steps
    path = [taken]
    for cause in causes:
        if not rest:
            break
        place, taken = next((at, step) for at, each in enumerate(rest) if (step := each.follow(taken, cause)))
        rest = [] if taken.engine != "vllm" else rest[:place] + rest[place + 1 :]
        path.append(taken)
    return path


def plan(vllm: VllmSettings, *, gpus: int, model: Mapping[str, object] = DENSE, tokens: int = 1024) -> list[EngineStep]:
    policy = Policy(sampling=SamplingConfig(max_tokens=tokens))
    return plan_steps(KernelConfig(engine="vllm", vllm=vllm, policy=policy), gpus=gpus, model=model)


def is_mended(now: dict[str, Any], was: dict[str, Any], cause: str) -> bool:
    """Return whether arguments of vLLM differ from earlier ones in what a cause is about, and in its direction."""
    kernels = "attention_config", "enforce_eager", "kv_cache_dtype", *EXTRA
    if cause == OUT_OF_MEMORY:
        sizes = [name for name in ("gpu_memory_utilization", "kv_cache_memory_bytes") if was[name] is not None]
        return all(now[name] < was[name] for name in sizes)
    if cause in (NO_CACHE, TOO_LONG):
        shorter = now["max_model_len"] < was["max_model_len"]
        more = now["gpu_memory_utilization"] > was["gpu_memory_utilization"]
        return shorter or more or (was["kv_cache_memory_bytes"] is not None and now["kv_cache_memory_bytes"] is None)
    if cause == NCCL:
        alone, fewer = was["tensor_parallel_size"] == 1, now["tensor_parallel_size"] < was["tensor_parallel_size"]
        return fewer or bool(EXTRA & (was.keys() if alone else was.keys() ^ now.keys()))
    if cause in (KERNEL, COMPILING):
        return any(now.get(name) != was.get(name) for name in kernels)
    return now != was


@dear(60)
@given(
    vllm=SETTINGS,
    model=st.sampled_from(MODELS),
    gpus=st.sampled_from([1, 2, 4]),
    cause=st.sampled_from(CAUSES),
    tokens=st.sampled_from([256, 4096, 32768]),
)
def test_each_step_differs_from_all_before_it_in_what_its_cause_is_about(
    vllm: VllmSettings, model: Mapping[str, object], gpus: int, cause: str, tokens: int
) -> None:
    shape = VllmShape.of(model)
    path = walk(plan(vllm, gpus=gpus, model=model, tokens=tokens), *[cause] * 9)
    assert [step.engine for step in path] == ["vllm"] * (len(path) - 1) + ["transformers"]
    longest = shape.longest or 131072
    said: list[dict[str, Any]] = [
        step.vllm.to_arguments(gpus=gpus, heads=shape.shares, context=longest, max_tokens=tokens) for step in path[:-1]
    ]
    for number, now in enumerate(said[1:], start=1):
        path[number].vllm.check()
        assert all(is_mended(now, was, cause) for was in said[:number])
        if vllm.max_model_len is None:
            assert now["max_model_len"] <= longest


@given(vllm=SETTINGS, model=st.sampled_from(MODELS), cause=st.sampled_from([KERNEL, OUT_OF_MEMORY, OTHER]))
def test_attention_with_safer_settings_serves_the_model(
    vllm: VllmSettings, model: Mapping[str, object], cause: str
) -> None:
    """vLLM 0.19.1 refuses plain kernels for attention of low rank, and the other way round."""
    kind = VllmShape.of(model).attention
    step = walk(plan(vllm, gpus=1, model=model), cause)[1]
    if step.engine == "vllm":
        backend = step.vllm.attention_backend
        assert backend in {"plain": ("auto", "TRITON_ATTN"), "low rank": ("auto", "TRITON_MLA")}.get(kind, ("auto",))
        assert backend == "auto" or (backend != vllm.attention_backend and backend in vllm_facts().attention_backends)


def test_kinds_of_attention_are_those_of_vllm() -> None:
    kinds = ["plain", "plain", "plain", "plain", "low rank", "low rank", "sparse", "plain"]
    assert [VllmShape.of(model).attention for model in MODELS] == kinds


@pytest.mark.parametrize(
    ("causes", "names"),
    [
        ([OUT_OF_MEMORY] * 3, ["safer settings", "half the context"]),
        ([TOO_LONG] * 3, ["safer settings", "half the context"]),
        ([NCCL, NCCL, OUT_OF_MEMORY, NCCL], ["safer settings", "on one GPU", "half the context"]),
        ([OUT_OF_MEMORY, OUT_OF_MEMORY, NCCL, OTHER], ["safer settings", "half the context", "on one GPU"]),
        ([OTHER, OTHER], ["safer settings"]),
    ],
)
def test_later_steps_keep_what_mended_a_cause_before(causes: list[str], names: list[str]) -> None:
    path = walk(plan(VllmSettings(kv_gib=70.0), gpus=4), *causes)
    assert [re.sub("^vllm (with )?", "", step.name) for step in path[1:]] == [*names, "embedded"]
    for before, step in pairwise(path[:-1]):
        if before.vllm.tensor_parallel == 1:
            assert step.vllm.tensor_parallel == 1
        if before.vllm.max_model_len is not None:
            assert step.vllm.max_model_len == before.vllm.max_model_len


def test_where_the_embedded_engine_cannot_load_the_builds_and_the_last_settings_are_tried_by_turns() -> None:
    config = KernelConfig(engine="vllm", embedded=False)
    assert config_from(json.loads(json.dumps(config.to_json()))) == config
    assert "embedded" not in replace(config, embedded=True).to_json()
    assert plan_steps(replace(config, engine="transformers"), gpus=1, model=DENSE)[-1].name == "embedded"
    left: list[Mapping[str, object]] = []
    causes = chain([OTHER, OTHER, OTHER, OUT_OF_MEMORY], repeat(OTHER))
    made: list[EngineStep] = []
    rests: list[float] = []

    class Dead(SimpleNamespace):
        def start(self, *, timeout_s: float) -> None:
            raise EngineError(next(causes))

    def make(step: EngineStep) -> Any:
        made.append(step)
        return Dead(close=lambda: None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mathlete.kernel.ladder.time", SimpleNamespace(monotonic=lambda: 0.0, sleep=rests.append))
        ladder = Ladder(plan_steps(config, gpus=1, model=DENSE), make, on_step=left.append)
        for timeout_s in (1000, 1000, 1000, 1000, 1000, 12):
            with pytest.raises(EngineError):
                ladder.start(timeout_s=timeout_s)
    safer, again, half = "vllm with safer settings", "vllm again", "vllm with half the context"
    assert [step.name for step in made] == ["vllm", safer, again, again, half, *[again] * 13]
    assert rests == [5, 10, 20, 40, *[60] * 7, 6, 6]
    assert [fact["next"] for fact in left] == [step.name for step in made[1:]]
    own, safe, shorter = made[0].vllm, made[1].vllm, made[4].vllm
    # What was passed over is taken where a later cause asks for it.
    assert [step.vllm for step in made[2:5]] == [own, safe, shorter]
    assert [step.vllm for step in made[5:]] == [own, shorter] * 6 + [own]
    assert {step.engine for step in made} == {"vllm"}


def test_a_step_that_leaves_the_weights_no_memory_is_passed_over() -> None:
    config = KernelConfig(engine="vllm", embedded=False)

    def name(gpus: int, gib: float, vllm: VllmSettings, *causes: str) -> list[str]:
        how: dict[str, Any] = {"gpus": gpus, "weights": 61 * 2**30, "memory": int(gib * 2**30)}
        path = walk(plan_steps(replace(config, vllm=vllm), model={**DENSE, "dtype": "bfloat16"}, **how), *causes)
        return [step.name.removeprefix("vllm ") for step in path[1:]]

    usual, away = VllmSettings(), VllmSettings(extra={"cpu_offload_gb": "30"})
    assert name(1, 79.6, usual, OUT_OF_MEMORY, OUT_OF_MEMORY) == ["with safer settings", "with half the context"]
    assert name(1, 60.0, usual, OUT_OF_MEMORY) == ["again"]
    assert name(1, 141.0, usual, OUT_OF_MEMORY, OUT_OF_MEMORY) == ["with safer settings", "with half the context"]
    assert name(4, 22.5, usual, NCCL, NCCL) == ["with safer settings", "again"]
    # They keep what makes the weights fit, unless that is what failed.
    main_memory = "main memory: Cannot allocate memory"
    assert name(1, 44.0, away, OTHER) == ["with safer settings"]
    assert name(1, 44.0, away, main_memory) == ["again"]
    assert name(1, 0.0, away, main_memory) == ["with safer settings"]
    halved, format_failed = VllmSettings(extra={"quantization": "fp8"}), "a format of weights without a kernel: x"
    assert name(1, 44.0, halved, OTHER) == ["with safer settings"]
    assert name(1, 44.0, halved, format_failed) == ["again"]
    assert name(1, 79.6, halved, OTHER) == ["with safer settings"]


def test_triton_is_no_cure_where_compiling_fails_and_nothing_new_costs_no_boot() -> None:
    first, safer, last = walk(plan(VllmSettings(), gpus=1), COMPILING, COMPILING)
    assert (safer.vllm.eager, safer.vllm.attention_backend, last.engine) == (True, "auto", "transformers")
    eager = VllmSettings(eager=True)
    assert [step.name for step in walk(plan(eager, gpus=1), COMPILING)] == ["vllm", "embedded"]
    # It is not lost for another cause.
    assert walk(plan(eager, gpus=1), KERNEL)[1].vllm.attention_backend == "TRITON_ATTN"
    assert first.vllm == VllmSettings()


def test_safer_settings_and_the_config_survives_json() -> None:
    vllm = VllmSettings(at_once=16, gpu_memory_utilization=0.9, kv_dtype="fp8", extra={"block_size": "32"})
    config = KernelConfig(engine="vllm", vllm=vllm, competition=competition("aimo-2"))
    assert config_from(json.loads(json.dumps(config.to_json()))) == config
    first, safer, shorter, last = walk(plan(vllm, gpus=4), *[OUT_OF_MEMORY] * 3)
    assert first.vllm == vllm
    safe = replace(vllm, eager=True, kv_dtype="auto", extra={}, attention_backend="TRITON_ATTN")
    assert replace(safer.vllm, gpu_memory_utilization=0.9) == safe
    assert (safer.vllm.gpu_memory_utilization, shorter.vllm.gpu_memory_utilization) == pytest.approx((0.8, 0.6))
    assert shorter.vllm.max_model_len == 1024 // 2 + 2048
    fewer = replace(vllm, tensor_parallel=4)
    for cause, parallel in ((OTHER, [4, None]), (FEWER, [None, None])):
        assert [walk(plan(fewer, gpus=gpus), cause)[1].vllm.tensor_parallel for gpus in (4, 2)] == parallel
    assert (last.engine, last.name) == ("transformers", "embedded")


LOGS = [
    ("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`", "no memory for"),
    ("ValueError: Free memory on device cuda:0 (1/80 GiB) on startup is less than desired", "GPU memory"),
    ("RuntimeError: CUDA error: no kernel image is available for execution on the device", "a kernel that this GPU"),
    ("RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO)", "NCCL"),
    ("OSError: [Errno 98] Address already in use", "a port that is taken"),
    ("OSError: [Errno 30] Read-only file system: '/home/user/.triton/cache'", "a folder that cannot be written"),
    ("OSError: [Errno 28] No space left on device", "a full disk"),
    ("requests.exceptions.ConnectionError: Max retries exceeded with url: /encodings/o200k_base", "a download"),
    ("ValueError: Model architectures ['X'] are not supported for now.", "a model that this vLLM does not know"),
    ("safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata", "weights that are"),
    ("torch._inductor.exc.InductorError: CppCompileError: C++ compile error", "compiling"),
    ("ImportError: libcudart.so.12: cannot open shared object file", "a package that is missing"),
    ("OSError: libnvrtc.so.13: cannot open shared object file: No such file or directory", "a package that is missing"),
    ("FileNotFoundError: missing cubin for sm120", "a kernel that this GPU lacks"),
    ("ValueError: Following weights were not initialized from checkpoint: {'model.norm.weight'}", "weights that are"),
    ("KeyError: 'layers.9.mlp'", "another error: KeyError: 'layers.9.mlp'"),
    ("AssertionError", "another error: AssertionError"),
    ("triton.runtime.errors.OutOfResources: shared memory, Required: 98304", "another error: triton.runtime"),
    ("EngineCore failed to start.", "a worker that died: RuntimeError: Engine core initialization failed."),
    ("ConnectionResetError: [Errno 104] Connection reset by peer", "a worker that died: RuntimeError: Engine core"),
    ("RuntimeError: CUDART error: peer mapping resources exhausted", "GPUs that do not join: RuntimeError: CUDART"),
    ("RuntimeError: CUDA error: peer access is not supported between these two devices", "GPUs that do not join"),
    ("RuntimeError: Gloo connectFullMesh failed with [pair.cc:144] no error", "GPUs that do not join"),
    (
        "[Gloo] Rank 0 is connected to 0 peer ranks. Expected number of connected peer ranks is : 0",
        "a worker that died",
    ),
    ("torch.distributed.DistNetworkError: The client socket has timed out", "GPUs that do not join"),
    ("torch.distributed.DistNetworkError: Broken pipe", "a worker that died: RuntimeError: Engine core"),
    ("RuntimeError: [gloo/transport/tcp/pair.cc:534] Connection closed by peer", "a worker that died"),
    ("TimeoutError: RPC call to sample_tokens timed out.", "GPUs that do not join"),
    ("Failed: Cuda error csrc/custom_all_reduce.cuh:455 'invalid argument'", "GPUs that do not join"),
    ("Dumping input data with config: disable_custom_all_reduce=False", "a worker that died"),
    ("KeyError: '/psm_4fa0'", "a worker that died"),
    ("Exception ignored in: <function Llm.__del__>\nAttributeError: 'Llm' object has no 'core'", "a worker that died"),
    ("Exception ignored in: <function x>\nImportError: sys.meta_path is None", "a worker that died: RuntimeError: Eng"),
    ("Exception ignored in: <f>\nzmq.error.ContextTerminated\nValueError: z", "another error: ValueError: z"),
    ("Exception ignored in: <function x>\nKeyboardInterrupt:\nKeyError: 'z'", "another error: KeyError: 'z'"),
    ("Exception ignored in: <function x>\nAttributeError: y\nKeyError: 'z'", "another error: KeyError: 'z'"),
]
WRAPPERS = [
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
    "Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root "
    "cause.",
    "RuntimeError: Worker failed with error 'x', please check the stack trace above for the root cause",
    "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root "
    "cause.",
    "mathlete.errors.UserError: vLLM must be able to load m, got RuntimeError: Engine core initialization failed.",
]


@pytest.mark.parametrize(("line", "cause"), LOGS)
def test_a_log_tells_the_first_cause_and_not_what_it_drags_along(line: str, cause: str) -> None:
    said = f"(EngineCore_DP0 pid=7) ERROR 11-29 20:50:25 [core.py:5] {line}"
    warned = "WARNING 11-29 20:50:24 [cpu.py:516] Failed to import from vllm._C: ImportError: undefined symbol"
    told = find_cause_of_end(f"{warned}\n{said}\nRuntimeError: Engine core initialization failed.")
    assert told.startswith(cause)
    assert "[core.py:5]" not in told


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_what_wraps_an_error_is_no_cause_where_the_error_stands_above_it(wrapper: str) -> None:
    failed = "(Worker_TP0 pid=7) ERROR 11-29 20:50:25 [multiproc_executor.py:857] "
    heading, error = f"{failed}WorkerProc failed to start.", f"{failed}ValueError: heads of 3"
    later = f"{wrapper}\nRuntimeError: cannot schedule new futures after shutdown"
    assert find_cause_of_end(f"{heading}\n{error}\n{later}") == "another error: ValueError: heads of 3"
    # Of what a killed process did nothing is said.
    assert find_cause_of_end(later).startswith(f"a worker that died: {wrapper[:60]}")
    config = KernelConfig(engine="vllm")
    triton = "triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 98304"
    for said, steps in ((error, 0), (triton, 0), ("", 1)):
        cause = find_cause_of_end(f"{said}\n{later}")
        (alone,) = (step for step in plan_steps(config, gpus=2, model=DENSE) if step.name == "vllm on one GPU")
        first = EngineStep(name="vllm", engine="vllm", vllm=config.vllm)
        assert (alone.follow(first, cause) is not None) == bool(steps)


DIED = "multiproc_executor.py:273] Worker proc VllmWorker-1 died unexpectedly, shutting down executor."
DRAGGED = {
    "in a request": """{died}
(EngineCore pid=4363) ERROR 11-30 20:12:58 [dump_input.py:72] Dumping input data for V1 LLM engine (v0.19.1)
(EngineCore pid=4363) ERROR 11-30 20:12:58 [core.py:1110] EngineCore encountered a fatal error.
(EngineCore pid=4363) ERROR 11-30 20:12:58 [core.py:1110] Traceback (most recent call last):
(EngineCore pid=4363) ERROR 11-30 20:12:58 [core.py:1110]     raise RuntimeError("cancelled")
(EngineCore pid=4363) ERROR 11-30 20:12:58 [core.py:1110] RuntimeError: cancelled
ERROR 11-30 20:12:58 [async_llm.py:707] vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. \
See stack trace (above) for the root cause.
(EngineCore pid=4363) RuntimeError: cancelled
""",
    "between steps": """{died}
(EngineCore pid=4363) ERROR 11-30 20:12:58 [core.py:1110] RuntimeError: Executor failed.
vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the cause.
""",
    "while it loads": """{died}
(EngineCore pid=4363) ERROR 11-30 20:12:58 [core.py:1108] EngineCore failed to start.
(EngineCore pid=4363) ERROR 11-30 20:12:58 [core.py:1108] ValueError: what only follows from it
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {{}}
""",
    "of which the log's tail has no more": """RuntimeError: cancelled
vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the cause.
""",
}


@pytest.mark.parametrize("log", DRAGGED.values(), ids=DRAGGED)
def test_a_worker_that_dies_is_the_cause_and_what_its_end_drags_along_is_none(log: str) -> None:
    """As 0.19.1 printed it where a worker of its was killed."""
    died = f"(EngineCore pid=4363) ERROR 11-30 20:12:58 [{DIED}"
    said = log.format(died=died)
    cause = ENDED + find_cause_of_end(said)
    assert cause.startswith(f"{ENDED}a worker that died: ")
    path = walk(plan(VllmSettings(), gpus=4), cause, cause, cause)
    assert [step.name for step in path] == ["vllm", "vllm with safer settings", "vllm on one GPU", "embedded"]
    assert path[1].vllm.extra == {"disable_custom_all_reduce": "true"}
    # Above it stands what the worker itself said.
    if died in said:
        assert find_cause_of_end(f"(Worker_TP1 pid=9) KeyError: 'a'\n{said}") == "another error: KeyError: 'a'"


@pytest.mark.parametrize(
    ("cause", "names"),
    [
        (
            "GPUs that do not join: RuntimeError: CUDART error: invalid resource handle",
            ["safer settings", "on one GPU"],
        ),
        ("another error: ValueError: cannot run with fewer GPUs than experts", ["safer settings"]),
        ("another error: ValueError: GPU memory: a layout of 3", ["safer settings"]),
        ("a port that is taken: compiling: Address already in use", ["safer settings"]),
    ],
)
def test_a_step_follows_from_the_cause_and_not_from_a_line_that_it_quotes(cause: str, names: list[str]) -> None:
    for heading in ("", ENDED, f"it ended a second time: {ENDED}"):
        path = walk(plan(VllmSettings(), gpus=4), *[heading + cause] * 3)
        assert [re.sub("^vllm (with )?", "", step.name) for step in path[1:]] == [*names, "embedded"]
        assert path[1].vllm.attention_backend == "TRITON_ATTN"


def test_a_signal_that_tells_of_shared_memory_is_a_cause_of_joined_gpus() -> None:
    full = "SIGBUS: shared memory of the machine that is full, or a file that was cut under it"
    cause = f"the engine's process ended with code -7 ({full}): another error: KeyError: 'a'"
    assert [step.name for step in walk(plan(VllmSettings(), gpus=4), cause, cause)][2] == "vllm on one GPU"
