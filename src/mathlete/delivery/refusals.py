"""What the errors of Kaggle's two clients mean: ask again later, or mend something.

Facts it rests on, read in kaggle 2.2.4, kagglehub 1.0.3 and kagglesdk 0.1.38: an error may come as HTTP 200 with a
`code` of 400 or more in its JSON; a failed upload is a BackendError with the status in its text; no request of the SDK
has a time limit.
"""

import contextlib
import importlib
import math
import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from mathlete.delivery.asking import Unanswered
from mathlete.errors import UserError

BUSY = (408, 425, 429)
"""Statuses below 500 that say: later. Those from 500 on all do."""
REFUSED_UNDONE = (425, 429)
"""Statuses that say that nothing was done."""
LATER = "wait some minutes and run the same command again: it goes on from here"
_CURES = {
    401: "make a new API token on your Kaggle account page",
    403: "check that the owner is you and that you joined the competition",
    429: "Kaggle limits the rate of requests; wait some minutes and run the same command again",
}


@contextlib.contextmanager
def as_user_error(rule: str, *, early: Collection[int] = ()) -> Iterator[None]:
    """Turn the clients' errors into user's errors with this rule: `Unanswered` where asking again may help.

    Args:
        rule: what must hold.
        early: HTTP statuses that mean here that it is too early.
    """
    requests = importlib.import_module("requests")
    hub = importlib.import_module("kagglehub.exceptions")
    try:
        yield
    except (requests.RequestException, hub.BackendError, hub.CredentialError, hub.UnauthenticatedError) as error:
        status = status_of(error)
        text = " ".join(f"{f'HTTP {status}: ' if status else ''}{error}".split())[:300]
        cure = _CURES.get(status or 0, "mend what it says and run it again")
        if status in early or _may_pass(error, status):
            # A status that means "too early" says as well that nothing was done.
            undone = status in (*REFUSED_UNDONE, *early) or _was_never_sent(error)
            raise Unanswered(
                rule, value=text, cure=LATER, wait_s=seconds_to_wait(error), may_count=not undone
            ) from error
        raise UserError(rule, value=text, cure=cure) from error
    except TypeError as error:
        # The SDK checks the types of a reply's fields, after the request has been carried out.
        value = f"a reply that Kaggle's client cannot read: {error}"
        raise Unanswered(rule, value=value[:300], cure=LATER) from error
    except ValueError as error:
        # The client raises it where its own checks of the metadata fail.
        raise UserError(rule, value=str(error)[:300], cure="mend what it says and run it again") from error


def status_of(error: Exception) -> int | None:
    """Return the HTTP status that an error stands for; None where there was no answer."""
    response = getattr(error, "response", None)
    if response is None:
        text = re.search(r"status code (\d{3})", str(error))
        return getattr(error, "error_code", None) or (int(text[1]) if text else None)
    if response.status_code < 400:
        with contextlib.suppress(ValueError, AttributeError):
            code = response.json().get("code")
            return code if isinstance(code, int) else None
        return None
    return int(response.status_code)


def _may_pass(error: Exception, status: int | None) -> bool:
    requests = importlib.import_module("requests")
    if status is not None:
        return status in BUSY or status >= 500
    if isinstance(error, requests.exceptions.SSLError):
        # A certificate stays wrong; a connection that was cut within the handshake does not.
        return "certificate" not in str(error).lower()
    # No JSON where there should be some: the page of a proxy, or an answer that was cut off.
    passing = ("ConnectionError", "Timeout", "ChunkedEncodingError", "ContentDecodingError", "InvalidJSONError")
    return isinstance(error, tuple(getattr(requests.exceptions, name) for name in passing))


def _was_never_sent(error: Exception) -> bool:
    requests = importlib.import_module("requests")
    return isinstance(error, requests.ConnectTimeout) or "NewConnectionError" in str(error)


def seconds_to_wait(error: Exception) -> float:
    """Return the seconds that a server asks to wait: its Retry-After is a number of seconds or a date (RFC 9110)."""
    response = getattr(error, "response", None)
    asked = str(response.headers.get("Retry-After") or "") if response is not None else ""
    with contextlib.suppress(ValueError):
        seconds = float(asked)
        # Some server's "nan" is no time to sleep.
        return max(seconds, 0.0) if math.isfinite(seconds) else 0.0
    with contextlib.suppress(ValueError, TypeError):
        date = parsedate_to_datetime(asked)
        return max((date - datetime.now(date.tzinfo or UTC)).total_seconds(), 0.0)
    return 0.0


def limit_answers(seconds: float) -> None:
    """Have both clients give up an answer after so many seconds without a byte; by themselves they wait for ever."""
    adapters: Any = importlib.import_module("requests.adapters")
    sdk = importlib.import_module("kagglesdk.kaggle_http_client")

    class Limited(adapters.HTTPAdapter):  # type: ignore[misc]
        def send(self, request: object, *, timeout: object = None, **how: object) -> object:
            return super().send(request, timeout=timeout or seconds, **how)

    client = sdk.KaggleHttpClient
    open_session = getattr(client._init_session, "unlimited", client._init_session)

    def open_limited(self: Any) -> object:
        new = self._session is None
        session = open_session(self)
        if new:
            for scheme in ("https://", "http://"):
                self._session.mount(scheme, Limited())
        return session

    # The SDK has no place for a time limit, and kagglehub opens the SDK's clients where nobody can reach them.
    open_limited.unlimited = open_session  # type: ignore[attr-defined]
    client._init_session = open_limited
