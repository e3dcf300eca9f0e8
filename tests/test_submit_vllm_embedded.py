"""Which kinds of model the embedded engine draws from on Kaggle: a fact of the image, asked before a push."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mathlete.errors import UserError
from mathlete.kaggle_image import embedded_kinds, image_packages
from mathlete.kernel.config import KernelConfig
from mathlete.sampling.embedded import check_covered
from mathlete.sampling.embedded.coverage import check_decodes
from mathlete.shipped import data_folder
from mathlete.submission import Build, checks
from mathlete.submission.embedded_fit import find_unloadable, require_kind, settle_steps
from mathlete.submission.engine_choice import choose_engine
from mathlete.submission.mounted import MountedWeights
from mathlete.submission.serving import check_serving
from tests.conftest import POCKET, ROOT
from tests.embedded_kinds import make_config

FACTS = data_folder() / "embedded.json"
IMAGE = ROOT / ".venv" / "kaggle-environment"
"""What `make setup` makes: the image's transformers."""
DRAWN = (
    "qwen2",
    "qwen3_moe",
    "llama",
    "mistral",
    "ministral3",
    "phi3",
    "gemma3_text",
    "gemma3",
    "glm4_moe_lite",
    "afmoe",
)
NOT_DRAWN = (
    *("mistral3", "llava", "qwen2_5_vl", "qwen3_vl", "internvl", "gemma3n", "llama4"),  # of what sees, not as text
    *("gemma4_text", "hyperclovax", "internlm3", "minicpm3", "iquestcoder", "mimo_v2_flash"),  # newer than the image's
    *("falcon", "bloom", "nemotron", "stablelm", "phimoe", "mamba2", "gpt_oss"),  # of another attention
    *("None", "no-such-kind"),
)


def test_the_kinds_are_of_the_images_transformers() -> None:
    facts = json.loads(FACTS.read_text(encoding="utf-8"))
    assert facts["transformers"] == image_packages()["transformers"]
    assert facts["kinds"] == sorted(facts["kinds"])
    assert [kind for kind in DRAWN if kind not in embedded_kinds()] == []
    assert [kind for kind in NOT_DRAWN if kind in embedded_kinds()] == []


@pytest.mark.slow
def test_the_kinds_are_those_that_the_engine_draws_from_in_the_images_environment() -> None:
    if not (IMAGE / "manifest.json").is_file():
        pytest.skip("needs the environment of `make setup`")
    paths = {"PYTHONPATH": str(ROOT / "src")}
    tried = [str(IMAGE / ".environment/bin/python"), "-W", "ignore", str(ROOT / "tests/embedded_kinds.py")]
    done = subprocess.run(tried, env=os.environ | paths, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads(FACTS.read_text(encoding="utf-8"))


def describe(folder: Path, kind: str, *, architecture: str = "MistralForCausalLM") -> Path:
    settings = json.loads((POCKET / "config.json").read_text(encoding="utf-8"))
    settings |= {"model_type": kind, "architectures": [architecture]}
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("kind", NOT_DRAWN)
def test_no_notebook_begins_or_ends_on_the_embedded_engine_with_a_kind_that_it_does_not_draw_from(
    kind: str, tmp_path: Path, build: Build
) -> None:
    model, where = describe(tmp_path, kind), {"machine": "NvidiaH100", "weights": 2**20}
    with pytest.raises(
        UserError, match=rf"the image's transformers {image_packages()['transformers']}, got model_type {kind}"
    ):
        require_kind(model)
    # Of some this machine's transformers says more, or that it cannot read them either.
    assert find_unloadable(model, **where)  # type: ignore[arg-type]
    served = replace(KernelConfig(), engine="vllm")
    config, told = settle_steps(served, model=model, **where)  # type: ignore[arg-type]
    assert (config.embedded, told[:16]) == (False, "no embedded step")
    begun = replace(build, model=model, config=KernelConfig(), mounted=MountedWeights(size=1, licence="MIT"))
    assert [one.value for one in checks._export(begun)] == [f"model_type {kind}"]


@pytest.mark.parametrize("served", [True, False])
def test_the_cure_of_a_kind_names_vllm_only_where_it_serves_the_model(served: bool, tmp_path: Path) -> None:
    model = Path(shutil.copytree(POCKET, tmp_path / "model"))
    describe(model, "gpt_oss", architecture="GptOssForCausalLM")
    machine = "NvidiaH100" if served else "NvidiaTeslaP100"  # which is too old for vLLM
    with pytest.raises(UserError, match="got attention with sinks in gpt_oss") as refused:
        check_serving(model, KernelConfig(), weights=False, machine=machine, size=2**20)
    assert ("--engine vllm" in refused.value.cure) == served
    assert "--until tune" not in refused.value.cure


def test_what_no_config_tells_of_its_attention_is_refused_wherever_the_loop_draws() -> None:
    for kind in ("gpt_oss", "phimoe"):
        with pytest.raises(UserError, match=f"in {kind}(?s:.*)--until tune"):
            check_covered(AutoConfig.for_model(kind))


@pytest.mark.parametrize("kind", ["falcon", "gptj", "bloom", "granite_swa"])
def test_a_kind_that_asks_more_of_the_cache_is_refused_before_it_draws(kind: str) -> None:
    made: Any = AutoModelForCausalLM
    model = made.from_config(make_config(kind), dtype=torch.float32).train(False)
    with pytest.raises(UserError, match=rf"got {kind}, computed another way(?s:.*)--engine vllm"):
        check_decodes(model)


def test_a_kind_that_the_embedded_engine_draws_from_ends_the_ladder(tmp_path: Path) -> None:
    assert find_unloadable(describe(tmp_path, "qwen2"), machine="NvidiaH100", weights=2**20) == ""


def test_what_a_setting_of_vllms_cures_is_not_left_to_an_engine_that_cannot_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = UserError("vLLM must have room", value="none", cure="give --vllm.kv-dtype fp8")
    monkeypatch.setattr("mathlete.submission.engine_choice.find_refusal", lambda **_: refused)
    how: dict[str, Any] = {"machine": "NvidiaL4", "config": KernelConfig(), "weights": 2**20}
    assert choose_engine("auto", model=describe(tmp_path, "qwen2"), **how).engine == "transformers"
    with pytest.raises(UserError, match="--vllm"):
        choose_engine("auto", model=describe(tmp_path, "mistral3"), **how)
