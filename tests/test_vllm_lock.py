"""The lock of vLLM's wheels: what it holds, frees and takes, and a folder of wheels held against it."""

from hashlib import sha256
from pathlib import Path

import pytest

from mathlete.errors import UserError
from mathlete.kaggle_image import VLLM_KEPT, VLLM_LOCK, image_packages, vllm_facts, vllm_lock
from mathlete.sampling.served import VllmSettings
from mathlete.submission.vllm_lock import (
    LockedPackage,
    Pin,
    find_conflicts,
    pins_beside,
    read_lock,
    resolve_cpu_lock,
    write_lock,
)
from mathlete.submission.vllm_wheels import check_wheels


def test_the_lock_is_of_this_vllm_and_leaves_the_images_torch_alone() -> None:
    pins, image, facts = read_lock(vllm_lock().read_text()), image_packages(), vllm_facts()
    versions = {pin.name: pin.version for pin in pins}
    assert versions["vllm"] == facts.version
    assert len(versions) == len(pins) > 40
    assert [name for name in versions if name in image and VLLM_KEPT.fullmatch(name)] == []
    assert [name for name, version in versions.items() if image.get(name) == version] == []
    arguments = VllmSettings().to_arguments(gpus=1, heads=8, context=4096, max_tokens=256)
    assert set(arguments) <= set(facts.arguments)
    assert "attention_config" in facts.arguments


def test_what_uv_names_is_freed_and_never_torch() -> None:
    image = {"numba": "0.60.0", "torch": "2.10.0", "triton": "3.6.0", "nvidia-nccl-cu12": "2.27.5", "lark": "1.3.1"}
    reason = "Because vllm==1 depends on numba==0.61.2, torch==2.10.0 and lark==1.2.2 and numba==0.60.0, lark==1.3.1,"
    reason += " triton==3.6.0 and nvidia-nccl-cu12==2.27.5"
    assert find_conflicts(reason, image, kept=[]) == ["numba", "lark"]
    assert find_conflicts(reason, image, kept=["numba"]) == ["lark"]


def test_the_lock_takes_the_wheel_that_pip_prefers_of_what_is_not_there() -> None:
    names = ("a-1-py3-none-any.whl", "a-1-cp312-cp312-manylinux_2_17_x86_64.whl", "a-1-cp39-abi3-manylinux1_x86_64.whl")
    wheels = tuple((name, f"{size:064x}", size) for size, name in enumerate(names))
    solution = [LockedPackage(name=name, version="1", wheels=wheels) for name in ("a", "b", "c")]
    pins = pins_beside(solution, {"b": "1", "c": "2"})
    assert [(pin.name, pin.size) for pin in pins] == [("a", 1), ("c", 1)]
    assert [pin.size for pin in pins_beside(solution, {}, python="3.11")] == [2, 2, 2]
    assert read_lock(write_lock(pins, head="x")) == pins


def test_a_torch_without_a_cpu_build_is_refused_with_the_cure() -> None:
    with pytest.raises(UserError, match=r"known here for torch 2.10 \(vLLM 0.19.1\).*, got torch 2.4") as refused:
        resolve_cpu_lock({"torch": "2.4.1"}, python="3.12")
    assert "--vllm none" in refused.value.cure


def test_a_folder_of_wheels_is_held_against_its_lock(tmp_path: Path) -> None:
    assert [refusal.value for refusal in check_wheels(tmp_path)] == [f"no {tmp_path / VLLM_LOCK}"]
    (tmp_path / "a-1-py3-none-any.whl").write_bytes(b"a")
    pin = Pin(name="a", version="1", sha256=sha256(b"a").hexdigest(), size=1)
    (tmp_path / VLLM_LOCK).write_text(write_lock([pin], head="x"))
    assert list(check_wheels(tmp_path)) == []
    (tmp_path / "a-1-py3-none-any.whl").write_bytes(b"b")
    assert [refusal.value for refusal in check_wheels(tmp_path)] == ["no a 1", "a-1-py3-none-any.whl is new"]
