"""What can be known of a base is refused before rows are made: formats, tokenizers, numbers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import torch
from safetensors.torch import load_file, save_file

from mathlete.errors import UserError
from mathlete.export import Export, served
from mathlete.export.formats.gguf_files import Q8_0
from mathlete.export.formats.writing import write_format
from mathlete.models import find_model, load_prompt_format
from mathlete.runs import read_json, write_json
from tests.conftest import POCKET, CommandLine

WEIGHT = "model.layers.1.mlp.up_proj.weight"


def edit(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        write_json(folder / name, change(read_json(folder / name)))

    return apply


def put(number: float) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        weights[WEIGHT][3, 5] = number
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return apply


def split_otherwise(tokenizer: Any) -> Any:
    tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "x+"
    return tokenizer


def add_token(special: bool) -> Callable[[Any], Any]:
    token = {"id": 576, "content": "[NEW]", "special": special, "lstrip": False, "rstrip": False, "normalized": False,
             "single_word": False}  # fmt: skip
    return lambda tokenizer: {**tokenizer, "added_tokens": [*tokenizer["added_tokens"], token]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit("tokenizer.json", split_otherwise), "q8_0 needs a tokenizer that splits text as Qwen2's,"),
        (edit("config.json", lambda old: {**old, "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4,
                                                                     "factor": 2.0}}), "Llama 3's, got yarn"),
        (edit("tokenizer.json", add_token(special=True)), "q8_0 needs an embedding of every token, got token 576"),
        (edit("tokenizer.json", add_token(special=False)), "must have an embedding, got 1 without, the first '[NEW]'"),
        (edit("config.json", lambda old: {**old, "vocab_size": 500}), "must have an embedding, got 75 without"),
        (edit("config.json", lambda old: {**old, "quantization_config": {"quant_method": "compressed-tensors"}}),
         "a training must start from weights that are not packed by compressed-tensors, got base"),
        (put(float("nan")), f"weights must be finite numbers, got NaN or infinity in {WEIGHT} of"),
        (put(float("inf")), f"weights must be finite numbers, got NaN or infinity in {WEIGHT} of"),
    ],
)  # fmt: skip
def test_what_a_training_could_not_end_in_is_refused_before_a_folder_is_made(
    change: Callable[[Path], None], message: str, workdir: Path, train: CommandLine
) -> None:
    shutil.copytree(POCKET, "base")
    change(Path("base"))
    words = ("--model", "base", "--source", "pocket", "--limit", 20, "--rows.heldout", 2, "--rows.max-tokens", 512)
    assert message in train("math", *words, "--export.formats", "int8", "q8_0", "--run", "run").refusal
    assert not Path("run").exists()


def test_a_token_that_no_text_has_needs_no_embedding(tmp_path: Path) -> None:
    shutil.copytree(POCKET, tmp_path / "base")
    edit("tokenizer.json", add_token(special=True))(tmp_path / "base")
    assert load_prompt_format(find_model(str(tmp_path / "base"))).tokenizer.pad_token_id < 576


def test_no_next_token_of_llama_cpp_ends_the_survival_step(tmp_path: Path) -> None:
    """Whichever it chooses: bytes within a character, which it leaves out, special tokens, and the end."""
    llama = pytest.importorskip("xllamacpp", reason="needs the package xllamacpp, llama.cpp's server")
    pytest.importorskip("gguf", reason="needs the package gguf")
    write_format(tmp_path / "q8_0", merged=POCKET, name="q8_0", settings=Export())
    params = llama.CommonParams()
    params.model.path = str(tmp_path / "q8_0" / Q8_0.file)
    params.n_ctx, params.n_parallel, params.cpuparams.n_threads, params.verbosity = 64, 1, 1, -1
    server, vocabulary = llama.Server(params), 576

    class Biased:
        """The server, made to choose one token."""

        def __init__(self, token: int) -> None:
            self.token = token

        def handle_completions(self, request: dict[str, Any]) -> Any:
            return server.handle_completions({**request, "logit_bias": [[self.token, 100.0]]})

    rows = datasets.Dataset.from_list([{"input_ids": [569, 40, 41, 42], "prompt_tokens": 3}])
    reference: Any = SimpleNamespace(log_probabilities=torch.zeros(1, vocabulary), heldout=SimpleNamespace(rows=rows))
    told = {token: [*served._next_tokens(Biased(token), reference)] for token in [*range(0, vocabulary, 5), 569, 570]}
    assert all(pairs in ([], [(token, 0)]) for token, pairs in told.items())
    silent = [token for token, pairs in told.items() if not pairs]
    assert 0 < len(silent) < len(told) / 2
    tokenizer = load_prompt_format(find_model("pocket")).tokenizer
    whole = [token for token in silent if "�" not in str(tokenizer.decode([token]))]
    assert whole in ([], [int(str(tokenizer.eos_token_id))]), json.dumps(tokenizer.convert_ids_to_tokens(whole))


def test_a_hub_models_tokenizer_that_is_not_here_is_no_traceback() -> None:
    with pytest.raises(UserError, match="neither on this machine nor can it be loaded"):
        Q8_0.require(find_model("nobody/no-such-model"))


def test_llama_cpp_positions_without_a_named_token_are_left_out() -> None:
    # Its server gives no log-probabilities where the next token ends within a character.
    rows = datasets.Dataset.from_list([{"input_ids": [5, 6, 7, 8, 9], "prompt_tokens": 2}])
    values = torch.zeros(3, 16)
    values[[0, 1, 2], [7, 8, 9]] = 1.0
    reference: Any = SimpleNamespace(log_probabilities=values, heldout=SimpleNamespace(rows=rows))
    told = {(5, 6): 7, (5, 6, 7): None, (5, 6, 7, 8): 3}

    class Server:
        def handle_completions(self, request: dict[str, Any]) -> dict[str, Any]:
            token = told[tuple(request["prompt"])]
            return {"choices": [{"logprobs": None if token is None else {"content": [{"id": token}]}}]}

    assert [*served._next_tokens(Server(), reference)] == [(7, 7), (3, 9)]
