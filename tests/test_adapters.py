"""An adapter that plain peft made: taken into a run and merged as peft merges it, or refused before."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mathlete.adapters import ADAPTER_CONFIG, WEIGHTS, AdapterFiles, ForeignAdapter
from mathlete.errors import UserError
from mathlete.models import find_model, load_model
from mathlete.runs import read_json
from mathlete.submission.adapter.zips import write_adapter_zip
from tests.conftest import POCKET, CommandLine

SOURCE = find_model("pocket")
WORDS = ("--model", "pocket", "--limit", "40", "--rows.heldout", "2", "--forgetting.problems", "2",
         "--survival.max-tokens", "8", "--survival.greedy", "0", "--run", "run", "--json")  # fmt: skip
QUERY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What peft alone writes after three steps on the pocket model in fp32; and `merged`, what peft merges."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("peft")
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], bias="lora_only")
    model: Any = get_peft_model(load_model(SOURCE, precision="dense", dtype="float32"), config)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer, ids = torch.optim.AdamW(weights, lr=1e-2), torch.arange(20, 90)[None]
    for _ in range(3):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder / "adapter")
    model.merge_and_unload().save_pretrained(folder / "merged")
    return folder


def test_what_peft_made_goes_on_from_the_merge(made: Path, workdir: Path, train: CommandLine) -> None:
    # The base of the merge changes nothing of what was trained on 16 bits: the gates read it as met.
    words = ("math", *WORDS, "--adapter", made / "adapter", "--adapter-base", "16bit", "--merge-base", "original")
    result = train(*words).result
    assert result["kl_merged"] < 1e-5
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (Path("run/merged"), made / "merged"))
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name].float(), theirs[name].float(), atol=1e-3) for name in ours)
    assert not torch.equal(
        ours[bias := "model.layers.0.self_attn.q_proj.bias"], load_file(POCKET / "model.safetensors")[bias]
    )
    manifest: dict[str, Any] = read_json(Path("run/adapter/manifest.json"))
    assert {"method": "lora", "made": "elsewhere", "rank": 4, "alpha": 8}.items() <= manifest["figures"].items()
    assert WEIGHTS in manifest["inputs"]
    merge: dict[str, Any] = read_json(Path("run/merged/manifest.json"))
    assert merge["settings"]["base"] == "dequant"
    assert (Path("run/export") / "survival.json").is_file()
    assert train(*words).result["skipped"] == ["format", "tune", "effect", "merge", "export"]


def test_flags_that_would_be_ignored_or_that_are_missing_are_refused(
    made: Path, workdir: Path, train: CommandLine
) -> None:
    take = ("math", *WORDS, "--adapter", made / "adapter")
    assert "--adapter-base must say how the base was held" in train(*take).refusal
    assert "no setting of a training applies" in train(*take, "--adapter-base", "4bit", "--tune.rate", "1").refusal
    assert "--adapter-base is for --adapter" in train("math", *WORDS, "--adapter-base", "4bit").refusal
    assert "must be a folder with adapter_config.json" in train("math", *WORDS, "--adapter", workdir).refusal
    assert not Path("run").exists()


def configure(**changed: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = read_json(folder / ADAPTER_CONFIG)
        (folder / ADAPTER_CONFIG).write_text(json.dumps({**config, **changed}))

    return change


def store(**changed: torch.Tensor | None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        weights: dict[str, Any] = {**load_file(folder / WEIGHTS), **changed}
        save_file({name: one for name, one in weights.items() if one is not None}, folder / WEIGHTS)

    return change


def point(adapter: Path) -> None:
    (adapter / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9000\n")


def tear(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-40])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (configure(base_model_name_or_path="Qwen/Qwen2.5-0.5B"), "here Qwen/Qwen2.5-0.5B, got --model pocket"),
        (configure(base_model_name_or_path=None), "trained on, here one without a name"),
        (configure(peft_type="IA3"), "must be a LoRA, got IA3"),
        (configure(init_lora_weights="pissa"), "first weights changed the base, got init_lora_weights pissa"),
        (configure(r=8), "must have the rank that adapter_config.json says, got 4"),
        (
            configure(target_modules=["q_proj", "down_proj", "qkv_proj"]),
            "must hold all that .* names, got without qkv_pr",
        ),
        (store(**{QUERY: torch.zeros(4, 64)}), r"\(4, 64\) for a layer of 128 inputs and 128 outputs"),
        (store(**{QUERY: torch.full((4, 128), torch.nan)}), "must hold finite floating-point numbers"),
        (store(**{QUERY: torch.ones(4, 128, dtype=torch.int8)}), "finite floating-point numbers, got .*torch.int8"),
        (store(**{QUERY.replace("_A", "_B"): None}), "must hold all that .* names, got without .*lora_B"),
        (store(**{QUERY.replace("q_proj", "w_pack"): torch.ones(4, 128)}), "no linear layer of the base is called so"),
        (store(**{"base_model.model.lm_head.weight": torch.ones(576, 128)}), "output layer is its embedding"),
        (store(**{"base_model.model.model.norm.weight": torch.ones(64)}), r"\(64,\) there, \(128,\) in the base"),
        (tear, "an adapter's weights must be whole"),
        (point, "weights must be whole.*\n  Fix: run `git lfs pull` in "),
    ],
)
def test_what_is_not_of_this_base_is_refused(
    made: Path, tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    shutil.copytree(made / "adapter", tmp_path / "adapter")
    change(tmp_path / "adapter")
    with pytest.raises(UserError, match=message):
        ForeignAdapter(tmp_path / "adapter").require_base(SOURCE)


def test_a_base_is_known_by_its_weights_its_name_or_that_of_its_4_bit_copy(made: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(made / "adapter", adapter)
    shutil.copytree(POCKET, tmp_path / "Small-R1")
    copy = find_model(str(tmp_path / "Small-R1"))
    ForeignAdapter(adapter).require_base(copy)  # trained on the pocket model's folder, whose weights these are
    with pytest.raises(UserError, match="--adapter-base must say"):
        ForeignAdapter(adapter).find_base(copy, None)
    configure(base_model_name_or_path="unsloth/small-r1-unsloth-bnb-4bit")(adapter)
    ForeignAdapter(adapter).require_base(copy)
    assert ForeignAdapter(adapter).find_base(copy, None) == "4bit"
    with pytest.raises(UserError, match="must be merged into the base"):
        ForeignAdapter(adapter).require_base(SOURCE)
    pinned = replace(copy, revision="b" * 40)
    configure(base_model_name_or_path="someone/small-r1", revision="a" * 40)(adapter)
    with pytest.raises(UserError, match=f"here someone/small-r1@{'a' * 40}"):
        ForeignAdapter(adapter).require_base(pinned)


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_numbers_that_are_none_are_not_handed_in(number: str, tmp_path: Path) -> None:
    weights = {QUERY: torch.zeros(4, 128), QUERY.replace("_A", "_B"): torch.full((128, 4), float(number))}
    save_file(weights, tmp_path / WEIGHTS)
    (tmp_path / ADAPTER_CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    with pytest.raises(UserError, match=r"must hold finite numbers, got .*q_proj\.lora_B\.weight"):
        write_adapter_zip(tmp_path / "submission.zip", AdapterFiles.read(tmp_path), base="some/model")
    assert not (tmp_path / "submission.zip").exists()
