"""The commands of `python -m submit`, by name."""

from mathlete.command import Command
from mathlete.competitions import competition_names
from mathlete.foreign_flags import DRAWING_FLAGS
from submit.answering import ANSWER_COMMAND
from submit.building import LEADING_FLAGS, BuildSettings, build_command, build_defaults
from submit.image import ImageSettings, image_command
from submit.making import RehearseSettings, rehearse_command
from submit.pushing import (
    LedgerSettings,
    PreflightSettings,
    PushSettings,
    SubmitSettings,
    ledger_command,
    preflight_command,
    push_command,
    submit_command,
)
from submit.rules import RulesSettings, rules_command
from submit.wheels import WheelsSettings, wheels_command

COMMANDS = {
    "rules": Command(
        settings=RulesSettings,
        run=rules_command,
        help="Shows what a competition asks: what is handed in, answers, clock, scorer; alone or beside another.\n\n"
        f"Known: {', '.join(competition_names())}.\n\nExamples:\n\n"
        "python -m submit rules --competition aimo-3\n\n"
        "python -m submit rules --competition nemotron-like --against aimo-3 --json",
    ),
    "answer": ANSWER_COMMAND,
    "build": Command(
        settings=BuildSettings,
        run=build_command,
        leading_flags=LEADING_FLAGS,
        foreign_flags=DRAWING_FLAGS,
        defaults=build_defaults,
        help="Makes the offline notebook, its metadata and its wheels of an exported model.\n\nExamples:\n\n"
        "python -m submit build --model runs/train/export --competition aimo-3\n\n"
        "python -m submit build --model pocket --policy all --n 4 --names.owner alice --engine vllm",
    ),
    "wheels": Command(
        settings=WheelsSettings,
        run=wheels_command,
        help="Makes the wheelhouse alone: resolved for Kaggle's image, hashed, verified with no index.\n\nExamples:\n\n"
        'python -m submit wheels --need "bitsandbytes>=0.49"\n\n'
        "python -m submit wheels --engine vllm",
    ),
    "image": Command(
        settings=ImageSettings,
        run=image_command,
        help="Downloads the image's versions of what the notebook imports, torch apart; `rehearse` does so by itself."
        "\n\nExamples:\n\npython -m submit image\n\npython -m submit image --run DIR --json",
    ),
    "rehearse": Command(
        settings=RehearseSettings,
        run=rehearse_command,
        help="Runs the notebook as Kaggle will: two containers, no network, the gateway's behaviour, a strict scorer."
        "\n\nExamples:\n\npython -m submit rehearse --layout old --order hard-first\n\n"
        "python -m submit rehearse --fault list",
    ),
    "preflight": Command(
        settings=PreflightSettings,
        run=preflight_command,
        help="Checks metadata, wheels, weights, sizes, dates and the rehearsal: all that can be known before a push."
        "\n\nExamples:\n\npython -m submit preflight\n\npython -m submit preflight --limits.right-min 0.5 --json",
    ),
    "push": Command(
        settings=PushSettings,
        run=push_command,
        help="Uploads wheels and model, pushes the notebook, watches its run, checks its output. Dry run by default."
        "\n\nExamples:\n\npython -m submit push\n\npython -m submit push --yes",
    ),
    "submit": Command(
        settings=SubmitSettings,
        run=submit_command,
        help="Submits the pushed version of this very build to the competition. Sends nothing without --yes."
        "\n\nExamples:\n\npython -m submit submit --yes --message first\n\n"
        "python -m submit submit --yes --wait",
    ),
    "ledger": Command(
        settings=LedgerSettings,
        run=ledger_command,
        help="Lists every submission: its rehearsal, the score predicted from it, Kaggle's version, the real score."
        "\n\nExamples:\n\npython -m submit ledger\n\npython -m submit ledger --id 0a1b2c3d4e5f --score 31",
    ),
}
