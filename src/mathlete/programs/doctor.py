"""`mathlete doctor`: what an issue needs to know of a machine, in one paste."""

from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import wrap

from mathlete.command import Command, busy, console
from mathlete.programs.diagnosis import Diagnosis, examine_machine

_WIDTH, _INDENT = 80, 19


@dataclass(frozen=True, kw_only=True)
class DoctorSettings:
    """How it is printed."""

    json: bool = False
    """End with one line of JSON on stdout."""


def examine(settings: DoctorSettings) -> dict[str, object]:
    """Print what this machine and installation are; return it."""
    with busy("importing torch in a process of its own"):
        diagnosis = examine_machine()
    out = console(json=settings.json)
    for line in describe(diagnosis):
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    return diagnosis.to_json()


def describe(diagnosis: Diagnosis) -> Iterator[str]:
    """Yield the diagnosis in lines of at most 80 columns, long words aside.

    >>> bad = Diagnosis(sections={"room": {"memory": "2 GiB"}}, problems=("no torch: install it",))
    >>> print(*describe(bad), sep="\\n")
    room
      memory           2 GiB
    problems
      no torch: install it
    """
    for section, rows in diagnosis.sections.items():
        yield section
        for name, words in rows.items():
            first, *others = wrap(words, _WIDTH - _INDENT, break_long_words=False, break_on_hyphens=False) or [""]
            gap = " " if len(name) + 2 >= _INDENT else ""
            yield f"  {name:<{_INDENT - 2}}{gap}{first}"
            yield from (f"{'':<{_INDENT}}{other}" for other in others)
    yield "problems"
    for problem in diagnosis.problems or ("none",):
        yield from wrap(
            problem,
            _WIDTH,
            initial_indent="  ",
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )


DOCTOR = {
    "doctor": Command(
        settings=DoctorSettings,
        run=examine,
        fails=lambda result: bool(result.get("problems")),
        help="Says what this machine and installation are, in one paste for an issue.\n\n"
        "Versions, GPUs, threads, Kaggle's image, room, and whether credentials are there, never what they say. It "
        "asks nothing of a network, and works where torch is missing or broken. Exit code 1: something is wrong.\n\n"
        "Examples:\n\nmathlete doctor\n\nmathlete doctor --json",
    )
}
