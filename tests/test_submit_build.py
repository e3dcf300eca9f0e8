"""`submit build` and `wheels`: the same bytes again, metadata the lint finds whole, wheels the image takes."""

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mathlete.competitions import competition
from mathlete.delivery import complete_names
from mathlete.errors import UserError
from mathlete.kaggle_image import image_packages
from mathlete.kernel.config import KernelConfig, config_from
from mathlete.sampling.samples import SamplingConfig
from mathlete.solve.policy import Policy
from mathlete.submission.build import Build, Hashes
from mathlete.submission.contents import list_contents
from mathlete.submission.lint import KERNEL_KEYS, lint_dataset, lint_kernel, lint_model
from mathlete.submission.metadata import KERNEL_FILE, NOTEBOOK, instance_metadata, write_metadata
from mathlete.submission.notebook import notebook_text, write_notebook
from mathlete.submission.weights import name_format
from mathlete.submission.wheelhouse import SUMS, build_wheelhouse, resolve, verify, verify_sums
from submit.commands import COMMANDS
from tests.conftest import NAMES, CommandLine, sample


def test_a_build_holds_all_its_parts_and_passes_the_lint(built: Path) -> None:
    kaggle = built / "kaggle"
    assert [*lint_kernel(kaggle), *lint_model(kaggle), *lint_dataset(kaggle)] == []
    metadata = json.loads((kaggle / KERNEL_FILE).read_text())
    assert tuple(metadata) == KERNEL_KEYS
    assert metadata["enable_internet"] is False
    assert len(metadata["model_sources"][0].split("/")) == 5
    assert (kaggle / NOTEBOOK).stat().st_size < 20_000


def test_the_committed_folder_is_what_a_build_of_the_pocket_model_gives(built: Path, root: Path) -> None:
    made = {file.name: file.read_text() for file in (built / "kaggle").iterdir()}
    committed = {name: (root / "kaggle" / name).read_text() for name in made}
    # Every change of the code is another wheel, whose hash the notebook carries.
    for folder in (made, committed):
        folder[NOTEBOOK] = without_hashes(folder[NOTEBOOK])
    assert made == committed, "run `python -m submit build --model pocket --names.owner mathlete-demo`"


def without_hashes(notebook: str) -> str:
    start = next(cell for cell in json.loads(notebook)["cells"] if cell["metadata"].get("tags") == ["start"])
    hashes = r'[0-9a-f]{64}|(?<=\\"build\\": \\")[0-9a-f]{12}|(?<=\\"parts\\": \\")[0-9a-f]{12}'
    blank, count = re.subn(hashes, "", notebook.replace(start["id"], ""))
    assert count == 4  # build, parts, the project's wheel, config.json
    return blank


def test_the_same_inputs_give_the_same_bytes(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(built)
    build = Build.load(Path("runs/submit"))
    parts = Hashes(notebook="", **build.hash_parts()).id
    contents = list_contents(build.model, build.wheels, parts=parts, machine=build.machine)
    assert notebook_text(build.config, build.names, contents) == (built / "kaggle" / NOTEBOOK).read_text()
    assert config_from(json.loads(json.dumps(build.config.to_json()))) == build.config


def test_a_build_in_a_folder_of_its_own_leaves_kaggle_alone(built_wheels: Path, submit: CommandLine) -> None:
    run = Path("runs/apart [x] :bug: [/a")
    shutil.copytree(built_wheels, run / "wheels")
    done = submit("build", "--names.owner", "mathlete-demo", "--run", run)
    assert not Path("kaggle").exists()
    apart = Build.load(run)
    assert (apart.kaggle, apart.wheels) == (run / "kaggle", run / "wheels")
    # What is in brackets is no style of rich's, and the next command can be copied.
    assert f"{run}/kaggle: notebook" in done.stdout
    assert f"rehearse --run '{run}'" in done.stdout


@pytest.mark.slow
def test_what_a_build_carries_lasts_until_it_is_taken_back(built_wheels: Path, submit: CommandLine) -> None:
    links = Path("links").absolute()
    links.mkdir()
    wheel(links, "needed-1.0")
    shutil.copytree(built_wheels, "runs/apart/wheels")
    words = ("build", "--names.owner", "mathlete-demo", "--run", "runs/apart")
    carried = Path("runs/apart/wheels/needed-1.0-py3-none-any.whl")
    assert submit(*words, "--need", "needed", "--find-links", links, "--overwrite").code == 0
    assert carried.exists()
    again = submit(*words)
    assert f"as in the last build: --need needed --find-links {links}" in again.stdout
    assert carried.exists()
    assert Build.load(Path("runs/apart")).need == ("needed",)
    assert submit(*words, "--need", "none", "--find-links", "none", "--overwrite").code == 0
    assert not carried.exists()


def test_another_setting_gives_another_notebook() -> None:
    texts = {notebook_text(KernelConfig(policy=Policy(seed=seed)), NAMES) for seed in (0, 1)}
    assert len(texts) == 2


def test_a_build_without_its_parts_says_which(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there must be a build"):
        Build.load(tmp_path)


def test_completions_may_be_as_long_as_the_model_allows(tmp_path: Path) -> None:
    for context, tokens in ((1024, 256), (131_072, 32_768), (None, 1024)):
        config = {} if context is None else {"max_position_embeddings": context}
        (tmp_path / "config.json").write_text(json.dumps(config))
        defaults = COMMANDS["build"].default_settings(["--model", str(tmp_path)])
        assert defaults.solving.sampling == SamplingConfig(max_tokens=tokens)


def write_names(folder: Path) -> None:
    rules = competition("aimo-3")
    write_metadata(folder, NAMES, rules=rules, machine=None, image="", licence="Apache 2.0", weights="int8")


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"enable_internet": True}, "enable_internet must be false"),
    ({"enable_internet": None}, "must write every key"),
    ({"is_private": False}, "is_private must be true"),
    ({"id": "mathlete-submission"}, "be owner/slug"),
    ({"id": "your-kaggle-name/mathlete-submission"}, "name your account"),
    ({"id": "alice/aimo", "title": "aimo"}, "at least five characters"),
    ({"title": "Something else"}, "make the slug mathlete-submission"),
    ({"machine_shape": "NvidiaL4x4"}, "takes any word in silence"),
    ({"machine_shape": "NvidiaTeslaP100"}, "retired"),
    ({"model_sources": ["alice/mathlete-model/transformers/int8"]}, "owner/model/framework/variation/version"),
    ({"model_sources": ["alice/mathlete-model/transformers/int8/latest"]}, "owner/model/framework/variation/version"),
    ({"model_sources": []}, "not be empty"),
    ({"competition_sources": []}, "not be empty"),
    ({"competition_sources": ["competitions/aimo"]}, "be a slug"),
    ({"dataset_sources": ["https://www.kaggle.com/datasets/alice/x"]}, "be owner/slug"),
    ({"dataset_sources": "alice/x"}, "be a list"),
    ({"docker_image": "gcr.io/kaggle-gpu-images/python:latest"}, "pinned by its digest"),
    ({"docker_image_pinning_type": "newest"}, "be original or latest"),
    ({"docker_image": "gcr.io/kaggle-gpu-images/python@sha256:abc"}, "pinned by its digest"),
    ({"docker_image": "gcr.io/kaggle-images/python@sha256:" + "0" * 64}, "an image for GPUs"),
    ({"enable_tpu": True}, "enable_tpu must be false"),
    ({"machine_shape": "NvidiaTeslaT4Highmem"}, "open to you"),
    ({"dataset_sources": []}, "not be empty"),
    ({"dataset_sources": ["Alice/mathlete-wheels"]}, "in small letters"),
    ({"model_sources": ["Alice/mathlete-model/Transformers/int8/1"]}, "in small letters"),
    ({"model_sources": ["your-kaggle-name/mathlete-model/transformers/int8/1"]}, "name your account"),
    ({"id": "Alice/mathlete-submission"}, "in small letters"),
    ({"id": "alice\n/mathlete-submission"}, "name an account"),
    ({"dataset_sources": ["alice smith/mathlete-wheels"]}, "name an account"),
    ({"keywords": ["gpu", "olympiad maths"]}, "name tags that Kaggle is known to have"),
    ({"keywords": "gpu"}, "name tags that Kaggle is known to have"),
    ({"kernel_type": "script"}, "be notebook"),
    ({"code_file": "../elsewhere.ipynb"}, "be a file of the folder"),
]


@pytest.mark.parametrize(("change", "says"), BROKEN)
def test_the_lint_names_what_kaggle_would_take_in_silence(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    write_notebook(tmp_path / NOTEBOOK, KernelConfig(), NAMES)
    write_names(tmp_path)
    value = {**json.loads((tmp_path / KERNEL_FILE).read_text()), **change}
    kept = {key: part for key, part in value.items() if part is not None}
    (tmp_path / KERNEL_FILE).write_text(json.dumps(kept))
    problems = [*lint_kernel(tmp_path)]
    assert any(says in problem.rule for problem in problems), problems
    assert all(problem.cure for problem in problems)


def without_kernelspec(notebook: dict[str, Any]) -> None:
    del notebook["metadata"]["kernelspec"]


def with_kernel(notebook: dict[str, Any]) -> None:
    notebook["metadata"]["kernelspec"]["name"] = "ir"


def with_line(line: str) -> Callable[[dict[str, Any]], None]:
    def change(notebook: dict[str, Any]) -> None:
        notebook["cells"][1]["source"] += f"\n{line}"

    return change


def with_last_cell(source: str) -> Callable[[dict[str, Any]], None]:
    def change(notebook: dict[str, Any]) -> None:
        notebook["cells"].append({**notebook["cells"][-1], "id": "last", "source": source})

    return change


SPOILED: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (without_kernelspec, "kernel must be python3"),
    (with_kernel, "kernel must be python3"),
    (with_line("!pip install -q x"), "pip"),
    (with_line("%pip install x"), "pip"),
    (with_line("  !{sys.executable} -m pip install x"), "pip"),
    (with_line("!uv pip install x"), "pip"),
    (with_last_cell("%%bash\npip install x"), "pip"),
    (with_last_cell("raise SystemExit"), "last cell must serve"),
    (lambda notebook: notebook["cells"][-1].update(source="# serve(CONFIG)"), "last cell must serve"),
]


@pytest.mark.parametrize("source", ["", " \n", "# the end"])
def test_a_cell_of_nothing_at_the_end_is_no_mistake(source: str, tmp_path: Path) -> None:
    write_notebook(tmp_path / NOTEBOOK, KernelConfig(), NAMES)
    write_names(tmp_path)
    notebook = json.loads((tmp_path / NOTEBOOK).read_text())
    with_last_cell(source)(notebook)
    (tmp_path / NOTEBOOK).write_text(json.dumps(notebook))
    assert [*lint_kernel(tmp_path)] == []


@pytest.mark.parametrize(("change", "says"), SPOILED)
def test_the_lint_names_what_would_lose_the_rerun(
    change: Callable[[dict[str, Any]], None], says: str, tmp_path: Path
) -> None:
    write_notebook(tmp_path / NOTEBOOK, KernelConfig(), NAMES)
    write_names(tmp_path)
    assert [*lint_kernel(tmp_path)] == []
    notebook = json.loads((tmp_path / NOTEBOOK).read_text())
    change(notebook)
    (tmp_path / NOTEBOOK).write_text(json.dumps(notebook))
    problems = [*lint_kernel(tmp_path)]
    assert any(says in problem.rule for problem in problems), problems


FORMATS = [
    ({"dtype": "bfloat16"}, "bfloat16"),
    ({"torch_dtype": "float16"}, "float16"),
    ({}, "dense"),
    ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "int8"),
    ({"quantization_config": {"quant_method": "awq"}}, "awq"),
    ({"quantization_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
    *(
        (
            {
                "quantization_config": {
                    "quant_method": "compressed-tensors",
                    "config_groups": {"group_0": {"weights": weights, "input_activations": activations}},
                }
            },
            name,
        )
        for weights, activations, name in (
            ({"num_bits": 8}, None, "w8a16"),
            ({"num_bits": 8}, {"num_bits": 8}, "w8a8"),
            ({"num_bits": 8, "type": "float"}, {"num_bits": 8}, "fp8"),
        )
    ),
]


@pytest.mark.parametrize(("config", "name"), FORMATS)
def test_variation_and_overview_name_the_format_that_is_uploaded(
    config: dict[str, Any], name: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    names, _ = complete_names(replace(NAMES, variation=""), model=tmp_path, folder=tmp_path)
    assert names.model_source == f"alice/mathlete-model/transformers/{name}/1"
    overview = instance_metadata(names, licence="MIT", weights=name_format(tmp_path))["overview"]
    assert overview == f"{name} weights of a tuned reasoning model"


def test_the_lint_refuses_a_notebook_that_is_too_big_or_none(tmp_path: Path) -> None:
    write_names(tmp_path)
    for text, says in (
        ("x" * 1_000_000, "smaller than 1 MB"),
        ("{}", "must be a notebook"),
        ("[", "must be a notebook"),
    ):
        (tmp_path / NOTEBOOK).write_text(text)
        assert any(says in problem.rule for problem in lint_kernel(tmp_path))


def wheel(folder: Path, name: str, tag: str = "py3-none-any", requires: str = "") -> Path:
    """Return a small real wheel."""
    project, version = name.split("-")
    file = folder / f"{name}-{tag}.whl"
    info = f"{project}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {project}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requires}"] if requires else []
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{project}/__init__.py", "")
        archive.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return file


PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "small"
version = "1.0"
[tool.hatch.build.targets.wheel]
packages = ["small"]
"""


def test_the_wheelhouse_takes_what_is_needed_hashes_it_and_is_skipped_when_nothing_changed(tmp_path: Path) -> None:
    links, house, root = (tmp_path / name for name in ("links", "house", "root"))
    for folder in (links, root / "small"):
        folder.mkdir(parents=True)
    (root / "pyproject.toml").write_text(PROJECT)
    (root / "small" / "__init__.py").write_text("")
    wheel(links, "needed-1.0", tag="cp312-abi3-manylinux_2_28_x86_64", requires="numpy")
    steps = [build_wheelhouse(house, ["needed>=1"], find_links=links, root=root) for _ in range(2)]
    assert [step.skipped for step in steps] == [False, True]
    assert steps[0].figures["locked"] == ["needed==1.0"]
    assert len((house / SUMS).read_text().splitlines()) == 2
    verify_sums(house)
    next(house.glob("needed-*.whl")).write_bytes(b"changed")
    with pytest.raises(UserError, match="must be those of SHA256SUMS"):
        verify_sums(house)


@pytest.mark.slow
def test_what_the_image_has_is_not_carried(tmp_path: Path) -> None:
    wheel(tmp_path, "needed-1.0")
    wheel(tmp_path, f"numpy-{image_packages()['numpy']}")
    options = ["--no-index", "--find-links", str(tmp_path), "--no-deps"]
    assert resolve(["needed", "numpy"], options=options) == ["needed==1.0"]
    with pytest.raises(UserError, match="must have a solution") as refused:
        resolve(["absent"], options=options)
    assert refused.value.cure.startswith(f"add the wheels to {tmp_path}, or leave --find-links out")


@pytest.mark.parametrize("tag", sample("cp311-cp311-manylinux_2_28_x86_64", slow=["cp312-cp312-manylinux_2_40_x86_64"]))
def test_a_wheel_that_the_image_would_not_take_is_refused(tag: str, tmp_path: Path) -> None:
    wheel(tmp_path, "needed-1.0", tag=tag)
    with pytest.raises(UserError, match="that Kaggle's image takes"):
        verify(tmp_path)


def test_an_sdist_is_refused(tmp_path: Path) -> None:
    wheel(tmp_path, "needed-1.0")
    (tmp_path / "needed-1.0.tar.gz").write_bytes(b"")
    with pytest.raises(UserError, match="wheels only"):
        verify(tmp_path)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"problems": 0}, "the notebook's problems"),
    ({"wall_s": 100.0}, "the notebook's wall_s"),
    ({"question_min_s": 1000.0}, "the notebook's question_min_s"),
    ({"fallback": 100_000}, "the notebook's fallback"),
]


@pytest.mark.parametrize(("change", "says"), BAD)
def test_settings_out_of_range_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        config_from({**KernelConfig().to_json(), **change})


def test_a_build_of_before_names_its_competition() -> None:
    value = KernelConfig().to_json()
    assert config_from({**value, "competition": "aimo-2"}).competition.columns == ("id", "question")
    with pytest.raises(UserError, match="the competition must be a known one, got 'aimo-9'"):
        config_from({**value, "competition": "aimo-9"})
