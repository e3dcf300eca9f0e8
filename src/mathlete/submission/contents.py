"""What a notebook carries of its build: its hash, its machine, and what its mounts must hold."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mathlete.export.formats import EXPORT_FORMATS
from mathlete.folders import measure_file
from mathlete.runs import sha256_file, sha256_tree

UNSTAMPED = "0" * 12
_WEIGHTS = tuple({entry.suffix for entry in EXPORT_FORMATS.values()})


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What was built, as far as the notebook can compare it where it runs."""

    build: str = UNSTAMPED
    """The hash of the notebook with all that this holds (`mathlete.submission.stamps`)."""
    parts: str = ""
    """The hash of all other parts of the build: weights, wheels, code, metadata, image."""
    machine: str = ""
    """Kaggle's name of the machine; empty: any will do."""
    wheels: Mapping[str, str] = field(default_factory=dict)
    """{wheel: its SHA-256}."""
    config: str = ""
    """SHA-256 of the model's config.json."""
    weights: Mapping[str, int] = field(default_factory=dict)
    """{file of weights: its bytes}."""
    vllm: str = ""
    """SHA-256 of the lock of vLLM's wheels; empty where vLLM is not the engine."""

    def to_json(self) -> dict[str, object]:
        """Return it as JSON values, without what says nothing of vLLM: a notebook of before is still the same."""
        return {name: value for name, value in asdict(self).items() if name != "vllm" or value}


NOTHING = Contents()
"""Of a notebook that compares nothing with its build."""


def list_contents(model: Path, wheels: Path, *, parts: str, machine: str, vllm: str = "") -> Contents:
    """Return what a notebook carries of a model's and a wheelhouse's folder."""
    sums = {name: digest for name, digest in sha256_tree(wheels).items() if name.endswith(".whl")}
    weights = sorted(path for path in model.iterdir() if path.suffix in _WEIGHTS)
    return Contents(
        parts=parts,
        machine=machine,
        wheels=sums,
        config=sha256_file(model / "config.json"),
        # A pointer of git-lfs may not say the size of the file that is mounted.
        weights={path.name: size for path in weights if (size := measure_file(path))},
        vllm=vllm,
    )
