import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from huggingface_hub import constants
from transformers import AutoTokenizer

from mathlete.competitions import competition, competition_names
from mathlete.errors import UserError
from mathlete.models import GPUS, Device, GpuName, Shape, find_model, load_model, pick_default_model
from mathlete.models.hardware import has_bf16_instructions
from mathlete.models.names import HUB_MODELS, ModelSource
from mathlete.models.tokenizers import load_tokenizer
from mathlete.sampling.served.vllm_shape import VllmShape
from submit.building import find_cap
from tests.conftest import CommandLine


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the pocket model's folder, to be damaged."""
    return Path(shutil.copytree(find_model("pocket").location, tmp_path / "model"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pockett", r"'pockett'.*\n.*did you mean pocket\?"),
        ("r1-qwen-7", r"'r1-qwen-7'.*\n.*did you mean r1-qwen-7b"),
        ("./no/such/folder", "an existing folder or a hub id"),
        ("./some/MODEL.gguf", r"name the model that the GGUF was made of: its folder of config\.json"),
        ("some/model-q8_0.gguf", "the model that the GGUF was made of"),
    ],
)
def test_unknown_model_names_the_nearest(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_model(name)


def test_folder_without_config_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a model folder needs config\.json"):
        find_model(str(tmp_path))
    (tmp_path / "model.gguf").touch()
    with pytest.raises(UserError, match="the model that the GGUF was made of"):
        find_model(str(tmp_path))


@pytest.mark.parametrize("name", [name for name in HUB_MODELS if not name.endswith("-4bit")])
def test_hub_models_are_pinned_to_a_commit(name: str) -> None:
    source = find_model(name)
    assert source.revision is not None
    assert len(source.revision) == 40
    assert source.folder is None
    assert source.pin() == (source, f"commit {source.revision}")
    # Each has a 4-bit copy, of which no commit is known beforehand.
    copy = find_model(f"{name}-4bit")
    assert copy.location == f"unsloth/{source.location.partition('/')[2]}-bnb-4bit"
    assert copy.revision is None


def test_a_hub_model_without_a_commit_is_pinned_to_the_one_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    source = find_model("r1-llama-8b-4bit")
    assert source.pin() == (source, "commit unknown: the hub can't be asked")
    snapshots = tmp_path / "models--unsloth--DeepSeek-R1-Distill-Llama-8B-bnb-4bit" / "snapshots"
    for commit in ("a" * 40, "b" * 40):
        (snapshots / commit).mkdir(parents=True)
        (snapshots / commit / "config.json").write_text("{}")
        if commit.startswith("a"):
            at_commit, reason = source.pin()
            assert (at_commit.revision, reason) == (commit, f"commit {commit}, the one on this machine")
    assert source.pin()[0].revision is None  # which of the two would be a guess
    named = find_model(f"unsloth/some@{'c' * 40}")
    assert (named.name, named.revision) == ("unsloth/some", "c" * 40)
    folder = find_model("pocket")
    assert folder.pin()[0] == folder


@pytest.mark.parametrize(
    ("capability", "dtype", "why"),
    [
        (None, "float32", "CPU"),
        (6.0, "float16", "capability 6.0 is below 8.0"),  # P100
        (7.0, "float16", "capability 7.0 is below 8.0"),  # V100
        (7.5, "float16", "capability 7.5 is below 8.0"),  # T4
        (8.0, "bfloat16", "capability 8.0 is 8.0 or later"),  # A100
        (8.9, "bfloat16", "capability 8.9 is 8.0 or later"),  # L4
        (12.0, "bfloat16", "capability 12.0 is 8.0 or later"),  # RTX 5090
    ],
)
def test_the_precision_follows_the_hardware_and_says_why(capability: float | None, dtype: str, why: str) -> None:
    device = Device(name="some", memory=2**30, capability=capability)
    assert device.dtype == dtype
    assert why in device.dtype_reason


@pytest.mark.parametrize(
    ("parameters", "instructions", "dtype"),
    [
        (494_000_000, True, "bfloat16"),
        (494_000_000, False, "float32"),
        (850_000, True, "float32"),
        (None, True, "float32"),
    ],
)
def test_a_cpu_with_bf16_instructions_serves_large_models_in_bf16_and_measures_in_fp32(
    parameters: int | None, instructions: bool, dtype: str
) -> None:
    cpu = Device(name="cpu", memory=2**30, capability=None, bf16_instructions=instructions)
    assert cpu.choose_serving_dtype(parameters)[0] == dtype
    assert cpu.dtype == "float32"


@pytest.mark.parametrize(("flags", "has"), [("sse2 avx512f avx512_bf16", True), ("avx2", False), ("amx_bf16", True)])
def test_bf16_instructions_are_read_from_the_processors_flags(flags: str, has: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: bf16 amx_bf16\nflags\t\t: fpu {flags}\n\n")
    assert has_bf16_instructions(tmp_path / "cpuinfo") is has
    assert not has_bf16_instructions(tmp_path / "none")


def test_the_table_of_gpus_has_every_name_of_the_command_line_and_every_machine_once() -> None:
    assert get_args(GpuName) == tuple(GPUS)
    assert all(name == gpu.name and gpu.capability for name, gpu in GPUS.items())
    shapes = [shape for gpu in GPUS.values() for shape in gpu.machines]
    assert len({*shapes}) == len(shapes)
    assert {competition(name).machine for name in competition_names()} <= {*shapes}
    retired = Device.retired_machines
    assert not {*retired} & {*shapes}
    assert {*retired.values()} <= {*shapes}
    assert [GPUS[name].machines.get(shape) for name, shape in (("t4", "NvidiaTeslaT4"), ("l4", "NvidiaL4"))] == [2, 4]


def test_a_model_that_is_quantised_already_stays_as_it_is_but_computes_as_this_machine_does(tmp_path: Path) -> None:
    pocket = find_model("pocket")
    fresh: Any = load_model(pocket, precision="nf4")
    fresh.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["bnb_4bit_compute_dtype"] = "bfloat16"
    (tmp_path / "config.json").write_text(json.dumps(config))
    copy = find_model(str(tmp_path))
    assert copy.is_quantized()
    assert not pocket.is_quantized()
    ids = torch.arange(40)[None]
    for precision in ("auto", "nf4"):
        again: Any = load_model(copy, precision=precision)
        kinds = {module.compute_dtype for module in again.modules() if type(module).__name__ == "Linear4bit"}
        assert kinds == {torch.float32}
        with torch.inference_mode():
            assert torch.equal(again(ids).logits, fresh(ids).logits)
    with pytest.raises(UserError, match="dense weights need a model that is not quantised"):
        load_model(copy, precision="dense")


def test_offline_hub_model_names_the_download() -> None:
    with pytest.raises(UserError, match=r"hf download deepseek-ai/DeepSeek-R1-Distill-Qwen-1\.5B --revision ad9f0ae"):
        load_tokenizer(find_model("r1-qwen-1.5b"))


def test_default_says_why() -> None:
    name, why = pick_default_model()
    assert (name == "pocket") == (not torch.cuda.is_available())
    assert "CUDA device" in why


def test_folder_without_tokenizer_is_an_error(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"needs its tokenizer, got no tokenizer\.json"):
        load_tokenizer(find_model(str(copy)))


def test_what_one_caller_sets_on_a_tokenizer_is_not_anothers() -> None:
    first, second = load_tokenizer(find_model("pocket")), load_tokenizer(find_model("pocket"))
    template, padding = second.chat_template, second.pad_token
    first.chat_template, first.pad_token, first.padding_side = "", first.eos_token, "right"
    for tokenizer in (second, load_tokenizer(find_model("pocket"))):
        assert (tokenizer.chat_template, tokenizer.pad_token, tokenizer.padding_side) == (template, padding, "left")


def test_tokenizer_that_drops_spaces_is_an_error(copy: Path) -> None:
    # What transformers 5.9 and 5.13 made of some R1 repositories: spaces vanish, nothing else is said.
    # A normalizer in the file would do it too, but transformers puts the Qwen2 class's own in its place.
    content = json.loads((copy / "tokenizer.json").read_text())
    content["model"]["vocab"] = {piece: i for piece, i in content["model"]["vocab"].items() if "Ġ" not in piece}
    content["model"]["merges"] = [pair for pair in content["model"]["merges"] if "Ġ" not in "".join(pair)]
    (copy / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="must give back the text it is given, got 'Findtheremainder"):
        load_tokenizer(find_model(str(copy)))


def test_tokenizer_without_template_is_an_error(copy: Path) -> None:
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((copy / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (copy / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="must have its chat template"):
        load_tokenizer(find_model(str(copy)))


def test_tokenizer_that_pads_with_eos_gets_another_token_or_is_an_error(copy: Path) -> None:
    config = json.loads((copy / "tokenizer_config.json").read_text())
    spare, eos = config["pad_token"], config["eos_token"]
    (copy / "tokenizer_config.json").write_text(json.dumps({**config, "pad_token": eos}))
    assert load_tokenizer(find_model(str(copy))).pad_token == spare
    for file in (copy / "tokenizer.json", copy / "tokenizer_config.json"):
        file.write_text(file.read_text().replace(spare, "<|another|>"))
    assert load_tokenizer(find_model(str(copy))).pad_token == "<|another|>"
    content = json.loads((copy / "tokenizer.json").read_text())
    (one,) = (token for token in content["added_tokens"] if token["content"] == "<|another|>")
    one["special"] = False
    (copy / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"a padding token that is not its eos token, got '{eos}'"):
        load_tokenizer(find_model(str(copy)))


def test_an_evaluation_reads_the_tokenizer_once(
    copy: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch, evaluate: CommandLine
) -> None:
    read: list[str] = []
    original = AutoTokenizer.from_pretrained

    def from_pretrained(location: str, **options: Any) -> Any:
        read.append(location)
        return original(location, **options)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", from_pretrained)
    words = ("pocket_val", "--model", copy, "--limit", 2, "--n", 2, "--json")
    assert evaluate(*words).result["n"] == 2
    assert read == [str(copy)]
    load_tokenizer(find_model(str(copy)))
    assert read == [str(copy)]


def test_truncated_weights_are_a_clear_error(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="must be a model folder transformers can load"):
        load_model(find_model(str(copy)))


def test_weights_have_their_size_in_whatever_files_they_are(tmp_path: Path) -> None:
    source = ModelSource(name="x", location=str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_bytes(b"x" * 70)
    (tmp_path / "training_args.bin").write_bytes(b"x" * 9)
    assert source.weight_bytes == 70
    (tmp_path / "model.safetensors").write_bytes(b"x" * 50)
    assert source.weight_bytes == 50


def test_a_row_that_is_too_long_and_will_be_dropped_is_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    logger = logging.getLogger("transformers.tokenization_utils_base")
    monkeypatch.setattr(logger, "warning", told.append)
    tokenizer = load_tokenizer(find_model("pocket"))
    assert len(tokenizer("7 " * 3000)["input_ids"]) > tokenizer.model_max_length
    assert told == []


@pytest.mark.parametrize(
    ("files", "named", "cure"),
    [
        (["export/config.json", "merged/config.json"], "", "use run/export, the model that this run made"),
        (
            ["merged/config.json", "adapter/adapter_config.json"],
            "/adapter",
            "use run/merged, the model that this run made",
        ),
        (["adapter_config.json"], "", "merge the adapter into its base first: `python -m train math --adapter run`"),
        (["samples.jsonl"], "", "this is an evaluation's run: name the model that it evaluated"),
        (["snapshot/config.json"], "", "use run/snapshot"),
        (["a/config.json", "b/config.json"], "", "name the folder the model is in"),
    ],
)
def test_a_folder_that_holds_no_model_is_told_by_what_it_holds(
    workdir: Path, files: list[str], named: str, cure: str
) -> None:
    for file in files:
        (Path("run") / file).parent.mkdir(parents=True, exist_ok=True)
        (Path("run") / file).write_text("{}")
    with pytest.raises(UserError, match=re.escape(f"Fix: {cure}") + "$"):
        find_model(f"run{named}")


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024, "rope_theta": 1e4}


@pytest.mark.parametrize(
    ("rope", "context"),
    [
        ({}, 1024),
        ({"rope_parameters": YARN}, 4096),
        ({"rope_scaling": YARN}, 4096),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, 2048),
        ({"rope_parameters": {**YARN, "rope_type": "llama3", "low_freq_factor": 1, "high_freq_factor": 4}}, 1024),
    ],
)
def test_every_engine_attends_to_the_positions_that_a_configuration_stretches(
    rope: dict[str, object], context: int, copy: Path
) -> None:
    file = copy / "config.json"
    old = {name: value for name, value in json.loads(file.read_text()).items() if name != "rope_parameters"}
    file.write_text(json.dumps({**old, "max_position_embeddings": 1024, **rope}))
    source = find_model(str(copy))
    assert source.context_tokens() == context
    assert VllmShape.of(json.loads(file.read_text())).longest == context
    assert find_cap(str(copy), asks_hub=False) == context // 4
    assert Shape.read_context(load_model(source).config.to_dict()) == context  # what the embedded engine reads
