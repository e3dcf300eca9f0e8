import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import torch

from mathlete.errors import UserError
from mathlete.kernel.engine import EngineProcess
from mathlete.problems import Problem
from mathlete.prompts import PromptFormat
from mathlete.sampling.completion import CompletionReader
from mathlete.sampling.continuing import take_samples
from mathlete.sampling.embedded.batch import Batch, SampleRequest
from mathlete.sampling.embedded.transformers_engine import TransformersSampler
from mathlete.sampling.samples import Sample, SamplingConfig
from mathlete.tir.tools import ToolSampler, ToolSettings
from tests.conftest import sample

PROGRAM = "\n```python\nprint(6 * 7)\n```"
TEMPLATE = "{{ bos_token }}{% for m in messages %}({{ m.content }}){% endfor %}{{ '<think>\\n' }}"
GREEDY = SamplingConfig(temperature=0, max_tokens=24)
WARM = SamplingConfig(temperature=1, top_p=0.9, max_tokens=24)
STATEMENTS = ["1+1", "What is 23 * 7?", "Find 5^3 mod 7 and add 12.", "n"]


def problem(number: int) -> Problem:
    return Problem(id=str(number), statement=STATEMENTS[number], gold="1")


def byte_tokenizer(*, thoughts: Sequence[str] = ("<think>", "</think>"), special: bool = False) -> Any:
    """Bytes as tokens, with the tokens of a reasoning model and one token that closes a box and goes on."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_tokens([AddedToken(thought, special=special) for thought in thoughts])
    inner.add_tokens(["}$", PROGRAM])
    fast: Any = PreTrainedTokenizerFast
    tokenizer = fast(tokenizer_object=inner, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.fixture(scope="module")
def prompts() -> PromptFormat:
    torch.set_num_threads(1)
    return PromptFormat(tokenizer=byte_tokenizer(), instruction="")


def tiny_model(*, context: int = 128, **sizes: int) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    shape: Any = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, **sizes}
    config = Qwen2Config(
        vocab_size=264,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.3,
        eos_token_id=260,
        **shape,
    )
    model: Any = Qwen2ForCausalLM(config)
    return model.eval()


def bigram_model(prompts: PromptFormat, successors: dict[str, dict[str, float]], *, context: int = 128) -> Any:
    """Return a real Qwen2 whose layers add nothing: the last token alone gives the next one's probabilities."""
    model = tiny_model(hidden_size=264, context=context)
    ids = prompts.tokenizer.convert_tokens_to_ids
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(264))
        model.lm_head.weight.fill_(-40 / 264**0.5)
        for token, following in successors.items():
            for successor, share in following.items():
                # The norm brings a one-hot row to length sqrt(264).
                model.lm_head.weight[ids(successor), ids(token)] = torch.tensor(share).log() / 264**0.5
    return model


def script(*tokens: str) -> dict[str, dict[str, float]]:
    """Return each token surely followed by the next; a prompt ends in a line feed (`Ċ`)."""
    return {token: {following: 1.0} for token, following in zip(("Ċ", *tokens), tokens, strict=False)}


@pytest.fixture
def sampler(prompts: PromptFormat) -> Iterator[TransformersSampler]:
    engine = TransformersSampler(tiny_model(), prompts=prompts, max_rows=8)
    yield engine
    engine.close()


def draw_all(engine: TransformersSampler, number: int, n: int, config: SamplingConfig) -> dict[int, Sample]:
    seeds = {index: 1000 * number + index for index in range(n)}
    return {sample.index: sample for sample in engine.stream(problem(number), seeds=seeds, config=config)}


def draw_together(engine: TransformersSampler, n: int, config: SamplingConfig) -> list[dict[int, Sample]]:
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda number: draw_all(engine, number, n, config), range(len(STATEMENTS))))


def generate_text(model: Any, prompts: PromptFormat, number: int) -> tuple[int, str]:
    ids = prompts.prompt_ids(STATEMENTS[number])
    mask = torch.ones(1, len(ids), dtype=torch.long)
    out = model.generate(torch.tensor([ids]), attention_mask=mask, do_sample=False, max_new_tokens=24, pad_token_id=0)
    tokens = out[0, len(ids) :].tolist()
    return len(tokens), str(prompts.tokenizer.decode(tokens, skip_special_tokens=True))


def test_greedy_equals_generate_alone_and_in_a_batch(sampler: TransformersSampler, prompts: PromptFormat) -> None:
    plain = tiny_model()
    wanted = [generate_text(plain, prompts, number) for number in range(len(STATEMENTS))]
    alone = [draw_all(sampler, number, 1, GREEDY)[0] for number in range(len(STATEMENTS))]
    assert [(sample.tokens, sample.text) for sample in alone] == wanted
    mixed = draw_together(sampler, 5, GREEDY)
    assert [{(s.tokens, s.text) for s in samples.values()} for samples in mixed] == [{each} for each in wanted]


def test_a_large_model_on_a_cpu_begins_with_few_rows_and_draws_the_same(
    sampler: TransformersSampler, prompts: PromptFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mathlete.sampling.embedded import transformers_engine
    from mathlete.sampling.embedded.batch import Batch

    sizes: list[int] = []
    step = Batch.step

    def watched(batch: Batch) -> Any:
        sizes.append(len(batch))
        return step(batch)

    monkeypatch.setattr(Batch, "step", watched)
    monkeypatch.setattr(transformers_engine, "_SMALL", 0)
    with closing(TransformersSampler(tiny_model(), prompts=prompts, max_rows=64)) as paced:
        mixed = draw_all(paced, 0, 40, WARM)
    assert sizes[0] == 8
    monkeypatch.undo()
    alone = draw_all(sampler, 0, 40, WARM)
    assert {index: s.text for index, s in mixed.items()} == {index: s.text for index, s in alone.items()}


@pytest.mark.parametrize("kind", sample("mistral", "gemma2", slow=["gemma3_text"]))
def test_sliding_windows_and_soft_caps_give_what_generate_gives(prompts: PromptFormat, kind: str) -> None:
    plain = make_windowed(kind, window=12)
    # Eager: torch's own attention has no caps, and the image's transformers leaves them out there without a word.
    plain.set_attn_implementation("eager")
    wanted = [generate_text(plain, prompts, number) for number in range(len(STATEMENTS))]
    full = make_windowed(kind, window=None)
    assert wanted != [generate_text(full, prompts, number) for number in range(len(STATEMENTS))]
    engine = TransformersSampler(make_windowed(kind, window=12), prompts=prompts, max_rows=8)
    mixed = draw_together(engine, 2, GREEDY)
    engine.close()
    assert [{(s.tokens, s.text) for s in samples.values()} for samples in mixed] == [{each} for each in wanted]


def make_windowed(kind: str, *, window: int | None) -> Any:
    """Return a random model of an architecture whose layers see so many tokens; None: all."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(1)
    shape: Any = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}
    heads: Any = {"num_attention_heads": 4, "num_key_value_heads": 2}
    ids: Any = {"vocab_size": 264, "eos_token_id": 261, "pad_token_id": 262, "bos_token_id": None}
    own: Any = {"max_position_embeddings": 128, "initializer_range": 0.3, "sliding_window": window or 128}
    own |= {"tie_word_embeddings": False}  # else a random model repeats its last token
    if kind == "gemma2":
        own |= {"attn_logit_softcapping": 5.0}
    auto: Any = AutoModelForCausalLM
    return auto.from_config(AutoConfig.for_model(kind, **shape, **heads, **ids, **own)).eval()


def test_a_sample_does_not_depend_on_its_neighbours(sampler: TransformersSampler) -> None:
    alone = [draw_all(sampler, number, 6, WARM) for number in range(len(STATEMENTS))]
    mixed = draw_together(sampler, 6, WARM)
    assert [{i: s.text for i, s in samples.items()} for samples in mixed] == [
        {i: s.text for i, s in samples.items()} for samples in alone
    ]
    assert len({sample.text for samples in alone for sample in samples.values()}) == 24


def test_more_samples_than_rows_come_each_once(sampler: TransformersSampler) -> None:
    seeds = {index: 5 for index in range(3, 53)}
    samples = list(sampler.stream(problem(0), seeds=seeds, config=WARM))
    assert sorted(sample.index for sample in samples) == list(range(3, 53))
    assert len({(sample.text, sample.tokens) for sample in samples}) == 1


def test_frequencies_follow_the_exact_distribution(prompts: PromptFormat) -> None:
    """Chi-square with 2 degrees of freedom: 13.8 is the 99.9% point."""
    shares = {"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.05}
    model = bigram_model(prompts, {"Ċ": shares})
    engine = TransformersSampler(model, prompts=prompts)
    for config, weights in (
        (SamplingConfig(temperature=1, top_p=0.9, max_tokens=1), {"a": 0.5, "b": 0.3, "c": 0.15}),
        (SamplingConfig(temperature=0.5, top_p=0.97, max_tokens=1), {"a": 0.25, "b": 0.09, "c": 0.0225}),
    ):
        seeds = {index: index for index in range(3000)}
        texts = [sample.text for sample in engine.stream(problem(0), seeds=seeds, config=config)]
        assert set(texts) == set(weights)
        wanted = {text: 3000 * weight / sum(weights.values()) for text, weight in weights.items()}
        assert sum((texts.count(text) - count) ** 2 / count for text, count in wanted.items()) < 13.8
    engine.close()


def test_box_stops_the_sample_at_its_brace(prompts: PromptFormat) -> None:
    model = bigram_model(prompts, script("a", "</think>", "\\", *"boxed{7", "}$", ".", "<eos>"))
    engine = TransformersSampler(model, prompts=prompts)
    (sample,) = draw_all(engine, 0, 1, GREEDY).values()
    assert (sample.finish, sample.text, sample.tokens) == ("boxed", "a</think>\\boxed{7}", 11)
    engine.close()


@pytest.mark.parametrize(("turns", "outputs"), sample((2, ["42", "42", "[not run"]), slow=[(1, ["42", "[not run"])]))
def test_a_program_is_run_in_the_middle_of_a_sample(prompts: PromptFormat, turns: int, outputs: list[str]) -> None:
    """The model writes the program after each line feed, so after each output; once it is left alone it answers."""
    model = bigram_model(prompts, script(PROGRAM, "</think>", "\\", *"boxed{7", "}$", "<eos>"), context=1024)
    tools = ToolSampler(TransformersSampler(model, prompts=prompts), ToolSettings(turns=turns))
    with closing(tools):
        samples = list(tools.stream(problem(0), seeds={0: 5, 1: 6}, config=SamplingConfig(temperature=0)))
        assert sorted(sample.index for sample in samples) == [0, 1]
        for sample in samples:
            pieces = sample.text.split("```output\n")
            assert all(piece.startswith(shown) for piece, shown in zip(pieces[1:], outputs, strict=True))
            assert (sample.finish, sample.tokens) == ("boxed", len(outputs) + 11)
            assert sample.text.endswith(f"{PROGRAM}</think>\\boxed{{7}}")
            assert sample.logprob_mean == pytest.approx(0, abs=1e-3)


def test_a_sample_with_programs_ends_where_what_is_said_fills_the_context(prompts: PromptFormat) -> None:
    small = TransformersSampler(bigram_model(prompts, script(PROGRAM)), prompts=prompts)
    with closing(ToolSampler(small, ToolSettings(turns=9))) as full:
        (cut,) = full.stream(problem(0), seeds={0: 5}, config=SamplingConfig(temperature=0))
    assert cut.finish == "length"


@pytest.mark.slow
def test_the_notebooks_engine_runs_programs_too_and_leaves_nothing(
    prompts: PromptFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    model = bigram_model(prompts, script(PROGRAM, "</think>", "\\", *"boxed{7", "}$", "<eos>"), context=1024)
    model.save_pretrained(tmp_path / "model")
    prompts.tokenizer.save_pretrained(tmp_path / "model")
    with closing(EngineProcess(tmp_path / "model", log=tmp_path / "log", tools=ToolSettings(turns=1))) as engine:
        engine.start(timeout_s=120)
        (sample,) = engine.stream(problem(0), seeds={0: 5}, config=SamplingConfig(temperature=0))
        assert [*(tmp_path / "temporary").glob("mathlete-tir-*")]
    assert "```output\n42\n```" in sample.text
    assert "the model's programs run behind: " in (tmp_path / "log").read_text()
    assert not [*(tmp_path / "temporary").glob("mathlete-*")]


def test_a_box_in_what_was_said_before_counts_with_the_reasoning_that_ended_there(prompts: PromptFormat) -> None:
    model = bigram_model(prompts, script("\\", *"boxed{7", "}$", "<eos>"), context=1024)
    with closing(TransformersSampler(model, prompts=prompts)) as engine:
        for said, finish in (("so</think>\n", "boxed"), ("so\n", "stop")):
            results: SimpleQueue[Sample | Exception] = SimpleQueue()
            engine.begin(problem(0), seeds={0: 1}, config=GREEDY, results=results, said=said)
            (sample,) = take_samples(results, count=1, timeout_s=20)
            assert sample.finish == finish


def test_eos_stops_and_is_counted(prompts: PromptFormat) -> None:
    engine = TransformersSampler(bigram_model(prompts, script("a", "}$", "b", "<eos>")), prompts=prompts)
    (sample,) = draw_all(engine, 0, 1, WARM).values()
    assert (sample.finish, sample.text, sample.tokens) == ("stop", "a}$b", 4)
    assert sample.logprob_mean == pytest.approx(0, abs=1e-4)
    engine.close()


def test_logprob_is_before_temperature_and_nucleus(prompts: PromptFormat) -> None:
    engine = TransformersSampler(bigram_model(prompts, {"Ċ": {"a": 0.8, "b": 0.2}}), prompts=prompts)
    (sample,) = draw_all(engine, 0, 1, SamplingConfig(temperature=0, max_tokens=1)).values()
    assert (sample.finish, sample.text) == ("length", "a")
    assert sample.logprob_mean == pytest.approx(-0.22314, abs=1e-3)
    engine.close()


def test_closing_the_stream_cancels_its_rows(prompts: PromptFormat) -> None:
    """Half the samples end at once, half never do, and soon those fill the batch."""
    either = {"Ċ": {"a": 0.5, "b": 0.5}, "a": {"<eos>": 1.0}, "b": {"b": 1.0}}
    engine = TransformersSampler(bigram_model(prompts, either, context=10**6), prompts=prompts, max_rows=2)
    endless = SamplingConfig(temperature=1, max_tokens=10**9)
    with closing(engine.stream(problem(1), seeds={i: i for i in range(50)}, config=endless)) as stream:
        assert next(stream).text == "a"
    assert len(draw_all(engine, 0, 4, GREEDY)) == 4
    engine.close()


@pytest.mark.parametrize(
    ("problems", "waves"),
    [
        # What may settle a vote goes first; once that is in and no one has cancelled, the others are needed too.
        ("abc", ["a0 a1 b0 b1 c0 c1", "a2 a3 b2 b3 c2 c3"]),
        # Half the batch is cheap enough for samples that may turn out not to be needed.
        ("a", ["a0 a1 a2 a3"]),
        ("ab", ["a0 a1 b0 b1", "a2 a3 b2 b3"]),
        ("abcde", ["a0 a1 b0 b1 c0 c1 d0 e0", "a2 a3 b2 b3 c2 c3 d1 e1", "d2 d3 e2 e3"]),
    ],
)
def test_samples_that_a_vote_may_not_need_come_after(prompts: PromptFormat, problems: str, waves: list[str]) -> None:
    model = bigram_model(prompts, {"Ċ": {"<eos>": 1.0}})
    reader = CompletionReader(prompts, eos_ids={prompts.tokenizer.eos_token_id})
    requests = deque(
        SampleRequest(
            problem_id=name,
            prompt=prompts.prompt_ids("1"),
            config=SamplingConfig(enough=2),
            max_tokens=4,
            waiting=deque((index, index) for index in range(4)),
        )
        for name in problems
    )
    order = []
    with torch.inference_mode():
        batch = Batch(model, reader=reader, max_rows=8, max_tokens=10**6)
        while requests:
            batch.admit(requests)
            order.append(" ".join(sorted(f"{sample.problem_id}{sample.index}" for _, sample in batch.step())))
    assert order == waves


def test_a_batch_of_one_row_draws_also_what_a_vote_may_not_need(prompts: PromptFormat) -> None:
    """As when a run goes on after a kill: the first samples are recorded, and only later ones are asked for."""
    engine = TransformersSampler(bigram_model(prompts, {"Ċ": {"<eos>": 1.0}}), prompts=prompts, max_rows=1)
    with closing(engine):
        config = SamplingConfig(enough=2, timeout_s=20)
        order = [sample.index for sample in engine.stream(problem(0), seeds={2: 2, 3: 3}, config=config)]
    assert order == [2, 3]


def test_half_read_stream_leaves_the_engine_usable(sampler: TransformersSampler) -> None:
    with closing(sampler.stream(problem(1), seeds={i: i for i in range(40)}, config=WARM)) as stream:
        next(stream)
    assert len(draw_all(sampler, 2, 8, WARM)) == 8


def test_engine_error_reaches_every_stream(prompts: PromptFormat) -> None:
    model = tiny_model()
    engine = TransformersSampler(model, prompts=prompts)
    model.lm_head = torch.nn.Linear(7, 3)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(draw_all, engine, number, 4, WARM) for number in range(3)]
        errors = [future.exception(timeout=20) for future in waiting]
    assert all(isinstance(error, RuntimeError) and isinstance(error.__cause__, RuntimeError) for error in errors)
    with pytest.raises(RuntimeError, match="sampling engine stopped: mat1 and mat2"):
        draw_all(engine, 0, 1, WARM)
    engine.close()


def test_close_wakes_waiting_streams(prompts: PromptFormat) -> None:
    engine = TransformersSampler(
        bigram_model(prompts, {"Ċ": {"b": 1.0}, "b": {"b": 1.0}}, context=10**6), prompts=prompts
    )
    endless = SamplingConfig(temperature=0, max_tokens=10**6)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(draw_all, engine, 1, 2, endless)
        time.sleep(0.2)
        engine.close()
        with pytest.raises(RuntimeError, match="it was closed"):
            waiting.result(timeout=20)


def test_context_caps_the_sample_and_refuses_the_prompt(prompts: PromptFormat) -> None:
    engine = TransformersSampler(tiny_model(context=24), prompts=prompts)
    length = len(prompts.prompt_ids(STATEMENTS[0]))
    (sample,) = draw_all(engine, 0, 1, SamplingConfig(temperature=0, max_tokens=100)).values()
    assert (sample.finish, sample.tokens) == ("length", 24 - length)
    with pytest.raises(UserError, match=r"must leave room in the model's context of 24 tokens, got \d\d tokens"):
        draw_all(engine, 2, 1, GREEDY)
    engine.close()


def test_attention_of_another_kind_is_refused(prompts: PromptFormat) -> None:
    model = tiny_model()
    model.config.layer_types = ["full_attention", "chunked_attention"]
    with pytest.raises(UserError, match="or with a sliding window, got chunked_attention in qwen2"):
        TransformersSampler(model, prompts=prompts)


def test_batch_needs_a_row(prompts: PromptFormat) -> None:
    with pytest.raises(UserError, match="at least one row, got 0"):
        TransformersSampler(tiny_model(), prompts=prompts, max_rows=0)
