"""The sampling words of the field: min_p, top_k, repetition_penalty and stop, against those who made them."""

import json
import re
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mathlete.errors import UserError
from mathlete.kernel import KernelConfig, config_from
from mathlete.models import find_model, load_prompt_format
from mathlete.problems import Problem
from mathlete.prompts import PromptFormat
from mathlete.runs import sha256_json
from mathlete.sampling import CompletionReader, Sample, SampleBuilder, SamplingConfig, find_ending
from mathlete.sampling.embedded import TransformersSampler
from mathlete.sampling.embedded.drawing import draw
from mathlete.sampling.embedded.limits import Limits, RowLimits
from mathlete.sampling.served import OpenAISampler, ServerSettings
from mathlete.sampling.served.reply import Reply
from mathlete.sampling.stops import find_stop
from mathlete.scoring import RunSettings
from mathlete.solve import Policy
from tests.conftest import dear
from tests.loopback import Loopback, answers
from tests.test_sampling_engine import (
    GREEDY,
    WARM,
    bigram_model,
    byte_tokenizer,
    draw_all,
    generate_text,
    script,
    tiny_model,
)

STEPS = 1000
WORDS = SamplingConfig(min_p=0.05, top_k=20, repetition_penalty=1.1, stop=("</answer>", "User:"))
PIECES = ["a", "<", "/", "é", "end", "</", "User", ":", "\U0001f600", "nd>", " ", "</end>x"]


@pytest.fixture(scope="module")
def prompts() -> PromptFormat:
    torch.set_num_threads(1)
    return PromptFormat(tokenizer=byte_tokenizer(), instruction="")


def warp_by_transformers(logits: torch.Tensor, config: SamplingConfig, prompt: list[int]) -> torch.Tensor:
    """Return each token's probability by transformers' own processors, in vLLM's order."""
    from transformers.generation import logits_process as made

    ids: Any = torch.tensor([prompt])
    scores = logits[None]
    scores = made.RepetitionPenaltyLogitsProcessor(config.repetition_penalty)(ids, scores)
    scores = made.TemperatureLogitsWarper(config.temperature)(ids, scores)
    scores = made.MinPLogitsWarper(config.min_p)(ids, scores)
    if config.top_k:
        scores = made.TopKLogitsWarper(config.top_k)(ids, scores)
    kept: torch.Tensor = made.TopPLogitsWarper(config.top_p)(ids, scores)[0].softmax(-1).double()
    return kept


def limits_of(config: SamplingConfig, prompt: list[int], *, rows: int, vocabulary: int) -> Limits | None:
    limits = RowLimits(vocabulary=vocabulary, device=torch.device("cpu"))
    limits.add([(config, prompt)] * rows)
    return limits.tensors()


@dear(15)
@given(
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([0.5, 2.0, 8.0]),
    config=st.builds(
        SamplingConfig,
        temperature=st.sampled_from([0.3, 1.0, 2.0]),
        top_p=st.sampled_from([0.5, 0.95, 1.0]),
        min_p=st.sampled_from([0.0, 0.01, 0.1, 1.0]),
        top_k=st.sampled_from([0, 1, 5, 40, 10_000]),
        repetition_penalty=st.sampled_from([1.0, 1.3, 0.7]),
    ),
    vocabulary=st.sampled_from([5, 64, 700]),
)
def test_tokens_have_the_probabilities_of_transformers_processors(
    seed: int, spread: float, config: SamplingConfig, vocabulary: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(vocabulary, generator=generator) * spread
    prompt = torch.randint(0, vocabulary, (7,), generator=generator).tolist()
    wanted = warp_by_transformers(logits, config, prompt)
    grid = (torch.arange(STEPS, dtype=torch.float64) + 0.5) / STEPS
    drawn = draw(
        logits.expand(STEPS, -1),
        uniform=grid,
        temperature=torch.full((STEPS,), config.temperature),
        top_p=torch.full((STEPS,), config.top_p, dtype=torch.float64),
        limits=limits_of(config, prompt, rows=STEPS, vocabulary=vocabulary),
    )
    counts = torch.bincount(drawn.ids, minlength=vocabulary) / STEPS
    # One token at an edge may fall in or out by float32 rounding; no cell is off by more than a step.
    assert ((counts - wanted).abs() <= 2 / STEPS).sum() >= vocabulary - 1
    assert (counts - wanted).abs().max() < 0.02
    # What is recorded is the model's own distribution, as vLLM's raw_logprobs are.
    assert torch.allclose(drawn.logprobs, logits.log_softmax(-1)[drawn.ids], atol=1e-5)


def test_a_row_is_drawn_as_alone_whatever_limits_its_neighbours_have() -> None:
    generator = torch.Generator().manual_seed(0)
    configs = [SamplingConfig(), WORDS, SamplingConfig(top_k=3), SamplingConfig(repetition_penalty=2.0, temperature=0)]
    logits = torch.randn(40, 60_000, generator=generator) * 3  # more than one part
    rows = [(configs[row % 4], [row, 7, 59_999, 70_000]) for row in range(40)]

    def drawn(places: list[int]) -> list[int]:
        limits = RowLimits(vocabulary=60_000, device=torch.device("cpu"))
        limits.add([rows[place] for place in places])
        config = [rows[place][0] for place in places]
        ids: list[int] = draw(
            logits[places],
            uniform=torch.linspace(0, 0.99, 40, dtype=torch.float64)[places],
            temperature=torch.tensor([one.temperature for one in config]),
            top_p=torch.tensor([one.top_p for one in config], dtype=torch.float64),
            limits=limits.tensors(),
        ).ids.tolist()
        return ids

    assert drawn([*range(40)]) == [drawn([row])[0] for row in range(40)]


def test_what_a_row_has_seen_moves_with_it() -> None:
    limits = RowLimits(vocabulary=4, device=torch.device("cpu"))
    plain, penalized = SamplingConfig(), SamplingConfig(repetition_penalty=1.5)
    limits.add([(plain, [0])])
    assert limits.tensors() is None
    limits.add([(penalized, [0, 3]), (penalized, [9])])
    limits.note(torch.tensor([1, 1, 2]))
    limits.keep([2, 1], torch.tensor([2, 1]))
    kept = limits.tensors()
    assert kept is not None
    assert kept.seen is not None
    assert kept.seen.tolist() == [[False, False, True, False], [True, True, False, True]]
    limits.keep([], torch.tensor([], dtype=torch.long))
    assert limits.tensors() is None


def test_a_penalized_greedy_sample_is_that_of_generate(prompts: PromptFormat) -> None:
    config = SamplingConfig(temperature=0, repetition_penalty=1.4, max_tokens=24)
    plain = tiny_model()
    plain.generation_config.repetition_penalty = 1.4
    with closing(TransformersSampler(tiny_model(), prompts=prompts, max_rows=8)) as engine:
        drawn = [draw_all(engine, number, 3, config) for number in range(4)]
    wanted = [generate_text(plain, prompts, number) for number in range(4)]
    assert [{(s.tokens, s.text) for s in samples.values()} for samples in drawn] == [{each} for each in wanted]
    unlike = [generate_text(tiny_model(), prompts, number) for number in range(4)]
    assert wanted != unlike


def ids_of(prompts: PromptFormat, text: str) -> list[int]:
    return prompts.ids(text)


@given(
    pieces=st.lists(st.sampled_from(PIECES), min_size=1, max_size=30),
    stops=st.lists(st.sampled_from(["</end>", "User:", "é", "\U0001f600", "a a", "d>"]), max_size=3, unique=True),
)
def test_stop_strings_end_a_completion_token_by_token_as_character_by_character(
    pieces: list[str], stops: list[str], prompts: PromptFormat
) -> None:
    """The tokens of this tokenizer are bytes: every stop string goes over borders, and characters over two tokens."""
    text, reader = "".join(pieces), CompletionReader(prompts, eos_ids=set())
    tokens = ids_of(prompts, text)
    sample = build(reader, tokens, stops=tuple(stops))
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    if not ends:
        assert (sample.text, sample.finish, sample.tokens) == (text, "length", len(tokens))
        return
    first = min((stop for stop in stops if stop in text), key=lambda stop: text.index(stop) + len(stop))
    assert sample.text == text[: text.index(first)]
    assert sample.tokens == len(text[: min(ends)].encode())
    assert sample.finish == "stop"
    assert find_stop(text, stops) == len(sample.text)


def build(reader: CompletionReader, tokens: list[int], *, stops: tuple[str, ...], **how: Any) -> Sample:
    builder = SampleBuilder(reader=reader, problem_id="p", index=0, seed=0, max_tokens=len(tokens), stops=stops, **how)
    return next(sample for token in tokens if (sample := builder.add(token, -1.0)) is not None)


def test_stop_strings_end_at_the_token_at_which_transformers_stops(prompts: PromptFormat) -> None:
    from transformers.generation.stopping_criteria import StopStringCriteria

    tokens = ids_of(prompts, "So it is 7.\n\nUser: and then</end>")
    for stop in ("User:", "\n\n", "7", "</end>"):
        criterion: Any = StopStringCriteria(prompts.tokenizer, [stop])
        ids = (torch.tensor([tokens[:count]]) for count in range(1, len(tokens) + 1))
        first = next(number for number, one in enumerate(ids, 1) if bool(criterion(one, None)[0]))
        assert build(CompletionReader(prompts, eos_ids=set()), tokens, stops=(stop,)).tokens == first


def test_of_box_program_and_stop_string_the_first_one_ends(prompts: PromptFormat) -> None:
    reader = CompletionReader(prompts, eos_ids=set())
    text = "</think>\\boxed{7}$ and"
    assert build(reader, ids_of(prompts, text), stops=("and", "$")).text == "</think>\\boxed{7}"
    assert build(reader, ids_of(prompts, text), stops=("ed{7",)).text == "</think>\\box"
    # One token closes the box and writes the stop string's first half.
    both = build(reader, ids_of(prompts, text), stops=("}$",))
    assert (both.text, both.finish) == ("</think>\\boxed{7", "stop")
    ending = find_ending("x\n```python\n1\n```\nUser:", until_code=True, stops=("User:",))
    assert ending is not None
    assert ending.text.endswith("```")


def test_an_engine_leaves_the_stop_string_out_and_counts_its_tokens(prompts: PromptFormat) -> None:
    model = bigram_model(prompts, script("a", "b", "<", "/", "d", "e"))
    config = SamplingConfig(temperature=1.0, max_tokens=20, stop=("b</d",))
    with closing(TransformersSampler(model, prompts=prompts)) as engine:
        (sample,) = draw_all(engine, 3, 1, config).values()
    assert (sample.text, sample.tokens, sample.finish) == ("a", 5, "stop")


def test_a_server_that_knows_no_stop_strings_is_cut_here() -> None:
    reply = Reply(stops=("User:",))
    for text in ("It is 7. Us", "er: and", " more"):
        reply.add(json.dumps({"choices": [{"index": 0, "text": text}]}))
        if reply.complete:
            break
    assert reply.sample(problem_id="p", index=0, seed=0, seconds=0.0).text == "It is 7. "
    assert reply.sample(problem_id="p", index=0, seed=0, seconds=0.0).finish == "stop"


@pytest.mark.parametrize(("owner", "penalty"), [("vllm", "repetition_penalty"), ("llamacpp", "repeat_penalty")])
def test_a_server_is_sent_the_words_that_say_something_by_its_own_names(owner: str, penalty: str) -> None:
    pytest.importorskip("httpx2", reason="needs httpx2, the extra `openai`")
    server = Loopback(listing=answers("200 OK", json.dumps({"data": [{"id": "m", "owned_by": owner}]})))
    settings, prompts = ServerSettings(urls=(server.url,)), load_prompt_format(find_model("pocket"))
    asked = Problem(id="p", statement="What is 3 + 4?", gold="7")
    words = SamplingConfig(max_tokens=40, min_p=0.05, top_k=20, repetition_penalty=1.1, stop=("think>",))
    with closing(server), closing(OpenAISampler(settings, model="m", prompts=prompts)) as engine:
        for config in (SamplingConfig(max_tokens=40), words):
            (drawn,) = engine.stream(asked, seeds={0: 1}, config=config)
    plain, told = server.requests
    further = {name: value for name, value in told.items() if name not in plain}
    also = {"repeat_last_n": -1} if owner == "llamacpp" else {}
    assert further == {"min_p": 0.05, "top_k": 20, penalty: 1.1, "stop": ["think>"], **also}
    # The server went on, so it is cut here.
    assert (drawn.text, drawn.finish) == ("So 7.\n</", "stop")


def test_runs_and_notebooks_of_before_keep_their_key() -> None:
    """The hash is that of the version before the words: a run made then goes on."""
    assert sha256_json(Policy().to_json())[:16] == "a68d4584ffcd09a8"
    settings = RunSettings(
        suite="s",
        suite_sha="x",
        problems=3,
        precision="auto",
        dtype="float32",
        policy=Policy(),
        budget=None,
        tools=None,
        engine="transformers",
        model_sha="m",
    )
    assert sha256_json(settings.to_json())[:16] == "f7ea25ec12f64457"
    assert RunSettings.from_json(settings.to_json()) == replace(settings, dtype="")
    assert "prompt" not in KernelConfig().to_json()
    assert sha256_json(Policy(sampling=WORDS).to_json()) != sha256_json(Policy().to_json())


def test_the_words_are_the_same_after_json() -> None:
    assert SamplingConfig.from_json(json.loads(json.dumps(WORDS.to_json()))) == WORDS
    config = KernelConfig(policy=Policy(sampling=WORDS))
    assert config_from(json.loads(json.dumps(config.to_json()))) == config
    with pytest.raises(TypeError, match="stop must be a list of texts"):
        SamplingConfig.from_json({"stop": "User:"})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SamplingConfig(min_p=1.5), "--sampling.min-p must be 0 to 1, got 1.5"),
        (SamplingConfig(top_k=-1), "--sampling.top-k must be 0 or more, got -1"),
        (SamplingConfig(repetition_penalty=0), "--sampling.repetition-penalty must be above 0, got 0"),
        (SamplingConfig(repetition_penalty=float("nan")), "--sampling.repetition-penalty must be above 0, got nan"),
        (SamplingConfig(stop=("a", "")), "--sampling.stop must be texts of at least one character"),
        (SamplingConfig(stop=("a", r"\n\n")), r"not a backslash and a letter, got \n\n"),
        (SamplingConfig(stop=(r" \t", r"\r")), r"write $' \t' $'\r', which bash and zsh read as the characters"),
    ],
)
def test_a_word_out_of_its_range_is_named(config: SamplingConfig, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        config.check()


def test_words_of_latex_and_characters_are_stops() -> None:
    SamplingConfig(stop=(r"\neq", r"\nabla", r"\\n", "\n\n", " ", "n")).check()


@pytest.mark.parametrize("config", [GREEDY, WARM])
def test_a_model_that_computes_no_numbers_is_an_error_and_no_sample(
    config: SamplingConfig, prompts: PromptFormat
) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.fill_(torch.nan)
    engine = TransformersSampler(model, prompts=prompts, max_rows=8)
    with closing(engine), pytest.raises(UserError, match="NaN for the next token of problem 1, in float32"):
        draw_all(engine, 1, 4, config)
