"""What runs on Kaggle: a `predict` that always answers, behind the competition's own inference server."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mathlete.competitions import Competition
from mathlete.kernel.answering import Answerer, one_line
from mathlete.kernel.config import KernelConfig
from mathlete.kernel.engine import EngineProcess
from mathlete.kernel.journal import JOURNAL

RERUN = "KAGGLE_IS_COMPETITION_RERUN"
ENGINE_LOG = "engine.log"


def make_predict(answerer: Answerer, rules: Competition) -> Callable[..., Any]:
    """`predict`: a plain named function (the library refuses lambdas and methods) that returns a one-row frame.

    It takes whatever columns the gateway sends, each a series of one value: a test.csv with one column more must not
    cost the day.
    """

    def predict(*columns: Any) -> Any:
        try:
            identity, statement = columns_of(columns, names=rules.columns)
            answer = answerer.answer(problem_id=str(value_of(identity)), statement=str(value_of(statement)))
        except BaseException as error:
            # The last boundary: SystemExit would hang the gateway, a long text would hide the real error.
            print(f"predict: {one_line(error)}", file=sys.stderr, flush=True)
            identity, answer = columns[0] if columns else "", answerer.fallback
        return frame(identity, answer)

    return predict


def columns_of(columns: tuple[Any, ...], *, names: tuple[str, str]) -> tuple[Any, Any]:
    """The id's and the statement's column: by their names where the series carry them, else the first two."""
    named = {str(getattr(column, "name", "")): column for column in columns}
    if all(name in named for name in names):
        return named[names[0]], named[names[1]]
    return columns[0], columns[1]


def value_of(column: Any) -> Any:
    """The one value of a series or one-row frame; anything else as it is."""
    item = getattr(column, "item", None)
    return item() if callable(item) else column


def frame(identity: Any, answer: int) -> Any:
    """A polars frame {id, answer: Int64} of one row; the id keeps the very type the gateway sent."""
    import polars as pl

    answers = pl.Series("answer", [answer], dtype=pl.Int64)
    if isinstance(identity, pl.Series):
        return pl.DataFrame([identity.alias("id"), answers])
    return pl.DataFrame([pl.Series("id", [value_of(identity)]), answers])


def serve(config: KernelConfig, *, model: Path, competition_folder: Path, started: float, working: Path) -> None:
    """Answers all questions: blocks while the gateway asks in a rerun, asks itself the placeholder questions else.

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
        answer_in_turn(importlib.import_module(gateway.module).make_env(), answerer, columns=rules.columns)
        return
    library = importlib.import_module(f"kaggle_evaluation.{gateway.module}")
    server = getattr(library, gateway.server)(make_predict(answerer, rules))
    # As the library itself asks: set, be it to nothing.
    if os.getenv(RERUN) is not None:
        server.serve()
    else:
        server.run_local_gateway((str(competition_folder / "test.csv"),))


def answer_in_turn(environment: Any, answerer: Answerer, *, columns: tuple[str, str]) -> None:
    """AIMO-1's loop: pandas frames of one row, `answer` filled in and given back before the next one comes."""
    for test, submission in environment.iter_test():
        row = test.iloc[0]
        submission["answer"] = answerer.answer(problem_id=str(row[columns[0]]), statement=str(row[columns[1]]))
        environment.predict(submission)
