"""Suites: the problem sets a model is measured on, each told apart by the hash of its content."""

from dataclasses import dataclass
from pathlib import Path

from mathlete.errors import UserError, nearest
from mathlete.problems import Problem, problems_sha256, read_problems
from mathlete.shipped import data_folder

_HUB_SUITES = {
    "aimo_val": ("aimo-validation-aime", "aimo-validation-amc"),
    "math500": ("math500",),
    "aime24": ("aime24",),
    "aime25": ("aime25",),
    "gsm8k": ("gsm8k-test",),
    "math_l4": ("aimo-validation-math-level-4",),
    "math_l5": ("aimo-validation-math-level-5",),
}
SUITE_NAMES = ("pocket_val", *_HUB_SUITES)


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Problems in a fixed order."""

    name: str
    sha256: str
    """Hash of the problems' content: two runs compare only where it is equal."""
    problems: list[Problem]


def load_suite(name: str, *, mirror: Path | None = None) -> Suite:
    """The suite of that name, or the problems of a JSONL file; hub sets are read from `mirror` where it is given.

    Raises:
        UserError: an unknown name, an unreachable hub, a mirror without the set, or a shipped suite that was changed.
    """
    # Here, because it loads the answers package, and --help must be quick.
    from mathlete.corpus.sources import load_problems

    if name == "pocket_val":
        return _pocket_val()
    if name in _HUB_SUITES:
        problems = [problem for part in _HUB_SUITES[name] for problem in load_problems(part, mirror=mirror)]
    elif name.endswith(".jsonl"):
        problems = read_problems(Path(name))
    else:
        cure = f"{nearest(name, SUITE_NAMES)}, or a file of problems ending in .jsonl"
        raise UserError("the suite must be a known one", value=repr(name), cure=cure)
    return Suite(name=Path(name).stem, sha256=problems_sha256(problems), problems=problems)


def suites_at_hand(*, mirror: Path | None, hub: bool) -> list[str]:
    """The suites that training keeps clear of when none is named: the shipped one, and what can be had of the others.

    Args:
        mirror: the folder that stands in for the hub; a suite counts where it holds all of it.
        hub: whether the hub is read from at all, so that its suites are to be had too.
    """
    from mathlete.corpus.sources import source

    def held(name: str) -> bool:
        parts = [source(part) for part in _HUB_SUITES[name]]
        return all(src.files(mirror, part) for src in parts for part in src.parts) if mirror else hub

    return ["pocket_val", *(name for name in _HUB_SUITES if held(name))]


def _pocket_val() -> Suite:
    file = data_folder() / "pocket" / "pocket_val.jsonl"
    problems = read_problems(file)
    frozen = (file.parent / "pocket_val.sha256").read_text(encoding="utf-8").strip()
    if (found := problems_sha256(problems)) != frozen:
        raise UserError("pocket_val is frozen by its hash", value=found, cure=f"restore {file} from the release")
    return Suite(name="pocket_val", sha256=frozen, problems=problems)
