"""Notebook and gateway without namespaces: `python -m mathlete.rehearsal.unisolated RUN`, an `UnisolatedRun` in JSON.

/kaggle/input is a folder of links and the notebook's packages have a fresh one; both paths are put into its text. The
network is blocked by the interpreter only; disk and inputs are not protected. The report says so: its `isolation` is
`interpreter`.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from mathlete.rehearsal.containers import UnisolatedRun, kill_tree

_INPUT, _PACKAGES = "/kaggle/input", "/tmp/mathlete-packages"
"""Paths in the notebook's text."""
_GRACE_S = 5.0
"""Seconds in which the gateway may notice by itself that the notebook ended."""


def main(run: UnisolatedRun) -> None:
    """Run notebook and gateway to their end; write their exit codes."""
    folder = Path(run.folder)
    inputs, working = folder / "input", folder / "notebook"
    for name, target in run.mounts.items():
        link = inputs / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    text = Path(run.notebook).read_text(encoding="utf-8").replace(_INPUT, str(inputs))
    # pip keeps what is in a target folder already: in this machine's /tmp the notebook would run an earlier build.
    text = text.replace(_PACKAGES, str(folder / "packages"))
    (working / "__notebook__.ipynb").write_text(text, encoding="utf-8")
    if run.probe:
        probe = run.probe.replace(_INPUT, str(inputs))
        with (folder / "probe.log").open("wb") as log:
            subprocess.run([run.python, "-c", probe], cwd=working, stdout=log, stderr=subprocess.STDOUT, check=False)
    with (folder / "notebook.log").open("wb") as log:
        notebook = subprocess.Popen(
            [*run.papermill, "__notebook__.ipynb", "executed.ipynb"], cwd=working, stdout=log, stderr=subprocess.STDOUT
        )
        if run.gateway:
            _run_gateway(run, folder, notebook)
            # One that has ended is gone, and its number may be another process's.
            if notebook.poll() is None:
                kill_tree(notebook.pid)
        code = notebook.wait()
    (folder / "notebook.code").write_text(str(code))


def _run_gateway(run: UnisolatedRun, folder: Path, notebook: subprocess.Popen[bytes]) -> None:
    local = ["localhost" if word == "inference_server" else word for word in run.gateway]
    for name, target in run.gateway_mounts.items():
        local = [word.replace(f"/kaggle/input/{name}", target) for word in local]
    # PYTHONPATH holds what blocks the network, for the notebook only.
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (folder / "gateway.log").open("wb") as log:
        gateway = subprocess.Popen(local, cwd=folder / "gateway", stdout=log, stderr=subprocess.STDOUT, env=variables)
        while gateway.poll() is None:
            if notebook.poll() is not None:
                # Without a namespace the host name still resolves after the notebook died; stop the gateway ourselves.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    gateway.wait(_GRACE_S)
                gateway.kill()
            time.sleep(0.1)
    (folder / "gateway.code").write_text(str(gateway.wait()))


def end_all_by_sigterm() -> None:
    """Have SIGTERM, which the kernel sends where the rehearsal was killed, end all that this process has started."""
    signal.signal(signal.SIGTERM, lambda number, frame: kill_tree(os.getpid()))


if __name__ == "__main__":
    end_all_by_sigterm()
    main(UnisolatedRun(**json.loads(sys.argv[1])))
