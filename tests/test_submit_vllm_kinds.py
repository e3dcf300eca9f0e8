"""Kinds of model and settings that 0.19.1 itself does not take: refused before a push, or served otherwise."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mathlete.kaggle_image import VLLM_LOCK, vllm_facts
from mathlete.kernel.config import KernelConfig
from mathlete.models.hardware import GPUS
from mathlete.problems import Problem
from mathlete.rehearsal import RehearsalSettings
from mathlete.rehearsal.draft import make_draft
from mathlete.sampling.served import VllmSettings
from mathlete.sampling.served.vllm_settings import KV_DTYPES
from mathlete.submission import Build, checks
from mathlete.submission.metadata import Names
from mathlete.submission.mounts import code_cells
from mathlete.submission.notebook import notebook_text
from mathlete.submission.vllm_fit import find_wrong_setting
from mathlete.submission.weights import list_needed
from tests.test_submit_extra import QWEN, refuse

PROBLEM = Problem(id="a", statement="What is 1 + 1?", gold="2")


def test_kinds_that_see_or_hear_are_among_those_that_vllm_serves() -> None:
    facts = vllm_facts()
    assert {*facts.not_as_text} < {*facts.multimodal} < {*facts.architectures}
    assert [*facts.multimodal] == sorted(facts.multimodal)
    assert [*facts.not_as_text] == sorted(facts.not_as_text)


def test_a_backends_types_of_the_cache_are_those_that_may_be_asked_for() -> None:
    """As a build of an earlier version may ask for others, which preflight refuses."""
    assert {word for one in vllm_facts().attention_backends.values() for word in one.kv} == {*KV_DTYPES}


@pytest.mark.parametrize(
    ("kind", "served"),
    [
        ("Qwen2ForCausalLM", True),
        ("Gemma3ForConditionalGeneration", True),
        ("Qwen3VLForConditionalGeneration", True),
        ("Mistral3ForConditionalGeneration", True),
        ("Qwen2AudioForConditionalGeneration", False),
        ("Gemma3nForConditionalGeneration", False),
        ("InternVLChatModel", False),
        ("IsaacForConditionalGeneration", False),
    ],
)
def test_a_model_that_cannot_be_served_as_text_is_refused(tmp_path: Path, kind: str, served: bool) -> None:
    refused = refuse(tmp_path, model={**QWEN, "architectures": [kind]}, vllm=VllmSettings())
    assert bool(refused) != served
    assert served or f"as text alone, got {kind}" in refused


@pytest.mark.parametrize("gpu", ["t4", "l4", "h100", "b200"])
def test_a_share_of_the_memory_leaves_cuda_its_own(gpu: str) -> None:
    """What the refusal names as its cure is taken, and what the ladder asks for where memory is short."""

    def wrong(share: float) -> str:
        config = replace(KernelConfig(), vllm=VllmSettings(gpu_memory_utilization=share))
        return str(find_wrong_setting(config, gpu=GPUS[gpu], gpus=1, model=QWEN) or "")

    assert f"got 1 of {GPUS[gpu].memory_gib:.1f} GiB" in wrong(1.0)
    cure = float(wrong(1.0).rpartition("give ")[2].partition(" ")[0])
    assert 0.98 <= cure < 1
    assert not wrong(cure)
    assert not wrong(0.95)
    assert wrong(cure + 0.01)


@pytest.mark.parametrize(
    ("engine", "word", "needed"),
    [
        ("vllm", "bitsandbytes", ("bitsandbytes>=0.49",)),
        ("vllm", "fp8", ()),
        ("vllm", None, ()),
        ("transformers", "bitsandbytes", ()),
    ],
)
def test_what_weights_are_held_by_is_in_the_wheels(
    tmp_path: Path, engine: str, word: str | None, needed: tuple[str, ...]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    vllm = VllmSettings(extra={"quantization": word} if word else {})
    assert list_needed(tmp_path, engine=engine, vllm=vllm) == needed
    config = replace(KernelConfig(), engine=engine, vllm=vllm)
    build = Build(kaggle=tmp_path, model=tmp_path, wheels=tmp_path, names=Names(owner="a"), config=config)
    assert any("no bitsandbytes" in one.value for one in checks._wheels(build)) == bool(needed)


@pytest.mark.parametrize(
    ("vllm", "says"),
    [
        (VllmSettings(kv_dtype="fp8", extra={"block_size": "32"}), "--vllm.kv-dtype --vllm.extra"),
        (VllmSettings(at_once=8), ""),
    ],
)
def test_a_rehearsal_on_a_cpu_says_which_words_it_did_not_rehearse(
    build: Build, tmp_path: Path, vllm: VllmSettings, says: str
) -> None:
    build = replace(build, config=replace(build.config, engine="vllm", vllm=vllm))
    settings = RehearsalSettings(vllm=tmp_path / "wheels")
    (tmp_path / "wheels" / VLLM_LOCK).write_text("")
    (tmp_path / "draft").mkdir()
    changes = "\n".join(make_draft(build, [PROBLEM], settings, speed=1.0, folder=tmp_path / "draft").changes)
    assert ("not rehearsed, for want of a GPU: " in changes) == bool(says)
    assert says in changes


@pytest.mark.parametrize("rerun", [True, False])
def test_a_rehearsal_without_vllm_has_the_commit_run_miss_none_of_its_wheels(
    build: Build, tmp_path: Path, rerun: bool
) -> None:
    """A rerun takes their want for what it is on Kaggle: no error."""
    build = replace(build, config=replace(build.config, engine="vllm"))
    (tmp_path / "draft").mkdir()
    made = make_draft(build, [PROBLEM], RehearsalSettings(rerun=rerun), speed=1.0, folder=tmp_path / "draft")
    assert ("BUILT = {**BUILT, \"vllm\": ''}" in "".join(code_cells(made.text))) != rerun
    code = notebook_text(build.config, build.names, vllm="notebook")
    assert 'changes += [str(error)] if BUILT["vllm"] else []' in "".join(code_cells(code))
