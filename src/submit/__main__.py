"""`python -m submit`: from an export to a rehearsed, checked and pushed notebook."""

import sys
from dataclasses import asdict, dataclass

from mathlete.command import Command, console, run_command_line
from mathlete.competitions import COMPETITIONS, competition
from submit.making import (
    BuildSettings,
    RehearseSettings,
    WheelsSettings,
    build_command,
    rehearse_command,
    wheels_command,
)


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
    ),
    "build": Command(
        settings=BuildSettings,
        run=build_command,
        help="Makes the offline notebook, its metadata and its wheels of an exported model.\n\nExamples:\n\n"
        "python -m submit build --model runs/train/export --competition aimo-3\n\n"
        "python -m submit build --model pocket --policy all --n 4 --names.owner alice",
    ),
    "wheels": Command(
        settings=WheelsSettings,
        run=wheels_command,
        help="Makes the wheelhouse alone: resolved for Kaggle's image, hashed, verified with no index.\n\nExamples:\n\n"
        'python -m submit wheels --need "bitsandbytes>=0.49"\n\n'
        "python -m submit wheels --find-links downloads --folder runs/wheels",
    ),
    "rehearse": Command(
        settings=RehearseSettings,
        run=rehearse_command,
        help="Runs the notebook as Kaggle will: two containers, no network, the gateway's behaviour, a strict scorer."
        "\n\nExamples:\n\npython -m submit rehearse --layout old --order hard-first\n\n"
        "python -m submit rehearse --fault list",
    ),
}

if __name__ == "__main__":
    sys.exit(run_command_line(sys.argv[1:], prog="python -m submit", commands=COMMANDS))
