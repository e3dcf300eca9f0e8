"""What can be known of a machine and an installation without loading anything heavy into this process.

torch is imported by a process of its own: where it is broken, importing it may end the process.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from mathlete.accounts import find_credentials, find_hub_token, find_wandb_key
from mathlete.environment import code_state
from mathlete.errors import UserError
from mathlete.kaggle_image import PYTHON, constraints_file, image_packages, vllm_facts, vllm_lock
from mathlete.own_path import find_hiding_files
from mathlete.runs import sha256_file

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

_SHOWN = (
    *("CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "TOKENIZERS_PARALLELISM", "WANDB_MODE"),
    *("PYTORCH_CUDA_ALLOC_CONF", "KAGGLE_KERNEL_RUN_TYPE"),
)
"""Variables whose values are told."""
_NAMED = (
    *("HF_HOME", "HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH"),
    *("PIP_INDEX_URL", "KAGGLE_API_ENVIRONMENT", "WANDB_BASE_URL"),
)
"""Variables of which only the name is told: their values hold paths, and may hold passwords."""
_PROBE = """
import json, torch
gpus = [torch.cuda.get_device_properties(one) for one in range(torch.cuda.device_count())]
gpus = [[one.name, round(one.total_memory / 2**30, 1), f"{one.major}.{one.minor}"] for one in gpus]
build = {"version": torch.__version__, "cuda": torch.version.cuda, "threads": torch.get_num_threads()}
print(json.dumps({**build, "gpus": gpus}))
"""
_PROBE_MAX_S = 180
"""A first import from a network disk takes minutes."""
_ENOUGH_BYTES = 2 * 2**30
"""Free disk below which the demo does not fit."""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What the doctor says: words for each thing, in sections, and what is wrong with its cure."""

    sections: Mapping[str, Mapping[str, str]]
    """{section: {what: how it is}}."""
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the diagnosis as JSON values; `from_json` reads them back."""
        return {**{name: dict(rows) for name, rows in self.sections.items()}, "problems": list(self.problems)}

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> "Diagnosis":
        """Return the diagnosis in a value that `to_json` made."""
        sections = {name: rows for name, rows in value.items() if isinstance(rows, dict)}
        problems = value["problems"]
        assert isinstance(problems, list)
        return cls(sections=sections, problems=tuple(problems))


def examine_machine() -> Diagnosis:
    """Return the diagnosis of this machine, this installation and this folder; nothing is asked of a network."""
    return _Examination().examine()


@dataclass(kw_only=True)
class _Examination:
    problems: list[str] = field(default_factory=list)

    def examine(self) -> Diagnosis:
        sections = {
            "mathlete": dict(self._examine_own()),
            "packages": dict(self._examine_packages()),
            "devices": dict(self._examine_devices()),
            "Kaggle's image": dict(self._examine_image()),
            "credentials": dict(self._examine_credentials()),
            "room": dict(self._examine_room()),
            "here": dict(self._examine_here()),
        }
        home = str(Path.home())
        # It is made to be shown: nobody's name needs to be in it.
        sections = {
            section: {name: words.replace(home, "~") if home != "/" else words for name, words in rows.items()}
            for section, rows in sections.items()
        }
        return Diagnosis(sections=sections, problems=tuple(problem.replace(home, "~") for problem in self.problems))

    def _examine_own(self) -> Iterator[tuple[str, str]]:
        code = code_state()
        commit = (
            f"commit {str(code['commit'])[:12]}{', changed' if code['dirty'] else ''}" if code["commit"] else "a wheel"
        )
        yield "version", f"{_version('mathlete') or 'not installed'}, {commit}"
        in_venv = ", in a virtual environment" if sys.prefix != sys.base_prefix else ""
        yield "Python", f"{platform.python_version()} ({platform.python_implementation()}{in_venv})"
        yield "system", platform.platform()

    def _examine_packages(self) -> Iterator[tuple[str, str]]:
        needed, further = _read_requirements()
        numbers = {name: _version(name) for name in (*needed, *further)}
        yield "needed", _list_versions({name: numbers[name] for name in needed})
        bad = [f"{name} is missing" for name in needed if numbers[name] is None]
        bad += [
            f"{name} {numbers[name]} is not {specifier}"
            for name, specifier in needed.items()
            if not specifier.contains(numbers[name] or "0", prereleases=True) and numbers[name]
        ]
        if bad:
            self.problems.append(f"{', '.join(bad)}: install mathlete anew, with -c constraints.txt")
        yield "further", _list_versions({name: numbers[name] for name in further})
        yield "without", ", ".join(name for name in further if numbers[name] is None) or "none"

    def _examine_devices(self) -> Iterator[tuple[str, str]]:
        torch = self._probe_torch()
        yield "torch", self._describe_torch(torch)
        gpus = torch.get("gpus")
        shown = (
            [f"{name}, {memory:g} GiB, capability {number}" for name, memory, number in gpus]
            if isinstance(gpus, list)
            else []
        )
        yield "GPUs of torch", "; ".join(shown) or "none"
        driver = _ask_driver()
        yield "nvidia-smi", driver
        if "GiB" in driver and torch and not shown:
            self.problems.append(
                "the driver has a GPU that torch does not see: install a CUDA build of torch (pytorch.org)"
            )
        quota = _read_cpu_quota()
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        threads = f", torch takes {torch['threads']}" if torch else ""
        omp = os.environ.get("OMP_NUM_THREADS")
        yield (
            "threads",
            (f"{os.cpu_count()} CPUs, {usable} for this process{quota}, OMP_NUM_THREADS {omp or 'not set'}{threads}"),
        )

    def _probe_torch(self) -> dict[str, object]:
        """Return what a process of its own says of torch; {} where it can't be imported, which is a problem."""
        try:
            done = subprocess.run(
                [sys.executable, "-c", _PROBE], capture_output=True, text=True, check=False, timeout=_PROBE_MAX_S
            )
        except subprocess.TimeoutExpired:
            self.problems.append(f"torch can't be imported within {_PROBE_MAX_S} s: look at the disk it lies on")
            return {}
        if done.returncode == 0:
            value: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
            return value
        lines = done.stderr.strip().splitlines()
        why = lines[-1][:200] if lines else f"its process ended with {done.returncode}"
        self.problems.append(f"torch can't be imported ({why}): install it anew, as pytorch.org says for this machine")
        return {}

    def _describe_torch(self, torch: Mapping[str, object]) -> str:
        if torch:
            return (
                f"{torch['version']}, {'built for CUDA ' + str(torch['cuda']) if torch['cuda'] else 'built for CPUs'}"
            )
        number = _version("torch")
        return f"{number} is installed, and can't be imported" if number else "not installed"

    def _examine_image(self) -> Iterator[tuple[str, str]]:
        packages, lock = image_packages(), vllm_lock()
        shown = ", ".join(f"{name} {packages.get(name, '?')}" for name in ("torch", "transformers", "numpy"))
        yield (
            "list",
            f"{len(packages)} packages, Python {PYTHON}, {shown} (sha256 {sha256_file(constraints_file())[:12]})",
        )
        yield "vLLM's lock", f"vLLM {vllm_facts().version} (sha256 {sha256_file(lock)[:12]})"

    def _examine_credentials(self) -> Iterator[tuple[str, str]]:
        yield "Kaggle", self._say_where(_find_kaggle)
        yield "Hugging Face", self._say_where(lambda: find_hub_token(os.environ))
        yield "Weights & Biases", self._say_where(lambda: find_wandb_key(os.environ))

    def _say_where(self, find: Callable[[], str]) -> str:
        try:
            where = find()
        except UserError as error:
            self.problems.append(f"{error.rule}, got {error.value}: {error.cure}")
            return "can't be read"
        return f"present, in {where}" if where else "none"

    def _examine_room(self) -> Iterator[tuple[str, str]]:
        cache = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
        for name, folder in (
            ("this folder", Path.cwd()),
            ("the hub's cache", cache),
            ("temporary", Path(tempfile.gettempdir())),
        ):
            there = next(one for one in (folder, *folder.parents) if one.exists())
            free = shutil.disk_usage(there).free
            yield name, f"{free / 2**30:.1f} GiB free"
            if free < _ENOUGH_BYTES:
                self.problems.append(
                    f"{name} has {free / 2**30:.1f} GiB free: make room for {_ENOUGH_BYTES / 2**30:.0f}"
                )
        yield "memory", _describe_memory()

    def _examine_here(self) -> Iterator[tuple[str, str]]:
        hiding = find_hiding_files(os.getcwd())  # noqa: PTH109
        is_checkout = (Path.cwd() / "src" / "mathlete").is_dir()
        yield "hiding modules", "none, a checkout" if is_checkout else ", ".join(hiding) or "none"
        shown = [f"{name}={os.environ[name]}" for name in _SHOWN if name in os.environ]
        named = [name for name in _NAMED if name in os.environ or name.lower() in os.environ]
        yield "variables", ", ".join([*shown, *(f"{name} is set" for name in named)]) or "none of those it knows"


def _find_kaggle() -> str:
    credentials = find_credentials()
    return credentials.where if credentials else ""


def _read_requirements() -> "tuple[dict[str, SpecifierSet], list[str]]":
    """Return {package: versions} of what mathlete needs, and the names of what its extras need."""
    from packaging.requirements import Requirement

    parsed = [Requirement(line) for line in _list_requirements()]
    needed = {one.name: one.specifier for one in parsed if one.marker is None}
    return needed, sorted({one.name for one in parsed} - {*needed, "mathlete"})


def _list_requirements() -> list[str]:
    """Return what mathlete and its extras need: by a checkout's own file, else by what is installed."""
    file = Path(__file__).parents[3] / "pyproject.toml"
    if not file.is_file():
        return requires("mathlete") or []
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].items()
    return [*project["dependencies"], *(f"{line}; extra == '{name}'" for name, lines in extras for line in lines)]


def _list_versions(numbers: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {number}" for name, number in numbers.items() if number) or "none"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _ask_driver() -> str:
    """Return the GPUs as NVIDIA's driver names them."""
    if shutil.which("nvidia-smi") is None:
        return "not there"
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no answer ({type(error).__name__})"
    if done.returncode:
        return f"no answer ({done.stdout.strip()[:120] or done.stderr.strip()[:120]})"
    rows = [line.split(", ") for line in done.stdout.strip().splitlines()]
    return (
        "; ".join(f"{row[0]}, {float(row[1]) / 1024:.1f} GiB, driver {row[2]}" for row in rows if len(row) == 3)
        or "none"
    )


def _read_cpu_quota() -> str:
    """Return in words how many CPUs' time a container grants; "" where there is no limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return ""
    return "" if quota == "max" else f" ({int(quota) / int(period):g} by its container)"


def _describe_memory() -> str:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return "not known on this system"
    kib = {name: int(words.split()[0]) for name, _, words in (line.partition(":") for line in lines)}
    return f"{kib['MemAvailable'] / 2**20:.1f} of {kib['MemTotal'] / 2**20:.1f} GiB free"
