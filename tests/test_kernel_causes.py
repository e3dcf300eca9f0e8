"""Sentences of vLLM 0.19.1, torch 2.10, NCCL and their like, and the cause that each is read as.

tests/test_kernel_steps.py tells what the ladder does about a cause.
"""

import pytest

from mathlete.kernel.causes import find_cause_of_end

SAID = {
    "GPU memory": [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "torch.AcceleratorError: CUDA error: out of memory",
        "RuntimeError: CUDA error: out of memory",
        "RuntimeError: CUDA driver error: out of memory",
        "RuntimeError: Triton Error [CUDA]: out of memory",
        "RuntimeError: CUDA out of memory occurred when warming up sampler with 256 dummy requests.",
        "CUDA Error: out of memory at /workspace/csrc/cumem_allocator.cpp:122",
        "Cuda failure 2 'out of memory'",
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "RuntimeError: CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "RuntimeError: cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    ],
    "main memory": [
        "RuntimeError: unable to mmap 4967215360 bytes from file <a.safetensors>: Cannot allocate memory (12)",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory",
    ],
    "a format of weights without a kernel": [
        "Value error, torch.float32 is not supported for quantization method fp8. Supported dtypes: [torch.bfloat16]",
        "ValueError: The quantization method mxfp4 is not supported for the current GPU. Minimum capability: 80.",
        "RuntimeError: ('Quantization scheme is not supported for ', 'the current GPU. Required capability: ', '89.')",
        "ValueError: Failed to find a kernel that can implement the WNA16 linear layer. Reasons: ",
        "NotImplementedError: No compiled cutlass_scaled_mm for CUDA device capability: 75.",
        "NotImplementedError: No compiled nvfp4 quantization kernel",
        "RuntimeError: Marlin W8A8 is not supported.",
        "ValueError: Marlin W4A8-FP8 only support SM89 or SM120 device",
        "ValueError: W8A8-INT8 is not supported by marlin kernel.",
        "NotImplementedError: No FP8 MoE backend supports the deployment configuration.",
        "NotImplementedError: No MXFP4 MoE backend supports the deployment configuration.",
        "ValueError: No supported MXFP8 expert class for TRTLLM: not there",
        "ValueError: FlashInfer MOE backend throughput does not support FP8 MoE.",
        "RuntimeError: Unsupported FusedMoe scheme: int4, None",
        "ValueError: Unsupported num_bits = 3. Supported num_bits = dict_keys([4, 8])",
        "ValueError: The input size is not aligned with the quantized weight shape.",
        "ValueError: The output_size of gate's and up's weight = 192 "
        "is not divisible by weight quantization block_n = 128.",
        "ValueError: Weight output_size_per_partition = 96 is not divisible by  min_thread_n = 64. Consider reducing",
        "ValueError: Weight input_size_per_partition = 192 is not divisible by group_size = 128. Consider reducing",
    ],
    "a kernel that this GPU lacks": [
        "torch.AcceleratorError: CUDA error: no kernel image is available for execution on the device",
        "torch.AcceleratorError: CUDA error: invalid device function",
        "torch.AcceleratorError: CUDA error: the provided PTX was compiled with an unsupported toolchain.",
        "ValueError: No valid attention backend found for cuda with AttentionSelectorConfig(head_size=128, dtype=x)",
        "ValueError: Selected backend AttentionBackendEnum.FLASHMLA is not valid for this configuration. Reason: ['x']",
        "AssertionError: Sinks are only supported in FlashAttention 3",
        "NotImplementedError: FlashInfer backend currently does not support attention sinks, please use trtllm on",
        "RuntimeError: Ninja build failed. Ninja output:",
        "FileNotFoundError: [Errno 2] No such file or directory: 'ninja'",
        "RuntimeError: Could not find nvcc and default cuda_home='/usr/local/cuda' doesn't exist",
    ],
    "compiling": [
        "torch._dynamo.exc.BackendCompilerFailed: backend='<vllm.compilation.backends.VllmBackend>' raised:",
        "RuntimeError: Failed to find C compiler. Please specify via CC environment variable or set triton.knobs",
        "ptxas fatal   : Value 'sm_120a' is not defined for option 'gpu-name'",
        "triton.runtime.errors.PTXASError: PTXAS error: Internal Triton PTX codegen error",
        "RuntimeError: PassManager::run failed",
    ],
    "fewer GPUs than it wants": [
        "ValueError: World size (4) is larger than the number of available GPUs (2) in this node.",
        "AssertionError: DP adjusted local rank 2 is out of bounds. ",
        "torch.AcceleratorError: CUDA error: invalid device ordinal",
        "RuntimeError: No CUDA GPUs are available",
    ],
    "NCCL, which joins the GPUs": [
        "RuntimeError: NCCL error: unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
        "torch.distributed.DistBackendError: NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:94",
        "ncclUnhandledCudaError: Call to CUDA function failed.",
        "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error.",
    ],
    "a download that was wanted": [
        "openai_harmony.HarmonyError: error downloading or loading vocab file: failed to download or load vocab file",
        "OSError: We couldn't connect to 'https://huggingface.co' to load the files",
        "httpx.ConnectError: [Errno -3] Temporary failure in name resolution",
        "huggingface_hub.errors.OfflineModeIsEnabled: Cannot reach https://huggingface.co/a: offline mode is enabled.",
        "socket.gaierror: [Errno -5] No address associated with hostname",
    ],
    "weights that are broken": ["RuntimeError: Cannot find any model weights with `/kaggle/input/model`"],
    "a model that this vLLM does not know": [
        "ValueError: The checkpoint you are trying to load has model type `x` but Transformers does not recognize this "
        "architecture. This could be because of an issue with the checkpoint",
    ],
    "another error": [
        "torch.AcceleratorError: CUDA error: an illegal memory access was encountered",
        "RuntimeError: Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing",
        "triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 98304",
    ],
}
ROWS = [(cause, sentence) for cause, sentences in SAID.items() for sentence in sentences]


@pytest.mark.parametrize(("cause", "sentence"), ROWS)
def test_each_sentence_has_its_cause(cause: str, sentence: str) -> None:
    said = f"(EngineCore pid=207) ERROR 11-29 20:50:25 [core.py:1108] {sentence}"
    wrapped = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    assert find_cause_of_end(f"{said}\n{wrapped}").startswith(f"{cause}: ")


def test_nccl_without_memory_lacks_memory() -> None:
    error = "torch.distributed.DistBackendError: NCCL error in: NCCLUtils.cpp:94, unhandled cuda error"
    said = (
        f"{error}\nncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 2 'out of memory'"
    )
    assert find_cause_of_end(said) == "GPU memory: Cuda failure 2 'out of memory'"
