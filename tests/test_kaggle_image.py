"""The notebook beside Kaggle's image: it imports nothing that the image lacks, and runs on its versions."""

import json
import os
import subprocess
import sys
import sysconfig
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mathlete.errors import UserError
from mathlete.kaggle_image import image_packages
from mathlete.rehearsal.image import IMPORTED, fetch_image
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
mathlete.kernel.server.frame("a", 1)
sampler.close()
owners = packages_distributions()
tops = {name.partition(".")[0] for name in sys.modules}
found = {canonicalize_name(owner) for top in tops for owner in owners.get(top, ())}
print(json.dumps(sorted(found)))
"""


@pytest.fixture(scope="module")
def used() -> set[str]:
    """Distributions that the notebook's server and engine import."""
    model = data_folder() / "pocket" / "model"
    done = subprocess.run([sys.executable, "-c", NOTEBOOK, str(model)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def needed_by(names: set[str]) -> set[str]:
    """Names of what these distributions need, and what that needs, as installed here."""
    found, queue = set[str](), [*names]
    while queue:
        with suppress(PackageNotFoundError):
            needs = {canonicalize_name(Requirement(line).name) for line in requires(queue.pop()) or ()} - found
            found |= needs
            queue += needs
    return found


@pytest.mark.slow
def test_the_notebook_imports_nothing_that_the_image_lacks(used: set[str]) -> None:
    assert {"torch", "transformers", "polars", "numpy"} <= used
    # Newer versions of the image's packages, as installed here, may need more than those there do.
    assert used - set(image_packages()) - needed_by(used & set(image_packages())) <= {"mathlete"}
    assert set(IMPORTED) <= set(image_packages())


@pytest.mark.slow
def test_engine_and_server_pass_their_tests_on_the_images_versions(tmp_path: Path, root: Path) -> None:
    try:
        overlay = fetch_image(tmp_path / "image").path
    except UserError as error:
        if "connection" in str(error):
            pytest.skip("needs a package index")
        raise
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(overlay), sysconfig.get_path("purelib")])}
    version = [sys.executable, "-c", "import transformers; print(transformers.__version__)"]
    seen = subprocess.run(version, env=variables, capture_output=True, text=True, check=False)
    assert seen.stdout.strip() == image_packages()["transformers"], seen.stderr
    names = ("sampling_engine", "sampling_drawing", "kernel_server", "models", "prompts", "solve")
    tests = [f"tests/test_{name}.py" for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:anyio", *tests]
    run = subprocess.run(command, cwd=root, env=variables, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:]
