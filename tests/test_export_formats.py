"""Formats of the merged model: each written, read again in a process of its own, served by its own engine."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import datasets
import pytest
import torch
from safetensors.torch import load_file, save_file

from mathlete.errors import UserError
from mathlete.export import EXPORT_FORMATS, Export
from mathlete.export.effect import rows_of_traces
from mathlete.export.formats.compressed import choose_group
from mathlete.export.formats.gguf_files import F16, Q4_0, Q8_0, Gguf
from mathlete.export.formats.table import ExportFormat
from mathlete.export.formats.weights import WriteOptions
from mathlete.export.formats.writing import choose_dtype, write_format
from mathlete.models import find_model, load_model, load_prompt_format
from mathlete.pocket import generate_items
from mathlete.runs import read_json, write_json
from mathlete.sampling.embedded.packing import pack_linears
from tests.conftest import POCKET, sample

PROMPTS = load_prompt_format(find_model("pocket"))
IDS = [
    PROMPTS.prompt_ids(item.problem.statement)
    + PROMPTS.completion_ids(trace=str(item.trace), answer=item.problem.gold)[:60]
    for item in generate_items(families=("hard", "easy"), count=4, seed=5, split="test")
]
NAMES = [
    pytest.param(name, marks=[pytest.mark.skip(reason=f"needs the package {one.package}")] if missing else [])
    for name, one in EXPORT_FORMATS.items()
    for missing in [one.package is not None and not __import__("importlib.util").util.find_spec(one.package)]
]

FOLDERS = [one for one in NAMES if EXPORT_FORMATS[str(one.values[0])].suffix == ".safetensors"]
"""Those that transformers reads by their config.json."""
LARGE = [
    pytest.param(*one.values, marks=[*one.marks, *([pytest.mark.slow] if one.values[0] in ("w8a16", "fp8") else [])])
    for one in FOLDERS
]


def distributions(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        logits = [model(input_ids=torch.tensor([ids])).logits[0].float() for ids in IDS]
    return torch.log_softmax(torch.cat(logits), dim=-1)


@pytest.fixture(scope="module")
def dense() -> torch.Tensor:
    return distributions(load_model(find_model("pocket")))


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the formats, each written when it is first needed."""
    return tmp_path_factory.mktemp("formats")


def write_export(exports: Path, name: Any) -> Path:
    folder: Path = exports / name
    if not folder.is_dir():
        calibration = Export(calibration_rows=16).calibrate(save_rows(exports / "rows"), seed=0)
        write_format(folder, merged=POCKET, name=name, settings=Export(), calibration=calibration)
    return folder


def save_rows(folder: Path) -> Path:
    """Save rows of the pocket generator's training split, as a run trains on them."""
    if not folder.is_dir():
        items = generate_items(families=("hard", "easy"), count=24, seed=1, split="train")
        rows_of_traces([item.traced for item in items], PROMPTS).save_to_disk(folder)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_an_export_is_as_small_as_its_bits_and_hardly_another_model(
    exports: Path, dense: torch.Tensor, name: Any
) -> None:
    folder = write_export(exports, name)
    assert {"tokenizer.json", "chat_template.jinja", "generation_config.json", "mathlete_prompt.json"} <= {
        file.name for file in folder.iterdir()
    }
    bits = EXPORT_FORMATS[name].bits
    # Beside the weights: scales of blocks, and tables in 8 or 16 bits.
    most = {4: 0.4, 8: 0.6, 16: 1.05}[bits]
    assert EXPORT_FORMATS[name].size(folder) < most * (POCKET / "model.safetensors").stat().st_size
    exported = distributions(EXPORT_FORMATS[name].load(folder))
    loss = float((dense.exp() * (dense - exported)).sum(-1).mean())
    least, beyond, same = {4: (1e-3, 1e-1, 0.95), 8: (1e-7, 1e-3, 0.99), 16: (-1e-9, 1e-7, 0.999)}[bits]
    # Three bits of a mantissa are coarser than seven of an integer.
    beyond = 2e-3 if name == "fp8" else beyond
    assert least < loss < beyond  # not the 16-bit model by mistake
    assert (dense.argmax(-1) == exported.argmax(-1)).float().mean() > same


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", FOLDERS)
def test_an_export_computes_in_the_type_that_is_asked_for(exports: Path, name: Any, dtype: torch.dtype) -> None:
    folder, types = write_export(exports, name), set()
    model = load_model(find_model(str(folder)), dtype=str(dtype).removeprefix("torch."))
    for module in model.modules():
        module.register_forward_hook(lambda one, given, made: types.add(getattr(made, "dtype", None)))
    with torch.inference_mode():
        model(input_ids=torch.tensor([IDS[0]]))
    # Whole layers and the model return tuples and records.
    assert types - {None} == {dtype}


@pytest.mark.parametrize("name", LARGE)
def test_an_export_of_a_large_model_is_packed_where_it_is_dense_and_computes_the_same(exports: Path, name: Any) -> None:
    source = find_model(str(write_export(exports, name)))
    plain, packed = (load_model(source, dtype="float32") for _ in range(2))
    if pack_linears(torch.nn.Sequential(torch.nn.Linear(2, 2))) == 0:
        pytest.skip("no oneDNN on x86 here")
    # As the engine does it: before anything was computed, when compressed layers have no weights yet.
    pack_linears(packed)
    assert (distributions(plain) - distributions(packed)).abs().max() < 1e-3


FRESH = """
import json, sys, torch
from pathlib import Path
from mathlete.export import EXPORT_FORMATS
torch.set_num_threads(1)
model = EXPORT_FORMATS[sys.argv[3]].load(Path(sys.argv[1]))
with torch.inference_mode():
    print(json.dumps(model(input_ids=torch.tensor([json.loads(sys.argv[2])])).logits[0, -1].tolist()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_process_reads_the_same_model(exports: Path, name: Any) -> None:
    folder = write_export(exports, name)
    words = [sys.executable, "-c", FRESH, str(folder), json.dumps(IDS[0]), name]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    with torch.inference_mode():
        here = EXPORT_FORMATS[name].load(folder)(input_ids=torch.tensor([IDS[0]])).logits[0, -1]
    assert torch.allclose(torch.tensor(json.loads(done.stdout.splitlines()[-1])), here.float(), atol=1e-5)


def serve(folder: Path, file: str = Q8_0.file) -> Any:
    """Serve the folder's GGUF by llama.cpp."""
    llama = pytest.importorskip("xllamacpp", reason="needs the package xllamacpp, llama.cpp's server")
    params = llama.CommonParams()
    params.model.path = str(folder / file)
    params.n_ctx, params.n_parallel, params.cpuparams.n_threads, params.verbosity = 512, 1, 1, -1
    return llama.Server(params)


def greedy(server: Any, ids: list[int], tokens: int) -> list[dict[str, Any]]:
    """Return the tokens llama.cpp chooses, each with its logarithmic probability."""
    request = {"prompt": ids, "max_tokens": tokens, "temperature": 0, "logprobs": 1}
    chosen: list[dict[str, Any]] = server.handle_completions(request)["choices"][0]["logprobs"]["content"]
    return chosen


@pytest.mark.parametrize(("kind", "problems"), sample((Q8_0, 1), (Q4_0, 1), slow=[(Q8_0, 4), (F16, 1)]), ids=str)
def test_llama_cpp_generates_what_transformers_reads_in_the_file(exports: Path, kind: Gguf, problems: int) -> None:
    pytest.importorskip("gguf", reason="needs the package gguf")
    folder = write_export(exports, kind.name)
    server, model = serve(folder, kind.file), EXPORT_FORMATS[kind.name].load(folder)
    for item in generate_items(families=("hard",), count=problems, seed=9, split="test"):
        ids = PROMPTS.prompt_ids(item.problem.statement)
        for token in greedy(server, ids, 40):
            with torch.inference_mode():
                expected = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0, -1].float(), dim=-1)
            # Its 8-bit activations may turn a tie.
            assert expected.max() - expected[token["id"]] < 0.1
            assert token["logprob"] == pytest.approx(float(expected[token["id"]]), abs=0.1)
            ids = [*ids, token["id"]]


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def llama(folder: Path, positions: dict[str, Any]) -> Any:
    """Return a random Llama of the pocket model's vocabulary, with weights large enough to care for positions."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=576,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.15,
        rope_parameters=positions,
        bos_token_id=569,
        eos_token_id=570,
    )
    model: Any = LlamaForCausalLM(config)
    model.half()
    model.save_pretrained(folder)
    PROMPTS.tokenizer.save_pretrained(folder)
    return model.float().eval()


@pytest.mark.parametrize("positions", sample(LLAMA3, slow=[{"rope_type": "default", "rope_theta": 10000.0}]))
def test_a_llama_keeps_its_rotary_halves_and_frequencies(tmp_path: Path, positions: dict[str, Any]) -> None:
    pytest.importorskip("gguf", reason="needs the package gguf")
    model = llama(tmp_path / "merged", positions)
    write_format(tmp_path / "q8_0", merged=tmp_path / "merged", name="q8_0", settings=Export())
    server, ids = serve(tmp_path / "q8_0"), [569, *range(20, 220)]
    (token,) = greedy(server, ids, 1)
    with torch.inference_mode():
        expected = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0, -1].float(), dim=-1)
    assert token["logprob"] == pytest.approx(float(expected[token["id"]]), abs=0.25)
    assert expected.max() - expected[token["id"]] < 0.25


def test_the_file_holds_r1s_tokens_its_template_and_its_split(exports: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="needs the package gguf")
    fields = gguf.GGUFReader(write_export(exports, "q8_0") / Q8_0.file).fields
    tokens, types = fields["tokenizer.ggml.tokens"].contents(), fields["tokenizer.ggml.token_type"].contents()
    special = {text: types[tokens.index(text)] for text in ("<｜begin▁of▁sentence｜>", "<｜User｜>", "<think>")}
    assert special == {"<｜begin▁of▁sentence｜>": 3, "<｜User｜>": 4, "<think>": 4}  # control · user-defined
    assert fields["tokenizer.ggml.pre"].contents() == "qwen2"
    assert fields["tokenizer.chat_template"].contents() == PROMPTS.tokenizer.chat_template
    assert fields["qwen2.attention.head_count_kv"].contents() == 2
    assert fields["tokenizer.ggml.add_bos_token"].contents() is True


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
EACH_DIGIT = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTES]}


@pytest.mark.parametrize(("before", "name"), sample((EACH_DIGIT, "smollm"), slow=[(BYTES, "gpt-2")]))
def test_llama_cpp_splits_text_as_smollms_and_gpt_2s_tokenizers_do(
    tmp_path: Path, before: Any, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gguf = pytest.importorskip("gguf", reason="needs the package gguf")
    merged = shutil.copytree(POCKET, tmp_path / "merged")
    write_json(merged / "tokenizer.json", {**read_json(merged / "tokenizer.json"), "pre_tokenizer": before})
    write_format(tmp_path / "q8_0", merged=merged, name="q8_0", settings=Export())
    assert "TemplateProcessing" not in capsys.readouterr().err
    fields = gguf.GGUFReader(tmp_path / "q8_0" / Q8_0.file).fields
    assert fields["tokenizer.ggml.pre"].contents() == name
    server, tokenizer = serve(tmp_path / "q8_0"), load_prompt_format(find_model(str(merged))).tokenizer
    for text in ("Find 2025 mod 97.", "it's  x+1,\n\n  and 3.14 is\tπ²", "a1b22c333 \u00a07"):
        body = json.dumps({"content": text}).encode()
        with urlopen(Request(f"{server.listening_address}/tokenize", body)) as told:
            assert json.load(told)["tokens"] == tokenizer.encode(text, add_special_tokens=False)


@pytest.mark.parametrize(
    ("name", "gpu", "words"),
    [
        ("int8", "t4", "int8: t4 takes it, in float16 because compute capability 7.5"),
        ("int8", "p100", None),
        ("w8a8", "h100", "w8a8: h100 takes it, in bfloat16"),
        ("w8a8", "b200", None),
        ("w8a8", "rtx5090", None),
        ("w8a16", "b200", "w8a16: b200 takes it"),
        ("w4a16-gptq", "t4", "w4a16-gptq: t4 takes it, in float16"),
        ("fp8", "t4", None),
        ("fp8", "l4", "fp8: l4 takes it, in bfloat16"),
        ("fp8", "b200", "fp8: b200 takes it"),
        ("q8_0", "p100", "q8_0: p100 takes it, in float16"),
        ("f16", "p100", "f16: p100 takes it, in float16"),
    ],
)
def test_which_gpu_takes_which_format(name: str, gpu: str, words: str | None) -> None:
    format_: ExportFormat = replace(EXPORT_FORMATS[name], package=None)
    if words:
        assert format_.require(gpu).startswith(words)
    else:
        with pytest.raises(UserError, match=f"{name} runs on compute capability .*--export.gpu {gpu}, which has"):
            format_.require(gpu)


def test_groups_have_scales_of_their_own_and_divide_every_row(
    tmp_path: Path, exports: Path, dense: torch.Tensor
) -> None:
    pytest.importorskip("compressed_tensors", reason="needs the package compressed_tensors")
    write_format(tmp_path / "out", merged=POCKET, name="w8a16", settings=Export(group=32))
    finer, plain = (
        float((dense.exp() * (dense - distributions(EXPORT_FORMATS["w8a16"].load(folder)))).sum(-1).mean())
        for folder in (tmp_path / "out", write_export(exports, "w8a16"))
    )
    assert 0 < finer < plain
    layer = "model.layers.0.mlp.down_proj"
    weights = EXPORT_FORMATS["w8a16"].weights
    assert weights is not None
    merged = load_file(POCKET / "model.safetensors")[f"{layer}.weight"].float()
    assert (weights(tmp_path / "out")(layer) - merged).norm() < 0.01 * merged.norm()
    model = torch.nn.Sequential(torch.nn.Linear(96, 3), torch.nn.Linear(32, 3))
    assert [choose_group(model, bits=bits, asked=None) for bits in (8, 4)] == [None, 32]
    with pytest.raises(UserError, match=r"(?s)every layer, got 64 in rows of 32, 96.*group 32"):
        choose_group(model, bits=8, asked=64)


def test_a_calibrated_format_asks_for_its_package_and_for_rows(tmp_path: Path) -> None:
    entry = EXPORT_FORMATS["w4a16-gptq"]
    with pytest.raises(UserError, match=r'(?s)needs no_such_module, got not installed.*pip install "mathlete\[gptq\]"'):
        replace(entry, package="no_such_module").require(None)
    with pytest.raises(UserError, match="w4a16-gptq is calibrated on training rows, got none were given"):
        entry.write(tmp_path, POCKET, WriteOptions(dtype="float16", threshold=6.0))
    with pytest.raises(UserError, match="needs the run's training rows, got no "):
        Export().calibrate(tmp_path / "train", seed=0).draw()
    rows = save_rows(tmp_path / "rows")
    drawn = [Export(calibration_rows=5, calibration_tokens=9).calibrate(rows, seed=seed).draw() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert [len(ids) for ids in drawn[0]] == [9] * 5
    assert {tuple(ids) for ids in drawn[0]} <= {tuple(ids[:9]) for ids in datasets.load_from_disk(rows)["input_ids"]}
    assert len(Export().calibrate(rows, seed=0).draw()) == 24
    # A run refuses to go on with files in its folders that it did not write.
    assert not [*rows.glob("cache-*")]


@pytest.mark.slow
def test_calibrated_weights_are_nearer_to_the_model_than_plain_rounding(exports: Path, dense: torch.Tensor) -> None:
    pytest.importorskip("llmcompressor", reason="needs the package llmcompressor")
    kl = {
        name: float((dense.exp() * (dense - distributions(EXPORT_FORMATS[name].load(folder)))).sum(-1).mean())
        for name in ("w8a16", "w8a16-gptq", "w4a16", "w4a16-gptq", "w4a16-awq")
        for folder in [write_export(exports, name)]
    }
    assert kl["w4a16-gptq"] < kl["w4a16"] / 2
    assert kl["w4a16-awq"] < kl["w4a16"]
    assert kl["w8a16-gptq"] < 2 * kl["w8a16"] < 1e-3
    for name in ("w8a16-gptq", "w4a16-gptq", "w4a16-awq"):
        # compressed-tensors 0.15, of the vLLM that Kaggle's image takes, refuses "static" beside a scale for each row.
        assert "actorder" not in (exports / name / "config.json").read_text(encoding="utf-8")
    layer = "model.layers.1.self_attn.o_proj"
    merged = load_file(POCKET / "model.safetensors")[f"{layer}.weight"].float()
    weights = EXPORT_FORMATS["w4a16-gptq"].weights
    assert weights is not None
    assert (weights(exports / "w4a16-gptq")(layer) - merged).norm() < 0.3 * merged.norm()


def test_a_t4_gets_fp16_and_what_is_missing_or_cannot_be_said_is_refused(tmp_path: Path) -> None:
    assert choose_dtype(POCKET, Export(gpu="h100")) == "bfloat16"
    assert choose_dtype(POCKET, Export(gpu="t4")) == choose_dtype(POCKET, Export()) == "float16"
    with pytest.raises(UserError, match="w8a16 needs no_such_module, got not installed"):
        replace(EXPORT_FORMATS["w8a16"], package="no_such_module").require(None)
    pytest.importorskip("gguf", reason="needs the package gguf")
    config = read_json(POCKET / "config.json")
    write_json(tmp_path / "config.json", {**config, "model_type": "gemma"})
    with pytest.raises(UserError, match="Qwen2 and Llama shapes, got gemma"):
        write_format(tmp_path / "out", merged=tmp_path, name="q8_0", settings=Export())
    write_json(tmp_path / "config.json", config)
    tokenizer = json.loads((POCKET / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "x+"
    write_json(tmp_path / "tokenizer.json", tokenizer)
    with pytest.raises(UserError, match="splits text as Qwen2's, Llama 3's"):
        write_format(tmp_path / "out", merged=tmp_path, name="q8_0", settings=Export())


def test_a_number_beyond_16_bits_is_no_infinity_in_a_gguf(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="needs the package gguf")
    shutil.copytree(POCKET, tmp_path / "merged")
    weights = {key: one.float() for key, one in load_file(POCKET / "model.safetensors").items()}
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e5
    save_file(weights, tmp_path / "merged/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"blk\.0\.ffn_up\.weight must fit 16 bits, got 100000"):
        F16.write(tmp_path / "out", tmp_path / "merged", WriteOptions(dtype="float16", threshold=6.0))
    assert not (tmp_path / "out" / F16.file).exists()


@pytest.mark.parametrize("bad", [Export(formats=()), Export(threshold=-1.0), Export(threshold=float("inf")),
                                 Export(calibration_rows=0), Export(calibration_tokens=0)])  # fmt: skip
def test_bad_export_settings_are_refused(bad: Export) -> None:
    with pytest.raises(UserError, match=r"--export\.(formats|threshold|calibration-(rows|tokens)) must be"):
        bad.check()


@pytest.mark.parametrize(
    ("export", "named", "written"),
    [
        (Export(), ["int8"], ["int8"]),
        (Export(formats=("q8_0", "int8", "q8_0")), ["int8", "q8_0"], ["int8", "q8_0"]),
        (Export(formats=("w8a16",)), ["w8a16"], ["int8", "w8a16"]),
        (Export(formats=("f16",), gpu="p100"), ["f16"], ["f16"]),  # which has no kernel for int8
    ],
)
def test_what_is_named_is_asked_for_and_int8_is_written_beside_it(
    export: Export, named: list[str], written: list[str]
) -> None:
    assert (export.named, export.written) == (named, written)
