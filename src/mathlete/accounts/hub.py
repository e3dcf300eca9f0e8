"""The hub's token, and whether the hub may be asked at all."""

from collections.abc import Mapping
from pathlib import Path

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
"""Variables by which a user says that nothing may reach for a network."""
_VARIABLES = ("HF_OIDC_RESOURCE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def is_offline(variables: Mapping[str, str]) -> bool:
    """Return whether the environment forbids the network, in the words that huggingface_hub takes."""
    return next(filter(None, map(variables.get, OFFLINE)), "").upper() in ("1", "ON", "YES", "TRUE")


def find_hub_token(variables: Mapping[str, str]) -> str:
    """Return where the token of the hub is that huggingface_hub will send; "" where there is none.

    Its order, read in huggingface_hub 2.4.0 (`utils/_auth.py`): the variables, then the file of `hf auth login`.
    """
    if name := next((name for name in _VARIABLES if variables.get(name, "").strip()), ""):
        return name
    cache = Path(variables.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    file = Path(variables.get("HF_TOKEN_PATH") or Path(variables.get("HF_HOME") or cache) / "token").expanduser()
    return str(file) if file.is_file() and file.stat().st_size else ""
