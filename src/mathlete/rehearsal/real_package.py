"""Kaggle's own kaggle_evaluation, from the user's download of a competition's data, whatever its layout."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mathlete.competitions import Competition
from mathlete.errors import UserError

PACKAGE = "kaggle_evaluation"
_STUBS = "core/generated/kaggle_evaluation_pb2.py"


@dataclass(frozen=True, kw_only=True)
class RealPackage:
    """One download of Kaggle's package, with the gateway of a competition in it."""

    folder: Path
    """The package itself."""
    version: str
    module: str
    """The gateway's module inside the package."""
    gateway: str
    """Its class."""


def find_real_package(named: Path, rules: Competition) -> RealPackage:
    """Return the package in a folder, or in the folder that is named itself.

    Raises:
        UserError: the folder holds none, the package lacks the competition's modules or what it needs here, or the
            rules name no gateway.
    """
    if rules.notebook.gateway.real is None:
        raise UserError(
            "--real-package needs to know which gateway to run",
            value="no gateway.real",
            cure=f"write gateway.real = MODULE:CLASS into the rules of {rules.name} and build again",
        )
    folder = next((place for place in (named / PACKAGE, named) if (place / "core" / "relay.py").is_file()), None)
    if folder is None or folder.name != PACKAGE:
        raise UserError(
            f"--real-package must name the folder of a competition's data that holds {PACKAGE}",
            value=_list(named),
            cure=f"unzip the download, and name the folder in which {PACKAGE}/core/relay.py lies",
        )
    version, (module, _, gateway) = _read_version(folder), rules.notebook.gateway.real.partition(":")
    _find_module(folder, rules.notebook.gateway.module, rules, version)
    _require_stubs(folder, version)
    return RealPackage(
        folder=folder, version=version, module=_find_module(folder, module, rules, version), gateway=gateway
    )


def _list(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder}, which is no folder"
    there = sorted(path.name for path in folder.iterdir())
    return f"{folder}, which holds {', '.join(there[:8]) or 'nothing'}"


def _read_version(folder: Path) -> str:
    # Read, not imported: it is a stranger's code, and registers its messages for the whole process.
    file = folder / "__init__.py"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    said = re.search(r"__version__\s*=\s*['\"]([\d.]+)['\"]", text)
    return said[1] if said else "unknown"


def _find_module(folder: Path, module: str, rules: Competition, version: str) -> str:
    """Return a module by its path inside the package: at the top, where the rules say, or in a sub-package."""
    parts = module.split(".")
    places = [folder.joinpath(*parts).with_suffix(".py"), *sorted(folder.rglob(f"{parts[-1]}.py"))]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise UserError(
            f"--real-package must be that of {rules.name}: {PACKAGE} must hold {parts[-1]}",
            value=f"{folder} of version {version}, which has {', '.join(_list_gateways(folder)) or 'no gateway'}",
            cure="download the data of that competition, or name its modules in the rules' [gateway]",
        )
    return ".".join(file.relative_to(folder).with_suffix("").parts)


def _list_gateways(folder: Path) -> Iterator[str]:
    own = (file for file in sorted(folder.rglob("*_gateway.py")) if file.parent.name != "core")
    return (str(file.relative_to(folder)) for file in own)


def _require_stubs(folder: Path, version: str) -> None:
    if (folder / _STUBS).is_file() or any(folder.glob("deps/*.whl")) or find_spec("grpc_tools") is not None:
        return
    raise UserError(
        f"{PACKAGE} {version} compiles its stubs as it is imported, which needs grpcio-tools",
        value=f"neither {_STUBS} nor a wheel in {folder / 'deps'}",
        cure="pip install grpcio-tools, or rehearse with --behaviour instead",
    )
