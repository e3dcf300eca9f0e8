"""Serve-only submissions: a model of somebody's on Kaggle is mounted, described by a folder without weights."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from mathlete.delivery.asking import Asking
from mathlete.delivery.kaggle_client import Kaggle
from mathlete.delivery.push import plan_push, push_build
from mathlete.errors import UserError
from mathlete.kaggle_image import VOCABULARIES
from mathlete.kernel import KernelConfig
from mathlete.models import ModelSource, find_model, load_prompt_format
from mathlete.runs import read_json
from mathlete.submission.build import Build
from mathlete.submission.checks import check_parts
from mathlete.submission.contents import list_contents
from mathlete.submission.embedded_fit import find_unloadable
from mathlete.submission.metadata import INSTANCE_FILE, KERNEL_FILE, MODEL_FILE, Names
from mathlete.submission.mounted import MountedWeights, describe_weights
from mathlete.submission.serving import check_serving
from mathlete.submission.vocabularies import NEEDED, Vocabulary, find_vocabularies, write_wheel
from tests.conftest import NAMES, CommandLine, with_settings
from tests.kaggle_standin import Scenario, run_on_kaggle, serve
from tests.test_model_folders import SHARDS, Spoil, all_of, change, cut_a_file, lose, split, write
from tests.test_submit_push import QUICK

SOURCE = "Somebody/big-model/PyTorch/default/3"
INDEX = "model.safetensors.index.json"
GPT_OSS = "openai/gpt-oss-120b/transformers/default/1"


@pytest.fixture
def described(tmp_path: Path) -> Path:
    """The pocket model without its weights, whose size an index tells, and with a card that names a licence."""
    folder = tmp_path / "described"
    shutil.copytree(find_model("pocket").location, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 12 * 2**30}, "weight_map": {}}))
    (folder / "README.md").write_text("---\nlicense: mit\n---\nA model.\n")
    return folder


def test_a_mounted_model_is_built_without_weights_and_nothing_of_it_is_uploaded(
    built_wheels: Path, described: Path, submit: CommandLine
) -> None:
    shutil.copytree(built_wheels, "runs/apart/wheels")
    words = ("build", "--model", described, "--model-source", SOURCE, "--run", "runs/apart")
    assert submit(*words, "--names.owner", "alice").code == 0
    made = Build.load(Path("runs/apart"))
    assert read_json(made.kaggle / KERNEL_FILE)["model_sources"] == [SOURCE]
    assert f'find_input("models", "{SOURCE}")' in json.loads(json.dumps(made.read_notebook().cells))[1]
    assert not (made.kaggle / MODEL_FILE).exists()
    assert (made.weight_bytes, made.licence) == (12 * 2**30, "MIT")
    assert plan_push(made, folder=Path("runs/apart"))[1] == f"model     {SOURCE}: mounted as it is on Kaggle, not sent"
    checked = {check.what: [refusal.rule for refusal in check.refusals] for check in check_parts(made)}
    assert checked.pop("model cutoff date") == [
        "the day the base model was released must be known: the rules have a cutoff"
    ]
    # An account with capitals is no account.
    assert [rule for rules in checked.values() for rule in rules] == [
        "kernel-metadata.json: model_sources must be in small letters"
    ]
    refusal = submit("rehearse", "--run", "runs/apart").refusal
    assert "a rehearsal needs the weights of the model that is mounted" in refusal
    assert "--stand-in pocket" in refusal


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("--model-source", SOURCE, "--model", "no/thing"),
            "hf download no/thing --exclude '*.safetensors' --local-dir",
        ),
        (("--model-source", "owner/model/1"), "must be OWNER/MODEL/FRAMEWORK/VARIATION/VERSION, got 'owner/model/1'"),
        (("--model-source", "o/m/f/v/0"), "must be OWNER/MODEL/FRAMEWORK/VARIATION/VERSION"),
        (("--model-source", SOURCE, "--model-gib", -1), "--model-gib must be above 0, got -1.0"),
        (("--model-source", SOURCE, "--model", "pocket"), "--model must describe the model that is mounted"),
        (("--model-source", SOURCE, "--model", "nobody/nothing"), "nobody/nothing is neither on this machine nor"),
        ((), "weights must be in .safetensors files"),
    ],
)
def test_what_describes_no_mounted_model_is_refused(
    words: tuple[object, ...], told: str, described: Path, workdir: Path, submit: CommandLine
) -> None:
    model = () if "--model" in words else ("--model", described)
    assert told in submit("build", *model, *words, "--names.owner", "alice").refusal
    assert not (workdir / "runs").exists()


def test_size_and_licence_of_mounted_weights_must_be_known(described: Path) -> None:
    assert describe_weights(described, gib=None, licence="") == MountedWeights(size=12 * 2**30, licence="MIT")
    told = describe_weights(described, gib=0.5, licence="Gemma")
    assert told == MountedWeights(size=2**29, licence="Gemma")
    (described / INDEX).unlink()
    with pytest.raises(UserError, match=r"size of weights that are mounted must be known.*\n.*--model-gib"):
        describe_weights(described, gib=None, licence="")
    (described / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid 0\nsize 100\n")
    assert describe_weights(described, gib=None, licence="").size == 100
    (described / "README.md").write_text("no metadata")
    with pytest.raises(UserError, match=r"licence of a model that is mounted must be known.*\n.*--kaggle.licence"):
        describe_weights(described, gib=None, licence="")


def point(*names: str, size: int | None = 9 * 2**30) -> Spoil:
    """Put git-lfs' pointers in the place of files, which may not say a size."""
    said = "" if size is None else f"size {size}\n"
    return all_of(
        *(write(name, f"version https://git-lfs.github.com/spec/v1\noid sha256:00\n{said}") for name in names)
    )


@pytest.mark.parametrize(
    ("spoil", "size", "told"),
    [
        (lambda folder: None, None, "by its files"),
        (lose(SHARDS[0]), 12, f"by {INDEX}: 1 of 2 files of its weights are not in "),
        (lose(*SHARDS), 12, f"by {INDEX}"),
        (point(*SHARDS), 18, "by git-lfs' pointers in place of its files"),
        (point(SHARDS[0], size=None), 12, f"by {INDEX}: 1 of 2 files of its weights are not in "),
        (all_of(point(SHARDS[0]), lose(SHARDS[1])), 12, f"by {INDEX}: 1 of 2 files of its weights are not in "),
        (all_of(point(*SHARDS), lose(INDEX)), 18, "by git-lfs' pointers"),
        (lose(INDEX), None, "by its files"),
        (lose(INDEX, SHARDS[0]), 0, "got 1 of 2 files of its weights are not in "),
        (all_of(lose(INDEX), point(SHARDS[0], size=None)), 0, "got 1 of 2 files of its weights are not in "),
        (lose(INDEX, *SHARDS), 0, "got no weights in "),
        (all_of(lose(INDEX, *SHARDS), write("pytorch_model.bin", "x")), 0, "got no safetensors, but pytorch_model.bin"),
        (point(INDEX), 0, f"git lfs pull --include {INDEX}"),
        # transformers takes that file, vLLM what the index names.
        (all_of(point("model.safetensors"), lose(*SHARDS)), 12, f"by {INDEX}, which names other files"),
        (point("model.safetensors", *SHARDS), 12, f"by {INDEX}, which names other files"),
        (cut_a_file, 0, "or remove it where the weights are elsewhere"),
    ],
)
def test_a_part_of_the_weights_is_never_taken_for_the_whole(
    spoil: Spoil, size: int | None, told: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(find_model("pocket").location, tmp_path / "model"))
    split(folder)
    change(INDEX, metadata={"total_size": 12 * 2**30})(folder)
    whole = sum((folder / name).stat().st_size for name in SHARDS)
    spoil(folder)
    said: list[str] = []
    if size == 0:
        with pytest.raises(UserError, match=told):
            describe_weights(folder, gib=None, licence="MIT")
    else:
        known = describe_weights(folder, gib=None, licence="MIT", say=said.append)
        assert known.size == pytest.approx(whole if size is None else size * 2**30, rel=1e-3)
        assert told in said[0]
    if told.startswith(("or remove", "git lfs")):
        with pytest.raises(UserError, match=told):
            check_serving(folder, KernelConfig(), weights=False)
        return
    # What is not here says nothing of what the engine would find on Kaggle, nor of what is mounted there.
    check_serving(folder, KernelConfig(), weights=False)
    if INDEX in {file.name for file in folder.iterdir()}:
        assert find_unloadable(folder, machine="NvidiaL4", weights=1) == ""
    (tmp_path / "wheels").mkdir()
    carried = list_contents(folder, tmp_path / "wheels", parts="", machine="").weights
    assert all(count == 9 * 2**30 or count == (folder / name).stat().st_size for name, count in carried.items())


def mount(build: Build, source: str, *, size: int = 2**30, licence: str = "MIT") -> Build:
    made = with_settings(build, build.kaggle, names=NAMES.with_mounted(source))
    return replace(made, mounted=MountedWeights(size=size, licence=licence))


def refusals(build: Build, what: str, **how: Any) -> str:
    (checked,) = (check for check in check_parts(build, **how) if check.what == what)
    return "; ".join(f"{refusal.rule}, got {refusal.value}" for refusal in checked.refusals)


def test_the_rules_hold_for_a_mounted_model(build: Build) -> None:
    small = mount(build, GPT_OSS)
    assert not (small.kaggle / INSTANCE_FILE).exists()
    assert not refusals(small, "sizes")
    assert not refusals(small, "model cutoff date")  # its day is known
    assert not refusals(small, "model metadata and licence")
    assert not refusals(small, "names agree")
    assert "got 120.0 GiB" in refusals(mount(build, GPT_OSS, size=120 * 2**30), "sizes")
    unknown = mount(build, "openai/gpt-oss-120b-tuned/transformers/default/1", licence="cc-by-nc-4.0")
    assert "got 'cc-by-nc-4.0'" in refusals(unknown, "model metadata and licence")
    assert "must be known" in refusals(unknown, "model cutoff date")
    assert "got 2026-04-01" in refusals(unknown, "model cutoff date", released="2026-04-01")
    # Another version is another submission.
    assert mount(build, GPT_OSS).hashes().id != mount(build, f"{GPT_OSS[:-1]}2").hashes().id


@pytest.mark.parametrize(
    ("engine", "gib", "told"),
    [
        ("vllm", 60, ""),
        ("vllm", 80, "on 4 GPUs of 22.5 GiB, got 80.0 GiB"),
        ("transformers", 60, "on one GPU of 22.5 GiB (of 4: the engine uses 1), got 60.0 GiB"),
    ],
)
def test_the_size_is_held_against_the_gpus_that_the_engine_uses(engine: str, gib: int, told: str, build: Build) -> None:
    content = '{"num_attention_heads": 64, "architectures": ["Qwen2ForCausalLM"]}'
    (build.model / "config.json").write_text(content)
    made = mount(replace(build, config=replace(build.config, engine=engine)), GPT_OSS, size=gib * 2**30)
    metadata = read_json(made.kaggle / KERNEL_FILE)
    (made.kaggle / KERNEL_FILE).write_text(json.dumps({**metadata, "machine_shape": "NvidiaL4"}))
    assert refusals(made, "sizes").partition("values ")[2] == told
    cures = [one.cure for check in check_parts(made) if check.what == "sizes" for one in check.refusals]
    # What the embedded engine has no room for on one GPU, vLLM may have on all.
    assert [cure.startswith("build with --engine vllm") for cure in cures] == [engine != "vllm"] * bool(told)


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Scenario]:
    with serve(tmp_path, monkeypatch) as state:
        state.output = run_on_kaggle(tmp_path)
        yield state


def test_a_push_sends_wheels_and_notebook_and_sees_that_the_model_is_there(
    kaggle: Scenario, build: Build, tmp_path: Path
) -> None:
    (build.wheels / "manifest.json").write_text("{}")
    made = mount(build, SOURCE.replace("PyTorch", "pyTorch").lower().replace("pytorch", "pyTorch"))
    asking = Asking(waiting=QUICK, say=lambda text: None)

    def push() -> Any:
        with ThreadPoolExecutor(1) as one:
            return one.submit(lambda: push_build(made, Kaggle(), folder=tmp_path, asking=asking)).result()

    with pytest.raises(UserError, match="Kaggle must have the model that the notebook mounts"):
        push()
    assert not [name for name in kaggle.names() if name.startswith(("Create", "Save", "Start"))]
    kaggle.versions["ModelInstance"] = 3
    kaggle.output = run_on_kaggle(tmp_path, build=made.stamp)
    assert push().version == 1
    acts = [name for name in kaggle.names() if name.startswith(("Create", "Save"))]
    assert acts == ["CreateDataset", "SaveKernel"]
    asked = next(body for name, body in kaggle.calls if name == "GetModelInstance")
    assert (asked["ownerSlug"], asked["modelSlug"], asked["instanceSlug"]) == ("somebody", "big-model", "default")
    assert asked["framework"].endswith("PY_TORCH")


def test_a_model_of_the_hub_is_described_by_its_small_files(
    described: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    cache = tmp_path / "cache"
    snapshot = cache / "models--some--model" / "snapshots" / ("a" * 40)
    shutil.copytree(described, snapshot)
    (snapshot / "model.safetensors").write_bytes(b"weights")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    source = ModelSource(name="some/model", location="some/model")
    folder = source.fetch_description(tmp_path / "into")
    assert {file.name for file in folder.iterdir()} == {file.name for file in described.iterdir()}
    there = ModelSource(name="x", location=str(folder))
    assert load_prompt_format(there).sha256 == load_prompt_format(find_model("pocket")).sha256


@pytest.fixture
def vocabulary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with the file that gpt-oss's library would download; a small one in its place."""
    folder = tmp_path / "vocabularies"
    folder.mkdir()
    data = b"IQ== 0\n"
    (folder / "o200k_base.tiktoken").write_bytes(data)
    (real,) = NEEDED["gpt_oss"]
    small = Vocabulary(url=real.url, sha256=hashlib.sha256(data).hexdigest())
    monkeypatch.setitem(NEEDED, "gpt_oss", (small,))
    return folder


def test_vocabulary_files_travel_as_a_wheel_and_are_shown_to_the_library(vocabulary: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt_oss"}')
    files = find_vocabularies(tmp_path, vocabulary)
    wheel = write_wheel(files, tmp_path)
    assert wheel.read_bytes() == write_wheel(files, tmp_path).read_bytes()
    # What installing does with a wheel of data; every build has pip try it.
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "there")
    code = (
        "import os; from mathlete.kernel.vocabularies import show_vocabularies; show_vocabularies();"
        "print(os.environ['TIKTOKEN_ENCODINGS_BASE'], os.environ['TIKTOKEN_CACHE_DIR'])"
    )
    path = ":".join([str(tmp_path / "there"), *sys.path])
    shown = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, check=True)
    base, cache = map(Path, shown.stdout.decode().split())
    assert base == cache == tmp_path / "there" / VOCABULARIES
    (one,) = NEEDED["gpt_oss"]
    assert (base / one.name).read_bytes() == (cache / one.cache_name).read_bytes() == files[0].read_bytes()


def test_a_vocabulary_file_that_is_missing_or_another_is_refused(vocabulary: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt_oss"}')
    with pytest.raises(UserError, match=r"o200k_base.tiktoken, which .* got no --vocabularies(.|\n)*https://"):
        find_vocabularies(tmp_path, None)
    (vocabulary / "o200k_base.tiktoken").write_text("another")
    with pytest.raises(UserError, match=r"o200k_base\.tiktoken with SHA-256"):
        find_vocabularies(tmp_path, vocabulary)
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    assert find_vocabularies(tmp_path, None) == []


def test_without_vocabularies_nothing_is_shown() -> None:
    from mathlete.kernel.vocabularies import show_vocabularies

    assert show_vocabularies() is None


def test_names_of_a_mounted_model_keep_the_users_own() -> None:
    names = Names(owner="alice").with_mounted(GPT_OSS)
    assert (names.kernel_id, names.model_source) == ("alice/mathlete-submission", GPT_OSS)
    assert not names.uploads_model
