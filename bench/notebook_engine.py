"""What pipe, journal and stop rules cost the notebook: its engine's process beside bare vLLM, question by question.

`python bench/notebook_engine.py --vllm PYTHON` starts two processes with the Python of an environment that has vLLM:
the one that the built notebook starts (`mathlete.kernel.engine_child`), asked through its pipe, and one that calls
`AsyncLLM` itself. Both hold the model with the same arguments. They draw n samples of the same questions in turn, in
the same minute, so that a busy machine slows both. Tokens a second are counted over each one's own drawing; vLLM itself
goes on until eos or the cap, the notebook ends a sample where its box has closed.
"""

import asyncio
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mathlete.kernel import EngineProcess
    from mathlete.models import ModelSource
    from mathlete.problems import Problem
    from mathlete.sampling import SamplingConfig

ROOT = Path(__file__).parents[1]
_WARM = 2
"""Questions that are not counted; of these the notebook's engine asks for log-probabilities."""


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """What is drawn, of which model."""

    vllm: Path
    """Python of an environment that has vLLM."""
    model: str = "pocket"
    n: tuple[int, ...] = (16,)
    """Samples of a question; several are measured one after another."""
    questions: int = 8
    """Measured of each, after two that warm up."""
    max_tokens: int = 256
    memory: float = 0.4
    """Share of a GPU's memory for each of the two."""
    kv_gib: float | None = None
    """Cache of each, GiB; default: what the share leaves, on a CPU 2."""
    eager: bool = False
    """Without compiling and CUDA graphs."""
    load_s: float = 3600.0
    """Seconds in which each must have loaded."""
    json: bool = False
    """End with one line of JSON."""


@dataclass(kw_only=True)
class Drawn:
    """What one of the two drew."""

    tokens: int = 0
    seconds: float = 0.0
    samples: int = 0

    @property
    def tokens_per_s(self) -> float:
        """Tokens of all samples a second."""
        return self.tokens / self.seconds


def draw_bare() -> None:
    """Serve the bare engine: the child's part. One JSON value a line; it needs vLLM alone."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    asyncio.run(_serve_bare(json.loads(sys.stdin.readline()), replies))


async def _serve_bare(arguments: dict[str, Any], replies: Any) -> None:
    from vllm import AsyncEngineArgs, SamplingParams
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine.async_llm import AsyncLLM

    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
    print(json.dumps({"ready": True}), file=replies, flush=True)

    async def draw(name: str, asked: dict[str, Any], seed: int) -> int:
        params = SamplingParams(
            **asked["sampling"], seed=seed, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
        )
        async for reply in engine.generate({"prompt_token_ids": asked["prompt"]}, params, name):
            tokens = len(reply.outputs[0].token_ids)
        return tokens

    for number, line in enumerate(sys.stdin):
        asked, began = json.loads(line), time.monotonic()
        counts = await asyncio.gather(*(draw(f"{number}-{seed}", asked, seed) for seed in range(asked["n"])))
        told = {"tokens": sum(counts), "seconds": time.monotonic() - began, "samples": len(counts)}
        print(json.dumps(told), file=replies, flush=True)
    engine.shutdown()


@dataclass(kw_only=True)
class Bare:
    """The child that calls vLLM itself."""

    process: "subprocess.Popen[str]"
    drawn: Drawn = field(default_factory=Drawn)

    def ask(self, value: object) -> dict[str, Any]:
        """Send a line, and return the next one that it says."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(value), file=self.process.stdin, flush=True)
        if not (line := self.process.stdout.readline()):
            raise SystemExit(
                f"bare vLLM must answer, and ended with code {self.process.wait()}: see what it said above"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it, and vLLM's own process, which does not miss it."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def draw_by_notebook(
    engine: "EngineProcess", problem: "Problem", n: int, config: "SamplingConfig"
) -> tuple[int, float]:
    """Return (tokens, seconds) of n samples through the notebook's pipe."""
    began = time.monotonic()
    samples = list(engine.stream(problem, seeds={index: index for index in range(n)}, config=config))
    assert len(samples) == n
    return sum(sample.tokens for sample in samples), time.monotonic() - began


def arguments_of(settings: BenchSettings, source: "ModelSource", *, told: Mapping[str, object]) -> dict[str, Any]:
    """Return the arguments with which the notebook's settings load vLLM; `told` is what its process says of itself."""
    return {
        "model": source.location,
        "dtype": told["dtype"],
        # Of a torch that was built for GPUs, and has none, too: see `_engine_args` of mathlete's vllm engine.
        "enable_chunked_prefill": False if told["device"] == "cpu" else None,
        "max_model_len": min(source.context_tokens(), settings.max_tokens + 8192),
        "max_num_seqs": 256,
        "gpu_memory_utilization": settings.memory,
        "kv_cache_memory_bytes": None if settings.kv_gib is None else int(settings.kv_gib * 2**30),
        "enforce_eager": settings.eager,
        "enable_prefix_caching": True,
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        "disable_log_stats": True,
    }


def main(settings: BenchSettings) -> dict[str, object]:
    """Measure both in turn; return the figures."""
    from mathlete.kernel import EngineProcess
    from mathlete.models import find_model, load_prompt_format
    from mathlete.problems import read_problems
    from mathlete.sampling import SamplingConfig
    from mathlete.sampling.served import VllmSettings
    from mathlete.shipped import data_folder
    from mathlete.solve import Policy

    if shutil.which(settings.vllm) is None:
        raise SystemExit(f"--vllm must be the Python of an environment that has vLLM, got {settings.vllm}")
    source = find_model(settings.model)
    prompts = load_prompt_format(source)
    problems = read_problems(data_folder() / "pocket" / "pocket_val.jsonl")[: settings.questions + _WARM]
    config = SamplingConfig(max_tokens=settings.max_tokens)
    own = VllmSettings(gpu_memory_utilization=settings.memory, kv_gib=settings.kv_gib, eager=settings.eager)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "VLLM_LOGGING_LEVEL": "ERROR"}
    os.environ |= {"PYTHONPATH": environment["PYTHONPATH"]}
    space = str(math.ceil(settings.kv_gib or 2))
    environment |= {"VLLM_CPU_KVCACHE_SPACE": space, "VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    figures: dict[str, object] = {}
    told_by_engine: dict[str, object] = {}
    with TemporaryDirectory() as folder:
        engine = EngineProcess(
            Path(source.location),
            log=Path(folder, "engine.log"),
            engine="vllm",
            vllm=own,
            max_tokens=settings.max_tokens,
            scores=Policy().reads_scores,
            command=(str(settings.vllm), "-m", "mathlete.kernel.engine_child"),
            on_ready=told_by_engine.update,
        )
        child = subprocess.Popen(
            [settings.vllm, __file__, "--bare"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        with closing(engine), closing(Bare(process=child)) as bare:
            try:
                engine.start(timeout_s=settings.load_s)
            except RuntimeError as error:
                raise SystemExit(f"the notebook's engine must start with {settings.vllm}, got {error}") from error
            bare.ask(arguments_of(settings, source, told=told_by_engine))
            for n in settings.n:
                sampling: dict[str, object] = {"temperature": config.temperature, "top_p": config.top_p}
                sampling |= {"max_tokens": config.max_tokens, "stop_token_ids": sorted(source.eos_ids())}
                by, ratios = {"notebook": Drawn(), "bare": Drawn()}, list[float]()
                for number, problem in enumerate(problems):
                    tokens, seconds = draw_by_notebook(engine, problem, n, config)
                    asked = {"prompt": prompts.prompt_ids(problem.statement), "n": n, "sampling": sampling}
                    told = bare.ask(asked)
                    if number >= _WARM:
                        for drawn, count, took in (
                            (by["notebook"], tokens, seconds),
                            (by["bare"], told["tokens"], told["seconds"]),
                        ):
                            drawn.tokens, drawn.seconds = drawn.tokens + count, drawn.seconds + took
                        ratios.append(tokens / seconds / (told["tokens"] / told["seconds"]))
                speeds = {name: round(drawn.tokens_per_s, 1) for name, drawn in by.items()}
                ratio, middle = round(speeds["notebook"] / speeds["bare"], 3), round(median(ratios), 3)
                figures[f"n={n}"] = {**speeds, "ratio": ratio, "median_of_questions": middle}
                told_of = f"notebook {speeds['notebook']}, bare {speeds['bare']} tokens/s: {ratio}"
                print(f"n = {n}: {told_of}, median of questions {middle}", flush=True)
    return figures


if __name__ == "__main__":
    if sys.argv[1:] == ["--bare"]:
        draw_bare()
    else:
        import tyro

        chosen = tyro.cli(BenchSettings, description=__doc__)
        result = main(chosen)
        if chosen.json:
            print(json.dumps(result))
