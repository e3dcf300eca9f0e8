"""Every method of training: a few steps on the pocket model, loaded again elsewhere, merged or refused, resumed."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file

from mathlete.errors import UserError
from mathlete.export import Survival, TunedModel, merge_adapter
from mathlete.models import find_model, load_model, load_prompt_format
from mathlete.runs import read_json
from mathlete.tune import AdapterFolder
from mathlete.tune.methods import METHODS
from mathlete.tune.preference import Pair, make_pairs
from mathlete.tune.recipe import Recipe
from mathlete.tune.reward import compute_reward, load_reward_rows, make_reward_function
from mathlete.tune.settings import Distill, Dpo, Grpo, Init, Lora, Tune, Updates
from mathlete.tune.trainers import prepare_trainer
from tests.conftest import CommandLine, sample
from train.math_command import MATH_COMMAND
from train.settings import MathSettings

WORDS = ("--model", "pocket", "--source", "p.jsonl", "--tune.steps", "2", "--tune.batch", "8", "--tune.log-every", "1",
         "--grpo.max-tokens", "32", "--distill.max-tokens", "32",
         "--survival.max-tokens", "8", "--survival.greedy", "0",
         "--forgetting.problems", "3", "--survival.trial-rows", "0", "--rows.heldout", "2", "--json")  # fmt: skip


TEACHER = {"distill": ("--distill.teacher", "pocket")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, pairs: str, train: CommandLine) -> Path:
    """p.jsonl: 40 problems, each with its trace, a longer right one and a wrong one; rows: the run that formats it."""
    folder = tmp_path_factory.mktemp("methods")
    with chdir(folder):
        Path("p.jsonl").write_text(pairs)
        assert train("math", *WORDS, "--method", "dpo", "--until", "format", "--run", "rows").code == 0
    return folder


IDS = torch.arange(2, 50)[None]
FRESH = """
import sys, torch
from pathlib import Path
from mathlete.models import find_model
from mathlete.export.merge import merge_adapter
from mathlete.tune import AdapterFolder
torch.set_num_threads(1)
for folder in map(Path, sys.argv[1:]):
    model = AdapterFolder(folder).load(find_model("pocket")).train()
    with torch.inference_mode():
        logits = model(input_ids=torch.arange(2, 50)[None], use_cache=False).logits
    torch.save(logits, folder / "fresh.pt")
"""


def few_steps(adapter: Path, data: Path, method: Any) -> torch.Tensor:
    """Train three steps into the folder and return the trained model's logits."""
    torch.set_num_threads(1)
    own: dict[str, Any] = {"grpo": Grpo(max_tokens=32), "distill": Distill(teacher="pocket", max_tokens=32)}
    recipe = Recipe(method=method, tune=Tune(steps=3, batch=8, rate=1e-3), **own)
    said: list[str] = []
    source = find_model("pocket")
    training = prepare_trainer(adapter, data=data, source=source, recipe=recipe, seed=0, say=said.append)
    trained = [weight for weight in training.model.parameters() if weight.requires_grad]
    before = [weight.detach().clone() for weight in trained]
    training.trainer.train()
    assert sum(weight.numel() for weight in trained) == training.plan.trained_parameters
    assert {weight.dtype for weight in trained} == {torch.float32}
    # Three steps of GRPO may see no group of samples with different rewards.
    moved = any(not torch.equal(one, other) for one, other in zip(before, trained, strict=True))
    assert moved or method == "grpo"
    assert any(words.startswith("memory: ") for words in said)
    # In training mode, as it was trained: for inference some CPUs have a less exact 4-bit kernel.
    model: Any = training.model.train()
    model.save_pretrained(adapter)
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=IDS, use_cache=False).logits
    return logits


class Trained(dict[str, tuple[Path, torch.Tensor]]):
    """{method: (folder of what it trained, logits)}, trained when it is first asked for."""

    def __init__(self, place: Path, data: Path) -> None:
        self._place, self._data = place, data

    def __missing__(self, method: str) -> tuple[Path, torch.Tensor]:
        self[method] = (self._place / method, few_steps(self._place / method, self._data, method))
        return self[method]


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("trained"), folder / "rows" / "data")


@pytest.mark.slow
def test_a_fresh_process_gives_the_same_logits_for_every_method(trained: Trained) -> None:
    folders = [trained[method][0] for method in METHODS]
    subprocess.run([sys.executable, "-c", FRESH, *folders], check=True, capture_output=True)
    for method, (adapter, expected) in trained.items():
        logits = torch.load(adapter / "fresh.pt")
        assert torch.allclose(logits, expected, atol=1e-5), method


MERGED_BELOW = ("lora", "rslora", "dora", "dpo", "grpo", "distill")
"""They train LoRA weights, which test_train merges."""


@pytest.mark.parametrize(
    "method",
    sample(*(name for name, spec in METHODS.items() if spec.mergeable and name not in MERGED_BELOW), slow=MERGED_BELOW),
)
def test_what_is_trained_becomes_part_of_the_weights(
    folder: Path, trained: Trained, tmp_path: Path, method: str
) -> None:
    tuned = TunedModel(source=find_model("pocket"), data=folder / "rows" / "data", adapter=trained[method][0])
    merged = merge_adapter(
        tmp_path,
        tuned=tuned,
        limits=Survival(),
        advance=lambda *_: None,
        say=lambda _: None,
    )
    assert float(str(merged["kl_merged"])) < 1e-4
    assert read_json(tmp_path / "config.json")["dtype"] == "float16"
    assert not [*tmp_path.glob("*adapter*")]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "dpo"])
def test_a_run_by_the_method_is_skipped_the_second_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch, method: str, train: CommandLine
) -> None:
    monkeypatch.chdir(folder)
    words = (*WORDS, "--method", method, "--until", "merge", "--run", method)
    assert train("math", *words).result["skipped"] == []
    assert train("math", *words).result["skipped"] == ["format", "tune", "effect", "merge"]


@pytest.mark.parametrize("method", [method for method, spec in METHODS.items() if not spec.mergeable])
def test_virtual_tokens_are_trained_alone_and_their_merge_is_refused_before_anything_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, method: str, train: CommandLine
) -> None:
    monkeypatch.chdir(folder)
    for until in ("merge", "export"):
        message = train("math", *WORDS, "--method", method, "--until", until, "--run", method).refusal
        assert f"--method {method} trains no weights that could be merged, got --until {until}" in message
        assert "use --until tune and load base and adapter with peft" in message
        assert not (folder / method).exists()
    assert MATH_COMMAND.default_settings(["--model", "pocket", "--method", method]).until == "tune"


@pytest.mark.parametrize("init", sample("gaussian", slow=["eva"]))
def test_first_weights_that_work_on_a_4_bit_base_leave_the_model_as_it_was(
    folder: Path, tmp_path: Path, init: Init
) -> None:
    recipe = Recipe(lora=Lora(init=init), tune=Tune(steps=1, batch=4))
    data, source = folder / "rows" / "data", find_model("pocket")
    training = prepare_trainer(tmp_path, data=data, source=source, recipe=recipe, seed=0, say=lambda _: None)
    model: Any = training.model
    with torch.inference_mode():
        expected = load_model(source, precision="nf4").train()(input_ids=IDS).logits
        assert torch.allclose(model.train()(input_ids=IDS).logits, expected, atol=1e-5)
    weights = model.base_model.model.model.layers[0].self_attn.q_proj.lora_A["default"].weight
    assert weights.shape == (16, 128)
    if init == "gaussian":
        # A GPU holds the base in 4 bits, where TRL rounds them; here it is dequantised, and they are the same.
        assert weights.dtype == torch.float32
        assert torch.equal(weights, weights.bfloat16().float())
    if init == "eva":
        # Rows of A are right-singular vectors of the inputs: orthonormal.
        assert torch.allclose(weights @ weights.T, torch.eye(16), atol=1e-2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lora.init", "pissa"], "invalid choice 'pissa'"),
        (["--method", "ia3", "--lora.init", "eva"], "--lora.init is not for --method ia3, got eva"),
        (["--method", "dpo", "--tune.pack", "256"], "--method dpo can't pack rows, got --tune.pack"),
        (["--method", "prefix", "--tune.checkpointing", "on"], "--method prefix can't compute activations twice"),
        (["--method", "grpo", "--tune.batch", "12"], "must be a multiple of --grpo.generations, got 12 and 8"),
        (["--dpo.beta", "0"], "--dpo.beta must be above 0, got 0.0"),
        (
            ["--method", "grpo", "--grpo.importance-sampling-level", "sequence"],
            "need a loss that adds up by sample: others would weigh each by its length, got --grpo.loss-type dapo",
        ),
        (["--method", "grpo", "--grpo.loss-type", "luspo"], "luspo is for ratios of whole samples, got token"),
        (["--grpo.overlong", "300"], "--grpo.overlong must be 0 to --grpo.max-tokens, got 300"),
        (["--method", "grpo", "--grpo.vllm", "--tune.batch", "8"], "--grpo.vllm draws samples on a GPU, got no GPU"),
        (["--grpo.generations", "1"], "--grpo.generations must be at least 2, got 1"),
        (["--method", "distill"], "--method distill learns from another model, got no --distill.teacher"),
        (["--distill.teacher", "pocket"], "--method lora learns from no other model, got --distill.teacher pocket"),
        (
            ["--method", "distill", "--distill.teacher", "pocket", "--distill.beta", "2"],
            "--distill.beta must be 0 to 1",
        ),
        (["--method", "distill", "--distill.teacher", "no-model"], "must be a preset, an existing folder or a hub id"),
        (
            ["--method", "distill", "--distill.teacher", "r1-qwen-7b"],
            "--distill.teacher must have as many embeddings as the model: the loss compares them all, got 152064",
        ),
        (["--lora.virtual-tokens", "0"], "--lora.virtual-tokens must be at least 1, got 0"),
        (
            ["--method", "dpo", "--limit", "4", "--survival.trial-rows", "0", "--against"],
            "--method dpo needs problems with a right trace and a lon",
        ),
    ],
)
def test_what_does_not_go_together_is_exit_2(words: list[str], message: str, workdir: Path, train: CommandLine) -> None:
    assert message in train("math", "--model", "pocket", *words).refusal


def test_the_docs_have_a_row_for_every_method(root: Path) -> None:
    """Which base, whether it merges, the learning rate's factor: as the table of methods says."""
    lines = (root / "docs/training.md").read_text().split("| `--method` |")[1].split("\n\n")[0].splitlines()[2:]
    documented = {
        (name, "4-bit" in base, "no" not in merges, float(factor))
        for names, _, base, merges, factors in (line.split("|")[1:-1] for line in lines)
        for name, factor in zip(re.findall("`(.+?)`", names.split("`--")[0]), factors.split(","), strict=True)
    }
    assert documented == {(name, spec.quantized, spec.mergeable, spec.rate_factor) for name, spec in METHODS.items()}


def test_the_docs_say_of_every_other_init_of_peft_why_it_is_not_offered(root: Path) -> None:
    text = (root / "docs/training.md").read_text()
    for init in ("pissa", "olora", "loftq", "corda", "orthogonal"):
        assert f"`{init}`" in text
        assert init not in get_args(Init)


def test_pairs_prefer_the_shortest_right_trace_to_longer_and_wrong_ones(folder: Path) -> None:
    prompts = load_prompt_format(find_model("pocket"))

    def pairs(config: Dpo, max_tokens: int = 512) -> list[Pair]:
        return make_pairs(folder / "rows" / "data", prompts=prompts, config=config, max_tokens=max_tokens)

    preferences = pairs(Dpo())
    assert {pair.kind for pair in preferences} == {"longer", "wrong"}
    assert len({tuple(pair.prompt_ids) for pair in preferences}) < len(preferences)
    for pair in preferences:
        prompt, chosen, rejected = (
            str(prompts.tokenizer.decode(getattr(pair, name), skip_special_tokens=True))
            for name in ("prompt_ids", "chosen_ids", "rejected_ids")
        )
        assert prompt.endswith("<think>\n")
        answers = [text.rpartition(r"\boxed{")[2] for text in (chosen, rejected)]
        assert (answers[0] == answers[1]) == (pair.kind == "longer")
        assert ("Once more" in rejected) == (pair.kind == "longer")
        assert "Once more" not in chosen
        assert pair.chosen_ids[-1] == pair.rejected_ids[-1] == prompts.tokenizer.eos_token_id
    assert len(pairs(Dpo(pairs=1))) == len({tuple(pair.prompt_ids) for pair in preferences})
    assert {pair.kind for pair in pairs(Dpo(shorter=0.1))} == {"wrong"}
    with pytest.raises(UserError, match="no such pair in"):
        pairs(Dpo(), max_tokens=10)


@pytest.mark.parametrize(
    ("text", "tokens", "cut", "reward"),
    [
        ("2+2=4.\n</think>\n\n\\boxed{4}", 0, False, 1.2),
        ("2+2=4.\n</think>\n\n\\boxed{4}", 50, False, 1.1),
        ("<think>\n2+2=4.\n</think>\n\n\\boxed{4.0}", 100, False, 1.0),  # a template that leaves <think> to the model
        ("2+2=4.\n</think>\n\n\\boxed{5}", 10, False, 0.0),
        ("so \\boxed{4}", 100, True, 1.0),
        ("2+2=4, which", 100, True, 0.0),
        ("", 1, False, 0.0),
    ],
)
def test_the_reward_is_for_right_answers_and_grows_with_brevity(
    text: str, tokens: int, cut: bool, reward: float
) -> None:
    rewarded = compute_reward(text, gold="4", tokens=tokens, cut=cut, config=Grpo(max_tokens=100, brevity=0.2))
    assert rewarded == pytest.approx(reward)


@pytest.mark.parametrize(
    ("text", "tokens", "reward"),
    [(r"\boxed{4}", 80, 1.0), (r"\boxed{4}", 90, 0.5), (r"\boxed{5}", 90, -0.5), ("so", 100, -1.0), ("so", 200, -1.0)],
)
def test_what_is_overlong_costs_right_and_wrong_answers_alike(text: str, tokens: int, reward: float) -> None:
    config = Grpo(max_tokens=100, brevity=0.0, overlong=20)
    assert compute_reward(text, gold="4", tokens=tokens, cut=False, config=config) == pytest.approx(reward)


def test_grpo_is_trained_as_its_settings_say(folder: Path, tmp_path: Path) -> None:
    grpo = Grpo(
        max_tokens=16, generations=4, loss_type="grpo", importance_sampling_level="sequence",
        mask_truncated_completions=True, overlong=8,
    )  # fmt: skip
    recipe, data = Recipe(method="grpo", tune=Tune(steps=1, batch=4), grpo=grpo), folder / "rows" / "data"
    source = find_model("pocket")
    training = prepare_trainer(tmp_path, data=data, source=source, recipe=recipe, seed=0, say=lambda _: None)
    trainer: Any = training.trainer
    assert (trainer.loss_type, trainer.importance_sampling_level) == ("grpo", "sequence")
    assert trainer.mask_truncated_completions
    trainer.train()
    kept: Any = recipe.weight_settings["grpo"]
    assert {**vars(Grpo()), **kept} == vars(grpo)


def test_grpo_is_given_the_served_prompt_and_reads_the_samples_as_evaluation_does(folder: Path) -> None:
    prompts = load_prompt_format(find_model("pocket"))
    rows = load_reward_rows(folder / "rows" / "data", prompts)
    tokenizer: Any = prompts.tokenizer
    served = tokenizer.apply_chat_template(
        rows[0]["prompt"], tokenize=True, add_generation_prompt=True, return_dict=True
    )["input_ids"]
    statement = rows[0]["prompt"][0]["content"].removesuffix(f"\n{prompts.instruction}")
    assert served == prompts.prompt_ids(statement)
    assert tokenizer.decode(served).endswith("<think>\n")
    right = prompts.completion_ids(trace="It is clear.", answer=rows[0]["gold"])
    reward = make_reward_function(prompts, Grpo(brevity=0.0))
    columns = {"gold": [rows[0]["gold"]] * 3, "answers": [""] * 3, "prompts": None}
    assert reward(completion_ids=[right, right[:-8], []], **columns) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(("answers", "reward"), [("", 0.0), ("percent=points", 1.0)])
def test_the_reward_compares_by_the_conventions_of_the_problem(answers: str, reward: float) -> None:
    config = Grpo(max_tokens=100, brevity=0.0)
    assert compute_reward(r"\boxed{50\%}", gold="50", tokens=9, cut=False, config=config, answers=answers) == reward


def test_only_the_settings_of_the_own_method_make_another_adapter() -> None:
    recipe = Recipe()
    assert recipe.weight_settings == replace(recipe, grpo=Grpo(brevity=0.5)).weight_settings
    grpo = replace(recipe, method="grpo")
    assert grpo.weight_settings != replace(grpo, grpo=Grpo(brevity=0.5)).weight_settings
    assert recipe.weight_settings == replace(recipe, tune=Tune(save_every=7)).weight_settings
    assert isinstance(MATH_COMMAND.default_settings(["--model", "pocket"]), MathSettings)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_kill_9_while_tuning_changes_no_weight(folder: Path, method: str, tmp_path: Path, train: CommandLine) -> None:
    words = ["math", *WORDS, "--tune.steps", "6", "--tune.save-every", "2", "--grpo.max-tokens", "64", "--until",
             "tune", "--method", method, *TEACHER.get(method, ()), "--tune.rate", "1e-3", "--run"]  # fmt: skip
    assert train.process(*words, tmp_path / "whole", folder=folder).code == 0
    cut = tmp_path / "cut"
    with (tmp_path / "log").open("w") as log:
        started = subprocess.Popen(train.argv(*words, cut), cwd=folder, stdout=log, stderr=log)
        while not (cut / "adapter/checkpoint-2/whole").exists() and started.poll() is None:
            time.sleep(0.005)
        os.kill(started.pid, signal.SIGKILL)
        assert started.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
    done = train.process(*words, cut, folder=folder)
    assert done.code == 0
    assert "going on from checkpoint-" in done.stderr
    name = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    weights = load_file(tmp_path / "whole" / "adapter" / name)
    for key, weight in load_file(cut / "adapter" / name).items():
        assert torch.equal(weight, weights[key]), key
    model = AdapterFolder(cut / "adapter").load(find_model("pocket"))
    assert model is not None


def test_a_setting_that_came_later_is_written_only_where_it_is_not_the_default() -> None:
    """A run that was begun before goes on: its record does not know the setting."""
    before: Any = Recipe().weight_settings
    assert {"optimizer", "weight_decay", "schedule", "warmup_steps"}.isdisjoint(before["tune"])
    assert "bias" not in before["lora"]
    after: Any = Recipe(tune=Tune(updates=Updates(weight_decay=0.1)), lora=Lora(bias="all")).weight_settings
    assert (after["tune"]["weight_decay"], after["lora"]["bias"]) == (0.1, "all")
