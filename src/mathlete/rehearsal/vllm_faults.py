"""The part of the fault matrix that strikes vLLM in the notebook: each must end with an answer of a lower step.

What vLLM says is copied from vLLM 0.19.1, FlashInfer 0.6.6 and torch 2.10. `journalled` is what the journal must say
before and after the step: which one was left and why, and which one answered.
"""

from mathlete.rehearsal.containers import Disks
from mathlete.rehearsal.faults import Fault
from mathlete.rehearsal.injections import (
    CLOCK,
    LITTLE_RAM,
    Inject,
    cell,
    combine,
    cut_model,
    on_disks,
    spoil_input,
    unmount,
)
from mathlete.rehearsal.verdict import Outcome
from mathlete.rehearsal.vllm_injections import (
    FIRST,
    SAFER,
    change_wheel,
    delete_wheel,
    fails_with,
    show_gpus,
    vllm_process,
)

_OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 46.00 MiB. GPU 0 has a total capacity of 79.19 GiB"
)
_OOM_AT_ALL = (
    "torch.AcceleratorError: CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in "
    "https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html for more information."
)
"""As CUDA itself says it where torch's allocator was not asked, such as while graphs are captured."""
_CORE = (
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore_DP0': 1}"
)
_TOO_LONG = (
    "ValueError: To serve at least one request with the models's max seq len (40960), (1.09 GiB KV cache is needed, "
    "which is larger than the available KV cache memory (0.62 GiB). Try increasing `gpu_memory_utilization`"
)
_BF16 = (
    "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU has "
    "compute capability 7.5. You can use float16 instead by explicitly setting the `dtype` flag in CLI"
)
_QUANTISED = (
    "ValueError: The quantization method compressed-tensors is not supported for the current GPU. Minimum capability: "
    "80. Current capability: 75."
)
_NO_SAMPLE = "vLLM must give a whole sample in 3 tries, got for problem {problem.id}: vLLM ended a sample for another "
_WORLD = (
    "if (settings['vllm']['tensor_parallel'] or 1) > 2:\n"
    "    mark(); say('ValueError: World size (4) is larger than the number of available GPUs (2) in this node.')\n"
    "    os._exit(1)"
)
_SHM = (
    "if name_step(settings['vllm']) != 'vllm on one GPU':\n"
    "    from multiprocessing import shared_memory\n"
    "    ring = shared_memory.SharedMemory(create=True, size=2**24); mark(); ring.buf[:] = bytes(2**24)"
)
_PORT = (
    "import socket\ntaken = socket.create_server(('', 0)); mark()\nsocket.create_server(('', taken.getsockname()[1]))"
)
_WAITS = """mark()
while True:
    say('No available shared memory broadcast block found in 60 seconds.'); time.sleep(0.5)"""
_SLOWLY = """import mmap
from pathlib import Path
mark(); held, ends = [], time.monotonic() + 2 * _quiet_s
while time.monotonic() < ends:
    for file in Path(settings['model']).glob('*.safetensors'):
        with file.open('rb') as weights, mmap.mmap(weights.fileno(), 0, prot=mmap.PROT_READ) as pages:
            held.append(bytes(pages))
    time.sleep(0.5)"""
_NAN = "from mathlete.lost import finite_logprob\nmark(); finite_logprob(float('nan'))"
_EMPTY = """for sample in self.sampler.stream(problem, seeds=seeds, config=config):
    mark()
    yield replace(sample, text="")
return"""
_DIES = "mark(); say('vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.'); os._exit(70)"
_SECOND = "if len(_calls) == 2{once}:\n    "
_ONCE = " and not _again"


def expect_left(step: str, cause: str, *, to: str) -> str:
    """Return the pattern of the journal's line of a step that was left."""
    return rf'"left": {{"step": "{step}", "cause": "[^\n]*{cause}[^\n]*"next": "{to}"'


def expect_up(step: str) -> str:
    """Return the pattern of the journal's line of a step that came up."""
    return rf'"engine": {{"step": "{step}"'


def _fault(name: str, says: str, inject: Inject, *journalled: str, expect: Outcome = "valid") -> Fault:
    return Fault(name=name, says=says, inject=inject, expect=expect, needs="vllm", journalled=journalled)


def _to_safer(name: str, says: str, inject: Inject, cause: str) -> Fault:
    """Return a fault of the first step alone, which the same with safer settings survives."""
    safer = "vllm with safer settings"
    return _fault(name, says, inject, expect_left("vllm", cause, to=safer), expect_up(safer))


def _to_embedded(name: str, says: str, inject: Inject, cause: str) -> Fault:
    """Return a fault of all of vLLM's steps, after which the embedded engine answers."""
    safer = "vllm with safer settings"
    left = expect_left("vllm", cause, to=safer), expect_left(safer, cause, to="embedded")
    return _fault(name, says, inject, *left, expect_up("embedded"))


_BOOT = (
    _to_safer(
        "vllm-oom-at-boot", "vLLM lacks 46 MiB at boot", fails_with(f"{_OOM}\n{_CORE}", steps=FIRST), "GPU memory"
    ),
    _fault(
        "vllm-oom-always",
        "it lacks them whatever its settings",
        fails_with(f"{_OOM_AT_ALL}\n{_CORE}"),
        expect_left("vllm with safer settings", "GPU memory", to="vllm with half the context"),
        expect_left("vllm with half the context", "GPU memory", to="embedded"),
        expect_up("embedded"),
    ),
    _fault(
        "vllm-context-too-long",
        "its cache is too small for the context",
        fails_with(f"{_TOO_LONG}\n{_CORE}", steps=SAFER),
        expect_left("vllm with safer settings", "does not fit into the cache", to="vllm with half the context"),
        expect_up("vllm with half the context"),
    ),
    _to_embedded(
        "vllm-hangs-at-boot",
        "it says nothing while it loads",
        vllm_process("mark(); time.sleep(3600)", quiet_s=5.0),
        "no progress",
    ),
    _to_safer(
        "vllm-boot-endless",
        "it goes on talking and never comes up",
        vllm_process(
            _WAITS,
            steps=FIRST,
            load_max_s=60.0,
        ),
        "was not loaded within",
    ),
    _to_embedded(
        "vllm-worker-killed-at-boot",
        "its worker is killed while it loads",
        fails_with(
            "RuntimeError: WorkerProc initialization failed due to an exception in a background process. See stack "
            f"trace for root cause.\n{_CORE}"
        ),
        "a worker that died",
    ),
    _to_embedded(
        "vllm-segfault", "it crashes", vllm_process("mark(); os.kill(os.getpid(), signal.SIGSEGV)"), "SIGSEGV"
    ),
    _to_embedded(
        "vllm-ram",
        "its process may have 600 MiB",
        vllm_process(LITTLE_RAM),
        "",
    ),
    _to_safer(
        "vllm-cubin-missing",
        "FlashInfer lacks a kernel for the GPU",
        fails_with("FileNotFoundError: FlashInfer: cubin fmhaSm120Kernel is not found in the cache", steps=FIRST),
        "a kernel that this GPU lacks",
    ),
    _to_embedded(
        "vllm-no-kernels",
        "its wheels have no code for the GPU",
        fails_with(
            f"torch.AcceleratorError: CUDA error: no kernel image is available for execution on the device\n{_CORE}"
        ),
        "a kernel that this GPU lacks",
    ),
    _to_safer(
        "vllm-compile-error",
        "compiling the model fails",
        fails_with("torch._inductor.exc.InductorError: CalledProcessError: Command gcc returned 1", steps=FIRST),
        "compiling",
    ),
    _to_embedded("vllm-bf16-on-t4", "the model is in bfloat16, the GPU a T4", fails_with(_BF16), "no units for"),
    _to_embedded(
        "vllm-quantisation", "the GPU has no kernel for the weights", fails_with(_QUANTISED), "without a kernel"
    ),
    _to_embedded(
        "vllm-model-unknown",
        "it does not know the kind of model",
        fails_with("ValueError: Model architectures ['NewForCausalLM'] are not supported for now."),
        "a model that this vLLM does not know",
    ),
    _to_embedded("vllm-port-taken", "the port that it wants is taken", vllm_process(_PORT), "a port that is taken"),
    _to_embedded(
        "vllm-download-wanted",
        "it wants a file from the network",
        vllm_process(
            "mark(); import urllib.request as u; u.urlopen('https://openaipublic.invalid/o200k_base.tiktoken')"
        ),
        "a download that was wanted",
    ),
    _to_embedded(
        "vllm-cache-read-only",
        "the folder of its compiled kernels cannot be written",
        vllm_process("mark(); os.makedirs('/kaggle/input/.triton/cache')"),
        "a folder that cannot be written",
    ),
    _fault(
        "vllm-speaks-nonsense",
        "it prints on standard output what is no JSON",
        vllm_process("mark(); os.system('echo nonsense')"),
        expect_up("vllm"),
    ),
)
_GPUS = (
    _to_safer(
        "vllm-gpus-gone",
        "two of four GPUs are gone",
        vllm_process(_WORLD, setup=show_gpus(2, parallel=4)),
        "fewer GPUs",
    ),
    _fault(
        "vllm-nccl",
        "the GPUs cannot reach each other",
        fails_with(
            "torch.distributed.DistBackendError: NCCL error in: NCCLUtils.cpp:94, unhandled system error (run with "
            f"NCCL_DEBUG=INFO for details), NCCL version 2.27.5\n{_CORE}",
            steps=SAFER,
            setup=show_gpus(2, parallel=None),
        ),
        expect_left("vllm with safer settings", "NCCL", to="vllm on one GPU"),
        expect_up("vllm on one GPU"),
    ),
    _fault(
        "vllm-shm-small",
        "/dev/shm has 1 MiB",
        combine(on_disks(Disks(shm_mib=1)), vllm_process(_SHM, setup=show_gpus(2, parallel=None))),
        expect_left("vllm with safer settings", "shared memory", to="vllm on one GPU"),
        expect_up("vllm on one GPU"),
    ),
)
_QUESTION = (
    _fault(
        "vllm-core-killed",
        "its core is killed in the second question",
        vllm_process(_SECOND.format(once=_ONCE) + _DIES, on="stream"),
        expect_left("vllm", "EngineDeadError", to="vllm"),
        expect_up("vllm"),
    ),
    _to_safer(
        "vllm-core-killed-twice",
        "its core is killed in every second question",
        vllm_process(_SECOND.format(once="") + _DIES, on="stream", steps=FIRST),
        "it ended a second time",
    ),
    _fault(
        "vllm-hangs-in-question",
        "it hangs from the second question on",
        vllm_process("if len(_calls) > 1 and not _again:\n    mark(); time.sleep(3600)", on="stream"),
        expect_left("vllm", "no sample came in the time of a question", to="vllm"),
        expect_up("vllm"),
    ),
    _to_embedded(
        "vllm-nan-logits", "its logits are all NaN", vllm_process(_NAN, on="stream"), "nothing came of 2 requests"
    ),
    _to_embedded(
        "vllm-all-empty", "all its completions are empty", vllm_process(_EMPTY, on="stream"), "only empty completions"
    ),
    _to_embedded(
        "vllm-aborts",
        "it aborts every request",
        vllm_process(f"mark(); raise ValueError(f'{_NO_SAMPLE}reason than eos or length: abort')", on="stream"),
        "than eos or length: abort",
    ),
)
_PLACE = (
    _fault(
        "vllm-wheels-missing",
        "vLLM's wheels are not mounted",
        unmount("vllm"),
        expect_left("vllm", "cannot be installed", to="vllm with safer settings"),
        expect_up("embedded"),
    ),
    _fault(
        "vllm-wheel-gone",
        "one of them is missing",
        spoil_input("vllm", delete_wheel, seen="not glob.glob(place + '/mathlete_vllm*.whl')"),
        expect_left("vllm", "cannot be installed", to="vllm with safer settings"),
        expect_up("embedded"),
    ),
    _fault(
        "vllm-wheel-other",
        "one of them is another than in the lock",
        spoil_input("vllm", change_wheel, seen="b'changed' in open(glob.glob(place + '/*.whl')[0], 'rb').read()"),
        expect_left("vllm", "cannot be installed", to="vllm with safer settings"),
        expect_up("embedded"),
    ),
    _fault(
        "vllm-weights-cut",
        "the weights are cut off, so that no engine can read them",
        combine(
            vllm_process(),
            cut_model(),
        ),
        expect_left("vllm", "weights that are broken", to="vllm with safer settings"),
        expect_left("vllm with safer settings", "weights that are broken", to="embedded"),
        expect="refused",
    ),
    _fault(
        "vllm-disk-slow",
        "the weights come so slowly that it loads longer than it may be silent, and says nothing of them",
        vllm_process(_SLOWLY, quiet_s=5.0),
        expect_up("vllm"),
    ),
    _to_embedded(
        "vllm-clock-short",
        "a third of the clock is left when it begins to load, and it hangs",
        combine(
            vllm_process("mark(); time.sleep(3600)", quiet_s=4.0),
            cell(f"{CLOCK}STARTED = time.time() - (clock['wall_s'] * 2 / 3 - clock['reserve_s'])"),
        ),
        "no progress",
    ),
)
VLLM_FAULTS = {fault.name: fault for fault in (*_BOOT, *_GPUS, *_QUESTION, *_PLACE)}
