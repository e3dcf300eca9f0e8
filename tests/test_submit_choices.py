"""A build remembers: what was chosen is printed, kept as a file, and holds in the next build and in another folder."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mathlete.command import read_leading_flags
from mathlete.errors import UserError
from mathlete.sampling import SamplingConfig
from submit.building import LEADING_FLAGS, BuildSettings, build_defaults
from submit.choices import CHOICES, read_choices, write_choices
from tests.conftest import CommandLine

CHOSEN = ("--policy", "votes2", "--n", 3, "--sampling.temperature", 0.7, "--sampling.max-tokens", 77, "--seed", 5)
WORDS = ("build", "--names.owner", "mathlete-demo", "--run", "runs/apart")


def test_a_rebuild_without_flags_keeps_the_choices_and_gives_the_same_hashes(
    built_wheels: Path, submit: CommandLine
) -> None:
    shutil.copytree(built_wheels, "runs/apart/wheels")
    budget = ("--budget", "9000:100:500:250", "--kaggle.machine", "NvidiaTeslaT4")
    first = submit(*WORDS, *CHOSEN, *budget, "--json")
    hashes = first.result["hashes"]
    for words in (
        "model      pocket · ", " · engine transformers · NvidiaTeslaT4", "n 3 · at most 77 tokens · policy votes2 ·",
        "temperature 0.7 · seed 5", "9,000 s · each question 100 to 500 s · 250 s kept back",
    ):  # fmt: skip
        assert words in first.stderr
    again = submit("build", "--run", "runs/apart", "--json")
    assert again.result["hashes"] == hashes
    assert "as in runs/apart/choices.json" in again.stderr
    # From the file alone, in another folder: the same submission.
    shutil.copytree(built_wheels, "runs/other/wheels")
    other = submit("build", "--run", "runs/other", "--choices", f"runs/apart/{CHOICES}", "--json")
    assert other.result["hashes"] == hashes
    changed = submit("build", "--folder", "runs/other", "--n", "4", "--json")
    assert changed.result["hashes"]["notebook"] != hashes["notebook"]
    assert "n 4 · at most 77 tokens · policy votes2 · temperature 0.7 · seed 5" in changed.stderr


def defaults(*words: str) -> BuildSettings:
    return build_defaults(read_leading_flags(words, LEADING_FLAGS))


def test_choices_come_back_as_they_were(workdir: Path) -> None:
    chosen = replace(
        BuildSettings(), n=3, vocabularies=Path("words"), need=("einops>=0.8",), sampling=SamplingConfig(stop=("x",))
    )
    write_choices(Path(CHOICES), chosen, leave_out=())
    assert read_choices(Path(CHOICES), BuildSettings) == chosen


def test_another_model_begins_anew_and_none_is_the_defaults(workdir: Path) -> None:
    folder = Path("runs/submit")
    folder.mkdir(parents=True)
    write_choices(folder / CHOICES, replace(BuildSettings(), n=3), leave_out=("run", "json"))
    assert defaults().n == defaults("--model", "pocket").n == defaults("--run", "runs/submit").n == 3
    assert defaults("--model", "m").n == defaults("--choices", "none").n == defaults("--run", "r").n == 8
    assert defaults("--help").n == 8


@pytest.mark.parametrize("content", ["[]", '{"n": 3, "of_another_version": 1}', "{"])
def test_a_broken_file_is_refused_with_its_name(workdir: Path, content: str) -> None:
    Path("c.json").write_text(content)
    with pytest.raises(UserError, match=r"c\.json"):
        defaults("--choices", "c.json")
    with pytest.raises(UserError, match="must be a file that a build kept"):
        defaults("--choices", "none.json")


def test_the_file_holds_no_word_of_where_it_was_built(workdir: Path) -> None:
    write_choices(Path(CHOICES), BuildSettings(), leave_out=("run", "overwrite", "json", "choices", "policy_file"))
    assert not {"run", "json", "overwrite"} & {*json.loads(Path(CHOICES).read_text())}
