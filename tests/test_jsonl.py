"""Append-only JSON lines: nothing but whole lines is ever read, whatever was killed, and when."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mathlete.errors import UserError
from mathlete.jsonl import JsonLines, read_json_lines
from tests.conftest import CHARACTERS

RECORDS = st.dictionaries(
    st.text(CHARACTERS, max_size=3), st.one_of(st.integers(), st.text(CHARACTERS, max_size=5), st.none()), max_size=3
)


def rows(log: JsonLines) -> list[object]:
    return [row for _, row in log.read()]


@given(records=st.lists(RECORDS, max_size=5), data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_after_a_kill_at_any_byte_whole_lines_are_read_and_appending_goes_on(
    tmp_path: Path, records: list[dict[str, object]], data: st.DataObject
) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    log.path.unlink(missing_ok=True)
    for record in records:
        log.append(record)
    content = log.path.read_bytes() if records else b""
    cut = data.draw(st.integers(0, len(content)))
    log.path.write_bytes(content[:cut])
    kept = content[:cut].count(b"\n")
    assert rows(log) == records[:kept]
    log.append({"last": 1})
    assert rows(log) == [*records[:kept], {"last": 1}]
    assert log.path.read_bytes().startswith(content[: content[:cut].rfind(b"\n") + 1])


def test_only_the_half_line_is_cut_and_a_whole_file_is_left_alone(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    assert log.cut_half_line() == 0
    assert not log.path.exists()
    log.append({"a": 1})
    whole, written = log.path.read_bytes(), log.path.stat().st_mtime_ns
    assert log.cut_half_line() == 0
    assert log.path.stat().st_mtime_ns == written
    log.path.write_bytes(whole + b'{"b"')
    assert log.cut_half_line() == 4
    assert log.path.read_bytes() == whole


def test_a_bad_line_is_named_with_file_and_number(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    log.path.write_text('{"a": 1}\n\n{"a"}\n')
    with pytest.raises(UserError, match=r"log\.jsonl:3: must be one line of JSON \(.*, column \d+\)"):
        rows(log)
    bad: list[UserError] = []
    assert [where for where, _ in read_json_lines(log.path, on_bad=bad.append)] == [f"{log.path}:1"]
    assert len(bad) == 1


@pytest.mark.parametrize(("sync_s", "expected"), [(0.0, 3), (1000.0, 0), (None, 0)])
def test_lines_reach_the_disk_as_the_policy_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync_s: float | None, expected: int
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    log = JsonLines(tmp_path / "log.jsonl", sync_s=sync_s)
    for number in range(3):
        log.append({"n": number})
        assert len(rows(JsonLines(log.path))) == number + 1
    assert len(synced) == expected
    log.sync()
    assert len(synced) == expected + 1


def test_threads_and_processes_lose_and_mix_nothing(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log.jsonl", sync_s=None, shared=True)
    code = (
        "import sys; from pathlib import Path; from mathlete.jsonl import JsonLines\n"
        "log = JsonLines(Path(sys.argv[1]), sync_s=None, shared=True)\n"
        "for n in range(200): log.append({'n': n, 'text': 'x' * 20_000})"
    )
    others = [subprocess.Popen([sys.executable, "-c", code, str(log.path)]) for _ in range(2)]

    def work() -> None:
        for number in range(200):
            log.append({"n": number})

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [other.wait() for other in others] == [0, 0]
    numbers = [json.loads(line)["n"] for line in log.path.read_text().splitlines()]
    assert sorted(numbers) == sorted([*range(200)] * 4)
