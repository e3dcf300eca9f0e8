"""Hard pairs run in a worker: the same verdicts from everywhere, within limits, and nothing is executed."""

import multiprocessing
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from mathlete.answers import compare, extract, isolation

PAIRS = [
    ("1/2", "0.5", "equal"),
    (r"\sqrt{2}", r"\sqrt{3}", "different"),
    (r"|x|<2", "(-2,2)", "equal"),
    (r"|x|<2", "(-2,3)", "different"),
    (r"\sum_{n=1}^{\infty} \frac{1}{n^2}", r"\frac{\pi^2}{6}", "equal"),
]
"""The last three need the worker."""
WANTED = [outcome for _, _, outcome in PAIRS]


def outcomes() -> list[str]:
    isolation._ask_once.cache_clear()
    return [compare(answer=a, gold=b, limit_s=60.0).outcome for a, b, _ in PAIRS]


def test_verdicts_are_the_same_in_the_main_thread_and_in_others() -> None:
    assert outcomes() == WANTED
    results: list[list[str]] = []
    threads = [threading.Thread(target=lambda: results.append(outcomes())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [WANTED] * 3


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_verdicts_are_the_same_in_a_forked_process_and_in_a_pool() -> None:
    assert outcomes() == WANTED
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        assert pool.submit(outcomes).result() == WANTED
    assert outcomes() == WANTED


@pytest.mark.slow  # a pool forks too, and each worker costs half a second
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_of_fork_leaves_its_parents_worker_alone() -> None:
    isolation.warm_up()
    child = os.fork()
    if child == 0:
        os._exit(0 if outcomes() == WANTED else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert outcomes() == WANTED


def test_a_pair_that_takes_too_long_is_unknown_and_the_next_is_decided() -> None:
    isolation.warm_up()
    start = time.monotonic()
    hard = compare(answer=ENDLESS, gold="1", limit_s=0.5)
    assert (hard.outcome, hard.reason) == ("unknown", "undecided after 0.5 s")
    assert time.monotonic() - start < 30
    assert outcomes() == WANTED


ENDLESS = r"\int_0^1 \frac{\sin(x^x)}{\ln(1+x^x)} dx"
TOWERS = [
    ("9^{9^{9^9}}", "1"), ("2003^{2002^{2001}}", "9"), ("10^{10^{9}}", "10^{10^{9}}+1"), ("(10^{100000})!", "1"),
    ("10^{100000!}", "1"), (r"4^{\frac{111111111111111111111111111111111}{2222222222222}}", "1"),
    (r"\log_{2^5}(\log_{2^4}(2^{2^{65536}}))", "1"), (r"\prod_{n=1}^{1000000} (n^2+1)", "1"),
]  # fmt: skip


@pytest.mark.parametrize(("tower", "gold"), TOWERS)
def test_an_undecided_tower_ends_long_before_its_time(tower: str, gold: str) -> None:
    # CPU time counts, so a machine that does much else changes nothing: a tenth of a second is enough.
    verdict = compare(answer=tower, gold=gold, limit_s=0.3)
    assert verdict.outcome == "unknown"
    assert "undecided after" not in verdict.reason


def test_a_verdict_is_kept_and_no_verdict_without_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_server() -> None:
        raise OSError("no more processes")

    # As if there were no server yet: to start the real one anew would cost half a second each time.
    isolation._ask_once.cache_clear()
    without = {"_server": None, "_Server": no_server}
    with monkeypatch.context() as patch:
        for name, value in without.items():
            patch.setattr(isolation, name, value)
        assert "no worker: no more processes" in compare(answer="|x|<2", gold="(-2,2)").reason
    assert compare(answer="|x|<2", gold="(-2,2)", limit_s=60.0).outcome == "equal"
    for name, value in without.items():
        monkeypatch.setattr(isolation, name, value)
    assert compare(answer="|x|<2", gold="(-2,2)", limit_s=60.0).outcome == "equal"


def test_the_worker_is_not_asked_with_no_time() -> None:
    assert compare(answer="|x|<2", gold="(-2,2)", limit_s=0).reason.startswith("not decided in this process")


def test_a_worker_that_was_killed_is_replaced() -> None:
    isolation.warm_up()
    assert isolation._server is not None
    isolation._ask_once.cache_clear()
    isolation._server.process.kill()
    isolation._server.process.wait()
    first = compare(answer="|x|<2", gold="(-2,2)", limit_s=60.0)
    assert (first.outcome, "no worker" in first.reason) in [("unknown", True), ("equal", False)]
    assert outcomes() == WANTED


PAYLOADS = [
    "__import__('os').mkdir('PWNED')",
    "open('PWNED','w')",
    "[c for c in ().__class__.__base__.__subclasses__()][0] and open('PWNED','w')",
    "exec(\"open('PWNED','w')\")",
    'S(\'open("PWNED","w")\')',
    r"\int_0^1 \text{open('PWNED','w')} dx",
    r"\write18{touch PWNED}",
]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_payload_is_executed(payload: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = rf"The answer is \boxed{{{payload}}}"
    for answer in (payload, extract(text).string):
        verdict = isolation.decide_in_worker(answer or "", "1", limit_s=20.0, reason="by request")
        assert verdict.outcome != "equal"
        assert compare(answer=answer, gold="1").outcome != "equal"
    assert not list(tmp_path.iterdir())
