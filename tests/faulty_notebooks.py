"""What each notebook of the measured tables gives to its server, by the tables' names (tests/golden/gateway_*.txt)."""

import asyncio
import enum
import functools
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pydantic

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


def exit_in(row: int, error: type[BaseException] = SystemExit) -> Predict:
    calls = []

    def predict(identity: Any, problem: Any) -> Any:
        calls.append(1)
        if len(calls) == row:
            raise error
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


def yielding(identity: Any, problem: Any) -> Any:
    yield good(identity, problem)


def awaiting(identity: Any, problem: Any) -> Any:
    async def answer_later() -> Any:
        return good(identity, problem)

    coroutine = answer_later()
    coroutine.close()  # nobody awaits it
    return coroutine


class Colour(enum.Enum):
    RED = 7


class Number(enum.IntEnum):
    SEVEN = 7


@dataclass
class Row:
    answer: int


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
    "enum": lambda: return_what(lambda i, n: Colour.RED),
    "int_enum": lambda: return_what(lambda i, n: Number.SEVEN),
    "dataclass": lambda: return_what(lambda i, n: Row(7)),
    "pydantic": lambda: return_what(lambda i, n: pydantic.create_model("Row", answer=(int, 7))()),
    "bytes": lambda: return_what(lambda i, n: b"7"),
    "set": lambda: return_what(lambda i, n: {7}),
    "bool": lambda: return_what(lambda i, n: True),
    "np_float64": lambda: return_what(lambda i, n: np.float64(7)),
    "np_array": lambda: return_what(lambda i, n: np.array([7])),
    "nan": lambda: return_what(lambda i, n: float("nan")),
    "pl_nan": lambda: frame(float("nan")),
    "pl_enum_column": lambda: return_what(
        lambda i, n: pl.DataFrame({"id": [i], "answer": pl.Series(["7"], dtype=pl.Enum(["7"]))})
    ),
    "pl_lazy": lambda: return_what(lambda i, n: pl.LazyFrame({"id": [i], "answer": [7]})),
    "empty_exception": lambda: raise_in(""),
    "keyboard_interrupt": lambda: exit_in(1, KeyboardInterrupt),
    "slow_first_15s": lambda: sleep_in(1),
    "generator": lambda: yielding,
    "coroutine": lambda: awaiting,
}


class Solver:
    def predict(self, identity: Any, problem: Any) -> Any:
        return good(identity, problem)

    def answer(self, identity: Any, problem: Any) -> Any:
        return good(identity, problem)


class Shared:
    @classmethod
    def predict(cls, identity: Any, problem: Any) -> Any:
        return good(identity, problem)


class Loose:
    @staticmethod
    def predict(identity: Any, problem: Any) -> Any:
        return good(identity, problem)


def wrapped() -> Predict:
    def wrapper(*columns: Any) -> Any:
        return good(*columns)

    return wrapper


def answer(identity: Any, problem: Any) -> Any:
    return good(identity, problem)


def partial() -> Any:
    wrapped = functools.partial(good)
    wrapped.__name__ = "predict"  # type: ignore[attr-defined]
    return wrapped


def refused_url() -> None:
    import urllib.request

    urllib.request.urlopen("http://127.0.0.1:1/")


# What is given to the server, a list being several; None: the notebook ends before it serves.
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
    "classmethod": lambda: Shared.predict,
    "staticmethod": lambda: Loose.predict,
    "method_named_answer": lambda: Solver().answer,
    "two_methods_one_name": lambda: [Solver().predict, Shared.predict],
    "functools_partial": lambda: functools.partial(good),
    "wrapped": wrapped,
    "two_servers": lambda: good,
    "two_servers_first_served": lambda: good,
    "port_60053_taken": lambda: good,
    "port_taken_then_freed": lambda: good,
    "always_local": lambda: good,
    "always_local_then_serve": lambda: good,
    "allowed_modules": lambda: good,
    "serves_after_20s": lambda: good,
}
