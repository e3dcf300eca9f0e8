"""Where the files of a build's model are: those of an export, or of a model on Kaggle that is mounted as it is."""

from pathlib import Path

from mathlete.errors import UserError, require
from mathlete.export.formats import choose_export
from mathlete.gates import find_run_export
from mathlete.kaggle_image import VLLM_LOCK
from mathlete.kernel import KernelConfig
from mathlete.models import find_model
from mathlete.submission import Build, Names


def find_model_files(model: str, mounted: str, gib: float | None, *, names: Names, run: Path) -> tuple[Path, Names]:
    """Return (the folder of the export, or of a mounted model's tokenizer and config; the names to build with).

    Args:
        model: what --model says.
        mounted: what --model-source says; "": the export is uploaded.
        gib: size of the mounted weights, where it is said.
        names: as given.
        run: the build's folder, which gets the files of a model on the hub.

    Raises:
        UserError: the export has no weights, or the model that is mounted is not described.
    """
    source = find_model(model)
    if not mounted:
        if source.folder is None:
            cure = "export it first, name it here; or mount one of Kaggle's with --model-source"
            raise UserError("--model must be an exported folder", value=model, cure=cure)
        source.require_weights(by_vllm=True)  # the build asks for the engine that it chooses
        return source.folder, names
    names = names.with_mounted(mounted)
    require(("model-gib", gib, gib is None or gib > 0, "above 0"), cure="leave it out, or say what its page says")
    if model == "pocket":
        cure = "name the folder of tokenizer and config with --model, or the model's hub id"
        raise UserError("--model must describe the model that is mounted", value=model, cure=cure)
    return source.fetch_description(run / f"model-{source.location.replace('/', '--')}"), names


def find_export(model: str, *, engine: str, machine: str, config: KernelConfig) -> tuple[str, str]:
    """Return (the export that --model stands for, why that one of a run's; "" where it is no run).

    Raises:
        UserError: it is a run without an export for the machine.
    """
    run = Path(model)
    first = find_run_export(run)
    if (run / "config.json").is_file() or first is None or not (first / "config.json").is_file():
        return model, ""

    def refuse(export: Path) -> str:
        try:
            Build.choose_engine("vllm", model=export, machine=machine, config=config)
        except UserError as error:
            return f"{error.rule}, got {error.value}"
        return ""

    chosen = choose_export(run, engine=engine, machine=machine, refuse=refuse)
    return str(chosen.folder), chosen.reason


def require_weights_here(build: Build) -> None:
    """Raise UserError where the build mounts a model whose weights are not here, or in part: nothing could be drawn."""
    if build.mounted is None:
        return
    if not [*build.model.glob("*.safetensors")]:
        value, cure = f"none in {build.model}", "rehearse the wiring with --stand-in pocket"
        raise UserError("a rehearsal needs the weights of the model that is mounted", value=value, cure=cure)
    find_model(str(build.model)).require_weights(by_vllm=build.config.engine == "vllm")


def require_vllm_here(build: Build, wheels: str) -> None:
    """Raise UserError where vLLM is the engine and its CPU build is not in the folder; "none" goes without it."""
    if build.config.engine == "vllm" and wheels == "none" and not build.config.embedded:
        rule, cure = "a rehearsal without vLLM needs weights that the embedded engine can load", "leave out --vllm none"
        why = build.find_unloadable(build.model, machine=build.machine, weights=build.weight_bytes)
        raise UserError(rule, value=f"{build.model}: {why or build.weight_format}", cure=cure)
    if build.config.engine == "vllm" and wheels != "none" and not (Path(wheels) / VLLM_LOCK).is_file():
        cure = "fetch it once with `python -m submit image --engine vllm`"
        if build.config.embedded:
            cure += ", or rehearse with --vllm none, which shows that the embedded engine answers in its place"
        raise UserError("a rehearsal with vLLM needs its CPU build", value=f"no {VLLM_LOCK} in {wheels}", cure=cure)
