"""Answers made to take long: each call ends within its steps here and its CPU time in the worker, in little memory."""

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mathlete.answers import compare, extract, isolation, label_classes, parse, read_integer
from mathlete.competitions import competition

GOLDEN = Path(__file__).parent / "golden" / "answers_hostile.jsonl"
ROWS = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
"""What a row is about, and its text in pieces: [text, times] each."""
MOST_S, MOST_MIB = 2.0, 256
"""CPU seconds of a row's longest call and its worker, and MiB of each process."""
QUICK_S = 0.5
"""CPU seconds that a call may take here, on any machine: ten times what its steps take on ours."""


def text_of(row: dict[str, object]) -> str:
    assert isinstance(row["parts"], list)
    return "".join(text * times for text, times in row["parts"])


AIMO_3 = competition("aimo-3")
CALLS: tuple[Callable[[str], object], ...] = (
    *(lambda text: extract(rf"So \boxed{{{text}}}."), lambda text: extract(f"The answer is {text}"), extract),
    *(parse, lambda text: parse(text).key, lambda text: read_integer(text, competition=AIMO_3)),
    *(lambda text: compare(answer=text, gold="17", limit_s=0), lambda text: label_classes([text, "17"])),
    *(lambda text: compare(answer="1, 2", gold=text, limit_s=0),),
)
"""What a run calls in its own process."""


def measure(first: int, step: int, limit_s: float) -> None:
    """Print the longest calls in this process, and the memory of it and its worker, as JSON."""
    isolation.warm_up()
    slow: list[tuple[float, str]] = []
    for number in range(first, len(ROWS), step):
        hostile = text_of(ROWS[number])
        for which, call in enumerate(CALLS):
            start = time.process_time()
            call(hostile)
            slow.append((time.process_time() - start, f"{ROWS[number]['about']}, row {number}, call {which}"))
        # The worker gets the pair that is hardest to tell apart, and one that must never be equal.
        compare(answer=hostile, gold=f"{hostile}+1", limit_s=limit_s)
        assert compare(answer=hostile, gold=r"\frac{17}{19}", limit_s=limit_s).outcome != "equal", ROWS[number]
    isolation.close()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Not ru_maxrss for this process: exec hands on that of pytest, which started it.
    own = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert own is not None
    mib = [int(own[1]) / 1024, children.ru_maxrss / 1024]
    print(json.dumps({"slow": sorted(slow)[-5:], "mib": mib}))


def test_the_table_holds_many_kinds() -> None:
    assert len({json.dumps(row["parts"]) for row in ROWS}) == len(ROWS) >= 150
    assert len({row["about"] for row in ROWS}) >= 10


@pytest.mark.parametrize(
    ("step", "limit_s"), [(32, 0.03), pytest.param(1, 1.0, marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_hostile_answers_end_soon_and_in_little_memory(step: int, limit_s: float, root: Path) -> None:
    program = f"from tests.test_answers_hostile import measure; measure({3 % step}, {step}, {limit_s})"
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout)
    assert measured["slow"][-1][0] <= QUICK_S, measured
    assert measured["slow"][-1][0] + limit_s <= MOST_S
    assert max(measured["mib"]) <= MOST_MIB, measured
