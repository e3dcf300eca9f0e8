"""The hub's own client, with its errors told apart: what asking again may mend, and what a person must.

Facts it rests on, read in huggingface_hub 2.4.0: a commit is one request, sent once (`retry_on_error` is off), after
the files' contents; contents that did not change make no commit; a repository that the token may not see answers 404.
"""

import contextlib
import importlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mathlete.accounts import OFFLINE, is_offline
from mathlete.delivery.asking import Unanswered
from mathlete.delivery.refusals import BUSY, LATER, REFUSED_UNDONE, seconds_to_wait
from mathlete.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_CURES = {
    401: "make a new token at the hub's settings/tokens, and put it into HF_TOKEN or run `hf auth login`",
    403: "use a token that may write to this account's repositories",
    404: "check the account in --repo, and that the token may see it",
}


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository on the hub, as far as a push must know it."""

    private: bool
    commits: int
    """On its main branch."""


class Hub:
    """One account, connected. Looks and acts raise `Unanswered` where the hub did not say how they ended."""

    def __init__(self) -> None:
        """Find the token.

        Raises:
            UserError: the user forbids the network, or there is no token.
        """
        if is_offline(os.environ):
            value = next(name for name in OFFLINE if os.environ.get(name))
            raise UserError("a push must be allowed to reach the hub", value=f"{value} is set", cure=f"unset {value}")
        hub = importlib.import_module("huggingface_hub")
        with as_hub_error("the hub's token must be readable"):
            token = hub.get_token()
        if token is None:
            cure = (
                "make one that may write at the hub's settings/tokens, and put it into HF_TOKEN or run `hf auth login`"
            )
            raise UserError("a push needs a token of the hub", value="none", cure=cure)
        self._api: HfApi = hub.HfApi(token=token)

    @property
    def account(self) -> str:
        """The name of the account whose token it is."""
        with as_hub_error("the hub must let you in"):
            return str(self._api.whoami(cache=True)["name"])

    def find(self, repo: str) -> Repository | None:
        """Return the repository; None where there is none, or none that this token may see."""
        errors = importlib.import_module("huggingface_hub.errors")
        with as_hub_error(f"{repo} must be readable"):
            try:
                private = bool(self._api.model_info(repo).private)
                return Repository(private=private, commits=len(self._api.list_repo_commits(repo)))
            except errors.RepositoryNotFoundError:
                return None

    def create(self, repo: str, *, private: bool) -> None:
        """Make an empty repository; one that is there stays as it is, so that it may be repeated."""
        with as_hub_error(f"{repo} must be made"):
            self._api.create_repo(repo, private=private, repo_type="model", exist_ok=True)

    def list_files(self, repo: str) -> list[str]:
        """Return the names of the files on a repository's main branch."""
        with as_hub_error(f"{repo} must be readable"):
            return sorted(self._api.list_repo_files(repo))

    def commit(self, repo: str, folder: Path, files: Sequence[Path], *, delete: Sequence[str], message: str) -> str:
        """Add a folder's files to a repository, and delete others of its own, in one commit, an act; return the commit.

        Args:
            repo: its name.
            folder: the model's.
            files: which of its files, relative to it.
            delete: names of the repository's files.
            message: the commit's.
        """
        hub = importlib.import_module("huggingface_hub")
        with as_hub_error(f"{repo} must take the files"):
            operations = [
                *(hub.CommitOperationAdd(file.as_posix(), folder / file) for file in files),
                *map(hub.CommitOperationDelete, delete),
            ]
            return str(self._api.create_commit(repo, operations, commit_message=message).oid)

    def page(self, repo: str) -> str:
        """Return the address of a repository's page."""
        return f"{self._api.endpoint}/{repo}"


@contextlib.contextmanager
def as_hub_error(rule: str) -> Iterator[None]:
    """Turn the client's errors into user's errors with this rule: `Unanswered` where asking again may help."""
    errors = importlib.import_module("huggingface_hub.errors")
    httpx = importlib.import_module("httpx")
    try:
        yield
    except (errors.HfHubHTTPError, httpx.HTTPError) as error:
        raise _explain(error, rule, sent=True) from error
    except (OSError, RuntimeError) as error:
        # The upload of a file's content, which comes before the commit: nothing has counted.
        cause = error.__cause__
        if isinstance(cause, (errors.HfHubHTTPError, httpx.HTTPError)):
            raise _explain(cause, rule, sent=False) from error
        if isinstance(error, OSError):
            raise
        cure = "run the same command again; with HF_HUB_DISABLE_XET=1 the client takes its older protocol"
        value = " ".join(f"{error} {f'({cause})' if cause else ''}".split())[:300]
        raise UserError(rule, value=value, cure=cure) from error
    except json.JSONDecodeError as error:
        # A proxy's page in place of an answer.
        raise Unanswered(rule, value="an answer that is no JSON", cure=LATER, may_count=False) from error
    except ValueError as error:
        # Its own checks: a name that the hub does not take, a card that it does not.
        value = " ".join(str(error).split())[:300]
        raise UserError(rule, value=value, cure="mend what it says and run it again") from error


def _explain(error: Exception, rule: str, *, sent: bool) -> UserError:
    """Return the user's error for an HTTP status, or for a request that got no answer.

    Args:
        error: the client's.
        rule: what must hold.
        sent: whether the request that failed may have counted.
    """
    httpx = importlib.import_module("httpx")
    response = getattr(error, "response", None)
    if response is None:
        text = f"no answer ({type(error).__name__}: {error})"[:300]
        may_count = sent and not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        return Unanswered(rule, value=text, cure=LATER, may_count=may_count)
    status = int(response.status_code)
    said = getattr(error, "server_message", None) or str(error)
    text = f"HTTP {status}: {' '.join(said.split())}"[:300]
    if status in BUSY or status >= 500:
        may_count = sent and status not in REFUSED_UNDONE
        return Unanswered(rule, value=text, cure=LATER, wait_s=seconds_to_wait(error), may_count=may_count)
    return UserError(rule, value=text, cure=_CURES.get(status, "mend what it says and run it again"))
