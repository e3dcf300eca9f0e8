"""A build remembers: what was chosen is printed, kept as a file, and holds in the next build and in another folder."""

import json
import shutil
from pathlib import Path

import pytest

from mathlete.command.command_line import read_leading_flags
from mathlete.errors import UserError
from mathlete.sampling import SamplingConfig
from mathlete.sampling.served import VllmSettings
from submit.building import (
    LEADING_FLAGS,
    NO_CHOICES,
    BuildSettings,
    Drawing,
    ModelFacts,
    Solving,
    Wishes,
    build_defaults,
)
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
    chosen = BuildSettings(
        about=ModelFacts(vocabularies=Path("words")),
        solving=Solving(n=3, harvest=0.25, harvest_tokens=16, sampling=SamplingConfig(stop=("x",))),
        wishes=Wishes(need=("einops>=0.8",)),
    )
    write_choices(Path(CHOICES), chosen, leave_out=())
    assert read_choices(Path(CHOICES), BuildSettings) == chosen


def test_a_model_is_the_same_however_its_folder_is_spelled(workdir: Path) -> None:
    folder, model = Path("runs/submit"), Path("runs/a/export")
    folder.mkdir(parents=True)
    write_choices(folder / CHOICES, BuildSettings(model=str(model), solving=Solving(n=3)), leave_out=("run", "json"))
    for word in ("runs/a/export", "runs/a/export/", "./runs/a/export", "runs/a/../a/export", str(model.absolute())):
        assert defaults("--model", word).solving.n == 3
    assert defaults("--model", "runs/a/export-fp8").solving.n == 8


def test_another_model_begins_anew_and_none_is_the_defaults(workdir: Path) -> None:
    folder = Path("runs/submit")
    folder.mkdir(parents=True)
    write_choices(folder / CHOICES, BuildSettings(solving=Solving(n=3)), leave_out=("run", "json"))
    for words in ("", "--model pocket", "--run runs/submit"):
        assert defaults(*words.split()).solving.n == 3
    for words in ("--model m", "--choices none", "--run r", "--help"):
        assert defaults(*words.split()).solving.n == 8


OLDER = {
    "model": "pocket", "model_source": "o/m/transformers/v/1", "model_gib": 2.5, "vocabularies": "words",
    "competition": "aimo-2", "policy": "votes2", "n": 3, "budget": "9000", "seed": 5, "sampling": {"stop": ["x"]},
    "engine": "auto", "vllm": {"kv_gib": 1.5}, "vllm_wheels": None, "tools": {"turns": 2},
    "prompt": {"instruction": "", "template_args": []}, "names": {"owner": "alice"}, "kaggle": {"licence": "MIT"},
    "need": ["einops>=0.8"], "find_links": "wheels", "accept_refused": "", "released": "2024-12-01",
}  # fmt: skip
"""A file from before a build's settings were in groups."""


def test_an_older_file_is_read_and_is_what_is_written_today(workdir: Path) -> None:
    Path(CHOICES).write_text(json.dumps(OLDER))
    read = read_choices(Path(CHOICES), BuildSettings)
    assert (read.about.vocabularies, read.solving.n, read.drawing.engine) == (Path("words"), 3, "auto")
    assert (read.solving.sampling.stop, read.wishes.need, read.kaggle.licence) == (("x",), ("einops>=0.8",), "MIT")
    write_choices(Path(CHOICES), read, leave_out=NO_CHOICES)
    written = json.loads(Path(CHOICES).read_text())
    # What came later has its default.
    later = {name: written.pop(name) for name in ("harvest", "harvest_tokens")}
    assert later == {"harvest": 0.0, "harvest_tokens": 32}
    assert written.keys() == OLDER.keys()
    assert {name: own for name, own in written.items() if not isinstance(own, dict)}.items() <= OLDER.items()


@pytest.mark.parametrize("content", ["[]", '{"n": 3, "of_another_version": 1}', "{"])
def test_a_broken_file_is_refused_with_its_name(workdir: Path, content: str) -> None:
    Path("c.json").write_text(content)
    with pytest.raises(UserError, match=r"c\.json"):
        defaults("--choices", "c.json")
    with pytest.raises(UserError, match="must be a file that a build kept"):
        defaults("--choices", "none.json")


@pytest.mark.parametrize(
    ("vllm", "says"),
    [
        (
            VllmSettings(extra={"seed": "-1"}),
            "leave it out; it was kept in runs/submit/choices.json, and `--vllm.extra` t",
        ),
        (
            VllmSettings(max_model_len=9),
            "it was kept in runs/submit/choices.json, and `--vllm.max-model-len None` takes",
        ),
    ],
)
def test_a_word_that_was_kept_is_refused_with_the_flag_that_takes_it_back(
    built_wheels: Path, submit: CommandLine, vllm: VllmSettings, says: str
) -> None:
    kept = Path("runs/submit", CHOICES)
    kept.parent.mkdir(exist_ok=True)
    write_choices(kept, BuildSettings(drawing=Drawing(engine="vllm", vllm=vllm)), leave_out=NO_CHOICES)
    words = ("build", "--names.owner", "alice")
    refused = " ".join(submit(*words).refusal.split())
    assert says in refused
    cure = refused.partition("and `")[2].partition("`")[0].split()
    assert submit(*words, *cure).code == 0
    # What is typed was not kept.
    kept.unlink()
    assert "was kept" not in submit(*words, "--engine", "vllm", "--vllm.max-model-len", 9).refusal


def test_the_file_holds_no_word_of_where_it_was_built(workdir: Path) -> None:
    write_choices(Path(CHOICES), BuildSettings(), leave_out=NO_CHOICES)
    assert not {"run", "json", "overwrite"} & {*json.loads(Path(CHOICES).read_text())}
