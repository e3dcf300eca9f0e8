"""Adapters and vLLM itself: what its own loader says of each kind of adapter, and the rehearsal served by it.

MATHLETE_VLLM_PYTHON names the Python of an environment with vLLM of the version in data/vllm.json, its CPU build where
there is no GPU. A boot takes minutes on two slow cores.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mathlete.kaggle_image import vllm_facts
from tests.conftest import ROOT, CommandLine
from tests.test_adapters_served import MADE_UP, REFUSED, cast, configure
from tests.test_adapters_served import made as made  # a fixture

PYTHON = os.environ.get("MATHLETE_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="needs vLLM: MATHLETE_VLLM_PYTHON names the Python of its environment"),
]
LOADER = """
import json, sys
from pathlib import Path
import torch
from vllm.config.lora import LoRAConfig
from vllm.lora.lora_model import LoRAModel
from vllm.lora.peft_helper import PEFTHelper
expected = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
said = {}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    try:
        helper = PEFTHelper.from_local_dir(str(folder), 1024)
        helper.validate_legal(LoRAConfig(max_lora_rank=8))
        LoRAModel.from_local_checkpoint(
            str(folder), expected, helper, lora_model_id=1, device="cpu", dtype=torch.float32
        )
        said[folder.name] = ""
    except Exception as error:
        said[folder.name] = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""
CLASSES = """
import importlib, json
from vllm.model_executor.models import registry
from vllm.model_executor.models.interfaces import supports_lora, supports_multimodal, supports_pp
said = {}
for name, (module, word) in {**registry._TEXT_GENERATION_MODELS, **registry._MULTIMODAL_MODELS}.items():
    try:
        kind = getattr(importlib.import_module(f"vllm.model_executor.models.{module}"), word)
    except ImportError:
        continue
    adapted = [bool(supports_lora(kind)), bool(getattr(kind, "embedding_modules", None))]
    said[name] = [*adapted, bool(supports_pp(kind)), bool(supports_multimodal(kind))]
print(json.dumps(said))
"""
VALUES = """
import contextlib, dataclasses, json, types, typing
from vllm.config.model import _FLOAT16_NOT_SUPPORTED_MODELS
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.model_executor.layers import quantization

def kinds(hint):
    match typing.get_origin(hint):
        case typing.Annotated:
            return kinds(typing.get_args(hint)[0])
        case typing.Union | types.UnionType:
            return [kind for one in typing.get_args(hint) if one is not type(None) for kind in kinds(one)]
        case typing.Literal:
            return [*typing.get_args(hint)]
    return [hint if hint in (bool, int, float) else object]

def describe(found):
    if len(found) == 1 and found[0] in (bool, int, float):
        return found[0].__name__
    return None if any(isinstance(kind, type) for kind in found) else found

hints = typing.get_type_hints(AsyncEngineArgs)
names = sorted(one.name for one in dataclasses.fields(AsyncEngineArgs) if not one.name.startswith("_"))
values = {name: told for name in names if (told := describe(kinds(hints[name])))}
least = {}
for name in quantization.QUANTIZATION_METHODS:
    with contextlib.suppress(Exception):
        capability = quantization.get_quantization_config(name).get_min_capability()
        if name not in quantization.DEPRECATED_QUANTIZATION_METHODS and capability >= 0:
            least[name] = capability / 10
halves = sorted(_FLOAT16_NOT_SUPPORTED_MODELS)
print(json.dumps({"arguments": names, "values": values, "quantizations": least, "no_float16": halves}))
"""
BACKENDS = """
import json
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.platforms.interface import DeviceCapability as Of
from vllm.v1.attention.backends.registry import AttentionBackendEnum

def describe(kind):
    return {
        "capability": [c for c in (75, 80, 89, 90, 100, 120) if kind.supports_compute_capability(Of(*divmod(c, 10)))],
        "heads": [size for size in range(8, 641, 4) if kind.supports_head_size(size)],
        "block": [size for size in range(8, 257, 8) if kind.supports_block_size(size)],
        "kv": kind.supports_kv_cache_dtype("auto"),
        "mla": kind.is_mla(), "sparse": kind.is_sparse(), "prefix": kind.supports_mm_prefix(),
    }

said = {}
with set_current_vllm_config(VllmConfig()):
    for one in AttentionBackendEnum:
        try:
            said[one.name] = describe(one.get_class())
        except (ImportError, RuntimeError, ValueError):
            pass  # not in a CPU build, or not without a GPU
print(json.dumps(said))
"""
SERVED_WRONG = {
    *("ranks", "alphas", "own-bias", "tokens", "activated", "repeated", "parameters", "kind"),
    *("no-prefix", "table", "half", "other-rank", "convolution", "integers", "other-base"),
    *("first-weights", "missing"),
}
"""Of REFUSED what vLLM's loader takes all the same: it would serve another model, or fail later."""


def ask_vllm(program: str, *words: object) -> Any:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [PYTHON, "-c", program, *map(str, words)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_vllm_itself_refuses_the_others_and_takes_the_good_ones(made: Path, tmp_path: Path) -> None:
    import torch

    good = {"as-it-is": lambda folder: None, "rslora": configure(use_rslora=True), "bf16": cast(torch.bfloat16)}
    for name, change in {**{name: change for name, (change, _) in REFUSED.items()}, **good}.items():
        change(Path(shutil.copytree(made, tmp_path / name)))
    said = ask_vllm(LOADER, tmp_path)
    assert {name for name in good if said[name]} == set()
    assert {name for name in REFUSED if not said[name]} == SERVED_WRONG


def test_the_facts_of_vllms_arguments_are_its_own() -> None:
    said, facts = ask_vllm(VALUES), vllm_facts()
    assert said == {
        "arguments": sorted(facts.arguments),
        "values": {**facts.values},
        "quantizations": {**facts.quantizations},
        "no_float16": [*facts.no_float16],
    }


def test_the_facts_of_vllms_attention_are_its_own() -> None:
    """Of the backends that this build has; types of the cache without FLASH_ATTN's of 8 bits, which need its GPU.

    Those of 16 bits, which they name and then end the first step with, are no fact.
    """
    said, facts = ask_vllm(BACKENDS), vllm_facts().attention_backends
    assert len(said.keys() & facts.keys()) > len(facts) // 2
    for name in said.keys() & facts.keys():
        one = facts[name]
        least, most = (capability or default for capability, default in zip(one.capability, (0, 99), strict=True))
        assert said[name] == {
            # Of FLASHMLA's two dense kernels Hopper's is the one that vLLM has (v1/attention/ops/flashmla.py).
            "capability": [c for c in (75, 80, 89, 90, 100, 120) if least <= c / 10 <= most]
            + [100] * (name == "FLASHMLA"),
            # FLASH_ATTN_DIFFKV's values have 128 numbers, whatever it says of its heads.
            "heads": said[name]["heads"]
            if name == "FLASH_ATTN_DIFFKV"
            else [size for size in range(8, 641, 4) if one.takes_head(size)],
            "block": [size for size in range(8, 257, 8) if size % one.block == 0],
            "kv": "auto" in one.kv,
            **{"mla": one.mla, "sparse": one.sparse, "prefix": one.prefix},
        }


def test_the_facts_of_vllms_classes_are_its_own() -> None:
    said, facts = ask_vllm(CLASSES), vllm_facts()
    assert len(said) > 200
    assert {name for name in said if said[name][0]} == {*facts.adapted} & said.keys()
    assert {name for name in said if all(said[name][:2])} == {*facts.adapted_tables} & said.keys()
    served = {*facts.architectures} & said.keys()
    assert {name for name in served if said[name][3]} == {*facts.multimodal} & said.keys()
    assert {name for name in served if not said[name][2]} == {*facts.undivided} & said.keys()


def test_greedy_answers_beside_the_base_are_pefts(made: Path, workdir: Path, submit: CommandLine) -> None:
    """200 problems, served by vLLM from the zip; the numbers are computed in fp32 in both."""
    rules = Path("made-up.toml")
    rules.write_text(MADE_UP.replace("problems = 20", "problems = 200").replace("max_tokens = 64", "max_tokens = 120"))
    assert submit("build", "--competition", rules, "--model", made, "--adapter.base", "pocket").code == 0
    done = submit.process("rehearse", "--adapter.vllm", PYTHON, "--json", PYTHONPATH=f"{ROOT / 'src'}:{ROOT}")
    report = done.result
    print(json.dumps({name: value for name, value in report.items() if name not in ("rules", "zip")}))
    assert (report["engine"], report["problems"]) == ("vllm", 200)
    assert report["facts"]["vllm"] == vllm_facts().version
    assert report["same_as_peft"] >= 0.995
    assert submit("preflight", "--limits.right-min", 0, "--json").result["go"]
