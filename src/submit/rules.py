"""`submit rules`: what a competition asks, alone or beside another."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mathlete.command import console
from mathlete.competitions import Competition, compare_rules, competition, competition_names

if TYPE_CHECKING:
    from mathlete.tables import FittingTable


@dataclass(frozen=True, kw_only=True)
class RulesSettings:
    """Which competition."""

    competition: str = "aimo-3"
    """A competition's name, or a file of its rules, NAME.toml."""
    against: str | None = None
    """Another one, whose rules stand beside: only what differs is shown."""
    json: bool = False
    """End with one line of JSON on stdout."""


def rules_command(settings: RulesSettings) -> dict[str, object]:
    """Print the competition's rules, or what differs from another's; return them."""
    rules, out = competition(settings.competition), console(json=settings.json)
    asked = {"competition": settings.competition, **rules.to_json()}
    if settings.against is None:
        width = max(map(len, rules.describe()))
        for key, words in rules.describe().items():
            out.print(f"{key:<{width}}  {words}", soft_wrap=True)
        return asked
    other = competition(settings.against)
    differ, left, right = compare_rules(rules, other), rules.flatten(), other.flatten()
    same = [key for key in left if key in right and key not in differ]
    # Two files of one name are told apart by their paths.
    heads = (rules.name, other.name) if rules.name != other.name else (settings.competition, settings.against)
    out.print(draw_table(differ, heads) if differ else f"{heads[0]} and {heads[1]} have the same rules")
    if differ:
        out.print(f"the same in both: {', '.join(same) or 'nothing'}")
    differences = {key: [left.get(key), right.get(key)] for key in differ}
    return {**asked, "against": settings.against, "differences": differences, "same": same}


def find_rules(word: str, *, kept: Competition, say: Callable[[str], None]) -> Competition:
    """Return the rules of a build as their file has them now; as the build keeps them where the file is not there.

    Args:
        word: the competition's name, or its file, as the build was told.
        kept: the rules in the build.
        say: called where there is no file.

    Raises:
        UserError: the file is wrong by now.
    """
    if word in competition_names() or Path(word).is_file():
        return competition(word)
    say(f"rules as the build has them: {word} is not there")
    return kept


def draw_table(differ: dict[str, tuple[str, str]], heads: tuple[str, str]) -> "FittingTable":
    """Return a table of the rules that differ, under two names."""
    from mathlete.tables import FittingTable

    table = FittingTable(columns=("rule", *heads), left=("rule", *heads))
    table.columns[0].no_wrap = True  # a key is one word
    for key, words in differ.items():
        table.add_row(key, *words)
    return table
