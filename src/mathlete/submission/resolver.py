"""uv, asked for a solution beside the image's packages: its answer, or the reason why there is none.

It never downloads a Python: the image's version is only what markers and tags are evaluated for
(https://docs.astral.sh/uv/pip/compile/, https://docs.astral.sh/uv/reference/environment/).
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from mathlete.errors import UserError
from mathlete.kaggle_image import GLIBC, PYTHON, constraints_file

ANCIENT_YEARS = 2
"""A version that was overtaken so many years ago is no answer to a requirement that names no version."""
_BOUNDS = ("==", "===", ">=", ">", "~=")
_REASONS_SHOWN = 3
_LINKS = "--find-links"


def compile_pins(requirements: Sequence[str], *, options: Sequence[str] = ()) -> str:
    """Return uv's solution for the image, a line with its parents for each package.

    Raises:
        UserError: there is none; its value is uv's reason.
    """
    done = _uv("pip", "compile", "-", "-c", str(constraints_file()), *_target(), *options, needs=requirements)
    if done.returncode == 0:
        return done.stdout
    if "No solution found" not in done.stderr:
        rule = "uv must be able to look for the wheels"
        raise UserError(
            rule, value=reason_of(done.stderr), cure="mend what it says, or name a folder with --find-links"
        )
    raise UserError(
        "the wheels must have a solution beside the image's packages",
        value=reason_of(done.stderr),
        cure=f"add the wheels to {options[options.index(_LINKS) + 1]}, or leave {_LINKS} out to ask the package index"
        if _LINKS in options
        else "loosen a requirement, or choose a version built for the image's torch",
    )


def run_compile(requirements: Sequence[str], *words: str, python: str = PYTHON) -> "subprocess.CompletedProcess[str]":
    """Have uv look for a solution for the image's platform; `words` are more arguments, constraints among them."""
    return _uv("pip", "compile", "-", *_target(python), *words, needs=requirements)


def reason_of(text: str) -> str:
    """Return why uv found no solution, without its proof: the facts that it starts from, those of the newest versions.

    >>> proof = '''error: No solution found when resolving dependencies
    ...   cause: Because a>=2 depends on b>=3 and b==1, we can conclude that a>=2 cannot be used.
    ...          And because only the following versions of a are available:
    ...              a<=2
    ...          we can conclude that a<2 cannot be used. (1)
    ...          Because we know from (1) that a<2 cannot be used and you require a, we can conclude that your
    ...          requirements are unsatisfiable.'''
    >>> reason_of(f"warning: no Python 3.12 here\\n{proof}")
    'a>=2 depends on b>=3 and b==1'
    """
    # A warning goes on in the indented lines below it.
    words = " ".join(re.sub(r"(?m)^warning:.*(\n[ \t]+.*)*\n?", "", text).split())
    facts = [part.partition(", we can conclude")[0] for part in re.split(r"(?:[.] )?(?:And b|\bB)ecause ", words)[1:]]
    # The rest are steps of the proof.
    known = [fact for fact in facts if not re.match(r"we know from|you require|only the following", fact)]
    shown = [fact.removesuffix(" we can conclude that") for fact in dict.fromkeys(known)][-_REASONS_SHOWN:]
    return "; ".join(shown)[:700] or words.removeprefix("error: ")[-500:]


def require_recent(requirements: Sequence[str], pins: Mapping[str, str]) -> None:
    """Check that a requirement without a version did not end in one that was overtaken years ago.

    A solver goes back until something fits, to versions from before a package had its present dependencies.

    Args:
        requirements: as in a requirements file.
        pins: {canonical name: version} of the solution.

    Raises:
        UserError: one did.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
    from packaging.version import Version

    today = date.today()
    then = today.replace(year=today.year - ANCIENT_YEARS, day=min(today.day, 28))
    for one in map(Requirement, requirements):
        name = canonicalize_name(one.name)
        if name not in pins or any(bound.operator in _BOUNDS for bound in one.specifier):
            continue
        overtaken = _newest(str(one), before=then)
        if overtaken and Version(pins[name]) < Version(overtaken):
            raise UserError(
                "the wheels must not be ancient",
                value=f"{name} {pins[name]}, older than {overtaken} of {then} at the latest; none since fits the image",
                cure=f'name the version you want, such as "{name}=={pins[name]}", or take the requirement out',
            )


def _newest(requirement: str, *, before: date) -> str:
    """Return the newest version that was there on a day, whatever it needs; empty where the index does not tell."""
    done = _uv("pip", "compile", "-", *_target(), "--no-deps", "--exclude-newer", str(before), needs=[requirement])
    match = re.search(r"(?m)^[^#\s]+==([^\s;]+)", done.stdout) if done.returncode == 0 else None
    return match[1] if match else ""


def _target(python: str = PYTHON) -> list[str]:
    words = ["--python", sys.executable, "--python-version", python]
    words += ["--python-platform", f"x86_64-manylinux_2_{GLIBC}"]
    return [*words, "--only-binary", ":all:", "--no-header", "--annotation-style", "line"]


def _uv(*words: str, needs: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    # The machine's own certificates, as pip has them, not only uv's.
    environment = {**os.environ, "UV_SYSTEM_CERTS": "1", "UV_PYTHON_DOWNLOADS": "never"}
    command = [uv_path(), *words]
    return subprocess.run(command, input="\n".join(needs), env=environment, capture_output=True, text=True, check=False)


def uv_path() -> str:
    """Return the path of uv.

    Raises:
        UserError: it is not installed.
    """
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        raise UserError("wheels are resolved with uv", value="not installed", cure="pip install uv")
    return uv
