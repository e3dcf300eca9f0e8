import json
import threading
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mathlete.errors import UserError
from mathlete.jsonl import JsonLines
from mathlete.problems import Problem
from mathlete.replay.sampler import ReplaySampler
from mathlete.sampling.record import SampleLog, read_samples
from mathlete.sampling.samples import _SEEN, Sample, SamplingConfig
from tests.conftest import dear

PROBLEM = Problem(id="p", statement="1+1", gold="2")


def sample(index: int, *, text: str = "t", tokens: int = 10, seconds: float = 1.0) -> Sample:
    return Sample(
        problem_id="p", index=index, seed=2**53 - 1, text=text, answer="2", tokens=tokens, finish="boxed",
        seconds=seconds, logprob_mean=-0.25,
    )  # fmt: skip


def write(path: Path, samples: list[Sample]) -> None:
    with SampleLog(path) as log:
        for one in samples:
            log.append(one)


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5), data=st.data())
@settings(dear(50), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_kill_at_any_byte_loses_only_the_half_written_line(
    tmp_path: Path, texts: list[str], data: st.DataObject
) -> None:
    path = tmp_path / "samples.jsonl"
    path.unlink(missing_ok=True)
    samples = [sample(i, text=text) for i, text in enumerate(texts)]
    write(path, samples)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    with SampleLog(path) as log:
        kept = log.recorded
        assert kept == samples[: whole[:cut].count(b"\n")]
        assert log.dropped_bytes == cut - (whole[:cut].rfind(b"\n") + 1)
        for one in samples[len(kept) :]:
            log.append(one)
    assert path.read_bytes() == whole


def test_many_threads_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    with SampleLog(path) as log:

        def work(first: int) -> None:
            for index in range(first, first + 50):
                log.append(sample(index, text="x" * 3000))

        threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 400, 50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(one.index for one in read_samples(path)) == list(range(400))


def test_a_sample_is_on_file_before_the_log_is_closed(tmp_path: Path) -> None:
    with SampleLog(tmp_path / "s.jsonl") as log:
        log.append(sample(0))
        assert read_samples(tmp_path / "s.jsonl") == [sample(0)]


def test_dropping_from_a_whole_or_absent_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    assert JsonLines(path).cut_half_line() == 0
    write(path, [sample(0)])
    before = path.stat().st_mtime_ns
    assert JsonLines(path).cut_half_line() == 0
    assert path.stat().st_mtime_ns == before


GOOD = asdict(sample(0))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["[1]"], r"samples.jsonl:1: a sample must be a JSON object, got list"),
        (["{"], r"samples.jsonl:1: must be one line of JSON"),
        ([json.dumps({"problem_id": "p"})], r":1: a sample needs index, seed, text, tokens, finish, seconds"),
        ([json.dumps({**GOOD, "score": 1})], r":1: a sample has only the fields .*, got \['score'\]"),
        ([json.dumps({**GOOD, "tokens": "9"})], r":1: the field tokens has the wrong type, got '9'"),
        ([json.dumps({**GOOD, "tokens": -1})], r":1: index, tokens, seconds must be from 0 to \d+, got {'tokens': -1}"),
        ([json.dumps({**GOOD, "seconds": 1e12})], r":1: index, tokens, seconds must be from 0 to \d+"),
        ([json.dumps({**GOOD, "index": True})], r":1: the field index has the wrong type, got True"),
        (
            [json.dumps({**GOOD, "finish": "eos"})],
            r"finish must be one of .*, clock, got eos",
        ),
        ([json.dumps({**GOOD, "text": text}) for text in "ab"], r"jsonl:2: a sample stands only once, got p #0 with"),
        ([json.dumps({**GOOD, "seed": seed}) for seed in (1, 2)], r"jsonl:2: a sample stands only once, got p #0 with"),
    ],
)
def test_a_corrupted_line_is_named(tmp_path: Path, lines: list[str], message: str) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(line + "\n" for line in lines))
    with pytest.raises(UserError, match=message):
        read_samples(path)


def test_a_sample_that_two_processes_drew_stands_there_once(tmp_path: Path) -> None:
    write(tmp_path / "s.jsonl", [sample(0, seconds=1.0), sample(1), sample(0, seconds=2.0)])
    assert read_samples(tmp_path / "s.jsonl") == [sample(0), sample(1)]


def replay_samples(samples: list[Sample], indexes: list[int], max_tokens: int = 100) -> list[Sample]:
    config = SamplingConfig(max_tokens=max_tokens)
    return list(ReplaySampler(samples).stream(PROBLEM, seeds=dict.fromkeys(indexes, 0), config=config))


def test_replay_gives_the_quickest_first() -> None:
    samples = [sample(0, seconds=3), sample(1, seconds=1), sample(2, seconds=2)]
    assert [one.index for one in replay_samples(samples, [0, 1, 2])] == [1, 2, 0]
    assert [one.index for one in replay_samples(samples, [2, 0])] == [2, 0]


def test_replay_under_a_smaller_cap_cuts_text_and_seconds() -> None:
    (shorter,) = replay_samples([sample(0, tokens=10, seconds=4)], [0], max_tokens=5)
    assert (shorter.text, shorter.answer, shorter.tokens, shorter.finish, shorter.seconds) == (
        "",
        None,
        5,
        "length",
        2.0,
    )


def test_replay_of_what_was_not_recorded_is_refused() -> None:
    with pytest.raises(UserError, match=r"problem p lacks it, got index 7"):
        replay_samples([sample(0)], [0, 7])


FIELDS: dict[str, list[object]] = {
    "problem_id": ["p", 7, None],
    "index": [0, 3, -1, 2**31, 2**31 + 1, 1.0, True],
    "seed": [5, -5, 2**63, 1.5, None],
    "text": ["t", None],
    "answer": ["2", None, 2],
    "tokens": [9, -1, 2**40],
    "finish": ["stop", "clock", "fell over"],
    "seconds": [1, 1.5, float("nan"), float("inf"), -0.5],
    "logprob_mean": [-0.5, 0, None, float("nan"), 2.0**64, "-0.5"],
    "logprob_tail": [-0.5, None, float("-inf")],
    "in_thoughts": [True, False, 1],
    "harvest": [None, {"text": "2}", "answer": "2", "tokens": 2, "finish": "boxed", "seconds": 0.5}, {}],
    "of later": [1],
}


def test_a_row_is_read_as_if_none_like_it_had_been_read_before() -> None:
    plain = {name: values[0] for name, values in FIELDS.items() if name != "of later"}
    changes = [{name: value} for name, values in FIELDS.items() for value in values]
    rows = [plain | one | other for one, other in combinations(changes, 2)]
    rows += [{name: value for name, value in row.items() if name != left_out} for row in rows for left_out in FIELDS]

    def read(row: dict[str, object]) -> str:
        try:
            return repr(vars(Sample.from_json(row, where="here")))
        except UserError as error:
            return str(error)

    fresh = []
    for row in rows:
        _SEEN.clear()
        fresh.append(read(row))
    _SEEN.clear()
    # At the second look all shapes that a sample may have were seen.
    assert [read(row) for row in rows] == [read(row) for row in rows] == fresh
    assert len(_SEEN) > 20
