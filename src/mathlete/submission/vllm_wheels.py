"""The folder of vLLM's wheels, for who sends them to Kaggle from here: by the lock, each with its hash."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mathlete.errors import UserError
from mathlete.kaggle_image import PYTHON, VLLM_LOCK, vllm_facts, vllm_lock
from mathlete.runs import Leftovers, Step, run_step, sha256_file, write_atomically
from mathlete.submission.metadata import VllmFrom
from mathlete.submission.refusal import Refusal
from mathlete.submission.vllm_lock import read_lock, resolve_cpu_lock, resolve_lock
from mathlete.submission.wheelhouse import download


def build_vllm_wheels(
    folder: Path,
    *,
    relock: bool = False,
    beside: Mapping[str, str] | None = None,
    python: str = PYTHON,
    find_links: Path | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Step:
    """Download vLLM's wheels into a folder, with their lock; skip it where they are there.

    Args:
        folder: where they go.
        relock: whether the lock of the supported image is made anew first.
        beside: {package: version} of an environment here, for whose torch the CPU build is taken; None: the wheels of
            the supported image by their lock.
        python: what they are for.
        find_links: take them from this folder instead of the package index.
        overwrite: whether the wheels of another lock are deleted.
        say: called with how much is downloaded, and with what a new lock frees.

    Raises:
        UserError: a wheel cannot be had, or is another one; there is no solution for a new lock.
    """
    if relock:
        write_atomically(vllm_lock(), resolve_lock([f"vllm=={vllm_facts().version}"], say=say))
    settings = {"find_links": str(find_links or ""), "python": python, "beside": dict(beside or {})}

    def build(into: Path) -> dict[str, object]:
        text = vllm_lock().read_text(encoding="utf-8") if beside is None else resolve_cpu_lock(beside, python=python)
        pins = read_lock(text)
        say(f"vLLM's wheels: {len(pins)}, {sum(pin.size for pin in pins) / 2**30:.1f} GiB into {folder}")
        write_atomically(into / VLLM_LOCK, text)
        download(into, into / VLLM_LOCK, find_links=find_links, python=python)
        for refusal in check_wheels(into):
            raise refusal.error()
        return {"wheels": len(pins), "bytes": sum(pin.size for pin in pins)}

    return run_step(
        "vllm-wheels",
        folder=folder,
        inputs={} if beside else {"lock": vllm_lock()},
        settings=settings,
        build=build,
        leftovers=Leftovers(overwrite=overwrite, writes=("*.whl", VLLM_LOCK)),
    )


def check_wheels(folder: Path) -> Iterator[Refusal]:
    """Yield what a folder lacks of its lock, or holds otherwise."""
    lock, again = folder / VLLM_LOCK, "run `python -m submit wheels --engine vllm` again"
    if not lock.is_file():
        yield Refusal(rule="vLLM's wheels need their lock", value=f"no {lock}", cure=again)
        return
    wanted = {pin.sha256: pin for pin in read_lock(lock.read_text(encoding="utf-8"))}
    there = {sha256_file(wheel): wheel.name for wheel in sorted(folder.glob("*.whl"))}
    for digest in [digest for digest in wanted if digest not in there][:3]:
        pin = wanted[digest]
        yield Refusal(
            rule="vLLM's wheels must be those of their lock", value=f"no {pin.name} {pin.version}", cure=again
        )
    for digest in [digest for digest in there if digest not in wanted][:3]:
        yield Refusal(rule="vLLM's wheels must be those of their lock", value=f"{there[digest]} is new", cure=again)


def choose_bringer(wheels: Path | None) -> VllmFrom:
    """Return what brings vLLM's wheels: the data set of a folder, which must hold those of this version's lock.

    Raises:
        UserError: it does not.
    """
    if wheels is None:
        return "notebook"
    lock = wheels / VLLM_LOCK
    if not lock.is_file() or lock.read_bytes() != vllm_lock().read_bytes():
        rule = "the folder of vLLM's wheels must be one that `python -m submit wheels --engine vllm` made"
        raise UserError(rule, value=str(wheels), cure="make it again, or leave --vllm-wheels out")
    return "dataset"
