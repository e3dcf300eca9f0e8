"""Kaggle's real clients, with every reply checked: their command line exits 0 on most failures, this raises.

Facts it rests on, read in kaggle 2.2.4 and kagglehub 1.0.3: `kernels_push` answers HTTP 200 with an `error` or with
`invalid_*` lists where a source was dropped, and the notebook is saved without it; the invalid model sources are never
printed; importing `kaggle` authenticates, and prints its help where there are no credentials.
"""

import contextlib
import importlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mathlete.errors import UserError
from mathlete.kernel import SUBMISSION
from mathlete.submission import Names

T = TypeVar("T")
_DROPPED = (
    *("invalid_model_sources", "invalid_dataset_sources", "invalid_competition_sources"),
    *("invalid_kernel_sources", "invalid_tags"),
)
_RUNNING = ("QUEUED", "RUNNING", "NEW_SCRIPT")
_NOT_UPLOADED = ["manifest.json", "started.json", ".lock"]
_UPLOAD_TRIES = 3
FILES_MAX = 50
"""kagglehub uploads more files than this as one archive.zip, in which the notebook would find no wheels."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A version of the notebook, saved on Kaggle."""

    version: int
    url: str


class Kaggle:
    """One account, connected."""

    def __init__(self) -> None:
        """Authenticate.

        Raises:
            UserError: no client, no credentials, or a redirection that the client would ignore.
        """
        where = os.environ.get("KAGGLE_API_ENVIRONMENT") or "PROD"
        if where not in ("PROD", "LOCALHOST"):
            rule = "KAGGLE_API_ENVIRONMENT must be unset: the client ignores other values and talks to the real Kaggle"
            raise UserError(rule, value=where, cure="unset it")
        # A folder named kaggle in the current folder can be imported, as an empty package.
        if importlib.util.find_spec("kaggle") is None or importlib.util.find_spec("kaggle.api") is None:
            raise UserError("a push needs Kaggle's client", value="not installed", cure="pip install kaggle six")
        with contextlib.redirect_stdout(sys.stderr), as_user_error("Kaggle must let you in"):
            client: Any = importlib.import_module("kaggle.api.kaggle_api_extended")
            self._api = client.KaggleApi()
            try:
                self._api.authenticate()
            except SystemExit as stop:
                rule, cure = "a push needs Kaggle credentials", "put your API token into ~/.kaggle/kaggle.json"
                raise UserError(rule, value="none found", cure=cure) from stop

    def upload_wheels(self, names: Names, folder: Path, *, notes: str) -> None:
        """Create the data set or its next version.

        Raises:
            UserError: Kaggle's refusal.
        """
        hub: Any = importlib.import_module("kagglehub")
        what = f"the data set {names.wheels_id} must be uploaded"
        self._upload(lambda: hub.dataset_upload(names.wheels_id, str(folder), notes, _NOT_UPLOADED), what, folder)

    def upload_model(self, names: Names, folder: Path, *, notes: str, licence: str) -> None:
        """Create the model or its next version.

        Raises:
            UserError: Kaggle's refusal.
        """
        hub: Any = importlib.import_module("kagglehub")
        what = f"the model {names.model_instance} must be uploaded"
        self._upload(
            lambda: hub.model_upload(names.model_instance, str(folder), licence, notes, _NOT_UPLOADED), what, folder
        )

    def _upload(self, upload: Callable[[], None], what: str, folder: Path) -> None:
        files = sum(path.is_file() for path in folder.rglob("*"))
        if files > FILES_MAX:
            rule = f"an upload must have at most {FILES_MAX} files: more become one archive"
            raise UserError(rule, value=f"{files} in {folder}", cure="leave some out, or merge the weights' shards")
        with as_user_error(what):
            # kagglehub itself resumes after a cut connection; an error that ends it is tried again from the start.
            _try_again(upload, what=what, tries=_UPLOAD_TRIES)

    def wheels_ready(self, names: Names) -> bool:
        """Return whether the data set can be mounted.

        Raises:
            UserError: Kaggle could not unpack it.
        """
        with as_user_error(f"the data set {names.wheels_id} must become ready"):
            status = str(self._api.dataset_status(names.wheels_id)).lower()
        if "failed" in status or "error" in status:
            rule = f"Kaggle must unpack the data set {names.wheels_id}"
            raise UserError(rule, value=status, cure="look at its page, delete the version and push again")
        return status == "ready"

    def model_version(self, names: Names) -> int:
        """Return the newest version of the model's instance on Kaggle; 0 where there is none."""
        requests: Any = importlib.import_module("requests")
        with as_user_error(f"the model {names.model_instance} must be readable"):
            try:
                instance = self._api.model_instance_get(names.model_instance)
            except requests.HTTPError as error:
                if error.response is not None and error.response.status_code in (403, 404):
                    return 0
                raise
        return int(instance.version_number)

    def save_kernel(self, folder: Path) -> Saved:
        """Push notebook and metadata; Kaggle runs the notebook at once.

        Raises:
            UserError: Kaggle's error, or sources that it dropped.
        """
        with as_user_error("Kaggle must accept the notebook"), contextlib.redirect_stdout(sys.stderr):
            reply = _try_again(lambda: self._api.kernels_push(str(folder)), what="push", tries=_UPLOAD_TRIES)
        if reply.error:
            raise UserError("Kaggle must accept the notebook", value=reply.error, cure="mend what it says, push again")
        dropped = {name: list(sources) for name in _DROPPED if (sources := getattr(reply, name))}
        if dropped:
            shown = "; ".join(
                f"{name.removeprefix('invalid_')} {', '.join(sources)}" for name, sources in dropped.items()
            )
            rule = f"Kaggle must accept every source; it saved version {reply.version_number} without some"
            raise UserError(rule, value=shown, cure="check owner, slug and version of each, build and push again")
        return Saved(version=int(reply.version_number), url=str(reply.url))

    def kernel_runs(self, names: Names) -> bool:
        """Return whether the notebook is still queued or running.

        Raises:
            UserError: it ended with an error.
        """
        with as_user_error("the notebook's status must be readable"):
            status = self._api.kernels_status(names.kernel_id)
        word = str(getattr(status.status, "name", status.status)).upper()
        if word in _RUNNING:
            return True
        if word != "COMPLETE":
            rule = "the notebook must run through on Kaggle"
            value = " ".join(f"{word} {status.failure_message or ''}".split())
            raise UserError(rule, value=value, cure="read its log on Kaggle, mend the cause, build and rehearse again")
        return False

    def fetch_output(self, names: Names, folder: Path) -> list[Path]:
        """Download what the notebook wrote; return the files."""
        with as_user_error("the notebook's output must be fetched"), contextlib.redirect_stdout(sys.stderr):
            files, _ = self._api.kernels_output(names.kernel_id, str(folder), force=True)
        return [Path(file) for file in files]

    def submit(
        self, names: Names, *, competition_slug: str, version: int, message: str, file_name: str = SUBMISSION
    ) -> int:
        """Submit a version of the notebook; return the submission's number."""
        with as_user_error("Kaggle must accept the submission"):
            reply = self._api.competition_submit_code(
                file_name, message, competition=competition_slug, kernel=names.kernel_id, kernel_version=version
            )
        return int(reply.ref)

    def score(self, number: int) -> float | None:
        """Return the public score of a submission; None while it runs.

        Raises:
            UserError: it ended without one.
        """
        types: Any = importlib.import_module("kagglesdk.competitions.types.competition_api_service")
        request = types.ApiGetSubmissionRequest()
        request.ref = number
        with as_user_error("the submission must be readable"), self._api.build_kaggle_client() as client:
            submission = client.competitions.competition_api_client.get_submission(request)
        word = str(getattr(submission.status, "name", submission.status)).upper()
        if word == "PENDING":
            return None
        if word != "COMPLETE" or not submission.public_score:
            value = " ".join(f"{word} {submission.error_description or ''}".split())
            raise UserError("a submission must end with a score", value=value, cure="look at it on Kaggle")
        return float(submission.public_score)


@contextlib.contextmanager
def as_user_error(rule: str) -> Iterator[None]:
    """Turn the clients' errors into a UserError with this rule."""
    requests: Any = importlib.import_module("requests")
    hub: Any = importlib.import_module("kagglehub.exceptions")
    try:
        yield
    except (requests.RequestException, hub.BackendError, hub.CredentialError, hub.UnauthenticatedError) as error:
        response = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        text = " ".join(f"{f'HTTP {status}: ' if status else ''}{error}".split())[:300]
        raise UserError(rule, value=text, cure=_CURES.get(status or 0, "mend what it says and run it again")) from error
    except ValueError as error:
        # The client raises it where its own checks of the metadata fail.
        raise UserError(rule, value=str(error)[:300], cure="mend what it says and run it again") from error


_CURES = {
    401: "make a new API token on your Kaggle account page",
    403: "check that the owner is you and that you joined the competition",
    429: "wait some minutes: Kaggle limits the rate of requests",
    503: "Kaggle is down; run the same command later, it goes on where it stopped",
}


def _try_again(call: Callable[[], T], *, what: str, tries: int) -> T:
    """Return the call's result; try it again where Kaggle asks to wait or is down."""
    for attempt in range(1, tries + 1):
        try:
            return call()
        except Exception as error:
            # Two clients with two families of errors: only status and text say whether trying again may help.
            wait_s = _wait_s(error, attempt=attempt)
            if wait_s is None or attempt == tries:
                raise
            print(f"{what}: {str(error)[:100]}; again in {wait_s:g} s", file=sys.stderr)
            time.sleep(wait_s)
    raise AssertionError("unreachable")


def _wait_s(error: Exception, *, attempt: int) -> float | None:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status == 429:
        return float(response.headers.get("Retry-After") or 5 * attempt) if response is not None else 5.0 * attempt
    down = status in (500, 502, 503, 504) or any(f"status code {code}" in str(error) for code in (500, 502, 503))
    return 2.0 * attempt if down else None
