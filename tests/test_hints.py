"""What an error adds of the command line: our name of another tool's flag, the path that was meant, the folder."""

import re
from pathlib import Path

import pytest

from mathlete.command.hints import add_hints, require_own_flags
from mathlete.errors import UserError
from mathlete.foreign_flags import DRAWING_FLAGS, EVALUATING_FLAGS, TRAINERS_FLAGS
from mathlete.solve.policy import Policy
from tests.conftest import CommandLine

FLAG = re.compile(r"--[a-z][\w.-]*")
ASKED = (
    *("learning_rate", "max_seq_length", "per_device_train_batch_size", "lora_r", "output_dir", "num_train_epochs"),
    *("gradient_accumulation_steps", "lora_alpha", "lora_dropout", "target_modules", "max_steps", "warmup_ratio"),
    *("model_name_or_path", "load_in_4bit", "logging_steps"),
)


def test_fifteen_flags_of_other_trainers_are_answered_with_ours() -> None:
    assert len(ASKED) == 15
    assert {*ASKED} <= {*TRAINERS_FLAGS}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (TRAINERS_FLAGS, ["train", "math", "--help-all"]),
        (EVALUATING_FLAGS, ["eval"]),
        (DRAWING_FLAGS, ["submit", "build"]),
        (DRAWING_FLAGS, ["submit", "answer"]),
    ],
)
def test_an_answer_names_flags_that_exist_and_no_own_flag_is_taken_for_foreign(
    table: dict[str, str], words: list[str]
) -> None:
    program, *rest = words
    own = {*FLAG.findall(CommandLine(program).help(*(rest or ["pocket_val"])))}
    for name, cure in table.items():
        assert {*FLAG.findall(cure)} <= own, name
        assert f"--{name.replace('_', '-')}" not in own
        with pytest.raises(UserError, match=re.escape(f"got --{name} 7.")):
            require_own_flags([f"--{name}=7"], table, prog="it")


def test_a_foreign_flag_is_refused_with_the_words_to_use(train: CommandLine, evaluate: CommandLine) -> None:
    refusal = train("math", "--model", "pocket", "--learning-rate", "2e-4").refusal
    assert refusal.endswith("got --learning-rate 2e-4.\n  Fix: use --tune.rate 2e-4\n")
    for word, switch in (("=False", "false"), ("=0", "false"), ("=on", "true"), ("", "true")):
        thinking = evaluate("pocket_val", f"--enable_thinking{word}").refusal
        assert thinking.endswith(f"use --prompt.template-args enable_thinking={switch}\n")
    assert "use --vllm.tensor-parallel 2" in evaluate("pocket_val", "--tensor_parallel_size=2").refusal


def test_a_vote_named_as_a_policy_is_told_where_votes_stand() -> None:
    with pytest.raises(UserError, match=r"majority, a vote.\n  Fix: use --policy all/majority; in a replay "):
        Policy().with_words("majority")


def test_a_misspelt_path_is_answered_with_the_nearest(workdir: Path, evaluate: CommandLine) -> None:
    Path("runs/tuned").mkdir(parents=True)
    Path("runs/tuned/config.json").write_text("{}")
    assert "Fix: did you mean runs/tuned?; " in evaluate("compare", "runs/tuend", "runs/base").refusal
    refusal = evaluate("compare", "runs/tuned", "runs/tuned").refusal
    assert "this is a model: evaluate it first, `python -m eval SUITE --model runs/tuned`" in refusal
    Path("runs/trained/data").mkdir(parents=True)
    assert "this is a training run" in evaluate("compare", "runs/trained", "runs/tuned").refusal


def test_a_command_is_no_misspelt_path(workdir: Path) -> None:
    Path("submit.py").write_text("")
    error = UserError("there must be a build", value="no runs/submit/build.json", cure="run it")
    assert add_hints(error, ["submit"], program="mathlete submit").cure == "run it"
    Path("runs/submit-1").mkdir(parents=True)
    misspelt = UserError("a run must be a folder", value="runs/submitt, not there", cure="check the path")
    hint = "did you mean runs/submit-1?; check the path"
    assert add_hints(misspelt, ["x", "--run=runs/submitt"], program="mathlete eval").cure == hint


@pytest.mark.parametrize(
    ("argv", "cure"),
    [
        (["preflight"], "run `python -m submit rehearse`"),
        (["preflight", "--run", "runs/a b"], "run `python -m submit rehearse --run 'runs/a b'`"),
        (["preflight", "--run=runs/b"], "run `python -m submit rehearse --run runs/b`"),
        (["push", "--folder", "runs/b", "--yes"], "run `python -m submit rehearse --folder runs/b`"),
    ],
)
def test_a_cure_repeats_the_folder_in_use(argv: list[str], cure: str) -> None:
    error = UserError("a rehearsal must have passed", value="none", cure="run `python -m submit rehearse`")
    assert add_hints(error, argv, program="python -m submit").cure == cure
    short = UserError("a rule", cure="run `submit build` again").cure
    assert ("--" in add_hints(UserError("a rule", cure=short), argv, program="python -m submit").cure) == (
        len(argv) > 1
    )
    other = UserError("a rule", cure="run `python -m submit image`, `submit push --run x`, or `python -m eval SUITE`")
    assert add_hints(other, argv, program="python -m submit").cure == other.cure
