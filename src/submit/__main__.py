"""`python -m submit`: what a competition asks of a submission."""

import sys
from dataclasses import asdict, dataclass

from mathlete.command import Command, console, run_command_line
from mathlete.competitions import COMPETITIONS, competition


@dataclass(frozen=True, kw_only=True)
class RulesSettings:
    """Which competition."""

    competition: str = "aimo-3"
    """aimo-1, aimo-2 or aimo-3."""
    json: bool = False
    """End with one line of JSON on stdout."""


def rules(settings: RulesSettings) -> dict[str, object]:
    """Prints the competition's answer range, clock and gateway columns; returns them."""
    found = asdict(competition(settings.competition))
    out = console(json=settings.json)
    for name, value in found.items():
        out.print(f"{name:<20} {value}")
    return {"competition": settings.competition, **found}


COMMANDS = {
    "rules": Command(
        settings=RulesSettings,
        run=rules,
        help="Shows what a competition asks: answer range and modulus, clock, gateway columns.\n\n"
        f"Known: {', '.join(COMPETITIONS)}.\n\nExamples:\n\n"
        "python -m submit rules --competition aimo-3\n\npython -m submit rules --competition aimo-2 --json",
    )
}

if __name__ == "__main__":
    sys.exit(run_command_line(sys.argv[1:], prog="python -m submit", commands=COMMANDS))
