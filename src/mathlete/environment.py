"""What a manifest says of where a run was made: code, packages, Python, hardware."""

import hashlib
import os
import shutil
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("torch", "transformers", "peft", "trl", "datasets", "bitsandbytes", "accelerate", "sympy", "mathlete")


def environment() -> dict[str, object]:
    """Return the commit, Python, the packages that are installed, and the hardware.

    >>> [*environment()]
    ['git', 'python', 'packages', 'hardware']
    """
    return {
        "git": code_state(),
        "python": sys.version.split()[0],
        "packages": {name: number for name in _PACKAGES if (number := _version(name))},
        "hardware": hardware(),
    }


def code_state() -> dict[str, object]:
    """Return {"commit", "dirty", "diff_sha256"} of mathlete's checkout; commit is "" for an installed wheel."""
    commit, dirty, diff_sha256 = _ask_git()
    return {"commit": commit, "dirty": dirty, "diff_sha256": diff_sha256}


@cache  # what changes in the checkout later is not what this process runs
def _ask_git() -> tuple[str, bool, str]:
    if shutil.which("git") is None or not (commit := _git("rev-parse", "HEAD")):
        return "", False, ""
    diff = _git("diff", "HEAD")
    dirty = bool(_git("status", "--porcelain"))
    return commit, dirty, hashlib.sha256(diff.encode()).hexdigest() if diff else ""


def _git(*arguments: str) -> str:
    # The checkout of this code, not of the folder in which the user called it.
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    # A file of the checkout may have any bytes.
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


@cache  # to read what is installed takes a millisecond a package, and each step asks
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def hardware() -> dict[str, object]:
    """Return CPU count, platform and, where torch has been imported and sees one, the CUDA device's name."""
    facts: dict[str, object] = {"cpus": os.cpu_count(), "platform": sys.platform}
    # Importing torch for this would cost seconds in steps that do without it.
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["threads"] = torch.get_num_threads()
        facts["cuda"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return facts
