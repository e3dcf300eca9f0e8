"""What vLLM, transformers, lm-evaluation-harness and LightEval call the settings of `python -m eval`.

Only names that mean one thing, and none that this command has itself.
"""

SERVERS_FLAGS = {
    "tensor_parallel_size": "use --vllm.tensor-parallel {}",
    "gpu_memory_utilization": "use --vllm.gpu-memory-utilization {}",
    "max_model_len": "use --vllm.max-model-len {}",
    "max_num_seqs": "use --vllm.at-once {}",
    "kv_cache_dtype": "use --vllm.kv-dtype {}",
    "enforce_eager": "use --vllm.eager",
    "enable_prefix_caching": "use --vllm.prefix-caching",
    "max_new_tokens": "use --sampling.max-tokens {}",
    "max_gen_toks": "use --sampling.max-tokens {}",
    "max_tokens": "use --sampling.max-tokens {}",
    "temperature": "use --sampling.temperature {}",
    "top_p": "use --sampling.top-p {}",
    "top_k": "use --sampling.top-k {}",
    "min_p": "use --sampling.min-p {}",
    "repetition_penalty": "use --sampling.repetition-penalty {}",
    "num_samples": "use --n {}",
    "num_return_sequences": "use --n {}",
    "base_url": "use --engine openai --servers.urls {}",
    "api_base": "use --engine openai --servers.urls {}",
    "output_dir": "use --run {}",
    "output_path": "use --run {}",
    "model_name_or_path": "use --model {}",
    "model_args": "use --model, and the groups of settings that --help shows",
    "tasks": "name the suite without a flag, as in `python -m eval {}`",
    "batch_size": "leave it out: rows that fit are decoded together",
}
