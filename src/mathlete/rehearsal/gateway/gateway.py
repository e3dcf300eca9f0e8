"""The gateway: serves a test set one row at a time, checks what comes back, writes the file after the last row.

Versions of kaggle_evaluation, measured on the real packages: 0.3.0 and 0.7.0 with AIMO-2's gateway, 0.9.0 and 1.4.0
with AIMO-3's; 1.7.0 as far as its text was read. Columns and deadline are the competition's. Where the real ones are
wrong (a wrong id that 0.7.0 lets through, a traceback where an error was due), so is this one: a rehearsal that is
kinder than the real gateway would be worth nothing.

The modules of the room import nothing else of the project: a rehearsal copies them into the notebook's stand-in for
kaggle_evaluation, which the notebook imports before it installs the project.
"""

import csv
import enum
import json
import os
import random
import re
import socket
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import grpc

from mathlete.rehearsal.gateway.behaviours import RESULT, ROOM_S, SUBMISSION, Behaviour, next_ports
from mathlete.rehearsal.gateway.relay import Client, GRPCDeadlineError, ServerDiedError, define_server
from mathlete.rehearsal.gateway.submission import check_batch, write_submission

if TYPE_CHECKING:
    import polars as pl

Order = Literal["file", "shuffled"]
_DETAILS = 8000


class GatewayRuntimeErrorType(enum.Enum):
    """Names and numbers of the errors a competitor may see."""

    UNSPECIFIED = 0
    SERVER_NEVER_STARTED = 1
    SERVER_CONNECTION_FAILED = 2
    SERVER_RAISED_EXCEPTION = 3
    SERVER_MISSING_ENDPOINT = 4
    GATEWAY_RAISED_EXCEPTION = 5
    INVALID_SUBMISSION = 6
    GRPC_DEADLINE_EXCEEDED = 7


class GatewayRuntimeError(Exception):
    """An error with its type, as the commit run shows it."""

    def __init__(self, error_type: GatewayRuntimeErrorType, error_details: str | None = None) -> None:
        super().__init__(error_type, error_details)
        self.error_type, self.error_details = error_type, error_details


class Gateway:
    """Asks all questions of a test.csv, and writes submission.parquet into a folder."""

    def __init__(
        self,
        behaviour: Behaviour,
        *,
        test: Path,
        folder: Path,
        host: str = "localhost",
        ports: tuple[int, ...] | None = None,
        order: Order = "shuffled",
        seed: int | None = None,
        resolve: Callable[[str], object] = socket.gethostbyname,
    ) -> None:
        self._behaviour, self._test, self._folder = behaviour, test, folder
        self._order, self._seed = order, seed
        ports = behaviour.package.rerun_ports if ports is None else ports
        self._client = Client(host, ports=ports, behaviour=behaviour, resolve=resolve)
        self.rows_done = 0

    def run(self) -> None:
        """Ask all rows, and write the file after the last one.

        Raises:
            GatewayRuntimeError: with the real gateway's type and details; then there is no file.
        """
        try:
            self._run()
        except GatewayRuntimeError:
            raise
        except Exception as error:
            # As the real one does: an unforeseen error becomes the details, traceback and all.
            details = "".join(traceback.format_exception(error))
            raise GatewayRuntimeError(GatewayRuntimeErrorType.GATEWAY_RAISED_EXCEPTION, details) from error
        finally:
            self._client.close()

    def run_and_report(self) -> dict[str, object]:
        """Run as in a rerun: write the outcome into result.json, and return it."""
        result: dict[str, object] = {"Succeeded": True}
        try:
            self.run()
        except GatewayRuntimeError as error:
            result = {
                "Succeeded": False,
                "ErrorType": error.error_type.value,
                "ErrorName": error.error_type.name,
                "ErrorDetails": error.error_details[:_DETAILS] if error.error_details else None,
            }
        (self._folder / RESULT).write_text(json.dumps(result), encoding="utf-8")
        return result

    def _run(self) -> None:
        package, predictions, ids = self._behaviour.package, list[object](), []
        for row in self._rows():
            identity = row.select(row[self._behaviour.id_column].alias(self._behaviour.submission_id))
            prediction = self._ask(row)
            if problem := check_batch(prediction, identity, package=package):
                raise GatewayRuntimeError(GatewayRuntimeErrorType.INVALID_SUBMISSION, problem)
            predictions.append(prediction)
            ids.append(identity)
            self.rows_done += 1
        file = self._folder / SUBMISSION
        if problem := write_submission(predictions, ids, package=package, target=self._behaviour.target, file=file):
            kind = "GATEWAY_RAISED_EXCEPTION" if "must be set" in problem else "INVALID_SUBMISSION"
            raise GatewayRuntimeError(GatewayRuntimeErrorType[kind], problem)

    def _rows(self) -> "Iterator[pl.DataFrame]":
        table = read_test(self._test)
        if self._order == "shuffled":
            seed = random.SystemRandom().getrandbits(32) if self._seed is None else self._seed
            table = table.sample(fraction=1.0, shuffle=True, with_replacement=False, seed=seed)
        yield from table.iter_slices(n_rows=1)

    def _ask(self, row: "pl.DataFrame") -> object:
        try:
            # Each column is one positional argument, a series of one value.
            return self._client.send("predict", *row)
        except Exception as error:
            translated = self._translate(error)
            raise translated from (None if translated is not error else error.__cause__)

    def _translate(self, error: Exception) -> Exception:
        """Return the gateway's error for one of the relay's, by its type and text as in the real gateway."""
        text, types = str(error), GatewayRuntimeErrorType
        gone = isinstance(error, socket.gaierror) and self._behaviour.package.gone == "never started"
        if gone or (isinstance(error, RuntimeError) and "Failed to connect to server after waiting" in text):
            return GatewayRuntimeError(types.SERVER_NEVER_STARTED)
        if "No listener for predict was registered" in text:
            return GatewayRuntimeError(types.SERVER_MISSING_ENDPOINT, "Server did not register a listener for predict")
        if "Exception calling application" in text:
            # Texts of several lines don't match, and are shown whole: the real gateway has this pattern too.
            match = re.search('"Exception calling application: (.*)"', text, re.IGNORECASE)
            return GatewayRuntimeError(types.SERVER_RAISED_EXCEPTION, match[1] if match else text)
        if isinstance(error, grpc.RpcError | ServerDiedError):
            return GatewayRuntimeError(types.SERVER_CONNECTION_FAILED, text)
        if isinstance(error, GRPCDeadlineError):
            return GatewayRuntimeError(types.GRPC_DEADLINE_EXCEEDED, text)
        return error


def read_test(file: Path) -> "pl.DataFrame":
    """Read a test.csv as a polars frame of strings.

    The real gateways let polars guess: where all ids look like numbers, `424e18` becomes 4.24e+20 there.
    """
    import polars as pl

    with file.open(encoding="utf-8", newline="") as lines:
        columns = next(csv.reader(lines))
    return pl.read_csv(file, schema_overrides=dict.fromkeys(columns, pl.String))


class InferenceServer:
    """The notebook's end, with the methods of the real one."""

    def __init__(self, *listeners: Callable[..., object], behaviour: Behaviour, **options: object) -> None:
        known = {"allowed_modules"} if behaviour.package.tells_port else set()
        if strange := [name for name in options if name not in known]:
            raise TypeError(f"InferenceServer.__init__() got an unexpected keyword argument '{strange[0]}'")
        self.server, self._port = define_server(*listeners, package=behaviour.package)
        if behaviour.package.tells_port:
            self.port = self._port
        self.behaviour = behaviour

    def serve(self) -> None:
        """Start serving; in a rerun, block for ever."""
        self.server.start()
        if os.getenv("KAGGLE_IS_COMPETITION_RERUN") is not None:
            self.server.wait_for_termination()

    def run_local_gateway(self, data_paths: tuple[str, ...] | str) -> None:
        """Start serving, ask itself the rows of a test.csv, and write submission.parquet beside the notebook.

        Raises:
            GatewayRuntimeError: as the gateway would report in a rerun.
        """
        package, behaviour = self.behaviour.package, self.behaviour
        ports = next_ports(self._port) if package.tells_port else None
        if package.tells_port:
            # The real one makes its client anew, with the server's own port and without the gateway's deadline.
            behaviour = replace(behaviour, deadline_s=ROOM_S)
        self.server.start()
        try:
            test = _find_test(data_paths, folder=package.takes_folder)
            Gateway(behaviour, test=test, folder=Path(), ports=ports).run()
        finally:
            self.server.stop(0)


def _find_test(data_paths: tuple[str, ...] | str, *, folder: bool) -> Path:
    if not folder:
        return Path(data_paths[0])
    if not isinstance(data_paths, str):
        raise TypeError(f"the local gateway takes the competition's folder, not {type(data_paths)}")
    return Path(data_paths, "test.csv")
