"""How a command's words are read: the first pass as the parser reads them, and no value is lost in silence."""

import random
from dataclasses import dataclass, field
from itertools import chain
from typing import Annotated

import pytest
import tyro

from mathlete.command.command_line import read_leading_flags
from mathlete.command.pairs import make_registry
from mathlete.command.words import require_lists_once, split_flags
from mathlete.errors import UserError
from mathlete.settings import find_lists


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """A group."""

    stop: tuple[str, ...] = ()
    top_p: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Flags of each kind."""

    file: tyro.conf.Positional[str]
    model: str = "pocket"
    policy_file: str | None = None
    source: tuple[str, ...] = ()
    against: tuple[str, ...] | None = None
    extra: dict[str, str] = field(default_factory=dict)
    quick: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    group: Annotated[Sampling, tyro.conf.arg(name="")] = field(default_factory=Sampling)


LEADING = ("model", "policy-file", "source")
PIECES = (
    ("FILE",), ("--model", "a b"), ("--model=--b c",), ("--model", "c"), ("--policy-file", "p q"),
    ("--policy_file=-x",),
    ("--source", "a", "b c", "-3", "--- d"), ("--source=--x y",), ("--sampling.stop=So the",),
    ("--sampling.stop=--- END",),
    ("--sampling.stop", "--- END", "e"), ("--extra", "k", "a b"), ("--extra=k", "v"), ("--quick",), ("--top_p", "-inf"),
)  # fmt: skip


def test_the_first_pass_reads_what_the_parser_reads_in_any_order() -> None:
    chance = random.Random(0)
    for _ in range(40):
        words = chance.sample(PIECES[1:], chance.randint(1, 6))
        # A list would take a positional for one of its own: the file stands first or behind a flag of one value.
        at = chance.choice([0, *(n for n, piece in enumerate(words, 1) if piece[0].startswith(("--model", "--pol")))])
        line = [*chain(*words[:at], PIECES[0], *words[at:])]
        # A list that stands twice never comes so far.
        parsed = tyro.cli(Settings, args=line, registry=make_registry())
        first = read_leading_flags(line, LEADING)
        read = (first.last("model") or "pocket", first.last("policy-file"), tuple(first.values("source")))
        assert read == (parsed.model, parsed.policy_file, parsed.source), line


def test_words_behind_two_hyphens_are_no_flags() -> None:
    assert [*split_flags(["--model", "a", "--", "--model", "b"])] == [("--model", ["a"])]


def test_the_flags_of_several_values_are_found_as_they_are_named() -> None:
    assert find_lists(Settings) == {"source", "against", "extra", "sampling.stop", "stop"}


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        ("--sampling.stop AAA --model m --sampling.stop BBB", "--sampling.stop AAA BBB"),
        ("--extra a 1 --extra=b 2", "--extra a 1 b 2"),
        ("--source=--x --source y", "--source=--x y"),
    ],
)
def test_a_list_that_stands_twice_is_refused_with_all_its_values(words: str, cure: str) -> None:
    with pytest.raises(UserError) as refused:
        require_lists_once(words.split(), find_lists(Settings))
    assert refused.value.cure == f"name all behind one: {cure}"


def test_of_one_value_the_last_wins() -> None:
    words = ["--model", "a", "--quick", "--model=b", "--quick", "--source", "c"]
    require_lists_once(words, find_lists(Settings))
    assert read_leading_flags(words, LEADING).last("model") == "b"
