"""The page of any next competition: its file is read, its tables are complete, what it shows is what commands say."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from mathlete.competitions import (
    AdapterRules,
    Competition,
    GatewayRules,
    PromptRules,
    SamplingRules,
    ScorerRules,
    describe_changes,
)
from mathlete.competitions.files import read_competition
from tests.conftest import CommandLine
from tests.test_docs_commands import Block, blocks

PAGE = "docs/competitions.md"
TABLES = {
    "gateway": GatewayRules,
    "scorer": ScorerRules,
    "prompt": PromptRules,
    "sampling": SamplingRules,
    "adapter": AdapterRules,
}


@pytest.fixture
def shown(workdir: Path) -> list[Block]:
    """The page's blocks, its files saved as the page says."""
    for block in blocks(PAGE):
        if block.file:
            (workdir / block.file).write_text(block.text)
    return blocks(PAGE)


def test_the_pages_tables_have_every_key(root: Path) -> None:
    rows = [line.split(" | ") for line in (root / PAGE).read_text().splitlines() if line.startswith("| ")]
    alone = {key for row in rows if len(row) == 3 for key in re.findall(r"`(\w+)`", row[0])}
    assert alone | {*TABLES} == {field.name for field in fields(Competition)} - {"name"}
    table, inside = "", dict[str, set[str]]()
    for row in (row for row in rows if len(row) == 4):
        table = next(iter(re.findall(r"`\[(\w+)\]`", row[0])), table)
        inside.setdefault(table, set()).update(re.findall(r"`(\w+)`", row[1]))
    del inside[""]
    assert inside == {name: {field.name for field in fields(kind)} for name, kind in TABLES.items()}


def test_the_pages_file_is_short_and_every_value_has_its_source(shown: list[Block], workdir: Path) -> None:
    (text,) = (block.text for block in shown if block.file == "riverside.toml")
    assert len(text.splitlines()) <= 60
    lines = [line for line in text.splitlines() if re.match(r"\w", line)]
    assert [line for line in lines if not re.search(r"  # \S", line)] == []
    assert read_competition(workdir / "riverside.toml").score(2, runs=3) == 0.25


def test_what_the_page_shows_is_what_the_commands_say(
    shown: list[Block], workdir: Path, submit: CommandLine, evaluate: CommandLine
) -> None:
    texts = [block.text for block in shown if block.kind == "text"]
    file = workdir / "riverside.toml"
    differ = submit("rules", "--competition", "riverside.toml", "--against", "aimo-3").stdout
    rows = {" ".join(line.split()) for line in differ.splitlines()}
    (table,) = (text for text in texts if " rule " in text)
    assert {" ".join(line.split()) for line in table.splitlines() if "─" not in line} <= rows
    (said,) = (text for text in texts if "scorer of" in text)
    lines = [" ".join(line.removesuffix("…").split()) for line in said.splitlines()]
    judged = " ".join(evaluate("losses", "pocket", "--competition", "riverside.toml").stdout.split())
    assert [line for line in lines if line not in judged] == []
    before = read_competition(file)
    file.write_text(file.read_text().replace("wall_s = 1800", "wall = 1800"))
    (error,) = (text for text in texts if "known keys" in text)
    assert error.rstrip("…\n") in submit("rules", "--competition", "riverside.toml").refusal
    file.write_text(file.read_text().replace("wall = 1800", "wall_s = 900"))
    (error,) = (text for text in texts if "as they are now" in text)
    assert f"got {describe_changes(before, read_competition(file))}.\n" in error
