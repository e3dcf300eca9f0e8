"""An adapter that is handed in: its zip, and each way in which such zips failed people, refused before the upload."""

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mathlete.adapters import ADAPTER_CONFIG, WEIGHTS, AdapterFiles, ServedBase, find_served_faults
from mathlete.competitions import AdapterRules
from mathlete.errors import UserError
from mathlete.models import find_model, load_model, load_prompt_format
from mathlete.prompts import PromptSettings
from mathlete.rows.parity import describe_mismatch, find_mismatch
from mathlete.rows.row import IGNORED
from mathlete.runs import read_json
from tests.conftest import POCKET, CommandLine
from tests.kaggle_standin import serve

SOURCE = find_model("pocket")
RULES = AdapterRules(base=("mathlete/pocket",), max_rank=8)
LAYER = "base_model.model.model.layers.0.self_attn.q_proj"
QUERY = f"{LAYER}.lora_A.weight"
HEAD = {"A": (4, 128), "B": (576, 4)}
MADE_UP = """
slug = "a-made-up-challenge"
deliverable = "adapter"
answer_type = "integer"
answer_min = 0
answer_max = 99999
problems = 20
columns = ["id", "problem"]
machine = "NvidiaH100"
[scorer]
rule = "integer"
reads = ["last-box"]
[prompt]
suffix = "\\nPlease reason step by step, and put your final answer within \\\\boxed{}."
[sampling]
temperature = 0.0
max_tokens = 64
max_model_len = 256
[adapter]
base = ["mathlete/pocket"]
max_rank = 8
max_mib = 4
"""
Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What peft writes of an adapter of all linear layers of the pocket model, moved from its first weights."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("peft") / "adapter"
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model: Any = get_peft_model(load_model(SOURCE, precision="dense", dtype="float32"), config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.02)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "adapter"))


def configure(**changed: Any) -> Change:
    def change(folder: Path) -> None:
        config = read_json(folder / ADAPTER_CONFIG)
        (folder / ADAPTER_CONFIG).write_text(json.dumps({**config, **changed}))

    return change


def store(**changed: torch.Tensor | None) -> Change:
    def change(folder: Path) -> None:
        weights: dict[str, Any] = {**load_file(folder / WEIGHTS), **changed}
        save_file({name: one for name, one in weights.items() if one is not None}, folder / WEIGHTS)

    return change


def rename(before: str, after: str) -> Change:
    def change(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        save_file({name.replace(before, after): one for name, one in weights.items()}, folder / WEIGHTS)

    return change


def cast(dtype: torch.dtype) -> Change:
    def change(folder: Path) -> None:
        save_file({name: one.to(dtype) for name, one in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)

    return change


REFUSED: dict[str, tuple[Change, str]] = {
    "rank": (configure(r=16), "must have a rank of at most 8, got r 16"),
    "ranks": (configure(rank_pattern={"q_proj": 2}), "same rank and scale: vLLM reads no rank_pattern"),
    "alphas": (configure(alpha_pattern={"q_proj": 64}), "vLLM reads no alpha_pattern"),
    "no-alpha": (configure(lora_alpha=None), "must say what vLLM reads, got no lora_alpha"),
    "dora": (configure(use_dora=True), "must be without DoRA"),
    "first-weights": (configure(init_lora_weights="pissa_niter_4"), "first weights changed the base"),
    "missing": (rename("v_proj", "k_proj"), "must hold all layers that adapter_config.json names"),
    "saved": (configure(modules_to_save=["embed_tokens"]), "without whole modules, embeddings among them"),
    "bias": (configure(bias="all"), "without trained biases"),
    "own-bias": (configure(lora_bias=True), "without biases of the adapter's own"),
    "tokens": (configure(trainable_token_indices=[1]), "without trained tokens of the embedding"),
    "activated": (configure(alora_invocation_tokens=[1]), "without activation from certain tokens on"),
    "repeated": (configure(layer_replication=[[0, 2]]), "without layers that are repeated"),
    "parameters": (configure(target_parameters=["experts.up_proj"]), "must be of linear layers"),
    "kind": (configure(peft_type="IA3"), "must be a LoRA, got IA3"),
    "own-name": (rename(".weight", ".default.weight"), "without the adapter's own name"),
    "no-prefix": (rename("base_model.model.", ""), "must begin with base_model.model."),
    "embedding": (store(**{"base_model.model.model.embed_tokens.weight": torch.ones(576, 128)}), "without embeddings"),
    "table": (store(**{"base_model.model.lm_head.base_layer.weight": torch.ones(576, 128)}), "without embeddings"),
    "magnitude": (store(**{f"{LAYER}.lora_magnitude_vector": torch.ones(128)}), "without DoRA's magnitudes"),
    "biases": (store(**{f"{LAYER}.base_layer.bias": torch.ones(128)}), "without trained biases"),
    "half": (store(**{QUERY.replace("_A", "_B"): None}), "both matrices of a layer"),
    "other-rank": (store(**{QUERY: torch.ones(2, 128)}), "the rank that adapter_config.json says, 4"),
    "convolution": (store(**{QUERY: torch.ones(4, 128, 1)}), "must have two dimensions"),
    "integers": (store(**{QUERY: torch.ones(4, 128, dtype=torch.int8)}), "must be float32 or float16 or bfloat16"),
    "unknown": (rename("q_proj", "w_pack"), "must be a linear layer of the base"),
    "other-base": (store(**{QUERY: torch.ones(4, 64)}), "must fit the base that it is served with"),
    "lm-head": (
        store(**{f"base_model.model.lm_head.lora_{part}.weight": torch.ones(*shape) for part, shape in HEAD.items()}),
        "embedding and output layer must be left alone",
    ),
}
"""{name: what is done to a good adapter, a part of the refusal}."""


@pytest.fixture(scope="module")
def base() -> ServedBase:
    return ServedBase.of(SOURCE)


@pytest.mark.parametrize("name", REFUSED)
def test_what_vllm_would_refuse_or_serve_wrong_is_refused(name: str, adapter: Path, base: ServedBase) -> None:
    change, message = REFUSED[name]
    change(adapter)
    faults = [str(fault) for fault in find_served_faults(AdapterFiles.read(adapter), rules=RULES, base=base)]
    assert any(message in fault for fault in faults), faults
    assert all("Fix: " in fault for fault in faults)


@pytest.mark.parametrize(
    "change", [lambda folder: None, configure(use_rslora=True), cast(torch.bfloat16), configure(rank_pattern={"a": 4})]
)
def test_what_vllm_serves_is_taken(change: Change, adapter: Path, base: ServedBase) -> None:
    change(adapter)
    assert list(find_served_faults(AdapterFiles.read(adapter), rules=RULES, base=base)) == []


def test_the_rules_name_layers_and_types(adapter: Path, base: ServedBase) -> None:
    rules = replace(RULES, targets=("q_proj", "v_proj"), dtypes=("bfloat16",))
    rest = [fault.rule for fault in find_served_faults(AdapterFiles.read(adapter), rules=rules, base=base)]
    assert rest == [
        "an adapter must be of the layers that the rules name: q_proj, v_proj",
        "an adapter's tensors must be bfloat16",
    ]


def test_an_expert_and_a_router_of_a_hybrid_model(tmp_path: Path) -> None:
    """Names as the hub's own code has them, for a base whose layers transformers names otherwise."""
    weights: dict[str, torch.Tensor] = {}

    def add(layer: str, *, outputs: int, inputs: int) -> None:
        weights[f"base_model.model.{layer}.lora_A.weight"] = torch.ones(4, inputs)
        weights[f"base_model.model.{layer}.lora_B.weight"] = torch.ones(outputs, 4)

    add("backbone.layers.1.mixer.experts.7.up_proj", outputs=24, inputs=16)
    add("backbone.layers.0.mixer.in_proj", outputs=40, inputs=16)
    shapes = {
        "model.layers.1.mixer.experts.up_proj": (8, 24, 16),
        "model.layers.0.mixer.in_proj.weight": (40, 16),
        "model.layers.1.mixer.gate.weight": (8, 16),
    }
    hybrid = ServedBase(architecture="NemotronHForCausalLM", shapes=shapes)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": r".*\.(in_proj|up_proj)$"}
    (tmp_path / ADAPTER_CONFIG).write_text(json.dumps(config))
    save_file(weights, tmp_path / WEIGHTS)
    assert list(find_served_faults(AdapterFiles.read(tmp_path), rules=RULES, base=hybrid)) == []
    add("backbone.layers.1.mixer.experts.8.up_proj", outputs=24, inputs=16)
    add("backbone.layers.1.mixer.gate", outputs=8, inputs=16)
    save_file(weights, tmp_path / WEIGHTS)
    rules = [fault.rule for fault in find_served_faults(AdapterFiles.read(tmp_path), rules=RULES, base=hybrid)]
    assert len(rules) == 2
    assert "leaves as it is without an error" in " ".join(rules)
    assert "must be a linear layer of the base" in " ".join(rules)


def rezip(file: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def members_of(adapter: Path) -> dict[str, bytes]:
    return {name: (adapter / name).read_bytes() for name in (ADAPTER_CONFIG, WEIGHTS)}


LAYOUTS: dict[str, tuple[Callable[[dict[str, bytes]], dict[str, bytes]], str]] = {
    "folder": (lambda files: {f"adapter/{name}": one for name, one in files.items()}, "at the top of the zip"),
    "no-config": (lambda files: {WEIGHTS: files[WEIGHTS]}, "zip must hold adapter_config.json"),
    "several": (lambda files: {**files, "other/adapter_config.json": b"{}"}, "must hold one adapter"),
    "pickle": (lambda files: {ADAPTER_CONFIG: files[ADAPTER_CONFIG], "adapter_model.bin": b"x"}, "in no pickled file"),
    "no-weights": (lambda files: {ADAPTER_CONFIG: files[ADAPTER_CONFIG]}, "zip must hold adapter_model.safetensors"),
    "optimizer": (lambda files: {**files, "optimizer.pt": b"x"}, "without the state of its training"),
    "strangers": (lambda files: {**files, "notes.txt": b"x"}, "alone, each once, got notes.txt"),
    "no-json": (lambda files: {**files, ADAPTER_CONFIG: b"{"}, "must be readable JSON"),
    "cut": (lambda files: {**files, WEIGHTS: files[WEIGHTS][:-4]}, "must be a whole safetensors file"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_zip_of_another_layout_is_refused(name: str, adapter: Path, tmp_path: Path) -> None:
    change, message = LAYOUTS[name]
    rezip(file := tmp_path / "mine.zip", change(members_of(adapter)))
    with pytest.raises(UserError, match=message):
        AdapterFiles.read(file)


def test_a_folder_of_another_layout_is_refused(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be the folder that holds adapter_config"):
        AdapterFiles.read(tmp_path)
    (adapter / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9000\n")
    with pytest.raises(UserError, match="Fix: run `git lfs pull` in "):
        AdapterFiles.read(adapter)
    (adapter / WEIGHTS).rename(adapter / "adapter_model.bin")
    with pytest.raises(UserError, match="must be stored as safetensors"):
        AdapterFiles.read(adapter)
    with pytest.raises(UserError, match="zip must be whole"):
        AdapterFiles.read(adapter / ADAPTER_CONFIG)


@pytest.fixture
def rules(workdir: Path) -> Path:
    file = workdir / "made-up.toml"
    file.write_text(MADE_UP)
    return file


def test_the_zip_has_the_same_bytes_each_time(adapter: Path, rules: Path, submit: CommandLine) -> None:
    build = ("build", "--competition", rules, "--model", adapter, "--adapter.base", "pocket", "--json")
    first = submit(*build, "--run", "one").result
    (adapter / WEIGHTS).touch()
    second = submit(*build, "--run", "two").result
    assert first["hashes"] == second["hashes"]
    with zipfile.ZipFile("one/submission.zip") as archive:
        assert archive.namelist() == [ADAPTER_CONFIG, WEIGHTS]
        assert archive.read(WEIGHTS) == (adapter / WEIGHTS).read_bytes()
        config = json.loads(archive.read(ADAPTER_CONFIG))
    assert config["base_model_name_or_path"] == "mathlete/pocket"
    assert str(POCKET) not in json.dumps(config)
    assert (config["r"], config["lora_alpha"]) == (4, 8)
    again = submit("build", "--competition", rules, "--model", "one/submission.zip", "--run", "three", "--json").result
    assert again["hashes"] == first["hashes"]
    ledger = submit("ledger", "--run", "one", "--json").result["submissions"]
    assert [entry["id"] for entry in ledger] == [first["id"]]


def test_a_build_is_refused_and_leaves_the_last_zip(adapter: Path, rules: Path, submit: CommandLine) -> None:
    build = ("build", "--competition", rules, "--model", adapter, "--run", "one", "--json")
    assert "must be of the competition's base, mathlete/pocket" in submit(*build).refusal
    good = submit(*build, "--adapter.base", "pocket").result
    configure(base_model_name_or_path="Qwen/Qwen3-8B")(adapter)
    assert "got Qwen/Qwen3-8B" in submit(*build, "--adapter.base", "pocket").refusal
    configure(base_model_name_or_path=str(POCKET))(adapter)
    assert "reads no setting of a notebook" in submit(*build, "--adapter.base", "pocket", "--n", "16").refusal
    rules.write_text(MADE_UP.replace("max_rank = 8", "max_rank = 2"))
    assert "must have a rank of at most 2, got r 4" in submit(*build, "--adapter.base", "pocket").refusal
    assert Path("one/submission.zip").stat().st_size == good["bytes"]
    rules.write_text(MADE_UP.replace("max_rank = 8", 'max_rank = 8\ndtypes = ["bfloat16"]'))
    refused = submit(*build, "--adapter.base", "pocket").refusal
    assert "must be bfloat16" in refused
    assert "--adapter.dtype bfloat16" in refused
    smaller = submit(*build, "--adapter.base", "pocket", "--adapter.dtype", "bfloat16").result
    assert smaller["bytes"] < 0.6 * good["bytes"]
    assert Path("one/submission.zip").stat().st_size == smaller["bytes"]


def test_what_kaggle_gets_is_what_was_rehearsed(
    adapter: Path, rules: Path, submit: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ("--competition", rules, "--model", adapter, "--adapter.base", "pocket")
    built = submit("build", *words, "--json").result
    assert "there must be a rehearsal" in submit("preflight").refusal
    assert "the rehearsal of an adapter needs vLLM" in submit("rehearse", "--questions", 3).refusal
    assert "reads no setting of a notebook" in submit("rehearse", "--speed", 9, "--adapter.engine", "peft").refusal
    rehearse = ("rehearse", "--questions", 3, "--adapter.engine", "peft", "--adapter.max-tokens", 6, "--json")
    report = submit(*rehearse).result
    assert (report["problems"], report["max_tokens"], report["asked_tokens"]) == (3, 6, 64)
    assert (report["same_as_peft"], report["same_as_merged"]) == (None, 1.0)
    assert report["greedy"]["cut"] == report["scorer"]["answers"] == 3
    assert "must have been served by vLLM" in submit("preflight").refusal
    limits = ("--limits.by-peft", "--limits.right-min", 0)
    assert submit("preflight", *limits, "--json").result["id"] == built["id"]
    pushed = submit("push", *limits, "--yes", "--json").result
    assert pushed["pushed"] is False
    assert "uploaded when it is submitted to a-made-up-challenge" in " ".join(pushed["plan"])
    send = ("submit", *limits, "--json")
    assert submit(*send).result["submitted"] is False
    with serve(tmp_path, monkeypatch) as kaggle:
        sent = submit(*send, "--yes", "--message", "first").result
        (blob,) = kaggle.blobs.values()
        assert (blob["name"], blob["data"]) == ("submission.zip", Path(built["zip"]).read_bytes())
        assert kaggle.submitted[0]["submissionDescription"] == f"[{built['id']}] first"
        assert kaggle.submitted[0]["blobFileTokens"] == "blob0"
        assert submit(*send, "--yes").result["number"] == sent["number"]  # it has one: nothing is sent again
        assert len(kaggle.submitted) == 1
    (entry,) = submit("ledger", "--json").result["submissions"]
    assert entry["id"] == built["id"]
    assert entry["rehearsal"].startswith("valid ")
    rules.write_text(MADE_UP.replace("max_tokens = 64", "max_tokens = 65"))
    changed = "the rules as they are now, got sampling.max_tokens was 64 and is 65.\n"
    assert changed in submit("preflight", *limits).refusal
    rules.unlink()
    assert "rules as the build has them" in submit("preflight", *limits).stdout
    rules.write_text(MADE_UP)
    configure(lora_alpha=9)(adapter)
    assert submit("build", *words, "--json").result["id"] != built["id"]
    assert "must be of this very zip" in submit("preflight", *limits).refusal


def test_a_rehearsal_goes_on_where_it_was_killed(adapter: Path, rules: Path, submit: CommandLine) -> None:
    assert submit("build", "--competition", rules, "--model", adapter, "--adapter.base", "pocket").code == 0
    rehearse = ("rehearse", "--questions", 3, "--adapter.engine", "peft", "--adapter.max-tokens", 6, "--json")
    report = submit(*rehearse).result
    (drawn,) = Path("runs/submit").glob("adapter-rehearsal-*/peft.jsonl")
    lines = drawn.read_text().splitlines(keepends=True)
    assert len(lines) == 4
    drawn.write_text("".join(lines[:2]) + lines[2][:40])
    assert submit(*rehearse).result == report
    again = drawn.read_text().splitlines(keepends=True)
    assert again[:2] == lines[:2]
    assert sorted(again) == sorted(lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--lora.rank", 16), "at most the 8 of --lora.max-rank"),
        (("--method", "dora"), "must be without DoRA"),
        (("--method", "ia3"), "must be a LoRA, got IA3"),
        (("--method", "full"), "what is handed in must be a LoRA, got --method full"),
        (("--lora.bias", "lora_only"), "must be without trained biases"),
    ],
)
def test_training_refuses_what_can_not_be_handed_in(
    words: tuple[object, ...], message: str, workdir: Path, train: CommandLine
) -> None:
    base = ("math", "--model", "pocket", "--limit", 20, "--until", "tune", "--run", "run", "--lora.max-rank", 8)
    rank = () if "--lora.rank" in words else ("--lora.rank", 8)
    assert message in train(*base, *rank, *words).refusal
    assert not Path("run").exists()


def test_a_notebook_has_no_organisers_prompt(workdir: Path, submit: CommandLine) -> None:
    assert "a notebook's prompt is its own" in submit("build", "--prompt.organiser", "nemotron-like").refusal


def test_rows_are_proved_against_the_organisers_prompt(rules: Path, train: CommandLine) -> None:
    rows = ("math", "--model", "pocket", "--limit", 12, "--rows.heldout", 2, "--until", "format", "--json")
    own = PromptSettings(organiser=str(rules))
    prompts = load_prompt_format(replace(SOURCE, prompt=own))
    assert prompts.organiser is not None
    text, bos = prompts.organiser.render("2+2?", tokenizer=prompts.tokenizer), prompts.tokenizer.bos_token_id
    assert prompts.tokenizer(text)["input_ids"] == prompts.prompt_ids("2+2?")
    # Template and tokenizer write a bos each: the organiser's vLLM reads two.
    assert prompts.prompt_ids("2+2?")[:3].count(bos) == 2
    figures = train(*rows, "--prompt.organiser", rules, "--run", "run").result
    assert figures["parity"]["mismatches"] == 0
    assert figures["rows"] > 0
    start = [*prompts.prompt_ids("2+2?")]
    said = [*start, *prompts.completion_ids(trace="4.", answer="4")]
    labels = [IGNORED] * len(start) + said[len(start) :]
    row: Any = {"statement": "2+2?", "prompt_tokens": len(start), "input_ids": said, "labels": labels}
    completion = prompts.completion(trace="4.", answer="4")
    assert find_mismatch(row, completion=completion, prompts=prompts) == ""
    other = replace(prompts, organiser=replace(prompts.organiser, suffix="\nBox it."))
    assert find_mismatch(row, completion=completion, prompts=other) == "prompt"
    assert "of the prompt is" in describe_mismatch(row, completion=completion, prompts=other)
    beside = ("--prompt.organiser", rules, "--prompt.instruction", "Box it.")
    assert "an organiser's prompt must be alone" in train(*rows, *beside).refusal
    assert "organiser must choose the prompt, got aimo-3" in train(*rows, "--prompt.organiser", "aimo-3").refusal
