"""The slow tests: each in one part of `make slow`, and the table of when they ran."""

import re
from pathlib import Path

import pytest

from tests import slow
from tests.collecting import SLOW, TOGETHER

SUITE = '<testsuites><testsuite errors="1" failures="2" skipped="3" tests="10" time="61.7"/></testsuites>'


def test_files_that_one_process_runs_are_there(root: Path) -> None:
    assert [file for file in TOGETHER if not (root / file).is_file()] == []


def test_every_slow_test_is_in_one_part(request: pytest.FixtureRequest) -> None:
    astray = {test: parts for test, parts in request.config.stash[SLOW].items() if len(parts) != 1}
    assert not astray, "put the file of a new slow test into PARTS of tests/slow.py"


def test_a_slow_test_of_no_part_or_of_two_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slow.parts_of("tests/test_new.py::test_it") == []
    monkeypatch.setitem(slow.PARTS, "other", ("eval",))
    assert slow.parts_of("tests/test_eval.py::test_it") == ["sampling", "other"]


@pytest.mark.parametrize("name", [name for files in slow.PARTS.values() for name in files])
def test_a_file_of_a_part_has_slow_tests(root: Path, name: str) -> None:
    assert re.search(r"mark\.slow|slow=", (root / "tests" / f"test_{name}.py").read_text(encoding="utf-8"))


def test_the_shares_of_the_fault_matrix_are_even() -> None:
    from mathlete.rehearsal import FAULTS

    shares = [part for name in FAULTS for part in slow.parts_of(f"{slow.FAULT}{name}]")]
    counts = [shares.count(f"faults-{share}") for share in range(1, slow.SHARES + 1)]
    assert sum(counts) == len(FAULTS)
    assert max(counts) < 1.5 * len(FAULTS) / slow.SHARES


def test_a_row_says_when_and_how_a_part_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow, "TABLE", tmp_path / "SLOW.md")
    monkeypatch.setattr(slow, "commit", lambda: "abc1234+")
    (tmp_path / "result.xml").write_text(SUITE)
    for part in ("submit", "train", "submit"):
        slow.main([part, str(tmp_path / "result.xml")])
    head, *rows = (tmp_path / "SLOW.md").read_text().split("|---|\n")[-1].splitlines()
    assert [row.split(" | ")[0] for row in (head, *rows)] == ["| train", "| submit"]
    assert re.fullmatch(r"\| train \| \d{4}-\d\d-\d\d \| abc1234\+ \| 4 \| 3 \| 3 \| 62 \| \d+ \|", head)
