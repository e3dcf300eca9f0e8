"""`python -m train`: one small run of the pocket model through all steps, and all that a command line can get wrong."""

import hashlib
import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import torch
from safetensors.torch import load_file

from mathlete.export import TunedModel
from mathlete.export.distributions import kl_divergence, load_heldout_rows, log_probabilities
from mathlete.models import Device, ModelSource, find_model, load_model
from mathlete.models.tokenizers import load_tokenizer
from mathlete.rows import RowFiles
from mathlete.rows.packing import best_fit
from mathlete.runs import sha256_tree, verify_outputs
from mathlete.tune.curve import METRICS
from mathlete.tune.methods import MethodName
from mathlete.tune.trainers import schedule
from tests.conftest import POCKET, CommandLine
from train.presets import preset
from train.settings import MathSettings

SMALL = ("--model", "pocket", "--source", "p.jsonl", "--tune.steps", "4", "--tune.batch", "4", "--tune.log-every", "1",
         "--survival.max-tokens", "8", "--survival.greedy", "0", "--forgetting.problems", "5",
         "--survival.trial-rows", "0", "--rows.heldout", "2", "--run", "r")  # fmt: skip
CHANGED = (*SMALL, "--tune.rate", "1e-3", "--tune.log-every", "10")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, train: CommandLine) -> Path:
    """A folder with 60 traced problems (p.jsonl) and the run over them (r)."""
    folder = tmp_path_factory.mktemp("train")
    with chdir(folder):
        assert train("pocket-problems", "p.jsonl", "--families", "hard", "easy", "--count", 60).code == 0
        assert train("math", *SMALL).code == 0
    return folder


@pytest.fixture
def place(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run's folder, which the test stands in."""
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def test_a_run_leaves_all_that_was_promised(finished: Path) -> None:
    for step, files in (
        ("data", {"head.jsonl"}),
        ("adapter", {"adapter_config.json", "adapter_model.safetensors", METRICS}),
        ("merged", {"config.json", "model.safetensors", "tokenizer.json", "mathlete_prompt.json"}),
        ("export", {"config.json", "model.safetensors", "tokenizer.json", "mathlete_prompt.json", "survival.json"}),
    ):
        manifest = verify_outputs(finished / "r" / step)
        assert manifest["status"] == "done"
        assert files <= set(manifest["outputs"])  # type: ignore[call-overload]
        times = {path.name: path.stat().st_mtime_ns for path in (finished / "r" / step).rglob("*") if path.is_file()}
        # Not the only newest: the clock of a file system may tick in milliseconds.
        assert times["manifest.json"] == max(times.values())
    checkpoint = finished / "r" / "adapter" / "checkpoint-4"
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth"} <= {path.name for path in checkpoint.iterdir()}


def test_cards_are_read_as_the_hub_reads_them(finished: Path) -> None:
    from huggingface_hub import DatasetCard, ModelCard

    model, data = ModelCard.load(finished / "r/export/README.md"), DatasetCard.load(finished / "r/data/README.md")
    assert model.data.to_dict() == {
        "base_model": "pocket",
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["math", "reasoning", "int8"],
    }
    assert "kl_int8" in model.text
    assert data.data.to_dict()["tags"] == ["math", "reasoning"]
    assert "Token rows for training" in data.text


def test_the_loss_is_that_of_the_completions_alone(finished: Path) -> None:
    """The first step's loss, before any update, against a cross-entropy computed here on the 4-bit base."""
    rows = datasets.load_from_disk(RowFiles(finished / "r" / "data").train)
    lengths = [len(ids) for ids in rows["input_ids"]]
    first = schedule(lengths, rows=16, batch=4, seed=0)[:4]
    # In training mode: CPUs with bf16 instructions have a 4-bit kernel for inference, less exact than training's.
    model = load_model(find_model("pocket"), precision="nf4").train()
    total, tokens = 0.0, 0
    with torch.inference_mode():
        for index in first:
            ids, at = rows[index]["input_ids"], rows[index]["prompt_tokens"]
            logits = model(input_ids=torch.tensor([ids])).logits[0, at - 1 : -1].float()
            total += float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[at:]), reduction="sum"))
            tokens += len(ids) - at
    curve = [json.loads(line) for line in (finished / "r" / "adapter" / METRICS).read_text().splitlines()]
    assert [point["step"] for point in curve] == [1, 2, 3, 4]
    assert curve[0]["loss"] == pytest.approx(total / tokens, rel=2e-3)


def test_packed_rows_are_trained_apart(place: Path, train: CommandLine) -> None:
    """The first step's loss on a packed sequence, against a cross-entropy of each of its rows alone."""
    words = [*SMALL, "--until", "tune", "--tune.pack", 256, "--tune.batch", 1, "--overwrite", "--json"]
    assert train("math", *words).result["skipped"] == ["format"]
    rows = datasets.load_from_disk(RowFiles(place / "r" / "data").train)
    lengths = rows["tokens"]
    sequences = best_fit(lengths, budget=256)
    sizes = [sum(lengths[index] for index in some) for some in sequences]
    first = sequences[schedule(sizes, rows=4, batch=1, seed=0)[0]]
    assert len(first) > 1
    model = load_model(find_model("pocket"), precision="nf4").train()
    total, tokens = 0.0, 0
    for index in first:
        ids, at = rows[index]["input_ids"], rows[index]["prompt_tokens"]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0, at - 1 : -1].float()
        total += float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[at:]), reduction="sum"))
        tokens += len(ids) - at
    curve = [json.loads(line) for line in (place / "r" / "adapter" / METRICS).read_text().splitlines()]
    assert curve[0]["loss"] == pytest.approx(total / tokens, rel=2e-3)
    assert "--tune.pack must hold the longest row, got 64 for" in train("math", *words, "--tune.pack", 64).refusal


def test_the_adapter_loads_with_peft_and_covers_all_linear_layers(finished: Path) -> None:
    from peft import PeftModel

    base: Any = load_model(find_model("pocket"), precision="nf4")
    linear = {name for name, module in base.named_modules() if type(module).__name__ == "Linear4bit"}
    model = PeftModel.from_pretrained(base, str(finished / "r" / "adapter"))
    adapted = {
        name.removeprefix("base_model.model.")
        for name, module in model.named_modules()
        if "default" in getattr(module, "lora_A", {})
    }
    assert adapted == linear
    assert all(float(weight.detach().abs().max()) > 0 for name, weight in model.named_parameters() if "lora_B" in name)


def test_merged_is_a_dense_model_and_the_export_an_8_bit_one(finished: Path) -> None:
    merged, export = finished / "r" / "merged", finished / "r" / "export"
    config = json.loads((merged / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == "float16"
    assert json.loads((export / "config.json").read_text())["quantization_config"]["load_in_8bit"] is True
    kinds = {name: weight.dtype for name, weight in load_file(export / "model.safetensors").items()}
    assert kinds["model.layers.0.mlp.down_proj.weight"] == torch.int8
    assert kinds["model.layers.0.mlp.down_proj.SCB"] == torch.float32
    for folder in (merged, export):
        where = ModelSource(name="x", location=str(folder))
        assert load_tokenizer(where).get_vocab() == load_tokenizer(find_model("pocket")).get_vocab()
        assert where.served_prompt == find_model("pocket").served_prompt


def test_survival_is_what_the_folders_say(finished: Path) -> None:
    rows = load_heldout_rows(finished / "r" / "data")
    saved = json.loads((finished / "r/export/survival.json").read_text())
    run = finished / "r"
    tuned = TunedModel(source=find_model("pocket"), data=run / "data", adapter=run / "adapter")
    reference = log_probabilities(tuned.load(dtype="float32"), rows)
    export = log_probabilities(load_model(ModelSource(name="x", location=str(finished / "r" / "export"))), rows)
    assert len(reference) == saved["kl_tokens"] == sum(map(len, rows["labels"])) - sum(rows["prompt_tokens"])
    assert saved["kl_int8"] == pytest.approx(kl_divergence(reference, export), rel=1e-6)
    # A merge adds nothing but the rounding to 16 bits: the reference is in the format that was trained.
    assert 0 <= saved["kl_merged"] < 1e-7 < saved["kl_int8"] < 1e-3
    assert saved["greedy_problems"] == len(rows)
    effect = json.loads((finished / "r/effect/effect.json").read_text())
    assert [hop["hop"] for hop in (*effect["hops"], *saved["hops"])] == ["base", "trained", "merged", "int8"]
    assert effect["hops"][0]["kl"] > saved["kl_int8"]  # the training did more than 8 bits undo
    assert effect["hops"][1]["kl"] == 0


def test_the_same_command_is_skipped(place: Path, train: CommandLine) -> None:
    before = sha256_tree(place / "r")
    result = train("math", *SMALL, "--json").result
    assert result["skipped"] == ["format", "tune", "effect", "merge", "export"]
    assert (result["run"], result["export"], result["rows"], result["steps"]) == ("r", "r/export", 58, 4)
    assert {"kl_merged", "kl_int8", "seconds", "last_loss", "dropped"} <= result.keys()
    assert (result["kept"], result["drops"], result["parity"]) == (60, {}, {"rows": 60, "mismatches": 0})
    assert sha256_tree(place / "r") == before


def test_a_changed_setting_redoes_its_step_and_what_follows(place: Path, train: CommandLine) -> None:
    before = sha256_tree(place / "r")
    # A curve of fewer steps than lie between its points still has one.
    assert "r/adapter (finished): tune.rate is 0.002 there, 0.001 here; " in train("math", *CHANGED, "--json").refusal
    assert sha256_tree(place / "r") == before
    result = train("math", *CHANGED, "--until", "merge", "--overwrite", "--json").result
    assert result["skipped"] == ["format"]
    # How often it is saved changes no weight, and what the last step may cost changes nothing before it.
    again = train("math", *CHANGED, "--tune.save-every", 7, "--survival.kl-int8", "2e-3", "--overwrite", "--json")
    assert again.result["skipped"] == ["format", "tune", "effect", "merge"]
    changed = sha256_tree(place / "r")
    for name in ("adapter/adapter_model.safetensors", "merged/model.safetensors", "export/model.safetensors"):
        assert changed[name] != before[name]


def test_a_breach_of_survival_is_exit_2_without_a_manifest(place: Path, train: CommandLine) -> None:
    strict = ("--survival.kl-int8", "1e-9", "--survival.times-noise", "0")
    shown = train("math", *SMALL, *strict)
    assert shown.code == 2
    assert "error: KL(trained || int8) must be at most 1e-09 nats a token, got " in shown.stderr
    assert (
        f" in {Device.current().dtype} by transformers, stored in float16; computing in bfloat16 alone costs "
        in shown.stderr
    )
    assert (
        "use --export.threshold 1 --overwrite, which keeps more columns in 16 bits, set --survival.kl-int8, or"
        in shown.stderr
    )
    # A cure that is in use already is none.
    other = train("math", *SMALL, *strict, "--export.threshold", 1, "--overwrite").refusal
    assert "--export.threshold" not in other
    assert "use --export.formats w8a16 in place of int8" in other
    assert "held-out tokens" in shown.stdout
    assert not (place / "r" / "export" / "manifest.json").exists()
    # The merge into the original weights, which the adapter has never met, is itself a breach.
    original = (*SMALL, "--merge-base", "original", "--overwrite")
    merged = train("math", *original).refusal
    assert "KL(trained || merged) must be at most 1e-05 nats a token, got " in merged
    assert [words for words in ("(tried: ", " stored in ", " in float16, ") if words not in merged] == []
    assert "merge with --merge-base dequant --overwrite" in merged
    assert not (place / "r" / "merged" / "manifest.json").exists()
    accepted = train("math", *original, "--accept-refused", "on purpose")
    assert accepted.code == 0
    assert "accepted, because on purpose: KL(trained || merged) must be" in " ".join(accepted.stdout.split())
    assert "- accept_refused: on purpose" in (place / "r" / "export" / "README.md").read_text()


def test_a_manifest_that_does_not_match_is_exit_2(place: Path, train: CommandLine) -> None:
    weights = place / "r" / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    before = sha256_tree(place)
    message = train("math", *SMALL).refusal
    assert "error: r/adapter/manifest.json must match the folder's files" in message
    assert "adapter_model.safetensors" in message
    assert "make it again with the same command and --overwrite" in message
    assert sha256_tree(place) == before


BAD_LINE = '{"id": "1", "statement": "1+1", "gold": "2", "answer": "2"}'


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--source", "pockett"], "the source must be a known one, got 'pockett'.\n  Fix: did you mean pocket"),
        (["--source", "gsm8kk"], "did you mean gsm8k"),
        (["--source", "aime24"], "training needs a source with traces, got 'aime24'"),
        (["--source", "none.jsonl"], "the file must exist, got none.jsonl"),
        (["--source", "bad.jsonl"], "bad.jsonl:2: a traced problem needs its trace as text, got None"),
        (["--source", "torn.jsonl"], "torn.jsonl:1: must be one line of JSON"),
        (["--source", "gsm8k", "--mirror", "bare"], "the mirror must hold openai/gsm8k"),
        (["--model", "pockett"], "did you mean pocket?"),
        (["--model", "r1-qwen-7"], "did you mean r1-qwen-7b"),
        (["--model", "r1-qwen-1.5b"], "hf download deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B --revision ad9f0ae"),
        (["--model", "bare"], "a model folder needs its tokenizer, got no tokenizer.json in bare"),
        (["--model", "deaf"], "the tokenizer of deaf must give back the text it is given, got 'Findtheremainder"),
        (["--source", "wrong.jsonl"], "at least two rows with a right trace, and 0 of 3 is left, got wrong: 3"),
        (["--source", "gsm8k", "--mirror", "hub"], "train.jsonl:2: must be one line of JSON"),
        (["--limit", "1"], "--limit must be at least 2, got 1"),
        (["--rows.traces", "0"], "--rows.traces must be at least 1, got 0"),
        (["--filters.foreign", "2"], "--filters.foreign must be 0 to 1, got 2.0"),
        (["--num-proc", "0"], "--num-proc must be at least 1, got 0"),
        (["--source", "pocket=-1"], "a source's weight must be a number above 0, got 'pocket=-1'"),
        (["--source", "openr1:more"], "the config of openr1 must be a known one, got 'more'"),
        (["--against", "math50"], "did you mean math500"),
        (["--tokenizer", "bare"], "--tokenizer is for rows without a model, got --until export"),
        (["--tokenizer", "none", "--until", "format"], "--tokenizer must be a folder, got none"),
        (["--tokenizer", "bare", "--until", "format"], "a model folder needs its tokenizer, got no tokenizer.json"),
        (["--tune.rate", "0"], "--tune.rate must be above 0, got 0.0"),
        (["--tune.pack", "3"], "--tune.pack must be at least 16, got 3"),
        (["--tune.steps", "0"], "--tune.steps must be at least 1, got 0"),
        (["--lora.targets", "all-linear", "q_proj"], "--lora.targets must be layers, or all-linear, got all-linear q_"),
        (["--lora.dropout", "1"], "--lora.dropout must be 0 to below 1, got 1.0"),
        (["--forgetting.source", "gsm9k"], "the source must be a known one, got 'gsm9k'"),
        (["--forgetting.loss", "-1"], "--forgetting.loss must be 0 or above, got -1.0"),
        (["--survival.greedy", "2"], "--survival.greedy must be 0 to 1, got 2.0"),
        (["--run", "mine"], "a step writes only into its own or an empty folder, got mine/data"),
    ],
)
def test_bad_input_is_exit_2_and_leaves_nothing(
    workdir: Path, words: list[str], message: str, train: CommandLine
) -> None:
    shutil.copytree(POCKET, "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    shutil.copytree(POCKET, "deaf")
    content = json.loads(Path("deaf/tokenizer.json").read_text())
    content["model"]["vocab"] = {piece: i for piece, i in content["model"]["vocab"].items() if "Ġ" not in piece}
    content["model"]["merges"] = [pair for pair in content["model"]["merges"] if "Ġ" not in "".join(pair)]
    Path("deaf/tokenizer.json").write_text(json.dumps(content))
    good = json.dumps({**json.loads(BAD_LINE), "trace": "1+1=2"})
    Path("bad.jsonl").write_text(f"{good}\n{BAD_LINE}\n")
    Path("torn.jsonl").write_text(good[:40] + "\n")
    wrong = json.dumps({**json.loads(good), "answer": "3"})
    Path("wrong.jsonl").write_text("".join(wrong.replace('"1"', f'"{n}"') + "\n" for n in range(3)))
    Path("hub/openai/gsm8k/main").mkdir(parents=True)
    row = json.dumps({"question": "How many are 1 and 1?", "answer": "They are 1+1=<<1+1=2>>2.\n#### 2"})
    Path("hub/openai/gsm8k/main/train.jsonl").write_text(f"{row}\n{row[:30]}\n")
    Path("mine/data").mkdir(parents=True)
    Path("mine/data/letter.txt").write_text("dear")
    before = sorted(Path().rglob("*"))
    assert message in train("math", *([] if "--model" in words else ["--model", "pocket"]), *words).refusal
    assert sorted(Path().rglob("*")) == before


def test_a_full_disk_is_exit_2_before_anything_is_written(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, train: CommandLine
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=16 * 2**20))
    message = train("math", "--model", "pocket", "--run", "r").refusal
    assert "error: r needs 0.07 GiB of free disk, got 0.02 GiB" in message
    assert "free some space or choose another folder with --run" in message
    assert not [*workdir.iterdir()]


@pytest.mark.slow
def test_a_file_system_that_is_full_is_seen(tmp_path: Path, root: Path, train: CommandLine) -> None:
    """In a file system of 16 MB, mounted in a namespace of the test's own."""
    namespace = ["unshare", "-Urm", "sh", "-e", "-c"]
    mount = f"mount -t tmpfs -o size=16m tmpfs {tmp_path}"
    if shutil.which("unshare") is None or subprocess.run([*namespace, mount], check=False).returncode:
        pytest.skip("needs a user namespace that may mount a tmpfs")
    training = shlex.join(train.argv("math", "--model", "pocket", "--run", tmp_path / "r"))
    command = [*namespace, f"{mount}\n{training} || echo exit $?\nls {tmp_path}"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\nexit 2\n"), done.stdout
    assert f"error: {tmp_path}/r needs 0.07 GiB of free disk, got 0.02 GiB" in done.stderr
    assert "free some space or choose another folder with --run" in done.stderr


def test_the_run_is_named_by_what_it_does() -> None:
    from train.steps import MathRun

    def name_run(*, folder: Path | None = None, seed: int = 0, **corpus: Any) -> str:
        settings = preset("pocket")
        data = replace(settings.data, corpus=replace(settings.data.corpus, **corpus))
        settings = replace(settings, run=folder, seed=seed, data=data)
        return str(MathRun(settings=settings, model=find_model("pocket"), say=print).folder)

    assert name_run() == name_run(mirror=Path("m"))
    assert name_run().startswith("runs/train-pocket-")
    assert len({name_run(), name_run(seed=1), name_run(limit=7), name_run(source=("gsm8k",))}) == 4
    assert name_run(folder=Path("r")) == "r"


def list_changes(group: Any) -> Iterator[tuple[str, Any]]:
    """Each setting of a group, by its name, and the group with another value of that alone."""
    for field in fields(group):
        value = getattr(group, field.name)
        if is_dataclass(value):
            for name, other in list_changes(value):
                yield f"{field.name}.{name}", replace(group, **{field.name: other})
        else:
            changed = (
                not value if isinstance(value, bool) else value + 1 if isinstance(value, (int, float)) else "other"
            )
            yield field.name, replace(group, **{field.name: Path("a") if field.name == "adapter" else changed})


@pytest.mark.parametrize("method", ["lora", "grpo"])
def test_its_name_follows_from_the_training_alone(method: MethodName) -> None:
    """A flag leaves the folder as it is, or the rows or the training are others."""
    from train.steps import MathRun

    usual = preset("pocket")
    usual = replace(usual, recipe=usual.recipe.with_method(method))

    def name_run(settings: MathSettings) -> Path:
        return MathRun(settings=settings, model=find_model("pocket"), say=print).folder

    for name, changed in list_changes(usual):
        if name in ("run", "model", "tokenizer", "recipe.method") or name.startswith("data.prompt."):
            continue  # the folder's own name, and what the model is made of before
        elsewhere = name.split(".")[-1] in ("mirror", "num_proc", "ray")
        trained = (name.startswith("data.") and not elsewhere) or name in ("seed", "after.adapter")
        trained = trained or changed.recipe.weight_settings != usual.recipe.weight_settings
        assert (name_run(changed) != name_run(usual)) == trained, name


def test_pocket_problems_are_byte_identical_and_readable(workdir: Path, train: CommandLine) -> None:
    for name, seed in (("a.jsonl", 7), ("b.jsonl", 7), ("c.jsonl", 8)):
        result = train("pocket-problems", name, "--count", 30, "--seed", seed, "--json").result
    sha256 = hashlib.sha256(Path("c.jsonl").read_bytes()).hexdigest()
    assert result == {"file": "c.jsonl", "problems": 30, "sha256": sha256}
    assert Path("a.jsonl").read_bytes() == Path("b.jsonl").read_bytes() != Path("c.jsonl").read_bytes()
    for words, message in (
        (["--count", "0"], "--count must be at least 1"),
        (["--families", "hard/powerr"], "did you mean hard/power"),
        (["--out", "e.jsonl"], "pocket-problems writes one file, got both FILE and --out"),
    ):
        assert message in train("pocket-problems", "d.jsonl", *words).refusal
        assert not Path("d.jsonl").exists()
