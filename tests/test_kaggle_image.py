"""The notebook beside Kaggle's image: it imports nothing that the image lacks, and runs on its versions."""

import fnmatch
import json
import os
import subprocess
import sys
import sysconfig
import tomllib
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Any

import grimp
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mathlete.errors import UserError
from mathlete.export.formats import EXPORT_FORMATS, MOUNTED_FORMATS
from mathlete.kaggle_image import image_packages
from mathlete.rehearsal.environments import IMPORTED
from mathlete.rehearsal.image import fetch_image
from mathlete.shipped import data_folder

NOTEBOOK = """
import json, sys
from importlib.metadata import packages_distributions
from pathlib import Path
from packaging.utils import canonicalize_name
import mathlete.kernel.server
from mathlete.kernel.engine_child import open_sampler
from mathlete.problems import Problem
from mathlete.sampling.samples import SamplingConfig

tools = {"turns": 1}
sampler = open_sampler({"model": sys.argv[1], "precision": "auto", "threads": 1, "tools": tools})
samples = list(sampler.stream(Problem(id="a", statement="1+1", gold="2"), seeds={0: 0}, config=SamplingConfig()))
mathlete.kernel.server.frame("a", 1, names=("id", "answer"))
sampler.close()
owners = packages_distributions()
tops = {name.partition(".")[0] for name in sys.modules}
names = {canonicalize_name(owner) for top in tops for owner in owners.get(top, ())}
print(json.dumps(sorted(names)))
"""


@pytest.fixture(scope="module")
def used() -> set[str]:
    """Distributions that the notebook's server and engine import."""
    model = data_folder() / "pocket" / "model"
    done = subprocess.run([sys.executable, "-c", NOTEBOOK, str(model)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def find_needs(names: set[str]) -> set[str]:
    """Name of what these distributions need, and what that needs, as installed here."""
    needed, queue = set[str](), [*names]
    while queue:
        with suppress(PackageNotFoundError):
            needs = {canonicalize_name(Requirement(line).name) for line in requires(queue.pop()) or ()} - needed
            needed |= needs
            queue += needs
    return needed


IMPORTED_AS = {"antlr4-python3-runtime": "antlr4"}
"""Distributions whose modules have another name."""
WHEELS = {
    canonicalize_name(Requirement(line).name)
    for one in (*EXPORT_FORMATS.values(), *MOUNTED_FORMATS)
    for line in one.wheels
}


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def contract(project: dict[str, Any]) -> dict[str, Any]:
    """The linter's contract about what the notebook imports."""
    (contract,) = [c for c in project["tool"]["importlinter"]["contracts"] if c["type"] == "forbidden"]
    assert contract["source_modules"] == ["mathlete.kernel"]
    return dict(contract)


def test_the_linter_forbids_the_kernel_every_dependency_that_the_image_lacks(
    project: dict[str, Any], contract: dict[str, Any]
) -> None:
    image, extras = image_packages(), project["project"]["optional-dependencies"]
    lines = [*project["project"]["dependencies"], *(line for name in set(extras) - {"dev"} for line in extras[name])]
    needs = {canonicalize_name(need.name): need for need in map(Requirement, lines)}
    lacking = {name for name, need in needs.items() if name not in image or image[name] not in need.specifier}
    names = [IMPORTED_AS.get(name, name.replace("-", "_")) for name in lacking - WHEELS]
    assert sorted(contract["forbidden_modules"]) == sorted(names)


def test_the_kernel_reaches_only_modules_of_the_image(contract: dict[str, Any]) -> None:
    graph = grimp.build_graph("mathlete", include_external_packages=True, cache_dir=None)
    for line in contract["ignore_imports"]:
        importers, imported = line.split(" -> ")
        for importer in fnmatch.filter(graph.find_modules_that_directly_import(imported), importers):
            graph.remove_import(importer=importer, imported=imported)
    reached = graph.find_upstream_modules("mathlete.kernel", as_package=True)
    outside = {name for name in reached if graph.is_module_squashed(name)} - sys.stdlib_module_names
    assert {"torch", "transformers", "polars"} <= outside
    owners = packages_distributions()
    held = {*image_packages(), *WHEELS}
    assert [name for name in outside if not {canonicalize_name(owner) for owner in owners.get(name, ())} & held] == []


@pytest.mark.slow
def test_the_notebook_imports_nothing_that_the_image_lacks(used: set[str]) -> None:
    assert {"torch", "transformers", "polars", "numpy"} <= used
    # Newer versions of the image's packages, as installed here, may need more than those there do.
    assert used - set(image_packages()) - find_needs(used & set(image_packages())) <= {"mathlete"}
    assert set(IMPORTED) <= set(image_packages())


@pytest.mark.slow
def test_engine_and_server_pass_their_tests_on_the_images_versions(tmp_path: Path, root: Path) -> None:
    try:
        overlay = fetch_image(tmp_path / "image", python="this").python.site
    except UserError as error:
        if "connection" in str(error):
            pytest.skip("needs a package index")
        raise
    # Plugins of this environment's pytest belong to this environment's versions of what the image has in others.
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(overlay), sysconfig.get_path("purelib")]),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    version = [sys.executable, "-c", "import transformers; print(transformers.__version__)"]
    seen = subprocess.run(version, env=variables, capture_output=True, text=True, check=False)
    assert seen.stdout.strip() == image_packages()["transformers"], seen.stderr
    names = ("sampling_engine", "sampling_drawing", "kernel_server", "models", "prompts", "solve")
    tests = [f"tests/test_{name}.py" for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    run = subprocess.run(command, cwd=root, env=variables, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:]
