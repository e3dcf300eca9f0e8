"""Our gateway against what the real ones were measured to do with each faulty notebook, row by row."""

import asyncio
import contextlib
import functools
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from mathlete.competitions import competition
from mathlete.kernel import SUBMISSION
from mathlete.rehearsal.gateway.behaviours import PACKAGES, Behaviour
from mathlete.rehearsal.gateway.gateway import Gateway, InferenceServer, read_test
from mathlete.rehearsal.scorer import score_file
from tests.conftest import sample

IDS = [f"{n:06d}" for n in range(5)]
ROWS = "id,problem\n" + "".join(f"{i},What is {n}?\n" for n, i in enumerate(IDS))
Predict = Callable[..., Any]


def good(identity: Any, problem: Any) -> Any:
    return pl.DataFrame({"id": identity, "answer": [7]})


def raise_in(text: str, *, row: int = 1) -> Predict:
    calls = []

    def predict(identity: Any, problem: Any) -> Any:
        calls.append(1)
        if len(calls) >= row:
            raise ValueError(text)
        return good(identity, problem)

    return predict


def sleep_in(row: int) -> Predict:
    calls = []

    def predict(identity: Any, problem: Any) -> Any:
        calls.append(1)
        if len(calls) == row:
            time.sleep(1.2)
        return good(identity, problem)

    return predict


def exit_in(row: int) -> Predict:
    calls = []

    def predict(identity: Any, problem: Any) -> Any:
        calls.append(1)
        if len(calls) == row:
            raise SystemExit
        return good(identity, problem)

    return predict


def return_what(make: Callable[[str, int], Any]) -> Predict:
    calls = []

    def predict(identity: Any, problem: Any) -> Any:
        calls.append(1)
        return make(identity.item(), len(calls))

    return predict


def act_first(action: Callable[[], object]) -> Predict:
    def predict(identity: Any, problem: Any) -> Any:
        action()
        return good(identity, problem)

    return predict


def three_arguments(identity: Any, problem: Any, answer: Any) -> Any: ...


def one_argument(identity: Any) -> Any: ...


def keyword_names(*, id: Any, problem: Any) -> Any: ...  # noqa: A002


def frame(answer: Any, **more: Any) -> Predict:
    return return_what(lambda i, n: pl.DataFrame({"id": [i], "answer": [answer], **more}))


VARIANTS: dict[str, Callable[[], Predict]] = {
    "trivial": lambda: good,
    "pandas_ok": lambda: return_what(lambda i, n: pd.DataFrame({"id": [i], "answer": [7]})),
    "raises": lambda: raise_in("boom in predict"),
    "raises_20kB": lambda: raise_in("boom" * 5000),
    "raises_7kB": lambda: raise_in("boom" * 1750),
    "raises_newline": lambda: raise_in("first line\nsecond line"),
    "raises_2000_signs": lambda: raise_in("∫" * 2000),
    "raises_row3": lambda: raise_in("boom in row 3", row=3),
    "sysexit": lambda: exit_in(1),
    "sysexit_row2": lambda: exit_in(2),
    "sleep_first": lambda: sleep_in(1),
    "sleep_row2": lambda: sleep_in(2),
    "str": lambda: return_what(lambda i, n: "7"),
    "int": lambda: return_what(lambda i, n: 7),
    "np_int64": lambda: return_what(lambda i, n: np.int64(7)),
    "float": lambda: return_what(lambda i, n: 7.0),
    "list": lambda: return_what(lambda i, n: [7]),
    "tuple": lambda: return_what(lambda i, n: (7,)),
    "dict": lambda: return_what(lambda i, n: {"id": i, "answer": 7}),
    "none": lambda: return_what(lambda i, n: None),
    "pl_no_id": lambda: return_what(lambda i, n: pl.DataFrame({"answer": [7]})),
    "pl_wrong_id": lambda: return_what(lambda i, n: pl.DataFrame({"id": [f"x{n}"], "answer": [7]})),
    "pl_prediction": lambda: return_what(lambda i, n: pl.DataFrame({"id": [i], "prediction": [7]})),
    "pl_extra_column": lambda: frame(7, votes=[3]),
    "pl_answer_first": lambda: return_what(lambda i, n: pl.DataFrame({"answer": [7], "id": [i]})),
    "pl_negative": lambda: frame(-7),
    "pl_too_big": lambda: frame(100_000),
    "pl_null": lambda: frame(None),
    "pl_null_once": lambda: return_what(lambda i, n: pl.DataFrame({"id": [i], "answer": [None if n == 2 else 7]})),
    "pl_str": lambda: frame("7"),
    "pl_float": lambda: frame(7.0),
    "pl_int32": lambda: return_what(
        lambda i, n: pl.DataFrame({"id": [i], "answer": [7]}, schema_overrides={"answer": pl.Int32})
    ),
    "pl_mixed_int_str": lambda: return_what(lambda i, n: pl.DataFrame({"id": [i], "answer": ["7" if n == 2 else 7]})),
    "pl_mixed_int_float": lambda: return_what(lambda i, n: pl.DataFrame({"id": [i], "answer": [7.0 if n == 2 else 7]})),
    "pl_bigint_1e25": lambda: frame(10**25),
    "int_1e25": lambda: return_what(lambda i, n: 10**25),
    "pl_two_rows": lambda: return_what(lambda i, n: pl.DataFrame({"id": [i, i], "answer": [7, 7]})),
    "pl_no_rows": lambda: return_what(lambda i, n: pl.DataFrame({"id": [], "answer": []})),
    "pl_column_count": lambda: return_what(
        lambda i, n: pl.DataFrame({"id": [i], "answer": [7], **({"votes": [1]} if n == 2 else {})})
    ),
    "pl_series_named": lambda: return_what(lambda i, n: pl.Series("answer", [7])),
    "pl_series_unnamed": lambda: return_what(lambda i, n: pl.Series([7])),
    "pd_series_named": lambda: return_what(lambda i, n: pd.Series([7], name="answer")),
    "pd_series_unnamed": lambda: return_what(lambda i, n: pd.Series([7])),
    "pd_wrong_column": lambda: return_what(lambda i, n: pd.DataFrame({"id": [i], "prediction": [7]})),
    "pd_no_id": lambda: return_what(lambda i, n: pd.DataFrame({"answer": [7]})),
    "pd_wrong_id": lambda: return_what(lambda i, n: pd.DataFrame({"id": [f"x{n}"], "answer": [7]})),
    "pd_index": lambda: return_what(lambda i, n: pd.DataFrame({"answer": [7]}, index=pd.Index([i], name="id"))),
    "mixed_pd_pl": lambda: return_what(lambda i, n: (pl if n == 1 else pd).DataFrame({"id": [i], "answer": [7]})),
    "mixed_pl_pd": lambda: return_what(lambda i, n: (pd if n == 1 else pl).DataFrame({"id": [i], "answer": [7]})),
    "signal": lambda: act_first(lambda: signal.signal(signal.SIGALRM, signal.SIG_DFL)),
    "event_loop": lambda: act_first(asyncio.get_event_loop),
    "asyncio_run": lambda: act_first(lambda: asyncio.run(asyncio.sleep(0))),
    "item_strings": lambda: good,
    "three_arguments": lambda: three_arguments,
    "one_argument": lambda: one_argument,
    "keyword_names": lambda: keyword_names,
}

GOLDEN = Path(__file__).parent / "golden" / "gateway_outcomes.txt"
EXPECTED = {
    cells[0]: [cell if cell != "=" else "" for cell in cells[1:]]
    for cells in ([cell.strip() for cell in line.split("|")] for line in GOLDEN.read_text().splitlines()[1:])
}
NAMES = tuple(PACKAGES)
# Whose data held the package: the gateways were measured with their rules.
COMPETITIONS = {"0.3.0": competition("aimo-2"), "0.7.0": competition("aimo-2"), "0.9.0": competition("aimo-3")}
CASES = [(variant, name) for variant in EXPECTED for name in NAMES]


def find_expected(variant: str, name: str) -> str:
    cells = EXPECTED[variant]
    return next(cell for cell in reversed(cells[: NAMES.index(name) + 1]) if cell)


class Solver:
    def predict(self, identity: Any, problem: Any) -> Any:
        return good(identity, problem)


def answer(identity: Any, problem: Any) -> Any:
    return good(identity, problem)


def partial() -> Any:
    wrapped = functools.partial(good)
    wrapped.__name__ = "predict"  # type: ignore[attr-defined]
    return wrapped


def refused_url() -> None:
    import urllib.request

    urllib.request.urlopen("http://127.0.0.1:1/")


# What is given to the server; None: the notebook ends before it serves.
LISTENERS: dict[str, Callable[[], Any]] = {
    "named_answer": lambda: answer,
    "lambda": lambda: lambda identity, problem: good(identity, problem),
    "method": lambda: Solver().predict,
    "partial_call": partial,
    "tuple_of_functions": lambda: (good,),
    "never_serves": lambda: None,
    "fails_before_serve": lambda: None,
    "slow_start": lambda: None,
    "network": lambda: act_first(refused_url),
    "write_input": lambda: act_first(lambda: Path("/proc/none").write_text("x")),
    "own_submission": lambda: act_first(lambda: None),
    "port_taken": lambda: good,
    "implicit_import": lambda: good,
}


def free_ports(count: int) -> tuple[int, ...]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("localhost", 0))
    ports = tuple(each.getsockname()[1] for each in sockets)
    for each in sockets:
        each.close()
    return ports


def gone(host: str) -> None:
    raise socket.gaierror(-3, "Temporary failure in name resolution")


def start(listener: Any, behaviour: Any) -> InferenceServer | None:
    """Return the notebook: None where it ends before it serves."""
    if listener is None:
        return None
    if callable(listener) and getattr(listener, "__name__", "") not in ("<lambda>", "answer"):
        # A bound method has its function's name.
        with contextlib.suppress(AttributeError):
            listener.__name__ = "predict"
    try:
        server = InferenceServer(listener, behaviour=behaviour)
    except (ValueError, RuntimeError):
        return None
    server.server.start()
    return server


@pytest.fixture
def taken() -> Iterator[Callable[[int], None]]:
    """Occupies a port with something that is no gRPC server."""
    held: list[socket.socket] = []

    def take(port: int) -> None:
        listening = socket.create_server(("localhost", port))
        held.append(listening)

        def drop() -> None:
            while True:
                try:
                    listening.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=drop, daemon=True).start()

    yield take
    for each in held:
        each.shutdown(socket.SHUT_RDWR)
        each.close()


def outcome(folder: Path, result: dict[str, object], rows: int, name: str) -> str:
    if not result["Succeeded"]:
        assert not (folder / SUBMISSION).exists()
        return f"{result['ErrorName']} {rows + 1} {result['ErrorDetails']}"
    problem = score_file(folder / SUBMISSION, ids=IDS, rules=COMPETITIONS[name])
    return f"file {problem}" if problem else "ok"


def ends_otherwise(variant: str, name: str) -> bool:
    """Return whether it is the newest gateway, or one that ends otherwise than another."""
    return name == NAMES[-1] or any(EXPECTED[variant][1:])


@pytest.mark.parametrize(
    ("variant", "name"),
    sample(
        *(case for case in CASES if case[0] != "dies_row2" and ends_otherwise(*case)),
        slow=[case for case in CASES if case[0] != "dies_row2" and not ends_otherwise(*case)],
    ),
)
def test_each_faulty_notebook_ends_as_with_the_real_gateway(
    variant: str, name: str, tmp_path: Path, taken: Callable[[int], None]
) -> None:
    deadline_s = 0.4 if variant in ("sleep_row2", "sysexit_row2", "sleep_first") else 60.0
    ports = free_ports(2)[: len(PACKAGES[name].ports)]
    startup_s = 0.3 if variant == "slow_start" else 5.0
    package = replace(PACKAGES[name], ports=ports)
    behaviour = Behaviour(package=package, deadline_s=deadline_s, startup_s=startup_s)
    (tmp_path / "test.csv").write_text(ROWS)
    if variant == "port_taken":
        taken(ports[0])
    make = LISTENERS.get(variant) or VARIANTS[variant]
    server = start(make(), behaviour)
    resolve = gone if server is None and variant != "slow_start" else socket.gethostbyname
    gateway = Gateway(behaviour, test=tmp_path / "test.csv", folder=tmp_path, resolve=resolve)
    results: list[dict[str, object]] = []
    asking = threading.Thread(target=lambda: results.append(gateway.run_and_report()), daemon=True)
    asking.start()
    asking.join(1.5 if variant == "sysexit" else 20)
    ended = outcome(tmp_path, results[0], gateway.rows_done, name) if results else "hangs"
    if server is not None:
        server.server.stop(0)
    assert ended.startswith(" ".join(find_expected(variant, name).split(" ")[:2]))
    if variant not in ("network", "write_input"):
        assert all(part in ended for part in find_expected(variant, name).split(" ", 2)[2:])


DYING = """
import os, signal, sys
from dataclasses import replace
import polars as pl
from mathlete.rehearsal.gateway.behaviours import PACKAGES, Behaviour
from mathlete.rehearsal.gateway.gateway import InferenceServer
calls = []
def predict(identity, problem):
    calls.append(1)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return pl.DataFrame({"id": identity, "answer": [7]})
package = replace(PACKAGES[sys.argv[1]], ports=(int(sys.argv[2]),))
server = InferenceServer(predict, behaviour=Behaviour(package=package, deadline_s=60))
server.server.start()
server.server.wait_for_termination()
"""


@pytest.mark.parametrize("name", [NAMES[-1], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[:-1])])
def test_a_notebook_killed_in_row_2_is_a_failed_connection(name: str, tmp_path: Path) -> None:
    port = free_ports(1)
    behaviour = Behaviour(package=replace(PACKAGES[name], ports=port), deadline_s=60)
    (tmp_path / "test.csv").write_text(ROWS)
    with subprocess.Popen([sys.executable, "-c", DYING, name, str(port[0])]) as notebook:
        gateway = Gateway(behaviour, test=tmp_path / "test.csv", folder=tmp_path)
        result = gateway.run_and_report()
        assert notebook.wait() == -signal.SIGKILL
    ended = outcome(tmp_path, result, gateway.rows_done, name)
    assert all(part in ended for part in find_expected("dies_row2", name).split(" ", 2))


def test_ids_stay_strings_where_all_of_them_look_like_numbers(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("id,problem\n424e18,What?\n000123,Why?\n")
    assert read_test(tmp_path / "test.csv")["id"].to_list() == ["424e18", "000123"]


def test_every_row_of_the_measured_table_is_covered(shared: Path) -> None:
    text = (shared / "facts" / "gateway-outcomes.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(EXPECTED)
