"""Ways to draw the same samples of a real model: the engine, `generate`, `generate_batch` and vLLM.

Each is a function from a case to what it drew; bench/sampling.py runs each in a process of its own, so that its CPU
time and memory are its own.
"""

import json
import os
import resource
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mathlete.models import find_model, load_model, load_prompt_format
from mathlete.problems import Problem
from mathlete.sampling import SamplingConfig
from mathlete.sampling.embedded import open_transformers
from mathlete.solve import Policy


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is drawn, how, of which problems."""

    way: str
    """One of WAYS."""
    model: str
    dtype: str
    problems: tuple[tuple[str, str], ...]
    """(id, statement) of each."""
    n: int
    max_tokens: int
    threads: int
    vllm: str = ""
    """Python of vLLM's environment."""

    @property
    def sampling(self) -> SamplingConfig:
        """How each sample is drawn."""
        return SamplingConfig(max_tokens=self.max_tokens)

    @property
    def rows(self) -> int:
        """Samples of all problems."""
        return self.n * len(self.problems)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a way drew."""

    tokens: int
    """Up to eos, which counts."""
    seconds: float
    cpu_seconds: float
    """Of all threads of the process."""
    first_s: float
    """Until the first sample was there."""
    peak_gib: float = 0.0
    """Memory of the process, its model's loading included."""

    def to_json(self) -> dict[str, float]:
        """Return the figures, rates among them."""
        rates = {"tokens_per_s": self.tokens / self.seconds, "tokens_per_cpu_s": self.tokens / self.cpu_seconds}
        return {name: round(value, 2) for name, value in {**rates, **asdict(self)}.items()}


def by_engine(case: Case) -> Drawn:
    """The embedded engine, all problems at once, each prompt read once."""
    engine = open_transformers(find_model(case.model), dtype=case.dtype, threads=case.threads)
    started, cpu, ends = time.perf_counter(), time.process_time(), []

    def draw(one: tuple[str, str]) -> int:
        problem = Problem(id=one[0], statement=one[1], gold="0")
        seeds = {index: Policy(seed=0).sample_seed(problem_id=problem.id, index=index) for index in range(case.n)}
        tokens = 0
        for sample in engine.stream(problem, seeds=seeds, config=case.sampling):
            ends.append(time.perf_counter())
            tokens += sample.tokens
        return tokens

    with ThreadPoolExecutor(len(case.problems)) as pool:
        tokens = sum(pool.map(draw, case.problems))
    drawn = Drawn(
        tokens=tokens,
        seconds=time.perf_counter() - started,
        cpu_seconds=time.process_time() - cpu,
        first_s=min(ends) - started,
    )
    engine.close()
    return drawn


def by_generate(case: Case) -> Drawn:
    """transformers' `generate` with `num_return_sequences=n`, one problem after another."""
    import torch

    model, prompts, eos = _load(case)
    tokens, first_s = 0, 0.0
    started, cpu = time.perf_counter(), time.process_time()
    for ids in prompts:
        given = torch.tensor([ids])
        with torch.inference_mode():
            out = model.generate(
                given,
                attention_mask=torch.ones_like(given),
                **_arguments(case, eos),
            )
        tokens += sum(_useful(row, eos) for row in out[:, len(ids) :].tolist())
        first_s = first_s or time.perf_counter() - started
    return Drawn(
        tokens=tokens,
        seconds=time.perf_counter() - started,
        cpu_seconds=time.process_time() - cpu,
        first_s=first_s,
    )


def by_generate_batch(case: Case) -> Drawn:
    """transformers' `generate_batch`: continuous batching over pages of a KV cache."""
    import transformers

    model, prompts, eos = _load(case)
    config: Any = transformers.GenerationConfig  # has no type hints
    how = config(**_arguments(case, eos))
    pages = -(-(max(map(len, prompts)) + case.max_tokens) // 32)
    # It sizes its cache by a GPU's memory; on a CPU it must be told. Small pages, for it reads them whole.
    batching = transformers.ContinuousBatchingConfig(
        page_size=32, num_blocks=(case.rows + 1) * pages, max_batch_tokens=max(512, case.rows), return_logprobs=True
    )
    started, cpu = time.perf_counter(), time.process_time()
    out = model.generate_batch(prompts, generation_config=how, continuous_batching_config=batching, warmup=False)
    seconds = time.perf_counter() - started
    if len(out) != case.rows:
        raise RuntimeError(f"generate_batch gave {len(out)} of {case.rows} samples")
    return Drawn(
        tokens=sum(_useful(one.generated_tokens, eos) for one in out.values()),
        seconds=seconds,
        cpu_seconds=time.process_time() - cpu,
        first_s=seconds,
    )


def by_vllm(case: Case) -> Drawn:
    """vLLM's CPU build, in its own environment."""
    source = find_model(case.model)
    prompts = _prompts(case)
    told = {
        **{name: getattr(case, name) for name in ("model", "dtype", "n", "max_tokens", "threads", "rows")},
        "prompts": prompts,
        "eos": sorted(_eos(case)),
        "temperature": case.sampling.temperature,
        "top_p": case.sampling.top_p,
        "longest": min(source.context_tokens(), max(map(len, prompts)) + case.max_tokens),
        "eager": True,
    }
    with TemporaryDirectory() as folder:
        given, answer = Path(folder) / "case.json", Path(folder) / "drawn.json"
        given.write_text(json.dumps(told))
        script = Path(__file__).resolve().parent / "peers" / "vllm_batch.py"
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        subprocess.run([case.vllm, str(script), str(given), str(answer)], check=True, env=environment)
        drawn = json.loads(answer.read_text())
    return Drawn(
        tokens=sum(_useful(sample, _eos(case)) for sample in drawn["samples"]),
        seconds=drawn["seconds"],
        cpu_seconds=drawn["cpu_seconds"],
        first_s=drawn["seconds"],
    )


WAYS: dict[str, Callable[[Case], Drawn]] = {
    "engine": by_engine,
    "generate": by_generate,
    "generate_batch": by_generate_batch,
    "vllm": by_vllm,
}


def measure(case: Case) -> Drawn:
    """Draw the case in this process."""
    import torch

    torch.set_num_threads(case.threads)
    drawn = WAYS[case.way](case)
    who = resource.RUSAGE_CHILDREN if case.way == "vllm" else resource.RUSAGE_SELF
    peak = resource.getrusage(who).ru_maxrss / 2**20
    return Drawn(**{**asdict(drawn), "peak_gib": round(peak, 2)})


def _arguments(case: Case, eos: list[int]) -> dict[str, Any]:
    """Return how transformers is to draw."""
    return {
        "do_sample": True,
        "temperature": case.sampling.temperature,
        "top_p": case.sampling.top_p,
        "top_k": 0,
        "num_return_sequences": case.n,
        "max_new_tokens": case.max_tokens,
        "eos_token_id": eos,
        "pad_token_id": eos[0],
    }


def _load(case: Case) -> tuple[Any, list[list[int]], list[int]]:
    return load_model(find_model(case.model), dtype=case.dtype), _prompts(case), sorted(_eos(case))


def _prompts(case: Case) -> list[list[int]]:
    prompts = load_prompt_format(find_model(case.model))
    return [prompts.prompt_ids(statement) for _, statement in case.problems]


def _eos(case: Case) -> set[int]:
    prompts = load_prompt_format(find_model(case.model))
    return find_model(case.model).eos_ids() | {int(prompts.tokenizer.eos_token_id)}


def _useful(row: list[int], eos: "list[int] | set[int]") -> int:
    """Count tokens up to the first that ends the completion."""
    return next((position + 1 for position, token in enumerate(row) if token in eos), len(row))
