"""The commands where an adapter is handed in: `submit build` makes its zip, `submit rehearse` serves it by vLLM."""

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Literal

from mathlete.command import busy, console, progress
from mathlete.competitions import Competition
from mathlete.delivery import Ledger
from mathlete.errors import UserError
from mathlete.gates import REBUILD, require_passed
from mathlete.locks import hold
from mathlete.problems import Problem
from mathlete.rehearsal.adapter import AdapterRehearsalSettings, AdapterReport, rehearse_adapter
from mathlete.settings import flatten
from mathlete.submission import Build, Hashes
from mathlete.submission.adapter import AdapterBuild, build_adapter, holds_adapter_build
from submit.rules import find_rules
from submit.settings import WORK

if TYPE_CHECKING:
    from submit.building import BuildSettings
    from submit.making import RehearseSettings


@dataclass(frozen=True, kw_only=True)
class AdapterChoices:
    """What its files do not say of an adapter."""

    base: str = ""
    """The base here: a folder, a hub id, or its name in the rules; default: as the adapter's own settings name it."""
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """Cast its weights to this; default: they stay as they are."""


@dataclass(frozen=True, kw_only=True)
class AdapterServing:
    """How an adapter is served in its rehearsal."""

    engine: Literal["vllm", "peft"] = "vllm"
    """What serves it: vLLM as the organiser's, or peft, where vLLM can't be had: that proves no name of a tensor."""
    vllm: Path | None = None
    """Python of an environment that has vLLM; default: this one."""
    max_tokens: int | None = None
    """Cap on an answer here, where the organiser's is too long for this machine; default: the organiser's."""
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    """What is computed in here: float32 compares engines best; auto: what the base is stored in, as the organiser."""


_BUILD_READS = ("model", "competition", "run", "json", "adapter", "accept_refused", "choices", "overwrite")
_REHEARSAL_READS = ("questions", "problems", "run", "json", "adapter")


def require_read(settings: object, usual: object, *, read: Collection[str], what: str) -> None:
    """Raise UserError where a flag is given that is not read of an adapter: it would change nothing."""
    before = flatten(usual)
    idle = [f"{name} {own}" for name, own in flatten(settings).items() if own != before[name] and name not in read]
    if idle:
        rule = f"{what} of an adapter reads no setting of a notebook"
        raise UserError(rule, value=", ".join(idle)[:300], cure="leave them out")


def load_build(folder: Path) -> Build | AdapterBuild:
    """Read the build in a folder, whichever is handed in.

    Raises:
        UserError: there is none, or one of its parts is gone.
    """
    return AdapterBuild.load(folder) if holds_adapter_build(folder) else Build.load(folder)


def require_gates(build: Build | AdapterBuild) -> None:
    """Raise Refused where a gate has refused the model, or the adapter, and the build has no reason to accept that."""
    model = build.adapter if isinstance(build, AdapterBuild) else build.model
    require_passed(model, reason=build.accept_refused, accept=REBUILD)


def note_build(run: Path, hashes: Hashes, *, accept_refused: str, say: Callable[[str], None]) -> None:
    """Write a build into its folder's ledger, and say what a gate had refused."""
    Ledger(run).append("build", hashes, accept_refused=accept_refused or None)
    if accept_refused:
        say(f"refused by the gates of its training, accepted: {accept_refused}")


def with_rules_of_today(build: AdapterBuild, *, say: Callable[[str], None]) -> AdapterBuild:
    """Return the build under the rules as their file has them now, as `find_rules` finds them."""
    return replace(build, competition=find_rules(build.named, kept=build.competition, say=say))


def build_adapter_command(settings: "BuildSettings", usual: "BuildSettings", rules: Competition) -> dict[str, object]:
    """Write the zip of an adapter; return its hash."""
    require_read(settings, usual, read=_BUILD_READS, what="the build")
    out, about = console(json=settings.json), settings.about
    folder = find_adapter(settings.model)
    with hold(settings.run), busy("the adapter's tensors, zip"):
        made = build_adapter(
            folder,
            competition=rules,
            named=settings.competition,
            folder=settings.run,
            base=about.adapter.base,
            dtype=about.adapter.dtype,
            accept_refused=about.accept_refused,
            say=partial(out.print, markup=False),
        )
        made.save(settings.run)
    hashes = made.hashes()
    note_build(settings.run, hashes, accept_refused=made.accept_refused, say=partial(out.print, markup=False))
    size = made.zip.stat().st_size
    out.print(f"{made.zip}: {size / 2**20:.1f} MiB, SHA-256 {hashes.weights[:16]}", markup=False)
    out.print(f"by the rules of {rules.name} · next: python -m submit rehearse{_name_run(settings.run)}", markup=False)
    return {"zip": str(made.zip), "bytes": size, "id": hashes.id, "hashes": asdict(hashes)}


def _name_run(run: Path) -> str:
    """Return the flag that names a build's folder; "" where that is the usual one."""
    return "" if run == WORK else f" --run {quote(str(run))}"


def find_adapter(model: str) -> Path:
    """Return the folder or the zip of an adapter; of a run the folder in it.

    Raises:
        UserError: there is nothing of that name.
    """
    path = Path(model)
    if not path.exists():
        cure = "name the folder that peft's save_pretrained wrote, a zip of it, or a run of `python -m train math`"
        raise UserError("--model must be an adapter's folder where one is handed in", value=model, cure=cure)
    run = path / "adapter"
    return run if (run / "adapter_config.json").is_file() else path


def rehearse_adapter_command(
    build: AdapterBuild, problems: list[Problem], settings: "RehearseSettings", usual: "RehearseSettings"
) -> dict[str, object]:
    """Serve the adapter as the organiser does, and write the report and the ledger's line."""
    require_read(settings, usual, read=_REHEARSAL_READS, what="the rehearsal")
    out, serving, rules = console(json=settings.json), settings.inputs.adapter, build.competition
    how = AdapterRehearsalSettings(
        engine=serving.engine,
        python=find_vllm(serving.vllm) if serving.engine == "vllm" else None,
        max_tokens=serving.max_tokens,
        dtype=serving.dtype,
    )
    asked = problems[: settings.asked.questions or rules.problems]
    with hold(settings.run):
        report = rehearse_adapter(build, asked, how, folder=settings.run, watch=show_draw)
        Ledger(settings.run).append(
            "rehearsal",
            build.hashes(),
            outcome="valid",
            score=report.organiser.points,
            problems=len(asked),
            asked=rules.problems,
        )
    for line in report.describe():
        out.print(line, markup=False)
    next_one = f"python -m submit preflight{_name_run(settings.run)}"
    out.print(f"{settings.run / AdapterReport.file_name} · next: {next_one}", markup=False)
    return report.to_json()


def find_vllm(python: Path | None) -> Path:
    """Return the Python that has vLLM: the one that was named, or this one.

    Raises:
        UserError: it is not there, or this one has none.
    """
    if python is not None:
        python = python / "bin" / "python" if python.is_dir() else python
        if not python.is_file():
            raise UserError(
                "--adapter.vllm must be a Python, or its environment", value=str(python), cure="check the path"
            )
        return python
    if find_spec("vllm") is None:
        cure = (
            "name the Python of an environment that has it with --adapter.vllm (docs/vllm.md says how one is made on a "
        )
        cure += "machine without a GPU), or rehearse with --adapter.engine peft"
        raise UserError("the rehearsal of an adapter needs vLLM", value="none in this environment", cure=cure)
    return Path(sys.executable)


@contextmanager
def show_draw(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar for as long as it is entered; yield what moves it, given how many answers there are and will be."""
    with progress(what) as bar:
        task = bar.add_task("starts", total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, description=f"{done} of {total} answers" if done else "loads")

        yield show
