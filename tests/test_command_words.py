"""The words of a command line before it is parsed: leading flags in any order, and lists that are named twice."""

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import pytest
import trl

from mathlete.command.command_line import read_leading_flags
from mathlete.models.arguments import find_arguments, find_switches
from mathlete.settings import find_lists
from submit.building import BuildSettings
from tests.conftest import CommandLine

PARTS: tuple[Sequence[str], ...] = (
    ("--model", "DIR"),
    ("--run=runs/a",),
    ("--prompt.instruction=Put the answer in a box.",),
    ("--sampling.stop=--- END", "So the"),
    ("--n", "-3"),
)


def test_leading_flags_are_read_in_any_order_of_the_words() -> None:
    """A word behind `=` may have blanks and hyphens of its own."""
    for parts in permutations(PARTS):
        flags = read_leading_flags([word for part in parts for word in part], ["model", "run", "choices"])
        assert (flags.last("model"), flags.last("run"), flags.last("choices")) == ("DIR", "runs/a", None)


@pytest.mark.parametrize(
    ("words", "model"),
    [
        (["--model", "a", "--model", "b"], "b"),
        (["--model", "a", "FILE"], "a"),
        (["--model=", "a"], ""),
        (["--n", "1", "--", "--model", "a"], None),
    ],
)
def test_the_last_of_a_leading_flag_is_taken(words: list[str], model: str | None) -> None:
    assert read_leading_flags(words, ["model"]).last("model") == model


def test_the_lists_of_a_command_are_known() -> None:
    lists = find_lists(BuildSettings)
    assert {"vllm.extra", "sampling.stop", "prompt.template-args"} <= lists
    assert not {"model", "n", "sampling.top-p", "policy"} & lists


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (["--vllm.extra", "block_size", "32", "--vllm.extra", "stream_interval", "1"],
         "name all behind one: --vllm.extra block_size 32 stream_interval 1"),
        (["--sampling.stop=--- END", "--sampling.stop", "So the"],
         "name all behind one: --sampling.stop '--- END' 'So the'"),
        (["--prompt.template_args", "a=1", "--prompt.template-args", "b=2"], "--prompt.template-args a=1 b=2"),
    ],
)  # fmt: skip
def test_a_list_that_is_named_twice_loses_nothing_without_a_word(words: list[str], cure: str) -> None:
    refusal = CommandLine("submit")("build", "--model", "pocket", *words).refusal
    assert "a flag of several values must stand once" in refusal
    assert cure in refusal


TEMPLATES = {file.stem: file for file in (Path(trl.__file__).parent / "chat_templates").glob("*.jinja")}
SWITCHES = ("enable_thinking", "preserve_thinking", "low_effort", "medium_effort", "truncate_history_thinking")
"""What TRL's templates take as true or false alone."""


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_the_arguments_of_real_templates_are_a_users_and_their_switches_are_known(name: str) -> None:
    text = TEMPLATES[name].read_text(encoding="utf-8")
    arguments, switches = find_arguments(text), find_switches(text)
    assert not {"content", "role", "loop_messages", "system_message", "message", "reasoning_content"} & {*arguments}
    assert [one for one in arguments if one in SWITCHES and one not in switches] == []
    assert not {"reasoning_effort", "date_string", "model_identity"} & {*switches}


@pytest.mark.parametrize(
    ("template", "switches"),
    [
        ("{% set low = low if low is defined else false %}{% if low %}1{% endif %}", {"low"}),
        ("{% set on = low if low is defined else false %}{% if on %}1{% endif %}", {"low", "on"}),
        ("{% set on = low | default(false) %}{% if on %}1{% endif %}", {"low", "on"}),
        ("{% set on = low | default(false) %}{% if on %}{{ on }}{% endif %}", set()),
        ("{% set low = low if low is defined else 'high' %}{{ low }}", set()),
    ],
)
def test_a_switch_is_one_under_another_name(template: str, switches: set[str]) -> None:
    assert {*find_switches(template)} == switches


def test_a_template_without_arguments_has_none() -> None:
    """R1's sets `content` in its loop, which nobody gives."""
    text = TEMPLATES["deepseek_r1_distill"].read_text(encoding="utf-8")
    assert find_arguments(text) == []
