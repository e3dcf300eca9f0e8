"""Every command block of README, CONTRIBUTING and docs runs on the pocket model, or says what it needs instead."""

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tyro

import submit.commands
import train.commands
from eval.commands import COMMANDS as EVAL
from eval.commands import EVALUATE
from mathlete.command import run_command_line
from mathlete.programs import DOCTOR, HUB, KAGGLE
from tests.conftest import CommandLine

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md")))
FENCE = re.compile(
    r"^(?:<!-- (?:needs: (?P<needs>[^\n]+)|file: (?P<file>[\w.-]+)) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)^```",
    re.M | re.S,
)
"""A block, with what its commands need, or the file that a reader saves it as."""
KINDS = ("sh", "python", "toml", "text", "mermaid")
"""Commands, code, a table, output, a picture."""
OWN: dict[str, Any] = {"hub": HUB, "kaggle": KAGGLE, "doctor": DOCTOR}
"""Programs of the console script alone."""
COMMANDS: dict[str, Any] = {"train": train.commands.COMMANDS, "submit": submit.commands.COMMANDS, "eval": EVAL, **OWN}
SMALL = {
    "math": ("--limit 300", "--tune.steps 4", "--rows.heldout 12", "--forgetting.problems 8"),
    "pocket_val": ("--limit 16",),
    "quantize-lab": ("--only int8/symmetric", "--rows 4"),
}
"""What makes a page's command small enough for a test, where the page does not say it itself."""
AS_PRINTED = "docs/first-hour.md"
"""The page whose commands are run word for word: they are what a stranger tries first."""


def as_modules(words: list[str]) -> list[str]:
    """Return a line of `mathlete` as one of Python's: what has no module of its own is the package's."""
    return ["python", "-m", *(words if words[1] in OWN else words[1:])]


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    needs: str
    kind: str
    text: str
    file: str = ""

    @property
    def commands(self) -> list[list[str]]:
        every = [words for line in self.text.splitlines() if (words := shlex.split(line, comments=True))]
        return [as_modules(words) if words[0] == "mathlete" else words for words in every]


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(
            page, text[: one.start()].count("\n") + 1, one["needs"] or "", one["kind"], one["text"], one["file"] or ""
        )
        for one in FENCE.finditer(text)
    ]


ALL = [block for page in PAGES for block in blocks(page)]
RUN = [page for page in PAGES if any(block.kind == "sh" and not block.needs for block in blocks(page))]


def understood(words: Sequence[str]) -> bool:
    """Return whether the real command line takes the words; nothing is carried out."""
    name, *rest = words[words.index("-m") + 1 :]
    if name == "mathlete":
        name, *rest = rest
    if name == "doctor":
        rest = [name, *rest]

    def check_settings(settings: Any) -> dict[str, Any]:
        getattr(settings, "check", dict)()
        return {}

    def quiet(command: Any) -> Any:
        return replace(command, run=check_settings)

    table = {word: quiet(command) for word, command in COMMANDS[name].items()}
    otherwise = quiet(EVALUATE) if name == "eval" else None
    return run_command_line(rest, prog=name, commands=table, otherwise=otherwise) == 0


@pytest.mark.parametrize("block", ALL, ids=lambda block: f"{block.page}:{block.line}")
def test_a_block_says_what_it_is_and_its_commands_are_real(block: Block) -> None:
    assert block.kind in KINDS, "a block of commands is ```sh, of output ```text"
    for words in block.commands if block.kind == "sh" else ():
        if "-m" in words and words[words.index("-m") + 1] in (*COMMANDS, "mathlete"):
            assert understood([word for word in words if word != "..."]), words
        else:
            assert block.needs, f"{words[0]} is no command of this project: say what it needs"


def small(words: list[str]) -> list[str]:
    more = [
        part
        for name, flags in SMALL.items()
        if name in words and "--plan" not in words
        for flag in flags
        if flag.split()[0] not in words
        for part in flag.split()
    ]
    return [sys.executable, *words[1:], *more]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_a_pages_commands_run_in_their_order(page: str, place: Path) -> None:
    folder = place / page.replace("/", "-")
    folder.mkdir(exist_ok=True)
    for block in blocks(page):
        if block.file:
            (folder / block.file).write_text(block.text, encoding="utf-8")
        for words in block.commands if block.kind == "sh" and not block.needs else ():
            argv = [sys.executable, *words[1:]] if page == AS_PRINTED else small(words)
            done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{page}:{block.line} {shlex.join(words)}\n{done.stdout}{done.stderr}"


def is_within(row: list[str], line: list[str]) -> bool:
    words = iter(line)
    return all(word in words for word in row)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/budget.md"])
def test_a_replays_table_in_a_page_is_what_the_command_prints(page: str, evaluate: CommandLine, workdir: Path) -> None:
    tables = 0
    for before, block in pairwise([Block(page, 0, "", "", ""), *blocks(page)]):
        words = next((line[2:] for line in block.text.splitlines() if line.startswith("$ mathlete eval ")), before.text)
        _, _, arguments = words.partition("eval replay ")
        if block.kind != "text" or not arguments:
            continue
        printed = [line.split() for line in evaluate("replay", *shlex.split(arguments)).stdout.splitlines()]
        rows = [line.split() for line in block.text.splitlines() if line.startswith(" n=")]
        tables += len(rows) > 2
        # Without a terminal a table has all its columns: the page leaves some out.
        assert [row for row in rows if not any(is_within(row, line) for line in printed)] == []
    assert tables == {"README.md": 1, "docs/budget.md": 4}[page]


def test_the_pictures_rooms_are_the_linters() -> None:
    import tomllib

    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    layers = [sorted(name.strip() for name in layer.split("|")) for layer in contract["layers"]]
    picture = next(block.text for block in blocks("docs/architecture.md") if block.kind == "mermaid")
    groups = re.findall(r"subgraph (\w+)\n(.*?)end\n", picture, re.S)
    rooms = {name: sorted(re.findall(r"\[([\w.]+)\]", body)) for name, body in groups}
    alone = re.sub(r"subgraph .*?end\n", "", picture, flags=re.S)
    rooms |= {name: [room] for name, room in re.findall(r"(\w+)\[([\w.]+)\]", alone)}
    order = picture.splitlines()[-1].split("-->")
    assert [rooms[name.strip()] for name in order] == layers


@pytest.mark.parametrize("page", ["docs/submit.md", "docs/rehearsal.md"])
def test_every_command_of_submit_in_a_pages_text_is_understood(page: str) -> None:
    lines = re.findall(r"python -m submit ((?:[^`\n]|\n(?=[^`\n]))+?)(?:`|\n)", (ROOT / page).read_text())
    assert len(lines) >= 4
    for name, *words in map(shlex.split, lines):
        settings = submit.commands.COMMANDS[name].settings
        assert isinstance(tyro.cli(settings, args=words), settings)
