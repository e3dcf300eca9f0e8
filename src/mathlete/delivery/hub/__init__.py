"""A run's model on the Hugging Face hub: adapter, merged model or export, by the way that Kaggle's models go, too.

`choose_upload` says what a push would send, and checks it; `push_to_hub` sends it through a connected `Hub`, once, into
a repository that is private where nobody said otherwise.

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
from mathlete.delivery.hub.push import HubUpload, Pushed, choose_upload, push_to_hub

__all__ = ["Hub", "HubUpload", "Pushed", "choose_upload", "push_to_hub"]
