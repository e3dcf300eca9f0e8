r"""Why an engine did not come up, in one line, out of what its process printed.

>>> find_cause_of_end("INFO loading\nValueError: Bfloat16 is only supported on GPUs of 8.0\n")
'a type that this GPU has no units for: ValueError: Bfloat16 is only supported on GPUs of 8.0'
>>> find_cause_of_end("loading\nSegmentation fault\n")
'Segmentation fault'
>>> find_cause_of_end("KeyError: 'layers.9'\nRuntimeError: Engine core initialization failed. See root cause above.\n")
"another error: KeyError: 'layers.9'"
>>> find_cause_of_end('File "a.py", line 1\n    raise ImportError(\nImportError: compressed_tensors is not installed\n')
'a package that is missing or of another version: ImportError: compressed_tensors is not installed'
"""

import re

_LONGEST = 100
"""Characters of the line that is quoted."""
_CAUSES: tuple[tuple[str, str], ...] = (
    ("a context that does not fit into the cache", r"max seq(uence)? len.*larger than|KV cache.*(larger|needed)"),
    ("no memory for the cache", r"No available memory for the cache blocks"),
    ("GPU memory", r"OutOfMemoryError|(CUDA|Cuda).*\bout of memory|Free memory on device.*less than|"
     r"_ALLOC(ATION)?_FAILED|cudaErrorMemoryAllocation|CUBLAS_STATUS_NOT_INITIALIZED when calling .cublas(Lt)?Create"),
    ("main memory", r"MemoryError\b|Cannot allocate memory|\bENOMEM\b|DefaultCPUAllocator"),
    ("a type that this GPU has no units for", r"[Bb]float16 is only supported"),
    ("a format of weights without a kernel", r"[Qq]uantization.*not supported|Failed to find a kernel|nknown quant|"
     r"not supported for quantization|"
     r"No compiled \w+|[Mm]arlin.*(not|only) support|not supported by \w*[Mm]arlin|No (supported )?\w+ (MoE|expert) |"
     r"M[oO]E backend.* does not support|Unsupported (FusedMoe|quantization|num_bits)|quantized weight shape|"
     r"not divisible by *(weight quantization block|min_thread|group_size)"),
    ("a kernel that this GPU lacks", r"no kernel image is available|cubin|FlashInfer.*(requires|not)|nsupported.*arch|"
     r"nsupported toolchain|invalid device function|No valid attention backend|elected backend .* is not valid|"
     r"Sinks are only supported|Ninja build failed|Could not find nvcc|No such file or directory: '(ninja|nvcc)'"),
    ("fewer GPUs than it wants", r"World size \(\d+\) is larger than the number|invalid device ordinal|"
     r"local rank \d+ is out of bounds|No CUDA GPUs are available"),
    ("NCCL, which joins the GPUs", r"\bNCCL\b.*(error|fail|unhandled)|nccl\w+Error"),
    ("shared memory of the machine", r"/dev/shm|No space left on device.*shm|shm.*No space"),
    ("a port that is taken", r"Address already in use|EADDRINUSE"),
    ("a full disk", r"No space left on device"),
    ("a folder that cannot be written", r"Read-only file system|Permission denied"),
    ("a download that was wanted", r"Max retries exceeded|Name or service not known|LocalEntryNotFound|OfflineMode|"
     r"Network is unreachable|Temporary failure in name resolution|couldn't connect to|ffline mode is enabled|"
     r"download(ing)? or load(ing)? vocab file|No address associated with hostname"),
    ("weights that are broken", r"SafetensorError|incomplete metadata|HeaderTooLarge|MetadataIncompleteBuffer|"
     r"weights were not initialized|Cannot find any (safetensors )?model weights"),
    ("a model that this vLLM does not know", r"Model architectures.*not supported|has no vLLM implementation|"
     r"not recognize this architecture"),
    ("compiling", r"torch\._(inductor|dynamo)\S*Error|InductorError|BackendCompilerFailed|triton\S*(Error|compil)|"
     r"ptxas fatal|PassManager::run failed|Failed to find C compiler"),
    ("a package that is missing or of another version", r"ModuleNotFoundError|ImportError|undefined symbol|"
     r"cannot open shared object|Could not load this library"),
    ("GPUs that do not join", r"^(?!.*(by peer|Broken pipe)).*(CUDART error|peer access|peer mapping|"
     r"Gloo .*(fail|timed out)|DistNetworkError|DistStoreError|RPC call to .* timed out|custom_all_reduce\.cu)"),
)  # fmt: skip
"""(What is wrong, how Python, torch, NCCL and vLLM say it), the more telling first: one fault drags others along."""

_ERROR = re.compile(r"(\w+\.)*\w*(Error|Exception)(:|$)|(\w+\.)+[A-Z]\w+: ")
"""The last line of a traceback."""
_WRAPPER = re.compile(
    r"[Ss]ee (root cause|stack trace)|stack trace above|EngineDeadError|Engine core initialization failed|"
    r"died unexpectedly|WorkerProc.*(died|failed)"
)
"""How vLLM says in one process that another has ended, whose own log may say why (0.19.1, v1/engine, v1/executor)."""
_GONE = re.compile(r"died unexpectedly")
"""Of these the line of a logger below which all is dragged along; its others also stand above the error itself."""
_DRAGGED = re.compile(
    r"by peer|BrokenPipeError|Broken pipe|EOFError|CancelledError|RuntimeError: (cancelled$|Executor failed)|"
    r"KeyError: '/(psm_|mp-)"
)
"""What the end of one process does to those that talk with it, and to the tracker of what they shared."""
_IGNORED = re.compile(r"Exception ignored (in|while)\b")
"""How Python begins to tell an error that it goes on from, as while it ends (`sys.unraisablehook`)."""
_NO_ERROR = re.compile(r"(KeyboardInterrupt|SystemExit|GeneratorExit|StopIteration|\w+Warning)\b|(\w+\.)+[A-Z]\w*$")
"""The last line of a traceback of what is raised and is no error."""
_OTHER, _DIED = "another error", "a worker that died"

_HARMLESS = re.compile(r"\b(DEBUG|INFO|WARNING) \d\d-\d\d \d\d:")
"""Lines of vLLM's logger that are no errors."""
_SOURCE = re.compile(r'raise\b|File "')
"""How a traceback's lines of source begin: they name an error before its message is known."""


def find_cause_of_end(log: str) -> str:
    """Return the likeliest cause in a process's log, with the line that says it; else its last line that is no cure."""
    # vLLM warns of much that it does without: of another build's kernels, of packages for pictures.
    lines = [line for line in log.splitlines() if line.strip() and not _HARMLESS.search(line)]
    telling = _leave_out_ignored([text for line in lines if not _SOURCE.match(text := _strip(line))])
    for cause, said in _CAUSES:
        if words := next((text for text in telling if re.search(said, text)), None):
            return _quote(cause, words)
    if wrapper := next(filter(_WRAPPER.search, telling), None):
        own = _find_own_error(telling)
        return _quote(_OTHER, own) if own else _quote(_DIED, wrapper)
    # The cure of a user's mistake stands indented below what is wrong.
    return next((line for line in reversed(lines) if not line.startswith(" ")), "it printed nothing")


def match_causes(*names: str) -> str:
    """Return the pattern by which a message has one of these causes: what it quotes of a log, or of an error, is none.

    >>> bool(re.search(match_causes("GPU memory"), "it ended with code 1: GPU memory: CUDA out of memory"))
    True
    >>> bool(re.search(match_causes("GPU memory"), "it ended with code 1: another error: ValueError: GPU memory: 3"))
    False
    """
    known = "|".join(map(re.escape, (*(cause for cause, _ in _CAUSES), _OTHER, _DIED)))
    # How a process ended may say a cause too, which is then no heading.
    return rf"^(?:(?!(?:{known}): ).)*?(?:{'|'.join(map(re.escape, names))})(?:: | that is |$)"


def _find_own_error(telling: list[str]) -> str:
    """Return the last error before the first line that only says of another process's end; "" where none is there."""
    own = ""
    for text in telling:
        error = _ERROR.match(text)
        if _GONE.search(text) or (error and _WRAPPER.search(text)):
            break
        own = text if error and not _DRAGGED.search(text) else own
    return own


def _leave_out_ignored(telling: list[str]) -> list[str]:
    """Return the lines without the errors that Python went on from."""
    kept, ignored = list[str](), False
    for text in telling:
        ignored = ignored or bool(_IGNORED.match(text))
        if not ignored:
            kept.append(text)
        # Its traceback ends with what was raised.
        ignored = ignored and not (_ERROR.match(text) or _NO_ERROR.match(text))
    return kept


def _quote(cause: str, words: str) -> str:
    return f"{cause}: {words if len(words) <= _LONGEST else f'{words[: _LONGEST - 1]}…'}"


def _strip(line: str) -> str:
    """Return a line without the time, place and process that a logger puts before it."""
    return " ".join(re.sub(r"^(\(\S+( pid=\d+)?\)\s*)?([A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d \[\S+\]\s*)?", "", line).split())
