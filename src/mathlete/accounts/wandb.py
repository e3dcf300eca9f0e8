"""The key of Weights & Biases."""

import netrc
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

_SERVER = "https://api.wandb.ai"
_VARIABLES = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")


def find_wandb_key(variables: Mapping[str, str]) -> str:
    """Return where the key of Weights & Biases is; "" where there is none.

    Its order, read in wandb 0.31.0 (`sdk/lib/wbauth`): the variables, then the netrc file's entry of the server.
    """
    if name := next((name for name in _VARIABLES if variables.get(name, "").strip()), ""):
        return name
    given = variables.get("NETRC")
    file = Path(given).expanduser() if given else Path.home() / ".netrc"
    server = urlsplit(variables.get("WANDB_BASE_URL") or _SERVER).netloc
    try:
        entry = netrc.netrc(file).authenticators(server)
    except (OSError, ValueError, netrc.NetrcParseError):
        return ""  # a netrc that can't be read is none to wandb, too
    return str(file) if entry and entry[2] else ""
