"""The metadata files that Kaggle reads, with every key written: its client's defaults are not those of its docs.

Sources: what kaggle 2.2.x reads (kaggle/api/kaggle_api_extended.py, kernels_push and the *-metadata.json readers) and
its docs/kernels_metadata.md. `enable_internet` defaults to true in the code.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from mathlete.competitions import Competition
from mathlete.errors import UserError
from mathlete.runs import read_json, write_json
from mathlete.submission.weights import name_format

VllmFrom = Literal["notebook", "dataset"]
"""What brings vLLM's wheels: a notebook with internet that downloads them on Kaggle, or a data set sent from here."""
DOWNLOADS, DOWNLOADS_FOLDER = "vllm.ipynb", "vllm"
"""The notebook that downloads vLLM's wheels, and its folder beside the submission's notebook."""
NOTEBOOK, KERNEL_FILE = "submission.ipynb", "kernel-metadata.json"
DATASET_FILE, MODEL_FILE, INSTANCE_FILE = "dataset-metadata.json", "model-metadata.json", "model-instance-metadata.json"
PLACEHOLDER = "your-kaggle-name"
_SOURCE = re.compile(r"([^/\s]+/){4}[1-9][0-9]*")


@dataclass(frozen=True, kw_only=True)
class Names:
    """Names on Kaggle."""

    owner: str = PLACEHOLDER
    """The Kaggle account."""
    kernel: str = "mathlete-submission"
    """Slug of the notebook."""
    wheels: str = "mathlete-wheels"
    """Slug of the data set of wheels."""
    model: str = "mathlete-model"
    """Slug of the model."""
    vllm: str = "mathlete-vllm"
    """Slug of the notebook that downloads vLLM's wheels, or of the data set of them, where vLLM is the engine."""
    variation: str = ""
    """Slug of the model's variation; default: the format of the weights."""
    model_version: int = 0
    """Version of the model that the notebook mounts; 0: the one these weights have, or will have when pushed."""

    def with_mounted(self, source: str) -> "MountedNames":
        """Return them with somebody's model in place of one that is uploaded; `source` has Kaggle's five parts.

        Raises:
            UserError: it has not.
        """
        if not _SOURCE.fullmatch(source):
            raise UserError(
                "--model-source must be OWNER/MODEL/FRAMEWORK/VARIATION/VERSION",
                value=repr(source),
                cure="take it from the model's page on Kaggle, as in openai/gpt-oss-120b/transformers/default/1",
            )
        return MountedNames(**{**asdict(self), "source": source})

    @property
    def uploads_model(self) -> bool:
        """Whether the model is this build's own."""
        return True

    def name_variation(self, model: Path) -> "Names":
        """Return them with the variation's slug: the format of the model's weights, where it is not given."""
        return self if self.variation else replace(self, variation=name_format(model))

    @property
    def has_owner(self) -> bool:
        """Whether the account is known."""
        return self.owner != PLACEHOLDER

    @property
    def kernel_id(self) -> str:
        """owner/slug of the notebook."""
        return f"{self.owner}/{self.kernel}"

    @property
    def wheels_id(self) -> str:
        """owner/slug of the data set of wheels."""
        return f"{self.owner}/{self.wheels}"

    @property
    def vllm_id(self) -> str:
        """owner/slug of what holds vLLM's wheels."""
        return f"{self.owner}/{self.vllm}"

    @property
    def model_instance(self) -> str:
        """The four parts without the version: owner/model/framework/variation."""
        return f"{self.owner}/{self.model}/transformers/{self.variation}"

    @property
    def model_source(self) -> str:
        """The five parts: owner/model/framework/variation/version."""
        return f"{self.model_instance}/{self.model_version}"


@dataclass(frozen=True, kw_only=True)
class MountedNames(Names):
    """Names where the notebook mounts a model that is on Kaggle already: of its names only this one counts.

    >>> Names(owner="alice").with_mounted("openai/gpt-oss-20b/transformers/default/1").model_instance
    'openai/gpt-oss-20b/transformers/default'
    """

    source: str
    """owner/model/framework/variation/version."""

    @property
    def uploads_model(self) -> bool:
        """Whether the model is this build's own."""
        return False

    @property
    def model_instance(self) -> str:
        """The four parts without the version."""
        return self.source.rpartition("/")[0]

    @property
    def model_source(self) -> str:
        """The five parts."""
        return self.source


def kernel_metadata(
    names: Names, *, rules: Competition, machine: str | None, image: str, vllm: VllmFrom | None = None
) -> dict[str, object]:
    """Return the content of kernel-metadata.json."""
    return {
        "id": names.kernel_id,
        "title": names.kernel.replace("-", " "),
        "code_file": NOTEBOOK,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_tpu": False,
        "enable_internet": False,
        "machine_shape": machine or rules.machine,
        "docker_image": image,
        "docker_image_pinning_type": "original",
        "keywords": ["gpu"],
        "dataset_sources": [names.wheels_id, *([names.vllm_id] if vllm == "dataset" else [])],
        "competition_sources": [rules.slug],
        "kernel_sources": [names.vllm_id] if vllm == "notebook" else [],
        "model_sources": [names.model_source],
    }


def downloads_metadata(names: Names, *, image: str) -> dict[str, object]:
    """Return the content of kernel-metadata.json of the notebook that downloads vLLM's wheels: internet, and no GPU."""
    return {
        "id": names.vllm_id,
        "title": names.vllm.replace("-", " "),
        "code_file": DOWNLOADS,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": False,
        "enable_tpu": False,
        "enable_internet": True,
        "machine_shape": "",
        "docker_image": image,
        "docker_image_pinning_type": "original",
        "keywords": [],
        "dataset_sources": [],
        "competition_sources": [],
        "kernel_sources": [],
        "model_sources": [],
    }


def dataset_metadata(names: Names) -> dict[str, object]:
    """Return the content of the wheels' dataset-metadata.json."""
    return {
        "id": names.wheels_id,
        "title": names.wheels.replace("-", " "),
        "subtitle": "Wheels that the offline notebook installs with no index",
        "description": "Made by `python -m submit wheels`. SHA256SUMS holds the hash of each wheel.",
        "licenses": [{"name": "other"}],
        "keywords": [],
    }


def model_metadata(names: Names) -> dict[str, object]:
    """Return the content of model-metadata.json."""
    return {
        "ownerSlug": names.owner,
        "slug": names.model,
        "title": names.model.replace("-", " "),
        "subtitle": "A reasoning model tuned and exported with mathlete",
        "isPrivate": True,
        "description": "Made by `python -m train` of mathlete; the export's card tells base, data and figures.",
        "publishTime": "",
        "provenanceSources": "",
    }


def instance_metadata(names: Names, *, licence: str, weights: str) -> dict[str, object]:
    """Return the content of model-instance-metadata.json.

    Args:
        names: on Kaggle.
        licence: by Kaggle's name of it, such as "Apache 2.0".
        weights: their format.
    """
    return {
        "ownerSlug": names.owner,
        "modelSlug": names.model,
        "instanceSlug": names.variation,
        "framework": "transformers",
        "licenseName": licence,
        "overview": f"{weights} weights of a tuned reasoning model",
        "usage": "Mounted by the submission notebook; loads with transformers.",
        "fineTunable": False,
        "trainingData": [],
        "modelInstanceType": "Unspecified",
        "baseModelInstance": "",
        "externalBaseModelUrl": "",
    }


def _list_changes(file: Path, new: Mapping[str, object]) -> Iterator[str]:
    try:
        old = read_json(file) if file.is_file() else None
    except UserError:
        old = None  # what is broken is replaced
    for key in dict.fromkeys([*new, *old]) if old is not None else ():
        if old is not None and old.get(key) != new.get(key):
            yield f"{file.name}: {key} is {json.dumps(new.get(key))} now, it was {json.dumps(old.get(key))}"


def write_metadata(
    folder: Path,
    names: Names,
    *,
    rules: Competition,
    machine: str | None,
    image: str,
    licence: str,
    weights: str,
    vllm: VllmFrom | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Write all four files, those of the model only where it is uploaded.

    `weights` is the word for their format, `vllm` what brings vLLM's wheels, where they are. `say` is called with each
    key of kernel-metadata.json that gets another value: a hand may have written the one before.
    """
    kernel = kernel_metadata(names, rules=rules, machine=machine, image=image, vllm=vllm)
    for change in _list_changes(folder / KERNEL_FILE, kernel):
        say(change)
    write_json(folder / KERNEL_FILE, kernel)
    write_json(folder / DATASET_FILE, dataset_metadata(names))
    if names.uploads_model:
        write_json(folder / MODEL_FILE, model_metadata(names))
        write_json(folder / INSTANCE_FILE, instance_metadata(names, licence=licence, weights=weights))
    else:
        # Of an earlier build: nothing must be uploaded by them.
        for name in (MODEL_FILE, INSTANCE_FILE):
            (folder / name).unlink(missing_ok=True)
