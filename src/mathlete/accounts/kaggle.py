"""Kaggle credentials: where they stand and whose they are, in the order in which Kaggle's own clients look.

The order, read in kaggle 2.2.4 (`authenticate`) and kagglesdk 0.1.38 (`get_access_token_from_env`): KAGGLE_API_TOKEN, a
token or a file with one; ~/.kaggle/access_token or access_token.txt; KAGGLE_USERNAME and KAGGLE_KEY, each of which
replaces what kaggle.json says; ~/.kaggle/credentials.json of `kaggle auth login`. No secret is read but to see that it
is there.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from mathlete.errors import UserError
from mathlete.text import parse_json

_RULE = "Kaggle credentials must be there"
_CURE = (
    "make an API token on your Kaggle account page and put it into KAGGLE_API_TOKEN or ~/.kaggle/access_token; or put "
    "kaggle.json, with username and key, into ~/.kaggle; or run `kaggle auth login`"
)


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """The credentials that Kaggle's clients will use."""

    where: str
    """The variable or file that holds them."""
    owner: str
    """The account that they name; empty where only Kaggle can tell, as for a token."""


def find_credentials() -> Credentials | None:
    """Return the credentials of this machine; None where there are none.

    Raises:
        UserError: a file of credentials can't be read.
    """
    return _find_token() or _find_key() or _find_login()


def missing_credentials(value: str) -> UserError:
    """Return the one error about credentials."""
    return UserError(_RULE, value=value, cure=_CURE)


def _home() -> Path:
    return Path.home() / ".kaggle"


def _find_token() -> Credentials | None:
    if given := os.environ.get("KAGGLE_API_TOKEN"):
        file = Path(given)
        # A token may be longer than a file's name may be.
        if len(given) < 200 and file.exists():
            return Credentials(where=f"KAGGLE_API_TOKEN, {file}", owner="") if _read(file).strip() else None
        return Credentials(where="KAGGLE_API_TOKEN", owner="")
    for file in (_home() / "access_token", _home() / "access_token.txt"):
        if file.is_file() and _read(file).strip():
            return Credentials(where=str(file), owner="")
    return None


def _find_key() -> Credentials | None:
    file = _key_file()
    stored = _read_record(file) if file.is_file() else {}
    username, key = (_read_variable(name) for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"))
    owner = username or stored.get("username")
    if owner and (key or stored.get("key")):
        with_key = "and KAGGLE_KEY" if key else f"with the key of {file}"
        return Credentials(where=f"KAGGLE_USERNAME {with_key}" if username else str(file), owner=str(owner))
    if file.is_file() and not (username or key):
        raise missing_credentials(f"{file} without username and key")
    return None


def _read_variable(name: str) -> str | None:
    value = os.environ.get(name)
    if value is not None and value != value.strip():
        # Kaggle's client would send them too; a secret that was read from a file often ends in a line break.
        rule = f"{name} must have no blanks or line breaks around it"
        raise UserError(rule, value=f"{len(value)} characters, {len(value.strip())} without them", cure="set it anew")
    return value


def _key_file() -> Path:
    if folder := os.environ.get("KAGGLE_CONFIG_DIR"):
        return Path(folder) / "kaggle.json"
    other = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "kaggle"
    return (_home() if _home().exists() else other) / "kaggle.json"


def _find_login() -> Credentials | None:
    file = _home() / "credentials.json"
    stored = _read_record(file) if file.is_file() else {}
    return (
        Credentials(where=str(file), owner=str(stored.get("username") or "")) if stored.get("refresh_token") else None
    )


def _read_record(file: Path) -> dict[str, object]:
    text, why = _read(file), ""
    try:
        value = parse_json(text)
    except ValueError as error:
        value, why = None, f" ({error})"
    if not isinstance(value, dict):
        raise missing_credentials(f"{file}, which holds no JSON object{why}")
    return value


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise missing_credentials(f"{file}, which can't be read ({error})") from error
