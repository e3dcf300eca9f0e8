"""How much faster the shared decode loop draws than `generate(num_return_sequences=n)`: python bench/sampling.py.

Same prompts, model, threads and sampling in one run. Useful tokens are those up to the box or eos: what `generate`
draws for rows that are done while others are not is padding, and what it draws after the box has closed is thrown
away. With `--model DIR` it is a real model's samples of a suite, by the ways of bench/ways.py, each in a process of its
own: tokens a second, and a second of CPU time, which a busy machine changes less; `--vllm PYTHON` adds vLLM's CPU build
from an environment of its own.

`ratio_pocket` is the pocket model's; `ratio_27m` that of random weights of 27M parameters with the pocket
vocabulary, where every row runs to the cap, so that no token is wasted, and matrix products are nearly all of the work:
what is left to win is that many problems share one step. `vote_wall_ratio` is the wall to the same vote, exact early
stop against all n of `generate`.
"""

import json
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import tyro

from mathlete.corpus import load_suite
from mathlete.models import find_model, load_model, load_prompt_format
from mathlete.problems import Problem, read_problems
from mathlete.prompts import PromptFormat
from mathlete.sampling.completion import CompletionReader
from mathlete.sampling.embedded.transformers_engine import TransformersSampler, choose_dtype
from mathlete.sampling.samples import SamplingConfig
from mathlete.shipped import data_folder
from mathlete.solve.clock import RealClock
from mathlete.solve.policy import Policy
from mathlete.solve.solver import solve


@dataclass(frozen=True, kw_only=True)
class RealModel:
    """A model of some size, and how its samples are drawn."""

    model: str | None = None
    """A real model; its samples are drawn instead of the pocket model's."""
    suite: str = "gsm8k"
    """Whose problems it answers."""
    mirror: Path | None = None
    """Folder that stands in for the hub's data sets."""
    ways: tuple[str, ...] = ("engine", "generate", "generate_batch")
    """Ways to draw its samples; WAY:TYPE for another type than the engine's own choice, as in engine:float32."""
    vllm: Path | None = None
    """Python of an environment that has vLLM's CPU build, as one more way."""


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """Sizes of the comparison."""

    problems: int = 128
    """Pocket problems."""
    plain_problems: int = 48
    """How many of them `generate` draws, which takes one after another: their time stands for all."""
    n: int = 16
    """Samples a problem."""
    max_tokens: int = 256
    """Cap for the pocket model."""
    repeats: int = 3
    """Best of so many; the box may be shared."""
    large_problems: int = 12
    """Problems for the 27M-parameter model, with 64 tokens a sample; 0 leaves it out."""
    threads: int = 1
    """CPU threads of each way."""
    case: str | None = None
    """One case as JSON, for the process that draws it."""
    json: bool = False
    """End with one line of JSON."""
    real: Annotated[RealModel, tyro.conf.arg(name="")] = field(default_factory=RealModel)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """One way of drawing the same samples."""

    tokens: int
    """Useful ones."""
    seconds: float

    @property
    def rate(self) -> float:
        """Useful tokens a second."""
        return self.tokens / self.seconds


def by_generate(model: Any, prompts: PromptFormat, problems: list[Problem], n: int, config: SamplingConfig) -> Speed:
    import torch

    eos = prompts.tokenizer.eos_token_id
    reader = CompletionReader(prompts, eos_ids={eos})
    tokens = 0
    started = time.perf_counter()
    for problem in problems:
        ids = torch.tensor([prompts.prompt_ids(problem.statement)], device=model.device)
        with torch.inference_mode():
            out = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                temperature=config.temperature,
                top_p=config.top_p,
                top_k=0,
                num_return_sequences=n,
                max_new_tokens=config.max_tokens,
                pad_token_id=prompts.tokenizer.pad_token_id,
            )
        tokens += sum(count_useful(row, eos, reader) for row in out[:, ids.shape[1] :].tolist())
    return Speed(tokens=tokens, seconds=time.perf_counter() - started)


def count_useful(row: list[int], eos: int, reader: CompletionReader) -> int:
    """Tokens up to the box, or to eos, of one generated row."""
    if eos in row:
        row = row[: row.index(eos) + 1]
    for position, token in enumerate(row):
        if token in reader.think_enders:
            for end in range(position + 1, len(row)):
                if (
                    row[end] in reader.closers
                    and reader.boxed_text(row[: end + 1], answering_from=position) is not None
                ):
                    return end + 1
    return len(row)


def by_engine(engine: TransformersSampler, problems: list[Problem], n: int, config: SamplingConfig) -> Speed:
    def draw(problem: Problem) -> int:
        seeds = {index: Policy(seed=0).sample_seed(problem_id=problem.id, index=index) for index in range(n)}
        return sum(sample.tokens for sample in engine.stream(problem, seeds=seeds, config=config))

    started = time.perf_counter()
    with ThreadPoolExecutor(2 * engine.max_rows // n + 2) as pool:
        tokens = sum(pool.map(draw, problems))
    return Speed(tokens=tokens, seconds=time.perf_counter() - started)


def vote_seconds(engine: TransformersSampler, problems: list[Problem], n: int, config: SamplingConfig) -> float:
    """Wall to every problem's vote, with the exact early stop."""
    policy = Policy(n=n, sampling=config, stop="exact")

    def vote(problem: Problem) -> object:
        return solve(problem, sampler=engine, clock=RealClock(), policy=policy)

    started = time.perf_counter()
    with ThreadPoolExecutor(2 * engine.max_rows // Policy(n=n, stop="exact").fewest_samples + 2) as pool:
        list(pool.map(vote, problems))
    return time.perf_counter() - started


def compare(
    load: Any,
    prompts: PromptFormat,
    problems: list[Problem],
    settings: BenchSettings,
    config: SamplingConfig,
    *,
    votes: bool = False,
) -> dict[str, float]:
    some = problems[:: -(-len(problems) // settings.plain_problems)]
    plain, mine, vote_ratios = [], [], []
    for _ in range(settings.repeats):
        plain.append(by_generate(load(), prompts, some, settings.n, config))
        engine = TransformersSampler(load(), prompts=prompts)
        mine.append(by_engine(engine, problems, settings.n, config))
        if votes:
            all_s = plain[-1].seconds * len(problems) / len(some)
            vote_ratios.append(all_s / vote_seconds(engine, problems, settings.n, config))
        engine.close()
    ratios = [m.rate / p.rate for m, p in zip(mine, plain, strict=True)]
    return {
        "generate_tokens_per_s": round(max(speed.rate for speed in plain), 1),
        "engine_tokens_per_s": round(max(speed.rate for speed in mine), 1),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_low": round(min(ratios), 2),
        "ratio_high": round(max(ratios), 2),
    } | ({"vote_wall_ratio": round(statistics.median(vote_ratios), 2)} if votes else {})


def random_27m(vocabulary: int) -> Any:
    """Random weights in Qwen2's architecture that never end by themselves."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    model: Any = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=512,
            intermediate_size=1792,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            max_position_embeddings=1024,
        )
    )
    model.generation_config.eos_token_id = None
    return model.eval()


def compare_ways(model: str, settings: BenchSettings) -> dict[str, object]:
    """Draw a real model's samples by each way, and print how fast each was."""
    dtype, reason = choose_dtype(find_model(model))
    print(f"{model} in {dtype}: {reason}")
    problems = load_suite(settings.real.suite, mirror=settings.real.mirror).problems[: settings.problems]
    rows: dict[str, object] = {}
    for words in (*settings.real.ways, *(["vllm"] if settings.real.vllm else [])):
        way, _, other = words.partition(":")
        case = {
            "way": way,
            "model": model,
            "dtype": other or dtype,
            "problems": [(problem.id, problem.statement) for problem in problems],
            "n": settings.n,
            "max_tokens": settings.max_tokens,
            "threads": settings.threads,
            "vllm": str(settings.real.vllm or ""),
        }
        command = [sys.executable, __file__, "--case", json.dumps(case)]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        rows[words] = json.loads(ended.stdout.splitlines()[-1]) if ended.returncode == 0 else "failed"
        print(f"{words}: {rows[words]}", flush=True)
    return rows


def main(settings: BenchSettings) -> dict[str, object]:
    import torch

    if settings.real.model:
        return compare_ways(settings.real.model, settings)

    torch.set_num_threads(1)
    source = find_model("pocket")
    prompts = load_prompt_format(source)
    problems = read_problems(data_folder() / "pocket" / "pocket_val.jsonl")[: settings.problems]
    config = SamplingConfig(max_tokens=settings.max_tokens)
    pocket = compare(lambda: load_model(source), prompts, problems, settings, config, votes=True)
    print(f"pocket, {len(problems)} problems x {settings.n}: {pocket}")
    found: dict[str, object] = {
        "ratio_pocket": pocket["ratio"],
        "vote_wall_ratio": pocket["vote_wall_ratio"],
        "pocket": pocket,
    }
    if settings.large_problems:
        few = problems[: settings.large_problems]
        large = compare(
            lambda: random_27m(len(prompts.tokenizer)), prompts, few, settings, SamplingConfig(max_tokens=64)
        )
        print(f"27M, {len(few)} problems x {settings.n}: {large}")
        found |= {"ratio_27m": large["ratio"], "27m": large}
    return found


if __name__ == "__main__":
    chosen = tyro.cli(BenchSettings, description=__doc__)
    if chosen.case:
        ways = import_module("ways")
        print(json.dumps(ways.measure(ways.Case(**json.loads(chosen.case))).to_json()))
        sys.exit(0)
    line = main(chosen)
    if chosen.json:
        print(json.dumps(line))
    sys.exit(0)
