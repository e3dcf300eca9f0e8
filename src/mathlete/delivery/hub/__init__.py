"""A run's model, adapter, merged model or export, on the Hugging Face hub or among Kaggle's models, by one way.

`choose_upload` says what a push would send, and checks it; `push_to_hub` sends it through a connected `Hub`, once, into
a repository that is private where nobody said otherwise. `choose_kaggle_upload` and `push_to_kaggle` do the same with
one of Kaggle's models.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as run:
...     (Path(run) / "export").mkdir()
...     for name in ("model.safetensors", "manifest.json"):
...         _ = (Path(run) / "export" / name).write_text("{}")
...     [str(file) for file in HubUpload(run=Path(run), part="export", repo="alice/math").files]
['model.safetensors']
"""

from mathlete.delivery.hub.client import Hub
from mathlete.delivery.hub.kaggle_models import KaggleUpload, choose_kaggle_upload, push_to_kaggle
from mathlete.delivery.hub.push import HubUpload, Pushed, choose_upload, push_to_hub

__all__ = [
    "Hub",
    "HubUpload",
    "KaggleUpload",
    "Pushed",
    "choose_kaggle_upload",
    "choose_upload",
    "push_to_hub",
    "push_to_kaggle",
]
