"""The checks of a build's parts: everything that can be known before a push without running the notebook."""

from collections.abc import Iterator
from dataclasses import replace

from mathlete.errors import UserError
from mathlete.gates import REBUILD, require_passed
from mathlete.kaggle_image import image_packages
from mathlete.kernel import KernelConfig
from mathlete.models import Device, find_model
from mathlete.runs import read_json, verify_if_made
from mathlete.submission.build import Build
from mathlete.submission.embedded_fit import find_embedded_crowding, find_unloadable, require_kind
from mathlete.submission.engine_choice import find_lack_of_room, find_refusal, name_other_engine, settle_context
from mathlete.submission.lint import LICENCE_CURE, LICENCES, lint_dataset, lint_downloads, lint_kernel, lint_model
from mathlete.submission.metadata import DOWNLOADS, DOWNLOADS_FOLDER, KERNEL_FILE
from mathlete.submission.mounts import read_mounted
from mathlete.submission.refusal import Check, Refusal, check, refusal_of
from mathlete.submission.release import check_release
from mathlete.submission.vllm_wheels import check_wheels
from mathlete.submission.weights import formats_of, list_needed, name_storage
from mathlete.submission.wheelhouse import verify, verify_sums

_DATASET_BYTES = 100 * 2**30


def check_parts(build: Build, *, released: str = "") -> list[Check]:
    """Check everything about a build that can be known without running it.

    Args:
        build: what would be pushed.
        released: day the base model was released, YYYY-MM-DD; empty: as the build says, or known by its name.
    """
    return [
        check("gates of its training", _gates(build)),
        check("kernel metadata and notebook", lint_kernel(build.kaggle)),
        check("model metadata and licence", lint_model(build.kaggle) if build.mounted is None else _licence(build)),
        check("data set metadata", lint_dataset(build.kaggle)),
        check("names agree", _names(build)),
        check("wheels against the image", _wheels(build)),
        check("the export as it was made", _export(build)),
        check("weights against the GPU", _gpu(build)),
        check(_name_vllm(build.config), _vllm(build)),
        check("sizes", _sizes(build)),
        check("machine and licence by the rules", _by_rules(build)),
        check("model cutoff date", _cutoff(build, released or build.released)),
    ]


def _gates(build: Build) -> Iterator[Refusal]:
    try:
        require_passed(build.model, reason=build.accept_refused, accept=REBUILD)
    except UserError as error:
        yield refusal_of(error)


def _licence(build: Build) -> Iterator[Refusal]:
    """Yield what is wrong with the licence of a model that is mounted: it has no metadata of ours."""
    if build.licence not in LICENCES:
        rule = "the licence of a mounted model must be known"
        yield Refusal(rule=rule, value=repr(build.licence), cure=LICENCE_CURE)


def _names(build: Build) -> Iterator[Refusal]:
    notebook, names = read_mounted(build.kaggle), build.names
    yield from notebook.lint()
    # A push asks for status and output by the build's name, and uploads the model as the build's version of it.
    if (own := str(read_json(build.kaggle / KERNEL_FILE).get("id"))) != names.kernel_id:
        rule, cure = f"{KERNEL_FILE}: id must be the build's, {names.kernel_id}", "build with --names.kernel SLUG"
        yield Refusal(rule=rule, value=own, cure=cure)
    own_source = names.model_source.lower()
    for name in (one.name for one in notebook.mounted if one.kind == "models"):
        if name.lower() != own_source and name.rpartition("/")[0].lower() == own_source.rpartition("/")[0]:
            rule = f"{KERNEL_FILE} must mount the version that the build has of its model, {names.model_source}"
            yield Refusal(rule=rule, value=name, cure="build with --names.model-version NUMBER, or mount that one")


def _wheels(build: Build) -> Iterator[Refusal]:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    try:
        verify_sums(build.wheels)
        verify(build.wheels)
    except UserError as error:
        yield refusal_of(error)
    have = {canonicalize_name(path.name.split("-")[0]) for path in build.wheels.glob("*.whl")} | {*image_packages()}
    try:
        needed = list_needed(build.model, engine=build.config.engine, vllm=build.config.vllm)
    except UserError as error:
        yield refusal_of(error)
        return
    for requirement in needed:
        if (name := canonicalize_name(Requirement(requirement).name)) not in have:
            rule = "the wheels must hold what the weights need"
            yield Refusal(rule=rule, value=f"no {name}", cure="run `submit build` again")


def _export(build: Build) -> Iterator[Refusal]:
    try:
        verify_if_made(build.model)
        source, by_vllm = find_model(str(build.model)), build.config.engine == "vllm"
        other = name_other_engine(
            model=build.model, machine=build.machine, config=build.config, weights=build.weight_bytes
        )
        if build.mounted is None:
            source.require_weights(by_vllm=by_vllm, other=other)
        elif not by_vllm:
            source.require_described(on_kaggle=True, other=other)
        if not by_vllm:
            require_kind(build.model, other=other)
    except UserError as error:
        yield refusal_of(error)


def _gpu(build: Build) -> Iterator[Refusal]:
    gpu, stored = Device.of_machine(build.machine), name_storage(build.model)
    # The lint names an unknown machine.
    if gpu is None or gpu.capability is None:
        return
    formats, capability = formats_of(build.model), gpu.capability
    # Formats that the config does not tell apart: one that runs is enough.
    if formats and not any(one.fits(capability) for one in formats):
        mildest = min(formats, key=lambda one: one.least)
        upper = "" if mildest.below is None else f" and below {mildest.below}"
        rule = f"{stored} weights need compute capability {mildest.least}{upper}"
        value = f"{build.machine} has {capability}"
        yield Refusal(rule=rule, value=value, cure="choose another machine or another export")


def _name_vllm(config: KernelConfig) -> str:
    return "vLLM, where it is the engine" if config.embedded else "vLLM, without an embedded step after it"


def _vllm(build: Build) -> Iterator[Refusal]:
    if build.config.engine != "vllm":
        return
    lacking = find_unloadable(build.model, machine=build.machine, weights=build.weight_bytes)
    if lacking and build.config.embedded:
        rule = "the notebook must not end on an embedded engine that cannot load the model"
        yield Refusal(rule=rule, value=lacking, cure="run `submit build` again")
    refusal = find_refusal(model=build.model, machine=build.machine, config=build.config, weights=build.weight_bytes)
    if refusal is not None:
        yield _of_build(refusal)
    if build.vllm == "notebook":
        yield from _downloads(build)
    if build.vllm_wheels is not None:
        yield from check_wheels(build.vllm_wheels)


def _of_build(error: UserError) -> Refusal:
    """Return what a build would refuse too, and here was built before: its cure is another build."""
    return replace(refusal_of(error), cure=f"{error.cure}, in another `submit build`")


def _downloads(build: Build) -> Iterator[Refusal]:
    if not (build.downloads / DOWNLOADS).is_file():
        rule = "the notebook that downloads vLLM's wheels must be there"
        yield Refusal(rule=rule, value=f"no {build.downloads / DOWNLOADS}", cure="run `submit build` again")
        return
    wrong = [*lint_downloads(build.downloads)]
    yield from wrong
    # A push waits for its run by the build's name.
    own = "" if wrong else str(read_json(build.downloads / KERNEL_FILE)["id"])
    if own and own != build.names.vllm_id:
        rule = f"{DOWNLOADS_FOLDER}/{KERNEL_FILE}: id must be the build's, {build.names.vllm_id}"
        yield Refusal(rule=rule, value=own, cure="build with --names.vllm SLUG")


def _sizes(build: Build) -> Iterator[Refusal]:
    weights = build.weight_bytes
    if build.config.engine == "vllm":
        crowded = find_lack_of_room(model=build.model, machine=build.machine, config=build.config, weights=weights)
        if crowded is not None:
            yield _of_build(crowded)
    # The embedded engine uses one GPU, whatever the machine has.
    elif embedded := find_embedded_crowding(
        build.model, machine=build.machine, weights=weights, shared=_tell_shared(build)
    ):
        yield refusal_of(embedded)
    total = (0 if build.mounted else weights) + sum(path.stat().st_size for path in build.wheels.glob("*.whl"))
    if total > _DATASET_BYTES:
        rule = "uploads must stay below the private quota of 100 GiB"
        yield Refusal(rule=rule, value=f"{total / 2**30:.1f} GiB", cure="ship fewer weights")


def _tell_shared(build: Build) -> str:
    """Return that vLLM has room for a model on all GPUs, as a cure; "" where it does not serve it."""
    weights, machine = build.weight_bytes, build.machine
    config = replace(build.config, engine="vllm")
    config = settle_context(config, model=build.model, machine=machine, weights=weights)
    for find in (find_refusal, find_lack_of_room):
        if find(model=build.model, machine=machine, config=config, weights=weights) is not None:
            return ""
    return "build with --engine vllm, which has room for them, "


def _by_rules(build: Build) -> Iterator[Refusal]:
    """Yield what the competition does not take of what Kaggle would, where its rules list it."""
    rules = build.config.competition
    if rules.machines is not None and build.machine not in rules.machines:
        cure = "build with --kaggle.machine, or leave it out"
        yield Refusal(rule=f"{rules.name} runs on {' or '.join(rules.machines)}", value=build.machine, cure=cure)
    if rules.licences is not None and build.licence not in rules.licences:
        cure = "use another model, or build with --kaggle.licence where the model's is another one"
        rule = f"{rules.name} takes models under {' or '.join(rules.licences)}"
        yield Refusal(rule=rule, value=build.licence or "no licence", cure=cure)


def _cutoff(build: Build, released: str) -> Iterator[Refusal]:
    try:
        check_release(build.model, build.names, rules=build.config.competition, released=released)
    except UserError as error:
        yield refusal_of(error)
