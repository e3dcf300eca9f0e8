"""Exports read by the engines they are made for: the same problems, answered by them, against the trained model."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from mathlete.answers import read_answer
from mathlete.engines import EngineSettings, open_engine
from mathlete.export.distributions import completion_positions
from mathlete.export.formats.table import ExportFormat, ServingEngine
from mathlete.export.greedy import Answers
from mathlete.export.records.exports import Hop
from mathlete.export.reference import Heldout, Reference
from mathlete.models import ModelSource
from mathlete.sampling import Continuing, Sample, SamplingConfig
from mathlete.sampling.served import VllmSettings

_POSITIONS = 200
"""Positions of the held-out rows where llama.cpp is given the text so far: it reads each from its beginning."""


def measure_served(
    folder: Path, *, export_format: ExportFormat, reference: Reference, engines: Sequence[ServingEngine]
) -> Iterator[Hop]:
    """Yield the hop to the format's engine, where that is one of `engines` and is installed.

    Raises:
        UserError: the engine can't load the export.
    """
    engine = export_format.engine
    if engine is not None and engine in engines and (engine != "llama.cpp" or find_spec("xllamacpp") is not None):
        yield ENGINES[engine](folder, export_format, reference)


def _measure_llama_cpp(folder: Path, export_format: ExportFormat, reference: Reference) -> Hop:
    started, heldout = time.monotonic(), reference.heldout
    (file,) = export_format.files(folder)
    server = open_llama_server(file, context=_longest(heldout))
    same = [token == expected for token, expected in _next_tokens(server, reference)]
    answers: Answers = {}
    for problem in heldout.problems:
        request = {"prompt": heldout.prompts.prompt_ids(problem.statement), "max_tokens": heldout.max_tokens}
        completion = server.handle_completions({**request, "temperature": 0})["choices"][0]
        answers[problem.id] = read_answer(
            completion["text"], cut=completion["finish_reason"] == "length", thinking=heldout.prompts.prefilled
        )
    return reference.compare(
        export_format.name,
        "llama.cpp",
        answers,
        top1=sum(same) / len(same) if same else None,
        size=export_format.size(folder),
        seconds=time.monotonic() - started,
    )


def open_llama_server(file: Path, *, context: int) -> Any:
    """Open llama.cpp in this process (untyped), with a KV cache for `context` tokens."""
    import torch
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel, params.verbosity = context, 1, -1
    params.cpuparams.n_threads = torch.get_num_threads()
    return xllamacpp.Server(params)


def _longest(heldout: Heldout) -> int:
    """Return the tokens that an engine must have room for: the longest row, or prompt with a whole completion."""
    prompts = max(heldout.rows["prompt_tokens"])
    return int(max(*map(len, heldout.rows["input_ids"]), prompts + heldout.max_tokens)) + 1


def _next_tokens(server: Any, reference: Reference) -> Iterator[tuple[int, int]]:
    """Yield (llama.cpp's likeliest next token, the trained model's) at evenly spaced positions, as far as told."""
    likeliest = reference.log_probabilities.argmax(1).tolist()
    every, number = -(-len(likeliest) // _POSITIONS), 0
    vocabulary = reference.log_probabilities.shape[1]
    for ids, positions in completion_positions(reference.heldout.rows, vocabulary=vocabulary):
        for position in positions:
            if number % every == 0:
                # One token is drawn where the text so far ends: llama.cpp scores no token that it was given.
                request = {"prompt": ids[: position + 1], "max_tokens": 1, "temperature": 0, "logprobs": 1}
                told = server.handle_completions(request)["choices"][0]["logprobs"]
                # Of a token that ends within a character, such as the first byte of π, it says nothing.
                if told is not None:
                    yield told["content"][0]["id"], likeliest[number]
            number += 1


def _measure_vllm(folder: Path, export_format: ExportFormat, reference: Reference) -> Hop:
    started, heldout = time.monotonic(), reference.heldout
    own = VllmSettings(max_model_len=_longest(heldout), eager=True)
    source = ModelSource(name=export_format.name, location=str(folder))
    with closing(open_engine(EngineSettings(name="vllm", source=source, own=(own,))).sampler) as sampler:
        assert isinstance(sampler, Continuing)
        answers = draw_answers(sampler, heldout)
    size, seconds = export_format.size(folder), time.monotonic() - started
    return reference.compare(export_format.name, "vllm", answers, size=size, seconds=seconds)


ENGINES: dict[str, Callable[[Path, ExportFormat, Reference], Hop]] = {
    "llama.cpp": _measure_llama_cpp,
    "vllm": _measure_vllm,
}


def draw_answers(sampler: Continuing, heldout: Heldout) -> Answers:
    """Draw an engine's greedy answers, all problems at once."""
    results: SimpleQueue[Sample | Exception] = SimpleQueue()
    config = SamplingConfig(temperature=0.0, top_p=1.0, max_tokens=heldout.max_tokens)
    for problem in heldout.problems:
        sampler.begin(problem, seeds={0: 0}, config=config, results=results)
    answers: Answers = {}
    for _ in heldout.problems:
        sample = results.get()
        if isinstance(sample, Exception):
            raise sample
        answers[sample.problem_id] = read_answer(
            sample.text, cut=sample.finish == "length", thinking=heldout.prompts.prefilled
        )
    return answers
