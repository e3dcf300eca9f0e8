"""vLLM on the prompts of bench/sampling.py, which runs this with `--vllm PYTHON`: vLLM has an environment of its own.

The calls are vLLM's guide's for batches (docs, "Offline inference"): one `LLM`, one `generate` over all prompts.
"""

import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any


def draw(case: dict[str, Any]) -> dict[str, object]:
    """Draw the case's samples; return their token ids, and the seconds from the first request on."""
    # Everything in this process, whose CPU time is what is counted; no core is taken for its own.
    os.environ |= {
        "OMP_NUM_THREADS": str(case["threads"]),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
    }
    vllm: Any = import_module("vllm")
    model = vllm.LLM(
        model=case["model"],
        dtype=case["dtype"],
        max_model_len=case["longest"],
        kv_cache_memory_bytes=2 * 2**30,
        max_num_seqs=case["rows"],
        enable_prefix_caching=True,
        # Its generator is rewound where a prompt is read in parts, which torch does on GPUs only (vLLM 0.32).
        enable_chunked_prefill=False,
        generation_config="vllm",
        enforce_eager=case["eager"],
        skip_tokenizer_init=True,
    )
    how = vllm.SamplingParams(
        n=case["n"],
        temperature=case["temperature"],
        top_p=case["top_p"],
        max_tokens=case["max_tokens"],
        stop_token_ids=case["eos"],
        detokenize=False,
    )
    started, cpu = time.perf_counter(), time.process_time()
    outputs = model.generate([{"prompt_token_ids": ids} for ids in case["prompts"]], how, use_tqdm=False)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    samples = [list(sample.token_ids) for output in outputs for sample in output.outputs]
    return {"samples": samples, "seconds": seconds, "cpu_seconds": cpu_seconds, "version": vllm.__version__}


if __name__ == "__main__":
    answer = draw(json.loads(Path(sys.argv[1]).read_text()))
    Path(sys.argv[2]).write_text(json.dumps(answer))
