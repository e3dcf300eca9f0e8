"""The pocket model's commands of docs/first-hour.md, word for word: what a stranger tries first."""

from pathlib import Path

import pytest

from mathlete.export.records import EffectFigures
from tests.conftest import CommandLine
from tests.test_docs_commands import AS_PRINTED, blocks

FIRST = next(block for block in blocks(AS_PRINTED) if block.kind == "sh")


@pytest.mark.usefixtures("in_full", "workdir")
def test_the_first_hour_on_the_pocket_model_runs_as_printed() -> None:
    assert not FIRST.needs
    for words in FIRST.commands:
        assert words[:2] == ["python", "-m"]
        done = CommandLine(words[2])(*words[3:])
        assert done.code == 0, done.stdout + done.stderr
    train, base, tuned, _, report = (Path(words[-1]) for words in FIRST.commands)
    change = EffectFigures.read(train / "effect").heldout
    assert change.accuracy_change.lo > 0
    assert change.loss_change.hi < 0
    assert all(file.is_file() for file in (base / "report.html", tuned / "report.html", report))
