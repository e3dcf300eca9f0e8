"""The commands where an adapter is handed in: `submit build` makes its zip."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Literal

from mathlete.command import busy, console
from mathlete.competitions import Competition
from mathlete.delivery import Ledger
from mathlete.errors import UserError
from mathlete.locks import hold
from mathlete.settings import flatten
from mathlete.submission.adapter import build_adapter
from submit.settings import WORK

if TYPE_CHECKING:
    from submit.building import BuildSettings


@dataclass(frozen=True, kw_only=True)
class AdapterChoices:
    """What its files do not say of an adapter."""

    base: str = ""
    """The base here: a folder, a hub id, or its name in the rules; default: as the adapter's own settings name it."""
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """Cast its weights to this; default: they stay as they are."""


_BUILD_READS = ("model", "competition", "run", "json", "adapter", "accept_refused", "choices", "overwrite")


def require_read(settings: object, usual: object, *, read: Collection[str], what: str) -> None:
    """Raise UserError where a flag is given that is not read of an adapter: it would change nothing."""
    before = flatten(usual)
    idle = [f"{name} {own}" for name, own in flatten(settings).items() if own != before[name] and name not in read]
    if idle:
        rule = f"{what} of an adapter reads no setting of a notebook"
        raise UserError(rule, value=", ".join(idle)[:300], cure="leave them out")


def build_adapter_command(settings: "BuildSettings", usual: "BuildSettings", rules: Competition) -> dict[str, object]:
    """Write the zip of an adapter; return its hash."""
    require_read(settings, usual, read=_BUILD_READS, what="the build")
    out, about = console(json=settings.json), settings.about
    folder = find_adapter(settings.model)
    with hold(settings.run), busy("the adapter's tensors, zip"):
        made = build_adapter(
            folder,
            competition=rules,
            folder=settings.run,
            base=about.adapter.base,
            dtype=about.adapter.dtype,
            accept_refused=about.accept_refused,
            say=partial(out.print, markup=False),
        )
        made.save(settings.run)
    hashes = made.hashes()
    Ledger(settings.run).append("build", hashes, accept_refused=made.accept_refused or None)
    if made.accept_refused:
        out.print(f"refused by the gates of its training, accepted: {made.accept_refused}", markup=False)
    size = made.zip.stat().st_size
    again = "" if settings.run == WORK else f" --run {quote(str(settings.run))}"
    out.print(f"{made.zip}: {size / 2**20:.1f} MiB, SHA-256 {hashes.weights[:16]}", markup=False)
    out.print(f"by the rules of {rules.name} · next: python -m submit rehearse{again}", markup=False)
    return {"zip": str(made.zip), "bytes": size, "id": hashes.id, "hashes": asdict(hashes)}


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
