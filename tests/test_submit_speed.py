"""The speed of a rehearsal's clock follows from what the engine draws here, and no model is blamed for the machine."""

import json
import shutil
from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mathlete.errors import UserError
from mathlete.kernel import JOURNAL, SUBMISSION, JournalLine, KernelConfig
from mathlete.problems import Problem
from mathlete.prompts import PromptSettings
from mathlete.rehearsal import RehearsalSettings, speed
from mathlete.rehearsal.containers import Ended
from mathlete.rehearsal.speed import choose_speed
from mathlete.rehearsal.verdict import judge
from mathlete.sampling import SamplingConfig
from mathlete.sampling.samples import Sample
from mathlete.solve import Policy
from mathlete.submission import Build
from mathlete.submission.serving import check_serving
from tests.conftest import CommandLine

PROBLEMS = [Problem(id=name, statement="?", gold="7") for name in ("a", "b", "c")]


def make_engine(*, tokens_a_s: float, length: int, clock: list[float]) -> type:
    """An engine whose samples have a length, and that draws so many tokens a second of all together."""

    class Engine:
        def __init__(self, model: Path, *, log: Path, precision: str, prompt: PromptSettings) -> None: ...

        def start(self, *, timeout_s: float) -> None:
            clock[0] += 5.0

        def stream(
            self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig
        ) -> Generator[Sample, None, None]:
            tokens = min(length, config.max_tokens)
            needed_s = len(seeds) * tokens / tokens_a_s
            assert config.timeout_s is not None
            clock[0] += min(needed_s, config.timeout_s)
            if needed_s <= config.timeout_s:
                for index, seed in seeds.items():
                    said = {"text": "", "answer": None, "finish": "stop", "seconds": needed_s}
                    yield Sample(problem_id="a", index=index, seed=seed, tokens=tokens, **said)  # type: ignore[arg-type]

        def close(self) -> None: ...

    return Engine


@pytest.mark.parametrize(
    ("tokens_a_s", "length", "factor", "says"),
    [
        # 8 samples of 400 tokens take 32 s; a floor of 300 s is 9.4 of it, of which half is spare.
        (100.0, 400, 4.7, "100 tokens/s here, half of 8 samples in 32 s"),
        (10_000.0, 400, 100.0, "10000 tokens/s here"),
        # They do not end within our patience: the longest are assumed, 8 × 2048 tokens.
        (100.0, 2000, 1.0, "8 samples of 2048 tokens in 164 s"),
        # Not even the short samples end: a busy minute, of which nothing follows.
        (4.0, 400, 1.0, "no sample of 32 tokens ended here within 60 s, so a run may take its 5 hours; --stand-in"),
        (20.0, 400, 1.0, "too slow for real time, and the rehearsal begins all the same, for 5.2 hours: --stand-in"),
    ],
)
def test_the_speed_follows_from_what_the_engine_draws(
    tokens_a_s: float, length: int, factor: float, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.safetensors").touch()
    clock = [0.0]
    monkeypatch.setattr(speed, "_SMALL", 0)
    monkeypatch.setattr("mathlete.rehearsal.speed.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(speed, "EngineProcess", make_engine(tokens_a_s=tokens_a_s, length=length, clock=clock))
    config = KernelConfig(policy=Policy(n=8, sampling=SamplingConfig(max_tokens=2048)))
    chosen = choose_speed(tmp_path, config, PROBLEMS, asked=23)
    assert chosen.factor == factor
    assert says in chosen.why
    assert ("all 23 take about" in chosen.why) == (tokens_a_s > 4.0)


@pytest.mark.parametrize(
    ("slowed", "says"), [(1.1, r"\.\n"), (9.0, r", where other work has a second of CPU take 9\.0 s\.\n.*is idle, or ")]
)
def test_a_machine_that_is_too_slow_for_real_time_is_told_before_hours_are_spent(
    slowed: float, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.safetensors").touch()
    clock = [0.0]
    monkeypatch.setattr(speed, "_SMALL", 0)
    monkeypatch.setattr("mathlete.rehearsal.speed.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(speed, "EngineProcess", make_engine(tokens_a_s=8.0, length=2000, clock=clock))
    config = KernelConfig(policy=Policy(n=8, sampling=SamplingConfig(max_tokens=2048)))
    monkeypatch.setattr(speed, "contention", lambda: slowed)
    with pytest.raises(UserError, match=rf"2048 s of 900 s, 8 tokens/s{says}.*--stand-in pocket"):
        choose_speed(tmp_path, config, PROBLEMS, asked=23)


@pytest.mark.parametrize(
    ("tokens_a_s", "length", "factor", "says"),
    [
        # vLLM may draw 0.4 of what it draws.
        (100.0, 400, 3.8, "÷3.8: the embedded engine, tried in vLLM's place, draws 100 tokens/s here"),
        (10_000.0, 400, 20.0, "÷20: the embedded engine, tried in vLLM's place, draws 10000 tokens/s"),
        (4.0, 400, 1.0, "÷1: no sample of 32 tokens ended here"),
        # Too slow for a question, where vLLM may draw 2.7 times as much.
        (8.0, 2000, 1.0, "8 samples of 2048 tokens in 2048 s"),
    ],
)
def test_with_vllm_the_clock_follows_from_what_the_embedded_engine_draws(
    tokens_a_s: float, length: int, factor: float, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.safetensors").touch()
    clock = [0.0]
    config = KernelConfig(engine="vllm", policy=Policy(n=8, sampling=SamplingConfig(max_tokens=2048)))
    small = choose_speed(tmp_path, config, PROBLEMS, asked=23)
    assert (small.factor, "vLLM boots for a minute" in small.why) == (20.0, True)
    monkeypatch.setattr(speed, "_SMALL", 0)
    monkeypatch.setattr("mathlete.rehearsal.speed.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(speed, "EngineProcess", make_engine(tokens_a_s=tokens_a_s, length=length, clock=clock))
    chosen = choose_speed(tmp_path, config, PROBLEMS, asked=23)
    assert chosen.factor == factor
    assert says in chosen.why
    monkeypatch.setattr(speed, "EngineProcess", make_engine(tokens_a_s=5.0, length=2000, clock=clock))
    monkeypatch.setattr(speed, "contention", lambda: 1.0)
    told = r"3277 s of 2430 s, 5 tokens/s of the embedded engine, in vLLM's place, which draws 2\.7 times as much"
    with pytest.raises(UserError, match=told):
        choose_speed(tmp_path, config, PROBLEMS, asked=23)


def test_a_small_model_is_not_tried_and_one_that_does_not_load_is_left_to_the_rehearsal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.safetensors").touch()
    config = KernelConfig()
    assert choose_speed(tmp_path, config, PROBLEMS, asked=3).factor == 100

    def refuse(model: Path, config: KernelConfig, problem: Problem) -> None:
        raise RuntimeError("no weights")

    monkeypatch.setattr(speed, "_SMALL", 0)
    monkeypatch.setattr(speed, "_try_engine", refuse)
    assert choose_speed(tmp_path, config, PROBLEMS, asked=3).why == "÷100: the engine draws nothing here (no weights)"
    unknown = choose_speed(tmp_path, replace(config, engine="vllm"), PROBLEMS, asked=3)
    assert unknown.factor == 1
    assert "how fast vLLM draws here is not known, the embedded engine draws nothing (no weights), so" in unknown.why


LATE = JournalLine(id="a", fallback=True, why="the clock: no sample was finished")
DUMB = JournalLine(id="a", fallback=True, why="no sample has an answer")
FINE = JournalLine(id="a", answer=7, fallback=False, why="")


@pytest.mark.parametrize(
    ("lines", "fallbacks_max", "rule", "cure"),
    [
        ([LATE, LATE, FINE], 0.5, "which says nothing of the model", "--speed 12, or prove the wiring with --stand-in"),
        ([LATE, DUMB, DUMB], 0.5, "the model must answer at least 50% of the questions itself", "--fallbacks-max"),
        ([DUMB, DUMB, FINE], 0.7, None, None),
        ([DUMB, FINE, FINE], 0.0, "the model must answer at least 100%", "--fallbacks-max"),
    ],
)
def test_what_ran_out_of_time_here_is_not_the_models_fault(
    lines: list[JournalLine], fallbacks_max: float, rule: str | None, cure: str | None, tmp_path: Path, build: Build
) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    for name in ("notebook", "gateway"):
        (tmp_path / "stage" / name).mkdir(parents=True)
    table = pa.table({"id": ["a", "b", "c"], "answer": [7, 0, 0]})
    pyarrow.parquet.write_table(table, tmp_path / "stage" / "gateway" / SUBMISSION)
    journal = "".join(json.dumps(line.to_json()) + "\n" for line in lines)
    (tmp_path / "stage" / "notebook" / JOURNAL).write_text(journal)
    ended = Ended(notebook_code=0, gateway_code=0, timed_out=False, isolation="namespaces", folder=tmp_path / "stage")
    settings = RehearsalSettings(speed=50, fallbacks_max=fallbacks_max)
    rehearsed = judge(build, PROBLEMS, settings, ended, seconds=1.0, contention=1.0)
    if rule is None:
        assert rehearsed.refusal is None
    else:
        assert rehearsed.refusal is not None
        assert rule in rehearsed.refusal.rule
        assert str(cure) in rehearsed.refusal.cure
    assert rehearsed.figures().out_of_time == lines.count(LATE)


@pytest.fixture
def export(root: Path, tmp_path: Path) -> Path:
    """A copy of the pocket model, to be spoilt."""
    return Path(shutil.copytree(root / "data" / "pocket" / "model", tmp_path / "export"))


def change_json(file: Path, **changes: Any) -> None:
    value = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({name: part for name, part in value.items() if part is not None}))


def store_bytes(export: Path) -> None:
    header = json.dumps({"w": {"dtype": "I8", "shape": [4], "data_offsets": [0, 4]}}).encode()
    (export / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))


def delete_template(export: Path) -> None:
    (export / "chat_template.jinja").unlink(missing_ok=True)
    change_json(export / "tokenizer_config.json", chat_template=None)


SPOILT: dict[str, tuple[Any, str]] = {
    "no template": (delete_template, "a tokenizer must have its chat template"),
    "short context": (
        lambda export: change_json(export / "config.json", max_position_embeddings=100),
        "a completion must fit into the model's context of 100 tokens beside its prompt",
    ),
    "integers": (store_bytes, "must be described by a quantization_config(.|\n)*I8 in model.safetensors"),
    **{
        name: (
            lambda export, name=name, value=value: change_json(export / "config.json", **{name: value}),
            "config.json must describe the weights beside it",
        )
        for name, value in (("hidden_size", 96), ("intermediate_size", 100), ("vocab_size", 577))
    },
    "attention": (
        lambda export: change_json(export / "config.json", model_type="gpt_oss", architectures=["GptOssForCausalLM"]),
        "covers models with full attention",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_the_engine_would_refuse_is_refused_at_build(name: str, export: Path) -> None:
    spoil, words = SPOILT[name]
    config = replace(KernelConfig(), policy=Policy(sampling=SamplingConfig(max_tokens=160)))
    check_serving(export, config)
    spoil(export)
    with pytest.raises(UserError, match=words):
        check_serving(export, config)


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("--speed", "0.5"), "speed must be 1 to 100"),
        (("--speed", "2", "--clock", "real"), "clock must be left out beside --speed"),
        (("--fallbacks-max", "2"), "fallbacks-max must be 0 to 1"),
        (("--behaviour", "1.4.0", "--real-package", "."), "behaviour must be left out beside --real-package"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    words: tuple[str, ...], rule: str, submit: CommandLine
) -> None:
    assert rule in submit("rehearse", *words).refusal
