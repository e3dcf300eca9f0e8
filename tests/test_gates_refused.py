"""Refused means refused: what a gate refused, or a step never ended, is taken by no command without a reason."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mathlete.gates import SURVIVAL, GateOutcome, Refused, require_passed, require_run
from mathlete.runs import MANIFEST, read_json, write_json
from tests.conftest import POCKET, CommandLine

STRANGERS = ('[{"a": 1}]', "x", '{"model": "m", "breaches": null}', '{"breaches": [{"a": 1}]}', '{"model": 3}',
             json.dumps({"model": "a" * 5000}), '{"model": "a\\u0000b"}')  # fmt: skip


@pytest.mark.parametrize("results", STRANGERS)
def test_a_strangers_results_beside_samples_are_no_verdict(results: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(results)
    assert require_run(tmp_path) == GateOutcome()


@pytest.fixture
def refused(workdir: Path) -> Path:
    """A model whose export began and never passed its gates."""
    folder = Path(shutil.copytree(POCKET, "m"))
    write_json(folder / "started.json", {"key": "k"})
    write_json(folder / SURVIVAL, GateOutcome(breaches=("int8 is far off",)).to_json())
    return folder


RULE = "a model must have passed the gates of its run, got int8 is far off"
EVALUATE = ("pocket_val", "--limit", 1, "--n", 1, "--sampling.max-tokens", 4, "--model", "m", "--run", "e")


def test_what_a_gate_refused_is_neither_evaluated_nor_replayed_nor_trained_on(
    refused: Path, evaluate: CommandLine, train: CommandLine
) -> None:
    assert RULE in evaluate(*EVALUATE).refusal
    assert RULE in train("math", "--model", "m", "--until", "format", "--run", "r").refusal
    assert not Path("e").exists()
    assert evaluate(*EVALUATE, "--accept-refused", "a first look").code == 0
    for file in ("results.json", MANIFEST):
        content: Any = read_json(Path("e", file))
        facts = content.get("settings", content)
        assert (facts["breaches"], facts["accept_refused"]) == (["int8 is far off"], "a first look")
    # What was accepted as the samples were drawn need not be said again; where nothing was, it must be.
    assert evaluate("replay", "e", "--simulations", 20, "--n", 1, "--run", "one").code == 0
    results = {key: value for key, value in read_json(Path("e/results.json")).items() if key != "breaches"}
    write_json(Path("e/results.json"), results)
    Path("e", MANIFEST).unlink()
    mark = Path("e/started.json").rename("mark.json")
    assert RULE in evaluate("replay", "e", "--simulations", 20, "--n", 1, "--run", "two").refusal
    mark.rename("e/started.json")
    refused.rename("gone")
    unfinished = evaluate("replay", "e", "--simulations", 20, "--n", 1, "--run", "two").refusal
    assert "got e was begun and never finished: it has no manifest.json" in unfinished
    done = evaluate("replay", "e", "--simulations", 20, "--n", 1, "--run", "two", "--accept-refused", "a slice")
    assert done.code == 0
    assert read_json(Path("two", MANIFEST))["settings"]["accept_refused"] == "a slice"  # type: ignore[index]


def test_a_step_that_never_ended_and_a_reason_that_is_none(tmp_path: Path) -> None:
    assert require_passed(tmp_path) == GateOutcome()  # anyone's model
    write_json(tmp_path / "started.json", {"key": "k"})
    for reason in ("", " "):
        with pytest.raises(Refused, match="was begun and never finished"):
            require_passed(tmp_path, reason=reason)
    # A reason that was given is none before the step ended.
    write_json(tmp_path / SURVIVAL, GateOutcome(breaches=("far",), reason="why").to_json())
    with pytest.raises(Refused, match="got far"):
        require_passed(tmp_path)
    write_json(tmp_path / MANIFEST, {})
    assert require_passed(tmp_path).reason == "why"
