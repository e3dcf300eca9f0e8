"""What the engines that an export is made for make of it: the same questions, asked through them."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from mathlete.answers import read_answer
from mathlete.engines import EngineSettings, open_engine
from mathlete.export.formats import export_bytes
from mathlete.export.formats.q8_0 import GGUF_FILE
from mathlete.export.hops import Answers, Heldout, Reference
from mathlete.export.settings import ServingEngine
from mathlete.export.survival import asked
from mathlete.models import ModelSource
from mathlete.sampling import Continuing, Sample, SamplingConfig
from mathlete.sampling.served import VllmSettings

_PLACES = 200
"""Places of the held-out rows where llama.cpp is asked for the next token."""


def served_hops(
    folder: Path, *, name: str, reference: Reference, engines: Sequence[ServingEngine]
) -> Iterator[dict[str, Any]]:
    """Yields a hop (see `Reference.figures`) for each of the engines that reads this format and is installed.

    Raises:
        UserError: an engine can't load it.
    """
    if name == "q8_0" and "llama.cpp" in engines and find_spec("xllamacpp") is not None:
        yield _llama_cpp(folder, reference)
    if name != "q8_0" and "vllm" in engines:
        yield _vllm(folder, name, reference)


def _llama_cpp(folder: Path, reference: Reference) -> dict[str, Any]:
    started, heldout = time.monotonic(), reference.heldout
    server = llama_server(folder / GGUF_FILE, context=_longest(heldout))
    same = [token == wanted for token, wanted in _next_tokens(server, reference)]
    answers: Answers = {}
    for problem in heldout.problems:
        asking = {"prompt": heldout.prompts.prompt_ids(problem.statement), "max_tokens": heldout.max_tokens}
        found = server.handle_completions({**asking, "temperature": 0})["choices"][0]
        answers[problem.id] = read_answer(found["text"], cut=found["finish_reason"] == "length")
    seconds = time.monotonic() - started
    return reference.figures(
        "q8_0", "llama.cpp", answers, top1=sum(same) / len(same), size=export_bytes(folder), seconds=seconds
    )


def llama_server(file: Path, *, context: int) -> Any:
    """llama.cpp in this process, with room for so many tokens."""
    import torch
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel, params.verbosity = context, 1, -1
    params.cpuparams.n_threads = torch.get_num_threads()
    return xllamacpp.Server(params)


def _longest(heldout: Heldout) -> int:
    prompts = max(heldout.rows["prompt_tokens"])
    return int(max(*map(len, heldout.rows["input_ids"]), prompts + heldout.max_tokens)) + 1


def _next_tokens(server: Any, reference: Reference) -> Iterator[tuple[int, int]]:
    """Yields (llama.cpp's likeliest next token, the trained model's) at evenly spaced places of the rows."""
    likeliest = reference.log_probabilities.argmax(1).tolist()
    every, number = -(-len(likeliest) // _PLACES), 0
    for ids, positions in asked(reference.heldout.rows, vocabulary=reference.log_probabilities.shape[1]):
        for at in positions:
            if number % every == 0:
                asking = {"prompt": ids[: at + 1], "max_tokens": 1, "temperature": 0, "logprobs": 1}
                found = server.handle_completions(asking)["choices"][0]["logprobs"]["content"]
                yield found[0]["id"], likeliest[number]
            number += 1


def _vllm(folder: Path, name: str, reference: Reference) -> dict[str, Any]:
    started, heldout = time.monotonic(), reference.heldout
    own = VllmSettings(max_model_len=_longest(heldout), eager=True)
    source = ModelSource(name=name, location=str(folder))
    with closing(open_engine(EngineSettings(name="vllm", source=source, own=(own,))).sampler) as sampler:
        assert isinstance(sampler, Continuing)
        answers = sampled_answers(sampler, heldout)
    return reference.figures(name, "vllm", answers, size=export_bytes(folder), seconds=time.monotonic() - started)


def sampled_answers(sampler: Continuing, heldout: Heldout) -> Answers:
    """The greedy answers that an engine draws, all problems at once."""
    results: SimpleQueue[Sample | Exception] = SimpleQueue()
    config = SamplingConfig(temperature=0.0, top_p=1.0, max_tokens=heldout.max_tokens)
    for problem in heldout.problems:
        sampler.begin(problem, seeds={0: 0}, config=config, results=results)
    answers: Answers = {}
    for _ in heldout.problems:
        sample = results.get()
        if isinstance(sample, Exception):
            raise sample
        answers[sample.problem_id] = read_answer(sample.text, cut=sample.finish == "length")
    return answers
