"""Metadata lint: names before the push what Kaggle's client would accept in silence or refuse with a bare traceback."""

import importlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from mathlete.errors import UserError, find_broken
from mathlete.licences import HUB_LICENCES
from mathlete.models import GPUS, Device
from mathlete.runs import read_json
from mathlete.submission.metadata import (
    DATASET_FILE,
    DOWNLOADS_FOLDER,
    INSTANCE_FILE,
    KERNEL_FILE,
    MODEL_FILE,
    PLACEHOLDER,
)
from mathlete.submission.refusal import Refusal, refusal_of
from mathlete.submission.stamps import parse_notebook

KERNEL_KEYS = (
    *("id", "title", "code_file", "language", "kernel_type", "is_private", "enable_gpu", "enable_tpu"),
    *("enable_internet", "machine_shape", "docker_image", "docker_image_pinning_type", "keywords"),
    *("dataset_sources", "competition_sources", "kernel_sources", "model_sources"),
)
MODEL_KEYS = ("ownerSlug", "slug", "title", "isPrivate", "description")
INSTANCE_KEYS = ("ownerSlug", "modelSlug", "instanceSlug", "framework", "licenseName")
NOTEBOOK_BYTES = 1_000_000
LICENCES = frozenset(HUB_LICENCES.values())
LICENCE_CURE = f"build with --kaggle.licence one of {', '.join(sorted(LICENCES))}"
_SOURCES = {
    "dataset_sources": (re.compile(r"[^/]+/[^/\s]+(/[^/\s]+)?"), "owner/slug"),
    "kernel_sources": (re.compile(r"[^/]+/[^/\s]+"), "owner/slug"),
    "competition_sources": (re.compile(r"[^/\s]+"), "a slug"),
    "model_sources": (re.compile(r"[^/]+/([^/\s]+/){3}[0-9]+"), "owner/model/framework/variation/version"),
}
"""{key: (form of one source, what a message calls it)}."""
_SLUG = re.compile(r"[a-z0-9][a-z0-9-]*")
_DATASET_SLUG = "a slug of 6 to 50 characters: small letters, digits and '-'"
_MODEL_SLUG = re.compile(r"[a-z0-9][a-z0-9._-]*")
"""Of a model or its variation, in which a point may stand: qwen-lm/qwen2.5/transformers/0.5b-instruct/1."""
_ACCOUNT = re.compile(r"[a-z0-9_-]+")
_STAFF_ONLY = ("NvidiaTeslaT4Highmem",)
"""Machines that Kaggle lists for its own staff (kaggle_api_extended.py)."""
_IMAGE = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")
_CPU_IMAGE = re.compile(r"/kaggle-images/")
"""Of Kaggle's images, gcr.io/kaggle-images/python is for CPUs and gcr.io/kaggle-gpu-images/python for GPUs."""
TAGS = frozenset(
    (
        *("gpu", "nlp", "deep learning", "reasoning", "text", "classification", "computer science", "programming"),
        *("pytorch", "beginner"),
    )
)
"""Tags that were seen on Kaggle's own pages, by their numbers (kaggle.com/code?tagIds=16580-GPU, 13204-NLP, 13310-Deep
Learning, 17193-Reasoning, 14104-Text, 13302-Classification) or paths (subject > science and technology > computer
science, packages > pytorch, audience > beginner). No list is published, and no call of its client returns one: a
keyword must "correspond to an existing tag", else it is left out (Kaggle/kaggle-cli docs/datasets_metadata.md)."""
_PIP = re.compile(r"(?m)^[ \t]*[!%][^%\n]*\bpip3?\b.*$|^%%(?:bash|sh|!)\b[\s\S]*\bpip3?\b.*$")
_WRITTEN = re.compile(r"(?m)^[ \t]*[^#\s]")
"""Something else than blanks and comments: an editor leaves an empty cell at the end."""
_SERVES = re.compile(r"(?m)^[^#\n]*(?:\b(?:serve|run_local_gateway)|\.predict)\(")
"""A call of this project's `serve`, of a server of Kaggle's, or of an iterator's environment."""


_OF_ACCOUNT = ("name your account", "name an account as it stands in its address", "be in small letters")
"""How rules about an account end."""


def require_sound(folder: Path, *, uploads_model: bool = True, downloads: bool = False) -> None:
    """Check what a build has just written, but for the account, which may still be a placeholder.

    Args:
        folder: the notebook's.
        uploads_model: whether the model is uploaded; one that is mounted has no metadata here.
        downloads: whether a second notebook, in a folder below it, downloads vLLM's wheels.

    Raises:
        UserError: Kaggle would refuse it, or take it in silence.
    """
    model = lint_model(folder) if uploads_model else ()
    second = lint_downloads(folder / DOWNLOADS_FOLDER) if downloads else ()
    for refusal in (*lint_kernel(folder), *model, *lint_dataset(folder), *second):
        if not refusal.rule.endswith(_OF_ACCOUNT):
            raise refusal.error()


def require_sound_training(folder: Path) -> None:
    """Check what was written for a notebook that trains, but for the account, which may still be a placeholder.

    Raises:
        UserError: Kaggle would refuse it, or take it in silence.
    """
    metadata = read_json(folder / KERNEL_FILE)
    parts = (_identity(metadata), _switches(metadata, internet=True), _forms(metadata))
    for refusal in (*chain.from_iterable(parts), *_notebook(folder, metadata, serves=False)):
        if not refusal.rule.endswith(_OF_ACCOUNT):
            raise refusal.error()


def slug_of(title: str) -> str:
    """Return the slug that Kaggle makes of a title.

    >>> slug_of("My  AIMO notebook!")
    'my-aimo-notebook'
    """
    from slugify import slugify

    return str(slugify(title))


def lint_kernel(folder: Path) -> Iterator[Refusal]:
    """Yield what is wrong with kernel-metadata.json and its notebook."""
    metadata = _read_kernel(folder)
    if isinstance(metadata, Refusal):
        yield metadata
        return
    yield from _identity(metadata)
    yield from _switches(metadata)
    yield from _sources(metadata)
    yield from _apart(metadata)
    yield from _notebook(folder, metadata)


def lint_downloads(folder: Path) -> Iterator[Refusal]:
    """Yield what is wrong with the notebook that downloads vLLM's wheels, and with its kernel-metadata.json."""
    metadata = _read_kernel(folder)
    if isinstance(metadata, Refusal):
        yield metadata
        return
    parts = (_identity(metadata), _switches(metadata, internet=True, gpu=False), _forms(metadata))
    for refusal in (*chain.from_iterable(parts), *_notebook(folder, metadata, serves=False)):
        yield replace(refusal, rule=refusal.rule.replace(KERNEL_FILE, f"{DOWNLOADS_FOLDER}/{KERNEL_FILE}", 1))


def _read_kernel(folder: Path) -> dict[str, Any] | Refusal:
    """Return the content of kernel-metadata.json, or what it lacks."""
    file = folder / KERNEL_FILE
    if not file.is_file():
        return Refusal(rule=f"the folder needs {KERNEL_FILE}", value=str(folder), cure="run `submit build`")
    try:
        metadata = read_json(file)
    except UserError as error:
        return refusal_of(error)
    if missing := [key for key in KERNEL_KEYS if key not in metadata]:
        rule = f"{KERNEL_FILE} must write every key: Kaggle's defaults are not its documented ones"
        return Refusal(rule=rule, value=f"without {', '.join(missing)}", cure="run `submit build` again")
    return metadata


def _refuse_key(key: str, value: object, rule: str, cure: str) -> Refusal:
    return Refusal(rule=f"{KERNEL_FILE}: {key} must {rule}", value=repr(value), cure=cure)


def _identity(metadata: Mapping[str, object]) -> Iterator[Refusal]:
    name, title = str(metadata["id"]), str(metadata["title"])
    _, _, slug = name.partition("/")
    if name.count("/") != 1 or not _SLUG.fullmatch(slug):
        yield _refuse_key("id", name, "be owner/slug", "write it so, without a version")
    yield from _owner("id", name)
    if len(slug) < 5:
        yield _refuse_key("id", name, "have a slug of at least five characters", "choose a longer one")
    if len(title) < 5:
        yield _refuse_key("title", title, "have at least five characters", "choose a longer one")
    elif slug_of(title) != slug:
        yield _refuse_key("title", title, f"make the slug {slug}, it makes {slug_of(title)}", "change one of the two")


def _owner(key: str, name: str) -> Iterator[Refusal]:
    """Yield what is wrong with the account in owner/slug or in owner/model/framework/variation/version."""
    owner, *_ = parts = name.split("/")
    if owner == PLACEHOLDER or "INSERT" in name:
        yield _refuse_key(key, name, "name your account", "build with --names.owner YOUR-KAGGLE-NAME")
    elif not _ACCOUNT.fullmatch(owner.lower()):
        yield _refuse_key(key, name, "name an account as it stands in its address", "build with --names.owner NAME")
    # A framework's name may have capitals.
    elif any(part != part.lower() for part in parts[:2]):
        cure = "write accounts and slugs as they stand in their address on Kaggle"
        yield _refuse_key(key, name, "be in small letters", cure)


def _switches(metadata: Mapping[str, object], *, internet: bool = False, gpu: bool = True) -> Iterator[Refusal]:
    switches = {"enable_internet": internet, "is_private": True, "enable_gpu": gpu, "enable_tpu": False}
    for key, wanted in switches.items():
        if metadata[key] is not wanted and str(metadata[key]).lower() != str(wanted).lower():
            yield _refuse_key(key, metadata[key], f"be {str(wanted).lower()}", "run `submit build` again")
    words = {"language": ["python"], "kernel_type": ["notebook"], "docker_image_pinning_type": ["original", "latest"]}
    for key, known in words.items():
        if metadata[key] not in known:
            yield _refuse_key(key, metadata[key], f"be {' or '.join(known)}", "run `submit build` again")
    yield from _image(str(metadata["docker_image"]))
    keywords = metadata["keywords"]
    if not isinstance(keywords, list) or any(word not in TAGS for word in keywords):
        cure = f"use some of {', '.join(sorted(TAGS))}, or leave the list empty"
        rule = "name tags that Kaggle is known to have, which publishes no list: it drops those that it has not"
        yield _refuse_key("keywords", keywords, rule, cure)
    shape = str(metadata["machine_shape"])
    if not gpu:
        return
    if instead := Device.retired_machines.get(shape):
        yield _refuse_key("machine_shape", shape, f"not be retired: {instead} would run instead", f"use {instead}")
    elif shape in _STAFF_ONLY:
        yield _refuse_key("machine_shape", shape, "be open to you: this one is for Kaggle's staff", "use NvidiaTeslaT4")
    elif Device.of_machine(shape) is None:
        open_to_all = (shape for gpu in GPUS.values() for shape in gpu.machines if shape not in _STAFF_ONLY)
        cure = f"use one of {', '.join(open_to_all)}"
        yield _refuse_key("machine_shape", shape, "be known: Kaggle takes any word in silence", cure)


def _image(image: str) -> Iterator[Refusal]:
    if image and not _IMAGE.fullmatch(image):
        cure = "write IMAGE@sha256: and 64 hex digits, or leave it out"
        yield _refuse_key("docker_image", image, "be pinned by its digest, or empty", cure)
    elif _CPU_IMAGE.search(image):
        cure = "take the digest of gcr.io/kaggle-gpu-images/python, or leave it out"
        yield _refuse_key("docker_image", image, "be an image for GPUs", cure)


def _forms(metadata: Mapping[str, object]) -> Iterator[Refusal]:
    """Yield what is wrong with the names of what is mounted."""
    for key, (form, shown) in _SOURCES.items():
        sources = metadata[key]
        if not isinstance(sources, list):
            yield _refuse_key(key, sources, "be a list", "run `submit build` again")
            continue
        # Kaggle's client does not report an invalid model source: the notebook is saved without its model.
        for source in sources:
            if not form.fullmatch(str(source)):
                yield _refuse_key(key, source, f"be {shown}", "write it so; the rerun mounts exactly what stands here")
            else:
                yield from _owner(key, str(source))


def _sources(metadata: Mapping[str, object]) -> Iterator[Refusal]:
    yield from _forms(metadata)
    # Without the competition's data, the weights and the wheels the notebook has nothing to serve, or to serve it with.
    for key in ("competition_sources", "model_sources", "dataset_sources"):
        if not metadata[key]:
            yield _refuse_key(key, metadata[key], "not be empty: nothing else is mounted", "run `submit build` again")


def _apart(metadata: Mapping[str, object]) -> Iterator[Refusal]:
    """Yield slugs that stand for two things, or that Kaggle gives to no data set of one's own.

    Kaggle's older folders have what is mounted by its slug alone, and a build knows its parts by theirs. The notebook
    is not mounted: an address on Kaggle has its kind, so only another notebook can be taken for it.
    """
    lists = {key: [str(one) for one in value] for key in _SOURCES if isinstance(value := metadata[key], list)}
    mounted = [(key, name) for key, names in lists.items() for name in names]
    notebooks = [("id", str(metadata["id"])), *((key, name) for key, name in mounted if key == "kernel_sources")]
    rule = f"{KERNEL_FILE}: the notebook and all that it mounts must have slugs of their own"
    cure = "build with another --names.kernel, --names.wheels, --names.model or --names.vllm"
    # The notebook's own slug may be its model's or its competition's.
    for named in (notebooks, mounted):
        slugs = Counter(_slug_in(name) for _, name in named)
        for slug in (slug for slug, times in slugs.items() if times > 1):
            same = [f"{key} {name}" for key, name in named if _slug_in(name) == slug]
            yield Refusal(rule=rule, value=f"{slug}, {slugs[slug]} times: {', '.join(same)}", cure=cure)
    owner = str(metadata["id"]).partition("/")[0]
    # What others own, Kaggle has taken already.
    for name in lists.get("dataset_sources", []):
        if name.startswith(f"{owner}/") and not _is_dataset_slug(name.split("/")[1]):
            cure = "build with another --names.wheels or --names.vllm"
            yield _refuse_key("dataset_sources", name, f"have {_DATASET_SLUG}", cure)


def _slug_in(name: str) -> str:
    """Return the slug in owner/slug, or in a name without an owner."""
    return name.lower().split("/")[1 if "/" in name else 0]


def _notebook(folder: Path, metadata: Mapping[str, object], *, serves: bool = True) -> Iterator[Refusal]:
    nbformat = importlib.import_module("nbformat")
    file = folder / str(metadata["code_file"])
    if folder.resolve() not in file.resolve().parents or not file.is_file():
        yield _refuse_key("code_file", metadata["code_file"], "be a file of the folder", "run `submit build` again")
        return
    if (size := file.stat().st_size) >= NOTEBOOK_BYTES:
        rule = "the notebook must be smaller than 1 MB, Kaggle refuses it else"
        yield Refusal(rule=rule, value=f"{size} bytes", cure="put code and data into wheels and data sets")
    try:
        parse_notebook(file.read_bytes())  # nbformat's own reader says nothing of what is nested too deep
        notebook = nbformat.read(file, as_version=4)
        nbformat.validate(notebook)
        yield from _cells(notebook, serves=serves)
    except (nbformat.ValidationError, ValueError, AttributeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        yield Refusal(rule=f"{file} must be a notebook ({reason})", value="something else", cure="build it again")


def _cells(notebook: Any, *, serves: bool) -> Iterator[Refusal]:
    """Yield what papermill would stumble over, or lose without a word."""
    kernel = notebook.metadata.get("kernelspec", {}).get("name")
    if kernel != "python3":
        rule = "the notebook's kernel must be python3: Kaggle's image has no other"
        yield Refusal(rule=rule, value=repr(kernel), cure="write kernelspec with name python3 into its metadata")
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code" and _WRITTEN.search(cell.source)]
    for line in (match[0].strip() for source in code for match in _PIP.finditer(source)):
        rule = "the notebook must not install by a magic line with pip: its failure does not fail the notebook"
        cure = 'use subprocess.check_call([sys.executable, "-m", "pip", …])'
        yield Refusal(rule=rule, value=line[:80].replace("\n", " "), cure=cure)
    if serves and (not code or not _SERVES.search(code[-1])):
        rule = "the notebook's last cell must serve: what comes after it runs in the commit run alone"
        value = "no code cell" if not code else repr(code[-1].strip()[:80])
        yield Refusal(rule=rule, value=value, cure="make the call of serve(…) the last cell")


def lint_model(folder: Path) -> Iterator[Refusal]:
    """Yield what is wrong with the model's two metadata files."""
    for name, keys in ((MODEL_FILE, MODEL_KEYS), (INSTANCE_FILE, INSTANCE_KEYS)):
        file = folder / name
        if not file.is_file():
            yield Refusal(rule="the model's folder needs its metadata", value=f"no {name}", cure="build again")
            continue
        value = read_json(file)
        if missing := [key for key in keys if value.get(key) in (None, "")]:
            rule = f"{name} must fill {', '.join(keys)}"
            yield Refusal(rule=rule, value=f"without {', '.join(missing)}", cure="build again")
        for key in ("slug", "modelSlug", "instanceSlug"):
            if (slug := value.get(key)) and not _MODEL_SLUG.fullmatch(str(slug)):
                cure = "build with another --names.model or --names.variation"
                rule = f"{name}: {key} must be of small letters, digits, '-', '_' and '.'"
                yield Refusal(rule=rule, value=repr(slug), cure=cure)
        licence = value.get("licenseName")
        if name == INSTANCE_FILE and licence not in LICENCES:
            rule = f"{name}: licenseName must be Kaggle's own name"
            yield Refusal(rule=rule, value=repr(licence), cure=LICENCE_CURE)


def lint_dataset(folder: Path) -> Iterator[Refusal]:
    """Yield what is wrong with the wheels' dataset-metadata.json."""
    file = folder / DATASET_FILE
    if not file.is_file():
        yield Refusal(rule="the wheels need their metadata", value=f"no {file.name}", cure="build again")
        return
    value = read_json(file)
    owner, _, slug = str(value.get("id", "")).partition("/")
    title, subtitle = (len(str(value.get(key, ""))) for key in ("title", "subtitle"))
    licences = value.get("licenses")
    broken = find_broken(
        ("id", value.get("id"), bool(owner) and _is_dataset_slug(slug), f"owner/slug with {_DATASET_SLUG}"),
        ("title", value.get("title"), 6 <= title <= 50, "a text of 6 to 50 characters"),
        ("subtitle", value.get("subtitle"), 20 <= subtitle <= 80, "a text of 20 to 80 characters"),
        ("licenses", licences, isinstance(licences, list) and len(licences) == 1, "a list of one licence"),
        prefix=f"{file.name}: ",
        cure="run `submit build` again",
    )
    yield from map(refusal_of, broken)


def _is_dataset_slug(slug: str) -> bool:
    return 6 <= len(slug) <= 50 and _SLUG.fullmatch(slug) is not None
