"""The vllm engine on vLLM itself, where it is installed; only its CPU build has been tried."""

import gc
import importlib.util
import json
import math
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mathlete.errors import UserError
from mathlete.kernel import EngineProcess
from mathlete.models import ModelSource, find_model, load_prompt_format
from mathlete.problems import Problem, read_problems
from mathlete.sampling import CompletionReader, SampleBuilder, read_samples
from mathlete.sampling.samples import Sample, SamplingConfig
from mathlete.sampling.served.vllm_engine import VllmSampler
from mathlete.sampling.served.vllm_settings import VllmSettings
from mathlete.solve.clock import RealClock
from mathlete.solve.policy import Policy
from mathlete.solve.solver import solve
from mathlete.tir.tools import ToolSampler, ToolSettings
from tests.conftest import POCKET, POCKET_VAL, CommandLine
from tests.draws import draw_samples

HERE = importlib.util.find_spec("vllm") is not None
# Of torch, when vllm is imported; and vLLM leaves a socket's context to the garbage collector.
WARNINGS = ("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:Unclosed context:ResourceWarning")
pytestmark = [pytest.mark.filterwarnings(each) for each in WARNINGS]
needs_vllm = pytest.mark.skipif(not HERE, reason="vllm is not installed; it needs an environment of its own")
SETTINGS = VllmSettings(eager=True, kv_gib=0.25, at_once=64)
CONFIG = SamplingConfig(max_tokens=160)
GREEDY = SamplingConfig(temperature=0, max_tokens=160)
PROBLEMS = read_problems(POCKET_VAL)[:12]
PROGRAM, BOX = "\n```python\nprint(6 * 7)\n```", "\\boxed{7"
FIRST = {"a": 0.5, "b": 0.3, "c": 0.12, "d": 0.08}
"""The scripted model's first token and its probability: a: and so for ever · b: a program · c: eos · d: a box."""
TEMPLATE = "{{ bos_token }}{% for m in messages %}({{ m.content }}){% endfor %}{{ '<think>\\n' }}"


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What vLLM leaves is collected while its warnings are ignored."""
    yield
    gc.collect()


def open_sampler(source: ModelSource, settings: VllmSettings = SETTINGS) -> VllmSampler:
    return VllmSampler(settings, source=source, prompts=load_prompt_format(source))


def words(samples: dict[int, Sample]) -> dict[int, tuple[str, int, str]]:
    return {index: (sample.text, sample.tokens, sample.finish) for index, sample in samples.items()}


def descendants(pid: int) -> set[int]:
    """Processes under one, but for the tracker of shared memory, which ends with its parent."""
    below: set[int] = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            command = (stat.parent / "cmdline").read_text()
        except OSError:
            continue
        if parent == pid and "resource_tracker" not in command:
            below |= {int(stat.parent.name), *descendants(int(stat.parent.name))}
    return below


@pytest.fixture(scope="module")
def engine() -> Iterator[VllmSampler]:
    with closing(open_sampler(find_model("pocket"))) as sampler:
        yield sampler


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmSampler]:
    """A real Qwen2 whose layers add nothing: the last token alone gives the next one's probabilities."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_tokens(["<think>", "</think>", "}$", PROGRAM, BOX])
    fast: Any = PreTrainedTokenizerFast
    tokenizer = fast(tokenizer_object=inner, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")
    tokenizer.chat_template = TEMPLATE
    eos = tokenizer.convert_tokens_to_ids("<eos>")
    config = Qwen2Config(
        vocab_size=264,
        hidden_size=320,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=10,
        num_key_value_heads=2,
        max_position_embeddings=256,
        eos_token_id=eos,
        tie_word_embeddings=False,
    )
    model: Any = Qwen2ForCausalLM(config)
    following = {
        "Ċ": FIRST,
        **{"a": {"a": 1.0}, PROGRAM: {"a": 1.0}, "}$": {"a": 1.0}, "b": {PROGRAM: 1.0}, "c": {"<eos>": 1.0}},
        **{"d": {"</think>": 1.0}, "</think>": {BOX: 1.0}, BOX: {"}$": 1.0}},
    }
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.zero_()
        model.model.embed_tokens.weight[:, :264].copy_(torch.eye(264))
        model.lm_head.weight.fill_(-40 / 320**0.5)
        for token, successors in following.items():
            for successor, share in successors.items():
                ids = tokenizer.convert_tokens_to_ids([successor, token])
                # The norm brings a one-hot row to length sqrt(320).
                model.lm_head.weight[ids[0], ids[1]] = math.log(share) / 320**0.5
    folder = tmp_path_factory.mktemp("scripted")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with closing(open_sampler(ModelSource(name="scripted", location=str(folder)))) as sampler:
        yield sampler


@pytest.mark.slow
@needs_vllm
def test_greedy_is_greedy_in_the_embedded_engine(engine: VllmSampler) -> None:
    from mathlete.sampling.embedded.transformers_engine import open_transformers

    with ThreadPoolExecutor(4) as pool:
        theirs = [*pool.map(lambda problem: draw_samples(engine, problem, 2, GREEDY), PROBLEMS)]
    with closing(open_transformers(find_model("pocket"), precision="dense")) as embedded:
        mine = [draw_samples(embedded, problem, 1, GREEDY)[0] for problem in PROBLEMS]
    for samples, own in zip(theirs, mine, strict=True):
        assert words(samples) == {i: (own.text, own.tokens, own.finish) for i in (0, 1)}
        assert samples[0].logprob_mean == pytest.approx(own.logprob_mean, abs=1e-4)
        assert samples[0].logprob_tail == samples[0].logprob_mean
    assert {own.finish for own in mine} >= {"boxed"}


@pytest.mark.slow
@needs_vllm
def test_the_sampling_words_do_what_they_do_in_the_embedded_engine(engine: VllmSampler, scripted: VllmSampler) -> None:
    from mathlete.sampling.embedded.transformers_engine import open_transformers

    # Penalised, a pocket model soon says something else; the stop string comes in some of the samples.
    config = replace(GREEDY, repetition_penalty=1.2, max_tokens=60, stop=("\\n6", "mod"))
    with closing(open_transformers(find_model("pocket"), precision="dense")) as embedded:
        mine = [words(draw_samples(embedded, problem, 1, config)) for problem in PROBLEMS[:6]]
        plain = [words(draw_samples(embedded, problem, 1, GREEDY)) for problem in PROBLEMS[:6]]
    assert [words(draw_samples(engine, problem, 1, config)) for problem in PROBLEMS[:6]] == mine
    assert all(one != other for one, other in zip(mine, plain, strict=True))
    drawn = {}
    for word in ({"min_p": 0.5}, {"top_k": 1}, {"top_k": 3}, {"min_p": 0.15}):
        warm = SamplingConfig(temperature=1, top_p=1, max_tokens=1, **word)
        drawn[str(word)] = {sample.text for sample in draw_samples(scripted, PROBLEMS[0], 100, warm).values()}
    assert [*drawn.values()] == [{"a", "b"}, {"a"}, {"a", "b", "c"}, {"a", "b", "c", "d"}]


@pytest.mark.slow
@needs_vllm
def test_stop_strings_end_a_text_where_vllm_ends_it() -> None:
    """By vLLM's own detokenizer, token by token, on texts whose characters go over tokens' borders."""
    from vllm import SamplingParams
    from vllm.v1.engine.detokenizer import FastIncrementalDetokenizer

    prompts = load_prompt_format(find_model("pocket"))
    reader, generator = CompletionReader(prompts, eos_ids=set()), random.Random(0)
    pieces, stops = (
        ["1", "2+2", " = 4", "\n", "mod ", "</think>", "\\boxed", "é"],
        ["= 4\n", "mod 1", "é2", "nk>1", "11"],
    )
    for _ in range(300):
        ids = prompts.ids("".join(generator.choices(pieces, k=12)))
        stop = generator.sample(stops, 3)
        request: Any = SimpleNamespace(
            sampling_params=SamplingParams(stop=stop), request_id="r", prompt_token_ids=prompts.prompt_ids("1")
        )
        theirs = FastIncrementalDetokenizer(prompts.tokenizer, request)
        ended = next((n for n, token in enumerate(ids, 1) if theirs.update([token], False)), None)
        builder = SampleBuilder(reader=reader, problem_id="p", index=0, seed=0, max_tokens=len(ids), stops=tuple(stop))
        own = next(sample for token in ids if (sample := builder.add(token, 0.0)) is not None)
        if own.finish == "boxed":  # vLLM knows no boxes
            continue
        assert (own.text, own.tokens if own.finish == "stop" else None) == (theirs.output_text, ended)


@pytest.mark.slow
@needs_vllm
def test_the_same_seed_gives_the_same_sample_whatever_else_is_drawn(engine: VllmSampler) -> None:
    alone = [draw_samples(engine, problem, 4, CONFIG) for problem in PROBLEMS]
    # More prompts at once than vLLM reads in one step.
    with ThreadPoolExecutor(12) as pool:
        together = [*pool.map(lambda problem: draw_samples(engine, problem, 16, CONFIG), PROBLEMS)]
    for first, again in zip(alone, together, strict=True):
        assert words(first) == {i: said for i, said in words(again).items() if i < 4}
    assert len({sample.text for samples in together for sample in samples.values()}) > 6
    assert all(s.seed == 2**52 + i and s.seconds > 0 for samples in together for i, s in samples.items())


@pytest.mark.slow
@needs_vllm
def test_tokens_come_as_often_as_they_are_likely(scripted: VllmSampler) -> None:
    n = 400
    for temperature, top_p, kept in ((1.0, 1.0, "abcd"), (0.6, 0.95, "abc")):
        config = SamplingConfig(temperature=temperature, top_p=top_p, max_tokens=1)
        counts = Counter(sample.text for sample in draw_samples(scripted, PROBLEMS[0], n, config).values())
        mass = {token: FIRST[token] ** (1 / temperature) for token in kept}
        assert set(counts) <= set(kept)
        for token, share in mass.items():
            wanted = share / sum(mass.values())
            assert abs(counts[token] - n * wanted) < 4.5 * math.sqrt(n * wanted * (1 - wanted))


@pytest.mark.slow
@needs_vllm
def test_every_end_is_told_and_cut_as_in_the_embedded_engine(scripted: VllmSampler) -> None:
    samples = draw_samples(scripted, PROBLEMS[0], 100, SamplingConfig(temperature=1, top_p=1, max_tokens=8)).values()
    ends = {sample.text[0]: (sample.finish, sample.text, sample.tokens) for sample in samples}
    assert ends == {
        "a": ("length", "a" * 8, 8),
        "b": ("length", f"b{PROGRAM}" + "a" * 6, 8),
        "c": ("stop", "c", 2),
        "d": ("boxed", "d</think>\\boxed{7}", 4),
    }
    told = {sample.text[0]: sample.logprob_mean for sample in samples}
    assert told["a"] == pytest.approx(math.log(0.5) / 8, abs=1e-3)
    assert told["d"] == pytest.approx(math.log(0.08) / 4, abs=1e-3)


@pytest.mark.slow
@needs_vllm
def test_a_program_is_run_and_the_model_goes_on(scripted: VllmSampler) -> None:
    tools: Any = ToolSampler(scripted, ToolSettings(turns=1))
    config = SamplingConfig(temperature=1, top_p=1, max_tokens=24)
    samples = draw_samples(tools, PROBLEMS[0], 12, config)
    # The sandbox alone is closed: other tests use the engine.
    tools._pool.shutdown()
    tools._pythons.close()
    ran = [sample for sample in samples.values() if sample.text.startswith("b")]
    assert ran
    assert all(sample.text.startswith(f"b{PROGRAM}\n```output\n42\n```\n") for sample in ran)
    assert all(sample.tokens <= 24 for sample in ran)


@pytest.mark.slow
@needs_vllm
def test_closing_the_stream_aborts_the_rest(scripted: VllmSampler) -> None:
    """Half of the samples never end, and soon those fill the batch."""
    endless = SamplingConfig(temperature=1, max_tokens=10**6)
    with closing(scripted.stream(PROBLEMS[1], seeds={i: i for i in range(60)}, config=endless)) as stream:
        assert next(stream).text
    started = time.monotonic()
    assert len(draw_samples(scripted, PROBLEMS[0], 16, SamplingConfig(max_tokens=2))) == 16
    assert time.monotonic() - started < 30
    internals: Any = scripted
    assert internals._engine.output_processor.get_num_unfinished_requests() == 0


@pytest.mark.slow
@needs_vllm
def test_a_setting_beyond_the_limits_of_vllm_is_one_sentence(engine: VllmSampler) -> None:
    if engine.version.startswith("0.19."):
        pytest.skip("this vLLM takes any temperature")
    with pytest.raises(UserError, match=r"vLLM must take what --sampling.temperature, .*, got temperature must be in"):
        next(engine.stream(PROBLEMS[0], seeds={0: 0}, config=SamplingConfig(temperature=3)))


@pytest.mark.slow
@needs_vllm
def test_the_solve_loop_stops_early(engine: VllmSampler) -> None:
    policy = Policy(n=16, stop="votes2", sampling=CONFIG)
    solution = solve(PROBLEMS[1], sampler=engine, clock=RealClock(), policy=policy, timeout_s=300)
    assert (solution.ended, len(solution.samples) < 16) == ("rule", True)


@pytest.mark.slow
@needs_vllm
def test_a_context_that_is_full_caps_the_sample_and_refuses_the_prompt() -> None:
    length = len(load_prompt_format(find_model("pocket")).prompt_ids(PROBLEMS[0].statement))
    settings = VllmSettings(eager=True, kv_gib=0.25, at_once=16, max_model_len=length + 5)
    with closing(open_sampler(find_model("pocket"), settings)) as engine:
        assert draw_samples(engine, PROBLEMS[0], 1, CONFIG)[0].tokens == 5
        longer = Problem(id="long", statement=PROBLEMS[0].statement * 2, gold="1")
        with pytest.raises(UserError, match="must leave room in the model's context"):
            draw_samples(engine, longer, 1, CONFIG)


@pytest.mark.slow
@needs_vllm
def test_a_dead_vllm_and_a_closed_one_end_every_stream_and_leave_no_process() -> None:
    before = descendants(os.getpid())
    for end, kind, message in (
        ("kill", UserError, "vLLM must give a whole sample in 3 tries, got for problem .*: EngineDeadError"),
        ("close", RuntimeError, "sampling engine stopped: it was closed"),
    ):
        engine = open_sampler(find_model("pocket"))
        draw_samples(engine, PROBLEMS[0], 1, CONFIG)
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(draw_samples, engine, problem, 400, CONFIG) for problem in PROBLEMS[:2]]
            time.sleep(0.3)
            if end == "kill":
                for pid in descendants(os.getpid()) - before:
                    os.kill(pid, signal.SIGKILL)
            else:
                engine.close()
            for stream in waiting:
                with pytest.raises(kind, match=message):
                    stream.result(timeout=60)
        with pytest.raises(kind, match=message):
            draw_samples(engine, PROBLEMS[0], 1, CONFIG)
        engine.close()
        assert descendants(os.getpid()) == before


@pytest.mark.slow
@needs_vllm
def test_eval_runs_on_vllm(tmp_path: Path, evaluate: CommandLine) -> None:
    words = ["pocket_val", "--model", "pocket", "--engine", "vllm", "--limit", "5", "--n", "4", "--json"]
    result = evaluate.process(*words, "--vllm.eager", "--vllm.kv-gib", 0.25, folder=tmp_path).result
    assert (result["samples"], result["problems"]) == (20, 5)
    results = json.loads((tmp_path / result["run"] / "results.json").read_text())
    assert results["engine"] == "vllm"
    assert results["vllm"]


@pytest.mark.slow
@needs_vllm
def test_a_folder_that_vllm_cannot_load_is_one_clear_error(tmp_path: Path) -> None:
    for file in Path(find_model("pocket").location).iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    config: dict[str, Any] = json.loads((tmp_path / "config.json").read_text())
    unknown = {"quantization_config": {"quant_method": "none-such"}}
    for more, cure in (({}, "--vllm.max-model-len"), (unknown, "merged 16-bit")):
        (tmp_path / "config.json").write_text(json.dumps({**config, **more}))
        with pytest.raises(UserError, match="vLLM must be able to load") as caught:
            open_sampler(ModelSource(name="x", location=str(tmp_path)))
        assert cure in caught.value.cure


@pytest.mark.skipif(HERE, reason="vllm is installed")
def test_without_the_package_the_extra_is_named() -> None:
    with pytest.raises(UserError, match=r"the vllm engine needs the vllm package") as caught:
        open_sampler(find_model("pocket"))
    assert caught.value.cure == "pip install 'mathlete[vllm]'"


def test_settings_are_checked() -> None:
    for settings, message in (
        (VllmSettings(tensor_parallel=0), "--vllm.tensor-parallel must be at least 1, got 0"),
        (VllmSettings(gpu_memory_utilization=1.5), "--vllm.gpu-memory-utilization must be above 0, at most 1, got 1.5"),
        (VllmSettings(kv_gib=0), "--vllm.kv-gib must be above 0, at most 1048576, got 0"),
        (VllmSettings(max_model_len=1), "--vllm.max-model-len must be at least 2, got 1"),
        (VllmSettings(at_once=0), "--vllm.at-once must be 1 to 65536, got 0"),
        (VllmSettings(kv_dtype="int4"), "--vllm.kv-dtype must be one of auto, fp8, .*, got int4"),
        (VllmSettings(kv_dtype="bfloat16"), "of which auto is the model's own, got bfloat16"),
        (VllmSettings(kv_dtype="float16"), "of which auto is the model's own, got float16"),
        (VllmSettings(extra={"language_model_only": "false"}), "must not name what is set otherwise, got language_mo"),
        (VllmSettings(attention_backend=""), "--vllm.attention-backend must be a name"),
        (VllmSettings(extra={"max_num_seqs": "4"}), "must not name what is set otherwise, got max_num_seqs"),
        (VllmSettings(extra={"dtype": "half"}), "must not name what is set otherwise, got dtype"),
    ):
        with pytest.raises(UserError, match=message):
            settings.check()
    with pytest.raises(UserError, match="holds weights as the model's folder says, got --precision nf4"):
        VllmSampler(
            VllmSettings(),
            source=find_model("pocket"),
            prompts=load_prompt_format(find_model("pocket")),
            precision="nf4",
        )


@needs_vllm
@pytest.mark.slow
def test_the_notebooks_process_draws_greedily_what_an_evaluation_draws(workdir: Path, evaluate: CommandLine) -> None:
    settings = ("--engine", "vllm", "--vllm.eager", "--vllm.kv-gib", 0.25, "--vllm.at-once", 64)
    drawn = ("--n", 1, "--limit", 4, "--sampling.temperature", 0, "--sampling.max-tokens", 160)
    evaluate(POCKET_VAL, "--model", "pocket", *settings, *drawn, "--run", "run", "--json")
    told = {sample.problem_id: sample for sample in read_samples(workdir / "run" / "samples.jsonl")}
    process = EngineProcess(POCKET, log=workdir / "engine.log", engine="vllm", vllm=SETTINGS, max_tokens=160)
    with closing(process):
        process.start(timeout_s=3600.0)
        for problem in PROBLEMS[:4]:
            assert words(draw_samples(process, problem, 1, GREEDY)) == words({0: told[problem.id]})
