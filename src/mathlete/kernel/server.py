"""The notebook's server: a `predict` that always answers, behind the competition's own inference server."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mathlete.competitions import Competition
from mathlete.kernel.answering import Answerer, one_line
from mathlete.kernel.config import KernelConfig
from mathlete.kernel.engine import EngineProcess
from mathlete.kernel.journal import JOURNAL

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

RERUN = "KAGGLE_IS_COMPETITION_RERUN"
ENGINE_LOG = "engine.log"


class Iteration(Protocol):
    """What an iterator competition's `make_env` returns."""

    def iter_test(self) -> "Iterator[tuple[pd.DataFrame, pd.DataFrame]]":
        """Yield (question, submission to fill in), frames of one row."""
        ...

    def predict(self, submission: "pd.DataFrame") -> None:
        """Take a filled-in submission; the next question comes only then."""
        ...


def make_predict(answerer: Answerer, rules: Competition) -> "Callable[..., pl.DataFrame]":
    """Return `predict`: a plain named function (the library refuses lambdas and methods) that returns a one-row frame.

    It takes whatever columns the gateway sends, each a series of one value: an unforeseen column in test.csv must not
    end the run.
    """

    def predict(*columns: object) -> "pl.DataFrame":
        try:
            identity, statement = columns_of(columns, names=rules.columns)
            answer = answerer.answer(problem_id=str(value_of(identity)), statement=str(value_of(statement)))
        except BaseException as error:
            # Even SystemExit, which would hang the gateway; and one line, because a long text would be lost.
            print(f"predict: {one_line(error)}", file=sys.stderr, flush=True)
            identity, answer = columns[0] if columns else "", answerer.fallback
        return frame(identity, answer, names=rules.submission_columns)

    return predict


def columns_of(columns: tuple[object, ...], *, names: tuple[str, str]) -> tuple[object, object]:
    """Return the id's and the statement's column: by their names where the series carry them, else the first two."""
    named = {str(getattr(column, "name", "")): column for column in columns}
    if all(name in named for name in names):
        return named[names[0]], named[names[1]]
    return columns[0], columns[1]


def value_of(column: object) -> object:
    """Return the one value of a series or one-row frame, and anything else as it is."""
    item = getattr(column, "item", None)
    return item() if callable(item) else column


def frame(identity: object, answer: int, *, names: tuple[str, str]) -> "pl.DataFrame":
    """Return a polars frame of one row, id and answer (Int64); the id keeps the type that the gateway sent."""
    import polars as pl

    id_name, answer_name = names
    answers = pl.Series(answer_name, [answer], dtype=pl.Int64)
    if isinstance(identity, pl.Series):
        return pl.DataFrame([identity.alias(id_name), answers])
    return pl.DataFrame([pl.Series(id_name, [value_of(identity)]), answers])


def serve(config: KernelConfig, *, model: Path, competition_folder: Path, started: float, working: Path) -> None:
    """Answer all questions: those of the gateway in a rerun, else the placeholder questions of the data folder.

    Args:
        config: how to answer.
        model: the model's folder.
        competition_folder: where the competition's data is mounted.
        started: `time.time()` of the notebook's first cell.
        working: where journal and engine log go.
    """
    rules, gateway = config.competition, config.competition.gateway
    answerer = Answerer(
        config,
        engine=EngineProcess(model, log=working / ENGINE_LOG, precision=config.precision, tools=config.tools),
        started=started,
        journal=working / JOURNAL,
    )
    sys.path.insert(0, str(competition_folder))
    if gateway.server is None:
        answer_in_turn(importlib.import_module(gateway.module).make_env(), answerer, rules=rules)
        return
    library = importlib.import_module(f"kaggle_evaluation.{gateway.module}")
    server = getattr(library, gateway.server)(make_predict(answerer, rules))
    # Same test as kaggle_evaluation: set, even if empty.
    if os.getenv(RERUN) is not None:
        server.serve()
    else:
        server.run_local_gateway((str(competition_folder / "test.csv"),))


def answer_in_turn(environment: Iteration, answerer: Answerer, *, rules: Competition) -> None:
    """Answer an iterator's questions: a pandas frame of one row each, given back with its answer before the next."""
    identity, statement = rules.columns
    _, answer = rules.submission_columns
    for test, submission in environment.iter_test():
        row = test.iloc[0]
        submission[answer] = answerer.answer(problem_id=str(row[identity]), statement=str(row[statement]))
        environment.predict(submission)
