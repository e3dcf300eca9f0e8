"""Logs of Inspect: the settings in force, wherever they stand, and runs that never ended."""

import json
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import pytest

from mathlete.errors import UserError
from mathlete.logs import read_log
from mathlete.logs.inspect import inspect_facts
from tests.conftest import CommandLine
from tests.test_logs import inspect_json, join, logs


@pytest.fixture(autouse=True)
def inside(workdir: Path) -> None:
    """Every test stands in a folder of its own."""


def changed(name: str, **changes: Any) -> str:
    """The log of the sums as a JSON file of another header."""
    content = json.loads(Path(str(inspect_json()[0])).read_text())
    content["eval"]["model_generate_config"] = changes.pop("model", {})
    Path(name).write_text(json.dumps({**content, **changes}))
    return name


SETTINGS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, float]]] = [
    ({"temperature": 0.7}, {}, {}, {"temperature": 0.7}),
    ({}, {"temperature": 0.0, "max_tokens": 256}, {}, {"temperature": 0.0, "max_tokens": 256}),
    ({"temperature": 0.7, "top_p": 0.9}, {"temperature": 1.0}, {}, {"temperature": 1.0, "top_p": 0.9}),
    ({"temperature": 0.7}, {"temperature": 1.0}, {"temperature": 0.5}, {"temperature": 0.5}),
    ({}, {}, {}, {}),
]
"""(the model's settings, the task's, those of its generate step, what holds)."""


@pytest.mark.parametrize(("model", "task", "step", "holds"), SETTINGS)
def test_the_setting_that_is_nearest_to_the_sample_holds(
    model: dict[str, Any], task: dict[str, Any], step: dict[str, Any], holds: dict[str, float]
) -> None:
    steps = [{"solver": "system_message", "params": {"temperature": 3}}, {"solver": "generate", "params": step}]
    plan = {"steps": steps, "config": task}
    assert inspect_facts({"eval": {"model_generate_config": model}, "plan": plan}).sampling == holds


def test_tasks_of_two_temperatures_are_not_pooled() -> None:
    cold, hot = (changed(f"{t}.json", plan={"config": {"temperature": t}}) for t in (0.0, 1.0))
    assert len(join(logs(cold, cold))) == 12
    with pytest.raises(UserError, match="only as slices of one run, with the same temperature"):
        join(logs(cold, hot))


@pytest.mark.parametrize("status", ["cancelled", "error", "started"])
def test_a_log_whose_run_never_ended_is_a_part_that_someone_must_accept(status: str, evaluate: CommandLine) -> None:
    part = changed("part.json", status=status)
    words = f"part.json was begun and never finished: its status is '{status}'"
    told = evaluate("import", part, "--run", "r").refusal
    assert words in told
    assert "--accept-refused REASON" in told
    assert not Path("r").exists()
    done = evaluate("import", part, "--run", "r", "--accept-refused", "a first look", "--no-texts", "--json")
    assert f"accepted, because a first look: {words}" in done.stderr
    for name in ("manifest.json", "results.json"):
        assert words in Path("r", name).read_text()
    replayed = evaluate("replay", "r", "--n", 1, "--simulations", 20, "--json")
    assert f"accepted, because a first look: {words}" in replayed.stderr
    assert evaluate("import", changed("whole.json"), "--run", "whole", "--no-texts").code == 0


def test_a_log_that_has_no_end_yet_is_a_part(evaluate: CommandLine) -> None:
    content = json.loads(Path(changed("log.json")).read_text())
    samples = content.pop("samples")
    del content["status"]
    with ZipFile("killed.eval", "w", ZIP_DEFLATED) as archive:
        archive.writestr("_journal/start.json", json.dumps(content))
        archive.writestr("samples/a_epoch_1.json", json.dumps(samples[0]))
    assert len(read_log(Path("killed.eval"), {}).entries) == 1
    assert (
        "killed.eval was begun and never finished: its status is 'started'"
        in evaluate("import", "killed.eval", "--run", "r").refusal
    )


def test_what_this_project_wrote_of_log_probabilities_is_read() -> None:
    content = json.loads(Path(str(inspect_json()[0])).read_text())
    for row in content["samples"]:
        row["metadata"] = {"logprob_mean": -0.5, "logprob_tail": -0.25}
    Path("own.json").write_text(json.dumps(content))
    assert {(one.logprob_mean, one.logprob_tail) for one in read_log(Path("own.json"), {}).entries} == {(-0.5, -0.25)}
