"""The format step: what is left out and counted, what is held out, what several processes make, what a kill leaves."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mathlete.corpus import open_source
from mathlete.corpus.suites import Suite, load_suite
from mathlete.errors import UserError
from mathlete.prompts import PromptFormat
from mathlete.rows.files import RowFiles
from mathlete.rows.format import format_rows
from mathlete.rows.parts import Part, PartMaker
from mathlete.rows.row import IGNORED, TokenRow
from mathlete.rows.saving import save_rows
from mathlete.rows.settings import Filters, Rows
from mathlete.runs import sha256_tree
from mathlete.traces import TracedProblem
from tests.conftest import CommandLine, dear, sample
from tests.traced import make_traced, row


def built(
    folder: Path,
    some: Iterator[TracedProblem],
    prompts: PromptFormat,
    *,
    filters: Filters = Filters(),  # noqa: B008
    num_proc: int = 1,
    size: int = 1000,
    keep_dropped: bool = False,
    suites: Sequence[Suite] = (),
    **rows: Any,
) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    maker = PartMaker(prompts=prompts, rows=Rows(**rows), filters=filters, suites=suites, keep_dropped=keep_dropped)
    return format_rows(
        folder,
        traced=([one] for one in some),
        total=None,
        maker=maker,
        seed=0,
        advance=lambda *_: None,
        num_proc=num_proc,
        size=size,
    ).to_json()


def sides(folder: Path) -> tuple[list[TokenRow], list[TokenRow]]:
    files = RowFiles(folder)
    train, heldout = (list(datasets.load_from_disk(side)) for side in (files.train, files.heldout))
    return train, heldout


def test_drops_are_counted_by_reason_and_no_row_is_cut(tmp_path: Path, pocket: PromptFormat) -> None:
    good = list(chain.from_iterable(open_source("pocket", limit=60)))
    lengths = sorted(len(row(one, pocket)["input_ids"]) for one in good)
    cap = lengths[39]
    wrong = [replace(one, trace=replace(one.trace, answer="-1")) for one in good[:7]]
    result = built(tmp_path / "data", iter([*good, *wrong]), pocket, max_tokens=cap, heldout=4)
    longer = sum(length > cap for length in lengths)
    assert result["drops"] == {"too long": longer, "wrong": 7}
    assert (result["traces"], result["rows"], result["heldout"]) == (67, 60 - longer - 4, 4)
    assert (result["kept"], result["parity"]) == (60 - longer, {"rows": 60 - longer, "mismatches": 0})
    train, heldout = sides(tmp_path / "data")
    texts = {one.problem.id: row(one, pocket)["input_ids"] for one in good}
    assert all(one["input_ids"] == texts[one["problem_id"]] for one in (*train, *heldout))
    assert result["longest"] == max(len(one["input_ids"]) for one in train) <= cap
    assert result["trained_tokens"] == sum(label != IGNORED for one in train for label in one["labels"])
    head = [json.loads(line) for line in RowFiles(tmp_path / "data").head.read_text().splitlines()]
    assert [one["problem_id"] for one in head] == [one["problem_id"] for one in train][:20]
    assert all(one["trained"].endswith("<｜end▁of▁sentence｜>") for one in head)


def test_all_traces_of_a_held_out_problem_are_held_out(tmp_path: Path, pocket: PromptFormat) -> None:
    some = [
        make_traced(name=str(number), text=f"{way} gives 4.", asked=f"What is {number}+{4 - number}?")
        for number in range(30)
        for way in ("one", "two", "three")
    ]
    built(tmp_path / "data", iter(some), pocket, heldout=200)
    train, heldout = ({one["problem_id"] for one in side} for side in sides(tmp_path / "data"))
    assert not train & heldout
    assert (len(train), len(heldout)) == (27, 3)
    assert [len(side) for side in sides(tmp_path / "data")] == [81, 9]


@pytest.mark.parametrize(
    ("some", "message"),
    [
        ([make_traced(answer="5", name=str(n)) for n in range(3)], "0 of 3 is left, got wrong: 3"),
        ([], "0 of 0 is left, got no problem at all"),
        ([make_traced(), make_traced(answer="5", name="2")], "1 of 2 is left, got wrong: 1"),
        ([make_traced(), make_traced(text="once more 4")], "at least two problems, got 1"),
        ([make_traced(), make_traced(name="2", text="2+2=4. ")], "1 of 2 is left, got duplicate: 1"),
    ],
)
def test_too_few_rows_are_an_error_that_counts_the_drops(
    tmp_path: Path, pocket: PromptFormat, some: list[TracedProblem], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        built(tmp_path / "data", iter(some), pocket)


def test_a_part_without_rows_stops_nothing(tmp_path: Path, pocket: PromptFormat) -> None:
    # The first thousand problems are all wrong: datasets cannot load an empty set, so none may be saved.
    wrong = (make_traced(answer="5", name=f"w{n}") for n in range(1000))
    result = built(
        tmp_path / "data", iter([*wrong, *(make_traced(name=f"{n}", asked=f"{n}?") for n in range(20))]), pocket
    )
    assert (result["rows"], result["heldout"], result["drops"]) == (18, 2, {"wrong": 1000})


@pytest.mark.parametrize("num_proc", sample(1, slow=[2]))
def test_an_interrupted_format_goes_on_from_its_finished_parts(
    tmp_path: Path, pocket: PromptFormat, num_proc: int
) -> None:
    some = list(chain.from_iterable(open_source("pocket", limit=70)))
    whole = built(tmp_path / "whole", iter(some), pocket, heldout=5, size=20)

    def torn() -> Iterator[TracedProblem]:
        yield from some[:50]
        raise KeyboardInterrupt

    def cut() -> None:
        built(tmp_path / "cut", torn(), pocket, heldout=5, size=20, num_proc=num_proc)

    with pytest.raises(KeyboardInterrupt):
        cut()
    parts = tmp_path / "cut" / ".parts"
    assert sorted(part.name for part in parts.iterdir()) == ["00000", "00001"]
    before = [part.stat().st_ino for part in sorted(parts.iterdir())]
    (parts / "00002.unfinished-1").mkdir()
    (parts / "00002.unfinished-1" / "half").touch()
    with pytest.raises(KeyboardInterrupt):
        cut()
    assert [part.stat().st_ino for part in sorted(parts.glob("?????"))] == before
    assert built(tmp_path / "cut", iter(some), pocket, heldout=5, size=20) == whole
    assert sha256_tree(tmp_path / "cut") == sha256_tree(tmp_path / "whole")
    assert not parts.exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path: Path, train: CommandLine) -> None:
    words = ("math", "--model", "pocket", "--until", "format", "--run", "r", "--num-proc", 2, "--limit", 9000)
    command = train.argv(*words)
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as started:
        while not (tmp_path / "r/data/.parts/00000").exists():
            assert started.poll() is None
            time.sleep(0.05)
        children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
        workers = [
            Path("/proc", pid) for pid in children if b"spawn_main" in Path("/proc", pid, "cmdline").read_bytes()
        ]
        started.kill()
    assert len(workers) == 2
    for _ in range(600):
        if not any(worker.exists() for worker in workers):
            return
        time.sleep(0.1)
    pytest.fail("workers outlived their parent by a minute")


def test_a_part_that_a_worker_of_a_killed_run_finishes_too_is_the_same_part(
    tmp_path: Path, pocket: PromptFormat
) -> None:
    maker = PartMaker(prompts=pocket, rows=Rows(), filters=Filters(), suites=(), keep_dropped=False)
    some = list(open_source("pocket", limit=5))
    first = maker.make(tmp_path / "00000", some)
    before = sha256_tree(tmp_path)
    assert maker.make(tmp_path / "00000", some) == first
    assert sha256_tree(tmp_path) == before


# A worker is started for each part that is made at the same time, and loads torch: of one part there is one.
@pytest.mark.slow
@pytest.mark.parametrize(("number", "size"), [(2, 1000), (2, 20), (3, 20)])
def test_any_number_of_processes_makes_the_same_rows(
    tmp_path: Path, pocket: PromptFormat, number: int, size: int
) -> None:
    some = [
        *chain.from_iterable(open_source("pocket", limit=90)),
        *(make_traced(answer="5", name=f"w{n}") for n in range(9)),
    ]
    suite = load_suite("pocket_val")
    leaked = [
        make_traced(name=one.id, asked=one.statement, gold=one.gold, answer=one.gold) for one in suite.problems[:5]
    ]
    result = [
        built(
            tmp_path / str(num),
            iter([*some, *leaked]),
            pocket,
            num_proc=num,
            size=size,
            keep_dropped=True,
            suites=[suite],
        )
        for num in (1, number)
    ]
    assert result[0] == result[1]
    assert result[0]["drops"] == {"in pocket_val": 5, "wrong": 9}
    assert sha256_tree(tmp_path / "1") == sha256_tree(tmp_path / str(number))
    dropped = [json.loads(line) for line in RowFiles(tmp_path / "1").dropped.read_text().splitlines()]
    assert [one["reason"] for one in dropped] == ["wrong"] * 9 + ["in pocket_val"] * 5
    assert {"id", "statement", "gold", "trace", "answer", "where"} <= dropped[0].keys()
    pairs = [json.loads(line) for line in RowFiles(tmp_path / "1").overlap.read_text().splitlines()]
    assert [(pair["name"], pair["kind"], pair["row"]["id"]) for pair in pairs] == [
        ("pocket_val", "exact", one.id) for one in suite.problems[:5]
    ]


WAYS = [make_traced(name=f"{n}", asked=f"{n}?", text="so " * length + "4") for n in "ab" for length in (9, 3, 6)]
"""Two problems with traces of three lengths."""


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ({"policy": "all"}, [9, 3, 6]),
        ({"policy": "shortest_correct"}, [3]),
        ({"policy": "k_shortest", "traces": 2}, [3, 6]),
        ({"policy": "k_shortest", "traces": 9}, [9, 3, 6]),
        ({"policy": "longest_under", "longest": 21}, [6]),
        ({"policy": "longest_under", "longest": 100}, [9]),
    ],
)
def test_of_a_problems_traces_those_of_the_policy_are_kept(
    tmp_path: Path, pocket: PromptFormat, rows: dict[str, Any], kept: list[int]
) -> None:
    result = built(tmp_path / "data", iter(WAYS), pocket, filters=Filters(repeats=1.0), keep_dropped=True, **rows)
    lengths = [one["labels"].__len__() for side in sides(tmp_path / "data") for one in side]
    expected = [len(row(one, pocket)["labels"]) for one in WAYS]
    by_problem = {9: expected[0], 3: expected[1], 6: expected[2]}
    assert sorted(lengths) == sorted(by_problem[length] for length in kept * 2)
    assert result["drops"].get("policy", 0) == 6 - 2 * len(kept)
    dropped = [json.loads(line) for line in RowFiles(tmp_path / "data").dropped.read_text().splitlines()]
    assert [one["reason"] for one in dropped] == ["policy"] * (6 - 2 * len(kept))


@pytest.mark.parametrize(("how", "kept"), [("keep", 22), ("exact", 21), ("near", 20)])
def test_what_counts_as_one_problem(tmp_path: Path, pocket: PromptFormat, how: Any, kept: int) -> None:
    asked = "A farmer who has ${}$ hens sells half of the eggs that they lay each day. How many eggs does he sell?"
    again = asked.replace("A farmer who has", "A farmer has").replace("sells", "and sells")
    some = [
        one
        for n in range(2, 40, 2)
        for one in (make_traced(name=f"a{n}", asked=asked.format(n), answer=str(n // 2), gold=str(n // 2)),)
    ]
    some += [
        make_traced(name="b", asked=asked.format(8).replace("$", ""), answer="4"),
        *(
            make_traced(name=name, asked=again.format(8), answer="4", text=text)
            for name, text in (("c", "2+2=4."), ("d", "4"))
        ),
    ]
    result = built(tmp_path / "data", iter(some), pocket, filters=Filters(duplicates=how), heldout=9)
    assert (result["kept"], result["drops"].get("duplicate", 0)) == (kept, 22 - kept)
    ids = [{one["problem_id"] for one in side} for side in sides(tmp_path / "data")]
    same = {"near": {"a8", "d"}, "keep": {"a8", "b"}}.get(how, set())
    assert same <= ids[0] or same <= ids[1]


def test_a_policy_that_nothing_meets_drops_the_problem(tmp_path: Path, pocket: PromptFormat) -> None:
    with pytest.raises(UserError, match="0 of 6 is left, got policy: 6"):
        built(tmp_path / "data", iter(WAYS), pocket, policy="longest_under", longest=2)


@pytest.mark.parametrize("name", ["r1-distill-qwen", "r1-distill-llama"])
def test_parity_on_the_real_tokenizers(
    shared: Path, tmp_path: Path, name: str, load_real: Callable[[str], PromptFormat]
) -> None:
    prompts = load_real(name)
    mirror = shared / "data" / "hub"
    some = [
        *islice(chain.from_iterable(open_source("gsm8k", mirror=mirror)), 40),
        *chain.from_iterable(open_source("openr1", mirror=mirror)),
    ]
    odd = make_traced(name="odd", asked="Où est e\u0301?", text="  e\u0301 ﬁ ½ ∑ \U0001d465 中 \t x  \n\n\n . , ! 's")
    result = built(tmp_path / "data", iter([*some, odd]), prompts, max_tokens=8192, filters=Filters(foreign=1.0))
    assert result["parity"] == {"rows": 55, "mismatches": 0}
    assert result["drops"] == {}


@dear(8)
@given(st.lists(st.lists(st.integers(0, 99), max_size=4), min_size=1, max_size=6), st.data())
def test_rows_are_saved_as_datasets_would_whatever_a_file_holds(parts: list[list[int]], data: st.DataObject) -> None:
    numbers = [number for part in parts for number in part]
    assume(numbers)
    indices = data.draw(st.sets(st.sampled_from(range(len(numbers))), min_size=1).map(sorted))
    with TemporaryDirectory() as place:
        folder = Path(place)
        for name, part in enumerate(parts):
            (folder / str(name)).mkdir()
            if part:
                made = datasets.Dataset.from_dict({"number": part, "key": part})
                made.save_to_disk(folder / str(name) / "rows")
        some = [Part(folder=folder / str(name)) for name in range(len(parts))]
        (folder / "train").mkdir()  # what a killed run has left
        save_rows(folder / "train", some, indices, without=["key"], size=data.draw(st.sampled_from([1, 2000, 10**9])))
        result = datasets.load_from_disk(folder / "train")
        assert result.to_dict() == {"number": [numbers[index] for index in indices]}
        assert not [*folder.glob(".train*")]
