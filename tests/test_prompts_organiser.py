"""An organiser's prompt: built as it is rendered there, kept in a model's folder, taken for a table of questions."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mathlete.competitions import Competition, competition
from mathlete.errors import UserError
from mathlete.models import find_model, load_prompt_format
from mathlete.prompts import PROMPT_FILE, PromptSettings, SavedPrompt
from tests.conftest import CommandLine
from tests.loopback import Loopback
from tests.test_adapters_served import MADE_UP
from tests.test_submit_answer import CUP, words_of
from tests.test_submit_answer import serve as serve  # fixtures
from tests.test_submit_answer import table as table

PROMPTS = {
    "system": 'system = "You are good."\nsuffix = "\\nBox it."',
    "one-line": 'suffix = " Box it."',
    "nothing": "suffix = ''",
    "system-alone": 'system = "You are good."',
    "blank-line": 'suffix = "\\n\\nBox it.\\n"',
}
"""{name: the keys of a table [prompt]}."""


def write_rules(file: Path, keys: str, *, deliverable: str = "adapter") -> PromptSettings:
    before, after = MADE_UP.split("[prompt]")
    file.write_text(f"{before}[prompt]\n{keys}\n[sampling]{after.split('[sampling]')[1]}")
    if deliverable == "csv":
        file.write_text(f"{CUP}\n[prompt]\n{keys}\n")
    return PromptSettings(organiser=str(file))


@pytest.mark.parametrize("name", PROMPTS)
def test_the_tokens_are_those_that_the_organisers_vllm_reads(name: str, tmp_path: Path) -> None:
    pocket = find_model("pocket")
    prompts = load_prompt_format(replace(pocket, prompt=write_rules(tmp_path / "cup.toml", PROMPTS[name])))
    rules = competition(str(tmp_path / "cup.toml"))
    assert prompts.organiser == rules.prompt == Competition.from_json(json.loads(json.dumps(rules.to_json()))).prompt
    assert prompts.organiser is not None
    tokenizer: Any = prompts.tokenizer
    text = prompts.organiser.render("2+2?", tokenizer=tokenizer)
    assert ("You are good." in text, "Box it." in text) == ("system" in name, "Box it" in PROMPTS[name])
    assert tokenizer(text)["input_ids"] == prompts.prompt_ids("2+2?")
    # Where a table is handed in, nobody else's vLLM adds a bos.
    own = load_prompt_format(
        replace(pocket, prompt=write_rules(tmp_path / "csv.toml", PROMPTS[name], deliverable="csv"))
    )
    assert own.prompt_ids("2+2?") == tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", PROMPTS)
def test_a_model_that_was_trained_on_it_keeps_it(name: str, tmp_path: Path) -> None:
    pocket = find_model("pocket")
    prompts = load_prompt_format(replace(pocket, prompt=write_rules(tmp_path / "cup.toml", PROMPTS[name])))
    prompts.save(tmp_path)
    (tmp_path / "cup.toml").unlink()
    saved = SavedPrompt.read(tmp_path)
    assert saved == prompts.saved
    again = load_prompt_format(pocket).with_saved(saved)
    assert (again.prompt_ids("2+2?"), again.sha256) == (prompts.prompt_ids("2+2?"), prompts.sha256)
    assert again.messages("2+2?") == prompts.messages("2+2?")
    # Another instruction is another prompt, nobody's but the user's.
    other = again.with_saved(saved.with_settings(PromptSettings(instruction="Box it.")))
    assert other.prompt_ids("2+2?") == replace(load_prompt_format(pocket), instruction="Box it.").prompt_ids("2+2?")


def test_a_sentence_about_tools_follows_its_suffix(tmp_path: Path) -> None:
    settings = write_rules(tmp_path / "cup.toml", PROMPTS["system"])
    prompts = load_prompt_format(replace(find_model("pocket"), prompt=settings)).with_further("You may use Python.")
    assert "Box it. You may use Python." in prompts.render("2+2?")
    assert prompts.messages("2+2?")[0] == {"role": "system", "content": "You are good."}


@pytest.mark.parametrize("broken", [{"organiser": "x"}, {"organiser": {"suffixes": ""}}])
def test_a_broken_file_is_one_clear_error(broken: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / PROMPT_FILE).write_text(json.dumps({"instruction": "", **broken}))
    with pytest.raises(UserError, match=PROMPT_FILE):
        SavedPrompt.read(tmp_path)


def test_a_table_is_answered_with_the_organisers_system_message(
    table: Path, serve: Callable[..., Loopback], submit: CommandLine
) -> None:
    write_rules(Path("cup.toml"), PROMPTS["system"], deliverable="csv")
    server = serve()
    assert submit(*words_of(server, "--fallbacks-max", 1)).result["questions"] == 4
    assert {one["messages"][0]["content"] for one in server.requests} == {"You are good."}
    assert {one["messages"][1]["content"].partition("\n")[2] for one in server.requests} == {"Box it."}


@pytest.mark.slow
def test_rows_are_trained_and_evaluated_on_it(workdir: Path, train: CommandLine) -> None:
    write_rules(Path("cup.toml"), PROMPTS["system"])
    rows = ("math", "--model", "pocket", "--limit", 12, "--rows.heldout", 2, "--until", "format", "--json")
    figures = train(*rows, "--prompt.organiser", "cup.toml", "--run", "run").result
    assert (figures["parity"]["mismatches"], figures["rows"] > 0) == (0, True)
