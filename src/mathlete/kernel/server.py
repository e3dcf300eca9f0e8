"""The notebook's server: a `predict` that always answers, behind the competition's own inference server."""

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from mathlete.competitions import Competition
from mathlete.errors import UserError
from mathlete.folders import list_weights
from mathlete.kernel.answering import Answerer, one_line, say
from mathlete.kernel.config import KernelConfig
from mathlete.kernel.engine import EngineProcess
from mathlete.kernel.journal import JOURNAL, note
from mathlete.kernel.ladder import Ladder
from mathlete.kernel.machine import describe_machine, find_difference, list_gpus
from mathlete.kernel.opening import open_server
from mathlete.kernel.steps import EngineStep, plan_steps
from mathlete.kernel.world import InstalledWorld
from mathlete.models import Shape

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

RERUN = "KAGGLE_IS_COMPETITION_RERUN"
ENGINE_LOG, INSTALL_LOG = "engine.log", "install.log"
VLLM_PACKAGES = Path("/tmp/mathlete-vllm")
"""Where vLLM's packages go: its process alone sees them."""
QUIET_S = 240.0
"""Seconds after which a vLLM hangs that loads, prints nothing and takes nothing into memory. Between two words of a
boot lie one to two minutes for the compiling of a model; for its weights, as many as the disk needs, which is seen by
what is read (`kernel/signs.py`)."""


class Iteration(Protocol):
    """What an iterator competition's `make_env` returns."""

    def iter_test(self) -> "Iterator[tuple[pd.DataFrame, pd.DataFrame]]":
        """Yield (question, submission to fill in), frames of one row."""
        ...

    def predict(self, submission: "pd.DataFrame") -> None:
        """Take a filled-in submission; the next question comes only then."""
        ...


class CompetitionServer(Protocol):
    """The competition's own server."""

    def serve(self) -> None:
        """Start serving; in a rerun, block for ever."""
        ...

    def run_local_gateway(self, data_paths: str | tuple[str]) -> None:
        """Start serving, and ask itself."""
        ...


def make_predict(answerer: Answerer, rules: Competition) -> "Callable[..., pl.DataFrame]":
    """Return a `predict` that returns a frame with a row for every id, and never raises.

    It takes whatever the gateway sends, series or frames: an unforeseen column in test.csv must not end the run.
    """

    def predict(*columns: object) -> "pl.DataFrame":
        identities: object = ""
        answer = answerer.fallback
        try:
            parts = split_frames(columns)
            identities = parts[0]
            identities, statements = columns_of(parts, names=rules.columns)
            answer = answerer.answer(problem_id=str(first_of(identities)), statement=str(first_of(statements)))
            return frame(identities, answer, names=rules.submission_columns)
        except BaseException as error:
            # Even SystemExit, which would hang the gateway; and one line, because a long text would be lost.
            say(f"predict: {one_line(error)}")
        try:
            return frame(identities, answer, names=rules.submission_columns)
        except Exception:
            # No column can be made of these ids. Gateways from 0.9.0 on write their own over them.
            return frame("", answer, names=rules.submission_columns)

    return predict


def split_frames(columns: tuple[object, ...]) -> list[object]:
    """Return the columns with every frame split into its own: a standard gateway sends one frame a file."""
    parts: list[object] = []
    for column in columns:
        names = getattr(column, "columns", None)
        parts += [column] if names is None else [cast("pl.DataFrame", column)[name] for name in names]
    return parts


def columns_of(columns: Sequence[object], *, names: tuple[str, str]) -> tuple[object, object]:
    """Return the id's and the statement's column: by their names where the series carry them, else the first two."""
    # Of two columns with one name the first: the sample submission's come after the test set's.
    named = {str(getattr(column, "name", "")): column for column in reversed(columns)}
    if all(name in named for name in names):
        return named[names[0]], named[names[1]]
    return columns[0], columns[1]


def first_of(column: object) -> object:
    """Return the first value of a series, and anything else as it is."""
    to_list = getattr(column, "to_list", None)
    return to_list()[0] if callable(to_list) else column


def frame(identities: object, answer: int, *, names: tuple[str, str]) -> "pl.DataFrame":
    """Return a polars frame of ids and answer (Int64), a row an id; ids keep the type that the gateway sent."""
    import polars as pl

    id_name, answer_name = names
    if isinstance(identities, pl.Series):
        ids = identities.alias(id_name)
    else:
        to_list = getattr(identities, "to_list", None)
        ids = pl.Series(id_name, to_list() if callable(to_list) else [identities])
    return pl.DataFrame([ids, pl.Series(answer_name, [answer] * len(ids), dtype=pl.Int64)])


def serve(
    config: KernelConfig,
    *,
    model: Path,
    competition_folder: Path,
    started: float,
    working: Path,
    server: tuple[object, list[Callable[..., object]]] | None = None,
    built: Mapping[str, object] | None = None,
    vllm: Path | None = None,
) -> None:
    """Answer all questions: those of the gateway in a rerun, else the placeholder questions of the data folder.

    Args:
        config: how to answer.
        model: the model's folder.
        competition_folder: where the competition's data is mounted.
        started: `time.time()` of the notebook's first cell.
        working: where journal and engine log go.
        server: what `open_server` returned; None: it is called here, unless the competition has an iterator.
        built: what the notebook carries of its build: "build", its hash, and "machine", Kaggle's name of the machine;
            where it names no machine, any will do.
        vllm: the mounted folder of vLLM's wheels and their lock; None: the notebook does without.

    Raises:
        RuntimeError: in a commit run, the machine is not the build's.
    """
    journal = working / JOURNAL
    tell_machine(built or {}, working=working)
    rules, gateway = config.competition, config.competition.notebook.gateway
    engine = make_engine(config, model=model, vllm=vllm, working=working)
    answerer = Answerer(config, engine=engine, started=started, journal=journal)
    answerer.begin()
    if gateway.server is None:
        sys.path.insert(0, str(competition_folder))
        answer_in_turn(importlib.import_module(gateway.module).make_env(), answerer, rules=rules)
        return
    opened, listeners = server or open_server(competition_folder, gateway.module, gateway.server)
    library = cast("CompetitionServer", opened)
    listeners.append(make_predict(answerer, rules))
    if is_rerun():
        library.serve()
    else:
        version = str(getattr(sys.modules.get("kaggle_evaluation"), "__version__", ""))
        library.run_local_gateway(local_data(competition_folder, version=version))


def make_engine(config: KernelConfig, *, model: Path, vllm: Path | None, working: Path) -> Ladder:
    """Return the engine, not started yet; where that is vLLM, its packages are on their way from now on.

    Args:
        config: how to answer.
        model: the model's folder.
        vllm: the folder of vLLM's wheels; None: there is none.
        working: where journal and logs go.
    """
    journal, world = working / JOURNAL, None
    if config.engine == "vllm":
        world = InstalledWorld(
            vllm or Path("/nowhere"),
            VLLM_PACKAGES,
            model=model,
            log=working / INSTALL_LOG,
            on_done=lambda facts: note(journal, {"packages": facts}),
        )

    def make(step: EngineStep) -> EngineProcess:
        served = step.engine == "vllm"
        return EngineProcess(
            model,
            log=working / ENGINE_LOG,
            engine=step.engine,
            vllm=step.vllm,
            max_tokens=config.policy.longest_tokens,
            scores=config.policy.reads_scores,
            precision=config.precision,
            tools=config.tools,
            prompt=config.prompt,
            world=world if served else None,
            quiet_s=QUIET_S if served else None,
            on_ready=lambda facts: note(journal, {"engine": {"step": step.name, **facts}}),
        )

    described: dict[str, object] = {}
    # What is wrong with it, the engine's process says.
    with suppress(UserError):
        described = Shape.read_config(model)
    gpus = list_gpus()
    weights = sum(file.stat().st_size for file in list_weights(model))
    memory = min((gpu.memory_mib for gpu in gpus), default=0) * 2**20
    steps = plan_steps(config, gpus=len(gpus), model=described, weights=weights, memory=memory)
    return Ladder(steps, make, on_step=lambda fact: note(journal, {"left": fact}))


def local_data(folder: Path, *, version: str) -> str | tuple[str]:
    """Return what the local gateway of a version of kaggle_evaluation takes: from 1.7.0 on the folder itself.

    >>> local_data(Path("data"), version="1.7.0"), local_data(Path("data"), version="0.9.0")
    ('data', ('data/test.csv',))
    """
    numbers = [int(number) for number in re.findall("[0-9]+", version)[:2]]
    return str(folder) if numbers >= [1, 7] else (str(folder / "test.csv"),)


def tell_machine(built: Mapping[str, object], *, working: Path) -> None:
    """Write build and machine into the journal and the log, and compare the machine with the build's.

    Raises:
        RuntimeError: in a commit run, the GPU is not the build's.
    """
    gpus = list_gpus()
    note(working / JOURNAL, {"build": built.get("build", ""), "machine": describe_machine(gpus, working=working)})
    if difference := find_difference(gpus, str(built.get("machine", ""))):
        if not is_rerun():
            raise RuntimeError(f"{difference}: choose that machine in the notebook's settings, or build for this one")
        print(f"{'!' * 20} {difference}: answers may be late or missing {'!' * 20}", file=sys.stderr, flush=True)


def is_rerun() -> bool:
    """Return whether this is a rerun, by the test of kaggle_evaluation: the variable is set, even if empty."""
    return os.getenv(RERUN) is not None


def answer_in_turn(environment: Iteration, answerer: Answerer, *, rules: Competition) -> None:
    """Answer an iterator's questions: a pandas frame of one row each, given back with its answer before the next."""
    identity, statement = rules.columns
    _, answer = rules.submission_columns
    for test, submission in environment.iter_test():
        row = test.iloc[0]
        submission[answer] = answerer.answer(problem_id=str(row[identity]), statement=str(row[statement]))
        environment.predict(submission)
