"""Kaggle's real clients, with every reply checked: their command line exits 0 on most failures, this raises.

Facts it rests on, read in kaggle 2.2.4 and kagglehub 1.0.3: `kernels_push` answers HTTP 200 with an `error` or with
`invalid_*` lists where a source was dropped, and the notebook is saved without it; the invalid model sources are never
printed; importing `kaggle` authenticates, and prints its help where there are no credentials. The requests for a
notebook's status, output and source take a version as `v3` and else answer for the newest one (kaggle-cli issue 1200).
"""

import contextlib
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mathlete.accounts import find_credentials, missing_credentials
from mathlete.delivery.asking import Unanswered
from mathlete.delivery.ledger import Saved
from mathlete.delivery.refusals import LATER, as_user_error, limit_answers, status_of
from mathlete.delivery.uploads import NOT_UPLOADED, require_few_files
from mathlete.errors import UserError
from mathlete.kernel import SUBMISSION
from mathlete.submission import Names

_SOURCES = ("model_sources", "dataset_sources", "competition_sources", "kernel_sources")


@dataclass(frozen=True, kw_only=True)
class NewestVersion:
    """The newest version of the notebook."""

    version: int
    """0 where there is no notebook yet."""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Session:
    """How far the run of a version is."""

    state: str
    """Kaggle's own word, such as RUNNING."""
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One submission to a competition."""

    number: int
    state: str
    """Kaggle's own word, such as PENDING."""
    description: str = ""
    score: str = ""
    """The public score."""
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a version's run has written so far."""

    files: dict[str, str] = field(default_factory=dict)
    """{name: where to download it}."""
    log: str = ""


class Kaggle:
    """One account, connected. Looks and acts raise `Unanswered` where Kaggle did not say how they ended."""

    def __init__(self, *, answer_max_s: float = 60.0) -> None:
        """Authenticate.

        Args:
            answer_max_s: seconds without a byte after which a request counts as unanswered.

        Raises:
            UserError: no client, no credentials, or a redirection that the client would ignore.
        """
        where = os.environ.get("KAGGLE_API_ENVIRONMENT") or "PROD"
        if where not in ("PROD", "LOCALHOST"):
            rule = "KAGGLE_API_ENVIRONMENT must be unset: the client ignores other values and talks to the real Kaggle"
            raise UserError(rule, value=where, cure="unset it")
        credentials = find_credentials()
        if credentials is None:
            raise missing_credentials("none")
        self._answer_max_s = answer_max_s
        self.credentials = credentials.where
        """Where they stand."""
        with contextlib.redirect_stdout(sys.stderr), as_user_error("Kaggle must let you in"):
            self._api = _import_client(answer_max_s).KaggleApi()
            self._authenticate()
            self._share_with_hub(is_token=not credentials.owner)
        self.account = str(self._api.config_values[self._api.CONFIG_NAME_USER])
        """The account's name."""

    def _authenticate(self) -> None:
        try:
            # Where it finds nothing that holds, the client prints its help and leaves the process.
            with contextlib.redirect_stdout(None):
                self._api.authenticate()
        except SystemExit as stop:
            raise missing_credentials(f"{self.credentials}, which Kaggle does not accept") from stop

    def _share_with_hub(self, *, is_token: bool) -> None:
        """Give kagglehub the credentials: it looks into fewer places and knows no `kaggle auth login`."""
        hub = importlib.import_module("kagglehub.config")
        values = self._api.config_values
        if token := values.get(self._api.CONFIG_NAME_TOKEN):
            hub.set_kaggle_api_token(token)
        elif is_token:
            # The client goes on with kaggle.json and still sends the token with every request.
            raise missing_credentials(f"{self.credentials}, which Kaggle does not accept")
        else:
            hub.set_kaggle_credentials(values[self._api.CONFIG_NAME_USER], values[self._api.CONFIG_NAME_KEY])

    def _call(self, service: str, request: object) -> dict[str, Any]:
        """Send the SDK's request; return the reply's JSON, in which a word that the SDK does not know is no error."""
        name = type(request).__name__.removeprefix("Api").removesuffix("Request")
        with self._api.build_kaggle_client() as client:
            reply = client.http_client().call(service, name, request, _Json)
        return dict(reply)

    def upload_wheels(self, names: Names, folder: Path, *, notes: str) -> None:
        """Create the data set or its next version: an act.

        Raises:
            UserError: Kaggle's refusal.
        """
        hub = importlib.import_module("kagglehub")
        what = f"the data set {names.wheels_id} must be uploaded"
        self._upload(lambda: hub.dataset_upload(names.wheels_id, str(folder), notes, NOT_UPLOADED), what, folder)

    def upload_model(self, names: Names, folder: Path, *, notes: str, licence: str) -> None:
        """Create the model or its next version: an act.

        Raises:
            UserError: Kaggle's refusal.
        """
        hub = importlib.import_module("kagglehub")
        what = f"the model {names.model_instance} must be uploaded"
        self._upload(
            lambda: hub.model_upload(names.model_instance, str(folder), licence, notes, NOT_UPLOADED), what, folder
        )

    def _upload(self, upload: Callable[[], None], what: str, folder: Path) -> None:
        require_few_files(folder)
        # kagglehub itself resumes after a cut connection.
        with as_user_error(what):
            upload()

    def wheels_version(self, names: Names) -> int:
        """Return the newest version of the data set; 0 where there is none, or none that can be seen yet."""
        types = importlib.import_module("kagglesdk.datasets.types.dataset_api_service")
        request = types.ApiGetDatasetRequest()
        request.owner_slug, request.dataset_slug = names.owner, names.wheels
        return self._version("datasets.DatasetApiService", request, "currentVersionNumber", what=names.wheels_id)

    def model_version(self, names: Names) -> int:
        """Return the newest version of the model's instance; 0 where there is none, or none that can be seen yet."""
        types = importlib.import_module("kagglesdk.models.types.model_api_service")
        frameworks = importlib.import_module("kagglesdk.models.types.model_enums")
        request = types.ApiGetModelInstanceRequest()
        parts = names.model_instance.split("/")
        request.owner_slug, request.model_slug, framework, request.instance_slug = parts
        # PY_TORCH is written pyTorch in the name of a source.
        known = {each.name.replace("_", "").lower(): each for each in frameworks.ModelFramework}
        if (word := f"modelframework{framework.lower()}") not in known:
            cure = "check each part of --model-source"
            raise UserError("Kaggle must know the framework of a model", value=framework, cure=cure)
        request.framework = known[word]
        return self._version("models.ModelApiService", request, "versionNumber", what=names.model_instance)

    def _version(self, service: str, request: object, key: str, *, what: str) -> int:
        reply = self._call_if_there(service, request, rule=f"{what} must be readable")
        return int(reply.get(key) or 0)

    def _call_if_there(self, service: str, request: object, *, rule: str) -> dict[str, Any]:
        """Return the reply; {} where what is asked for is not there: private things that are missing answer 403."""
        requests = importlib.import_module("requests")
        with as_user_error(rule):
            try:
                return self._call(service, request)
            except requests.HTTPError as error:
                if status_of(error) in (403, 404):
                    return {}
                raise

    def wheels_ready(self, names: Names) -> bool:
        """Return whether the data set can be mounted.

        Raises:
            UserError: Kaggle could not unpack it.
        """
        types = importlib.import_module("kagglesdk.datasets.types.dataset_api_service")
        request = types.ApiGetDatasetStatusRequest()
        request.owner_slug, request.dataset_slug = names.owner, names.wheels
        # A data set that is still being processed answers 403 or 404.
        with as_user_error(f"the data set {names.wheels_id} must become ready", early=(403, 404)):
            status = str(self._call("datasets.DatasetApiService", request).get("status", "NOT_YET_PERSISTED")).upper()
        if any(word in status for word in ("FAILED", "DELETED", "ERROR")):
            rule = f"Kaggle must unpack the data set {names.wheels_id}"
            raise UserError(rule, value=status, cure="look at its page, delete the version and push again")
        return status == "READY"

    def save_kernel(self, folder: Path) -> Saved:
        """Push notebook and metadata, which Kaggle runs at once: an act.

        Raises:
            UserError: Kaggle's error.
        """
        rule = "Kaggle must accept the notebook"
        with as_user_error(rule), contextlib.redirect_stdout(sys.stderr):
            reply = self._api.kernels_push(str(folder))
        if "session count" in str(reply.error).lower():
            cure = "wait until one of your notebooks has ended, or stop it on Kaggle, and push again"
            raise Unanswered(rule, value=reply.error, cure=cure, may_count=False)
        if reply.error:
            raise UserError(rule, value=reply.error, cure="mend what it says, push again")
        dropped = {name: list(sources) for name in _SOURCES if (sources := getattr(reply, f"invalid_{name}"))}
        return Saved(
            version=_number_of(reply.version_number, rule=rule),
            url=str(reply.url),
            dropped="; ".join(f"{name} {', '.join(sources)}" for name, sources in dropped.items()),
            unknown_tags=tuple(map(str, reply.invalid_tags or ())),
        )

    def head(self, names: Names) -> NewestVersion:
        """Return the newest version of the notebook and its source."""
        request = self._of_kernel("ApiGetKernelRequest", names)
        reply = self._call_if_there(_KERNELS, request, rule=f"the notebook {names.kernel_id} must be readable")
        version = int((reply.get("metadata") or {}).get("currentVersionNumber") or 0)
        return NewestVersion(version=version, source=str((reply.get("blob") or {}).get("source") or ""))

    def session(self, names: Names, *, version: int) -> Session:
        """Return how far the run of a version is."""
        request = self._of_kernel("ApiGetKernelSessionStatusRequest", names, version=version)
        # A notebook that was never saved before may not be visible yet.
        with as_user_error("the notebook's status must be readable", early=(403, 404)):
            reply = self._call(_KERNELS, request)
        # Words that stand for 0 may be left out of the JSON.
        return Session(
            state=str(reply.get("status") or "QUEUED").upper(),
            failure=" ".join(str(reply.get("failureMessage") or "").split()),
        )

    def output(self, names: Names, *, version: int) -> Output:
        """Return what a version's run has written: names and addresses of the files, and the log."""
        request = self._of_kernel("ApiListKernelSessionOutputRequest", names, version=version)
        request.page_size = 100
        files, log = dict[str, str](), ""
        while True:
            with as_user_error("the notebook's output must be listed", early=(403, 404)):
                reply = self._call(_KERNELS, request)
            files |= {str(item["fileName"]): str(item["url"]) for item in reply.get("files") or []}
            log = str(reply.get("log") or "") or log
            token = str(reply.get("nextPageToken") or "")
            if not token or token == request.page_token:
                return Output(files=files, log=log)
            request.page_token = token

    def download(self, url: str, file: Path) -> None:
        """Download one file of an output, whole or not at all."""
        requests = importlib.import_module("requests")
        part = file.with_name(f"{file.name}.part")
        # An address of an output holds for some minutes only; the next listing has new ones.
        rule = f"{file.name} of the notebook's output must be fetched"
        with (
            as_user_error(rule, early=(400, 403, 404)),
            requests.get(url, stream=True, timeout=self._answer_max_s) as reply,
            part.open("wb") as into,
        ):
            reply.raise_for_status()
            if "html" in str(reply.headers.get("Content-Type")) and "htm" not in file.suffix:
                # A proxy's page, or one of Kaggle's own about its maintenance.
                raise Unanswered(rule, value="a page in place of the file", cure="run the same command again later")
            for piece in reply.iter_content(2**20):
                into.write(piece)
        part.replace(file)

    def _of_kernel(self, kind: str, names: Names, *, version: int = 0) -> Any:
        types = importlib.import_module("kagglesdk.kernels.types.kernels_api_service")
        request = getattr(types, kind)()
        request.user_name, request.kernel_slug = names.owner, names.kernel
        if version and hasattr(request, "version_label"):
            request.version_label = f"v{version}"
        return request

    def submit(
        self, names: Names, *, competition_slug: str, version: int, message: str, file_name: str = SUBMISSION
    ) -> int:
        """Submit a version of the notebook, an act; return the submission's number."""
        rule = "Kaggle must accept the submission"
        with as_user_error(rule):
            reply = self._api.competition_submit_code(
                file_name, message, competition=competition_slug, kernel=names.kernel_id, kernel_version=version
            )
        return _number_of(reply.ref, rule=rule)

    def submit_file(self, file: Path, *, competition_slug: str, message: str) -> int:
        """Upload a file as a submission, an act; return the submission's number."""
        rule = "Kaggle must accept the submission"
        # The client prints a bar of its own, also where it is told to be quiet.
        with as_user_error(rule), contextlib.redirect_stdout(sys.stderr):
            reply = self._api.competition_submit(str(file), message, competition=competition_slug, quiet=True)
        if reply.message == self._api.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE:
            raise Unanswered(rule, value=f"{file.name} was not uploaded", cure=LATER, may_count=False)
        return _number_of(reply.ref, rule=rule)

    def submissions(self, competition_slug: str) -> list[Submission]:
        """Return the newest submissions to a competition, newest first."""
        types = importlib.import_module("kagglesdk.competitions.types.competition_api_service")
        request = types.ApiListSubmissionsRequest()
        request.competition_name, request.page_size = competition_slug, 100
        with as_user_error("your submissions must be listed"):
            reply = self._call(_COMPETITIONS, request)
        return [_submission(one) for one in reply.get("submissions") or [] if one.get("ref")]

    def submission(self, number: int) -> Submission:
        """Return one submission."""
        types = importlib.import_module("kagglesdk.competitions.types.competition_api_service")
        request = types.ApiGetSubmissionRequest()
        request.ref = number
        with as_user_error("the submission must be readable", early=(404,)):
            return _submission({"ref": number, **self._call(_COMPETITIONS, request)})

    def submissions_left(self, competition_slug: str) -> tuple[int, int]:
        """Return how many submissions Kaggle still takes today, and how many there were today."""
        with as_user_error("today's submissions must be readable"):
            limits = self._api.competition_get_submission_limits(competition_slug)
        return int(limits.num_allowed_now or 0), int(limits.num_today or 0)

    def gpu_hours_left(self) -> float | None:
        """Return the hours left of this week's GPU quota; None where Kaggle does not tell."""
        with as_user_error("the GPU quota must be readable"):
            quota = self._api.quota_view().gpu_quota if hasattr(self._api, "quota_view") else None
        if quota is None or not quota.total_time_allowed:
            return None
        used = (quota.time_used, quota.time_reserved)
        left = quota.total_time_allowed.total_seconds() - sum(time.total_seconds() for time in used if time)
        return float(max(left, 0.0)) / 3600


def _import_client(answer_max_s: float) -> Any:
    missing = UserError("a push needs Kaggle's client", value="not installed", cure="pip install kaggle six")
    # A folder named kaggle in the current folder can be imported, as an empty package.
    if importlib.util.find_spec("kaggle") is None or importlib.util.find_spec("kagglesdk") is None:
        raise missing
    # Before the import, which asks Kaggle whose token this is.
    limit_answers(answer_max_s)
    if importlib.util.find_spec("kaggle.api") is None:
        raise missing
    return importlib.import_module("kaggle.api.kaggle_api_extended")


_KERNELS, _COMPETITIONS = "kernels.KernelsApiService", "competitions.CompetitionApiService"


class _Json:
    """What the SDK makes of a reply in place of its own record: the JSON as it came."""

    @staticmethod
    def prepare_from(response: Any) -> dict[str, Any]:
        """Parse a reply.

        Raises:
            InvalidJSONError: of requests; it is no JSON object.
        """
        exceptions = importlib.import_module("requests.exceptions")
        value = response.json()
        if not isinstance(value, dict):
            raise exceptions.InvalidJSONError(f"no JSON object: {json.dumps(value)[:80]}", response=response)
        return value


def _number_of(value: object, *, rule: str) -> int:
    """Return the number that Kaggle gave to what it did.

    Raises:
        Unanswered: its reply has none.
    """
    if isinstance(value, int) and value > 0:
        return value
    raise Unanswered(rule, value="a reply without a number", cure="run the same command again: it looks first")


def _submission(reply: dict[str, Any]) -> Submission:
    return Submission(
        number=int(reply["ref"]),
        # Words that stand for 0 may be left out of the JSON.
        state=str(reply.get("status") or "PENDING").upper(),
        description=str(reply.get("description") or ""),
        score=str(reply.get("publicScore") or ""),
        failure=" ".join(str(reply.get("errorDescription") or "").split()),
    )
