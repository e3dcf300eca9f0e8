"""Whose credentials this machine holds, and where: Kaggle's, the hub's, those of Weights & Biases.

Each `find_…` looks where the service's own client looks, in its order; none tells or keeps what a secret says, and none
asks a network. `is_offline` says whether the user forbids that.

>>> find_wandb_key({"WANDB_API_KEY": "secret"}), find_hub_token({"HF_TOKEN": "secret"})
('WANDB_API_KEY', 'HF_TOKEN')
>>> is_offline({"HF_HUB_OFFLINE": "1"}), is_offline({"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"})
(True, False)
"""

from mathlete.accounts.hub import OFFLINE, find_hub_token, is_offline
from mathlete.accounts.kaggle import Credentials, find_credentials, missing_credentials
from mathlete.accounts.wandb import find_wandb_key

__all__ = [
    "OFFLINE",
    "Credentials",
    "find_credentials",
    "find_hub_token",
    "find_wandb_key",
    "is_offline",
    "missing_credentials",
]
