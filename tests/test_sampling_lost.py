"""The ray engine where its cluster goes wrong: an answer, a lost try or one sentence, never a traceback."""

import asyncio
import ctypes
import importlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mathlete.errors import UserError
from mathlete.lost import LostTry
from mathlete.models import ModelSource, find_model
from mathlete.problems import Problem
from mathlete.sampling.samples import Sample, SamplingConfig
from mathlete.sampling.served import ray_engine
from mathlete.sampling.served.ray_engine import RaySampler, RaySettings
from mathlete.sampling.served.ray_worker import SamplingWorker
from mathlete.temporary import TemporaryFolder

PROBLEM = Problem(id="p", statement="What is 3 + 4?", gold="7")
CONFIG = SamplingConfig(max_tokens=40)
SAID = "3 + 4 is 7.\n</think>\n\n\\boxed{7}"


def draw(sampler: Any, n: int = 1) -> list[Sample]:
    return [*sampler.stream(PROBLEM, seeds={index: 100 + index for index in range(n)}, config=CONFIG)]


class Unpicklable(Exception):
    """Its arguments are not those that its class is made of again."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


class Unsendable(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("it stays here")


class Mined:
    """What is read from it is an error, in the process that reads it."""

    def __reduce__(self) -> Any:
        return eval, ("1 / 0",)


def recurse() -> None:
    recurse()


def fail(fault: str) -> Any:
    """Go wrong in a worker as the word says, or return what is no sample."""
    errors: dict[str, Callable[[], BaseException]] = {
        "raise": lambda: RuntimeError("CUDA out of memory\nat a place"),
        "refuse": lambda: UserError("the prompt must leave room", value="9 tokens", cure="take a longer context"),
        "unpicklable": lambda: Unpicklable("un", "packed"),
        "unsendable": lambda: Unsendable("kept"),
        "exit": lambda: SystemExit(3),
        "stop": KeyboardInterrupt,
        "cancel": asyncio.CancelledError,
        "close": lambda: GeneratorExit("closed"),
        "group": lambda: ExceptionGroup("two of them", [ValueError("one")]),
        "memory": lambda: MemoryError("Cannot allocate memory"),
        "half": lambda: ValueError("half a character: \ud800"),
        "long": lambda: ValueError("long " * 200_000),
    }
    if fault in errors:
        raise errors[fault]()
    values = {"nothing": None, "text": "7", "mined": Mined(), "lock": threading.Lock()}
    if fault in values:
        return values[fault]
    ends: dict[str, Callable[[], Any]] = {
        "die": lambda: os._exit(1),
        "crash": lambda: ctypes.string_at(0),
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "hang": lambda: time.sleep(600),
        "recurse": recurse,
        "leave": lambda: importlib.import_module("ray").actor.exit_actor(),
    }
    return ends[fault]()


class FaultyWorker:
    """A worker that goes wrong for its first calls, which it counts on disk: it may be another process by then."""

    folder = Path(os.environ.get("FAULTY_WORKER", "/nonexistent"))

    def __init__(self, *_: Any) -> None:
        fault = (self.folder / "faults").read_text().split()[0]
        if fault.startswith("loading-"):
            fail(fault.removeprefix("loading-"))

    def ready(self) -> bool:
        return True

    def stop(self, keys: Sequence[int]) -> list[Sample]:
        return []

    def draw(self, problem: Problem, index: int, seed: int, *_: Any) -> Any:
        faults = (self.folder / "faults").read_text().split()
        with (self.folder / "calls").open("a") as calls:
            calls.write("x")
        number = (self.folder / "calls").stat().st_size
        fault = faults[number - 1] if number <= len(faults) else faults[-1]
        if fault != "good":
            return fail(fault)
        return Sample.of_tokens(
            problem_id=problem.id, index=index, seed=seed, text=SAID, tokens=9, finish="boxed", seconds=1.0, logprobs=[]
        )


class Cluster:
    """Workers of a real cluster that go by a list of faults; one sampler at a time."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder, self.address = folder, address
        self.sampler: RaySampler | None = None
        self.usual = False
        """Whether that is of one worker which goes wrong in its draws alone."""
        self.lost: list[LostTry] = []

    def start(self, *faults: str, patience_s: float = 300.0, workers: int = 1) -> RaySampler:
        """Close the sampler that there is, and open another."""
        self.close()
        self.usual = False
        self.follow(*faults)
        settings = RaySettings(address=self.address, workers=workers, cpus=0.5, at_once=1, patience_s=patience_s)
        self.sampler = RaySampler(settings, source=find_model("pocket"), on_lost=self.lost.append)
        return self.sampler

    def start_usual(self, *faults: str) -> RaySampler:
        """Return a sampler of one worker, that of the last test where it was the same."""
        sampler = self.sampler if self.usual else None
        sampler = sampler or self.start("good")
        self.usual = True
        self.follow(*faults)
        return sampler

    def follow(self, *faults: str) -> None:
        (self.folder / "calls").unlink(missing_ok=True)
        (self.folder / "faults").write_text(" ".join(faults))
        self.lost.clear()

    def close(self) -> None:
        if self.sampler is not None:
            self.sampler.close()
        self.sampler = None


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    pytest.importorskip("ray", reason="needs ray, the extra `ray`")
    folder = tmp_path_factory.mktemp("faulty")
    words = ("start", "--head", "--block", "--port=0", "--num-cpus=4", "--include-dashboard=false")
    # The paths of its sockets would be too long in a test's own folder.
    with TemporaryFolder("ray") as place, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAULTY_WORKER", str(folder))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # its token would be in another home, as tests have
        patch.setattr(ray_engine, "SamplingWorker", FaultyWorker)
        command = [sys.executable, "-m", "ray.scripts.scripts", *words, f"--temp-dir={place}"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as head:
            while not (place / "ray_current_cluster").exists():
                assert head.poll() is None
                time.sleep(0.2)
            one = Cluster(folder, (place / "ray_current_cluster").read_text().strip())
            try:
                yield one
                one.close()
            finally:
                head.terminate()


DEATH = "ActorDiedError|ActorUnavailableError|WorkerCrashedError|RayActorError"
LOST: dict[str, str] = {
    "raise": "RuntimeError: CUDA out of memory at a place",
    "unpicklable": "Unpicklable: unpacked",
    "unsendable": "Unsendable: kept",
    "exit": DEATH,
    "stop": "TaskCancelledError",
    "cancel": "CancelledError",
    "close": "GeneratorExit: closed",
    "group": "ExceptionGroup: two of them",
    "memory": "MemoryError: Cannot allocate memory",
    "half": DEATH,  # Ray cannot send it, and ends the worker
    "long": "ValueError: long long",
    "nothing": "a worker must give a sample, and gave None",
    "text": "a worker must give a sample, and gave '7'",
    "mined": "ZeroDivisionError: division by zero",
    "lock": "TypeError: cannot pickle '_thread.lock' object",
    "recurse": "RecursionError: maximum recursion depth exceeded",
    "die": DEATH,
    "crash": DEATH,
    "kill": DEATH,
}
"""{how a worker goes wrong: the words of the lost try}."""


@pytest.mark.slow
@pytest.mark.parametrize("fault", LOST)
def test_what_a_worker_loses_is_drawn_again(fault: str, cluster: Cluster) -> None:
    sampler = cluster.start_usual(fault, "good")
    assert [one.text for one in draw(sampler)] == [SAID]
    assert len(cluster.lost) == 1
    assert re.search(LOST[fault], cluster.lost[0].reason), cluster.lost
    cluster.lost[0].reason.encode()
    assert len(cluster.lost[0].reason) < 1000


@pytest.mark.slow
@pytest.mark.parametrize("fault", [one for one, words in LOST.items() if words != DEATH])
def test_what_a_worker_never_gives_ends_the_run_in_a_sentence(fault: str, cluster: Cluster) -> None:
    rule = "a worker must give a whole sample in 3 tries, got for problem p: "
    with pytest.raises(UserError, match=f"{rule}.*{LOST[fault]}"):
        draw(cluster.start_usual(fault))
    assert len(cluster.lost) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("refuse", "the prompt must leave room, got 9 tokens"),
        ("hang", "one of the workers must answer within 60 s, got 1 silent"),
        ("die", f"one of the workers must answer within 60 s, got 1 silent, the latest trouble: ({DEATH})"),
        ("leave", f"one of the workers must answer within 60 s, got 1 silent, the latest trouble: ({DEATH})"),
    ],
)
def test_workers_of_which_nothing_comes_end_the_run_in_a_sentence(fault: str, message: str, cluster: Cluster) -> None:
    with pytest.raises(UserError, match=message):
        draw(cluster.start(fault, patience_s=60))


@pytest.mark.slow
def test_a_worker_that_is_gone_for_good_leaves_its_samples_to_the_others(cluster: Cluster) -> None:
    sampler = cluster.start("good", workers=2)
    importlib.import_module("ray").kill(vars(sampler)["_workers"][0])
    assert len(draw(sampler, 8)) == 8
    assert len(cluster.lost) <= 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise", "all workers must load the model, got .*RuntimeError: CUDA out of memory|at a place"),
        ("hang", "all workers must have loaded the model within 60 s, got 0 of 1"),
        # Where the machine is busy Ray tells of the restart before the patience is over.
        ("die", "must have loaded the model within 60 s, got 0 of 1|must load the model, got Actor.*restarted"),
        ("exit", "must have loaded the model within 60 s, got 0 of 1|must load the model, got Actor.*restarted"),
    ],
)
def test_a_worker_that_does_not_come_up_is_one_sentence(fault: str, message: str, cluster: Cluster) -> None:
    with pytest.raises(UserError, match=message):
        cluster.start(f"loading-{fault}", patience_s=60 if fault != "raise" else 300)


@pytest.mark.slow
def test_a_worker_that_refuses_the_model_says_so(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.close()
    monkeypatch.setattr(ray_engine, "SamplingWorker", SamplingWorker)
    settings = RaySettings(address=cluster.address, cpus=0.5)
    with pytest.raises(UserError, match=r"/nowhere") as caught:
        RaySampler(settings, source=ModelSource(name="x", location="/nowhere"))
    assert "Traceback" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "nowhere.invalid:6379", "ray://127.0.0.1:1", "no address", "http://x"]
)
def test_a_cluster_that_cannot_be_reached_is_one_sentence(address: str, cluster: Cluster) -> None:
    cluster.close()
    with pytest.raises(UserError, match=f"the Ray cluster must be reachable, got {address} "):
        RaySampler(RaySettings(address=address, patience_s=60), source=find_model("pocket"))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise ImportError('libray.so: cannot open')", "ImportError: libray.so: cannot open"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_ray_that_cannot_be_imported_is_one_sentence(
    source: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "ray" in sys.modules:
        pytest.skip("ray is imported already")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "__init__.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=f"the ray package must be fit for this machine, got {words}"):
        RaySampler(RaySettings(), source=find_model("pocket"))
