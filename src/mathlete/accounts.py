"""Whether this machine holds credentials of the hub and of Weights & Biases, and where; never what they say.

Kaggle's are `mathlete.delivery.find_credentials`.

>>> find_wandb_key({"WANDB_API_KEY": "secret"})
'WANDB_API_KEY'
"""

import netrc
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

_WANDB = "https://api.wandb.ai"
_WANDB_VARIABLES = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
_HUB_VARIABLES = ("HF_OIDC_RESOURCE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
"""Variables by which a user says that nothing may reach for a network."""


def is_offline(variables: Mapping[str, str]) -> bool:
    """Return whether the environment forbids the network, in the words that huggingface_hub takes.

    >>> is_offline({"HF_HUB_OFFLINE": "1"}), is_offline({"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"})
    (True, False)
    """
    return next(filter(None, map(variables.get, OFFLINE)), "").upper() in ("1", "ON", "YES", "TRUE")


def find_hub_token(variables: Mapping[str, str]) -> str:
    """Return where the token of the hub is that huggingface_hub will send; "" where there is none.

    Its order, read in huggingface_hub 2.4.0 (`utils/_auth.py`): the variables, then the file of `hf auth login`.
    """
    if name := _first_set(_HUB_VARIABLES, variables):
        return name
    cache = Path(variables.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    file = Path(variables.get("HF_TOKEN_PATH") or Path(variables.get("HF_HOME") or cache) / "token").expanduser()
    return str(file) if file.is_file() and file.stat().st_size else ""


def find_wandb_key(variables: Mapping[str, str]) -> str:
    """Return where the key of Weights & Biases is; "" where there is none.

    Its order, read in wandb 0.31.0 (`sdk/lib/wbauth`): the variables, then the netrc file's entry of the server.
    """
    if name := _first_set(_WANDB_VARIABLES, variables):
        return name
    given = variables.get("NETRC")
    file = Path(given).expanduser() if given else Path.home() / ".netrc"
    server = urlsplit(variables.get("WANDB_BASE_URL") or _WANDB).netloc
    try:
        entry = netrc.netrc(file).authenticators(server)
    except (OSError, ValueError, netrc.NetrcParseError):
        return ""  # a netrc that can't be read is none to wandb, too
    return str(file) if entry and entry[2] else ""


def _first_set(names: tuple[str, ...], variables: Mapping[str, str]) -> str:
    return next((name for name in names if variables.get(name, "").strip()), "")
