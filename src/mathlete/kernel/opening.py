"""The notebook's inference server, made before anything else can take its port.

`open_server` is also pasted into the notebook, which calls it before this package is installed: it must stay
self-contained.
"""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path


def open_server(folder: Path, module: str, name: str, port: int = 50051) -> tuple[object, list[Callable[..., object]]]:
    """Return the competition's server, whose port is bound from now on, and a list whose last item is its `predict`.

    Args:
        folder: the competition's data, which holds kaggle_evaluation.
        module: the module of the server inside kaggle_evaluation; from 1.4.0 on it may lie in a sub-package.
        name: the server's class.
        port: where the gateways look first.

    Raises:
        FileNotFoundError: there is no such module; the message lists what is there.
        RuntimeError: the server got another port in a commit run. A gateway of 1.4.0 would never find it in the rerun.
    """
    package, parts = folder / "kaggle_evaluation", module.split(".")
    places = [package.joinpath(*parts).with_suffix(".py"), *sorted(package.rglob(f"{parts[-1]}.py"))]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        there = sorted(str(path.relative_to(package)) for path in package.rglob("*.py"))[:20]
        raise FileNotFoundError(f"{package} has no module {parts[-1]}; it holds {there}")
    sys.path.insert(0, str(folder))
    library = importlib.import_module(".".join(file.relative_to(folder).with_suffix("").parts))
    answerers: list[Callable[..., object]] = []

    def predict(*columns: object) -> object:
        return answerers[-1](*columns)

    server = getattr(library, name)(predict)
    if (bound := getattr(server, "port", port)) != port:
        text = f"port {port} is taken: the server got {bound}, where a rerun's gateway may never look"
        if os.environ.get("KAGGLE_IS_COMPETITION_RERUN") is None:
            raise RuntimeError(text)
        print(text, file=sys.stderr, flush=True)
    return server, answerers
