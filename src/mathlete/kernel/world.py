"""The packages that the engine's process alone sees: vLLM and what it needs in other versions than Kaggle's image has.

They are installed from the mounted wheels, with the hashes of their lock and without an index, into a folder of their
own, while the model's weights are read into the page cache beside it: both wait for the disk. The notebook's process
never has the folder on its path, so it keeps the image's protobuf, numpy and the rest.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mathlete.folders import list_weights
from mathlete.kaggle_image import VLLM_LOCK
from mathlete.kernel.causes import find_cause_of_end
from mathlete.kernel.engine import EngineError

_PIECE = 2**24
"""Bytes that are read at once."""
_READERS = 4
"""Files, or parts of one, that are read side by side: a network disk gives one reader a fraction of what it has."""


class InstalledWorld:
    """Installs wheels into a folder in a thread of its own; the first `wait` after its end returns or raises."""

    def __init__(
        self,
        wheels: Path,
        folder: Path,
        *,
        model: Path,
        log: Path,
        on_done: Callable[[Mapping[str, object]], None] = lambda facts: None,
    ) -> None:
        """Begin.

        Args:
            wheels: the mounted folder, which holds the lock and the wheels.
            folder: where the packages go.
            model: the model's folder, whose weights are read.
            log: the file that the installer's words are added to.
            on_done: called with the seconds of each part, from the thread.
        """
        self.folder = folder
        self._wheels, self._model, self._log, self._on_done = wheels, model, log, on_done
        self._trouble = ""
        self._done = threading.Event()
        threading.Thread(target=self._prepare, name="mathlete-world", daemon=True).start()

    def wait(self, *, timeout_s: float) -> None:
        """Return once the packages are there.

        Raises:
            EngineError: they cannot be installed, or were not within the time.
        """
        if not self._done.wait(timeout_s):
            raise EngineError(f"vLLM's packages were not installed within {timeout_s:.0f} s")
        if self._trouble:
            raise EngineError(f"vLLM's packages cannot be installed: {self._trouble}")

    def _prepare(self) -> None:
        facts = dict[str, object]()
        reader = threading.Thread(target=self._read, args=(facts,), name="mathlete-weights", daemon=True)
        reader.start()
        began = time.monotonic()
        try:
            self._trouble = install(self._wheels, self.folder, log=self._log)
        except Exception as error:
            # A thread's border: whatever goes wrong here must reach `wait`, and the ladder goes on without vLLM.
            self._trouble = f"{type(error).__name__}: {error}"
        facts |= {"install_s": round(time.monotonic() - began, 1)}
        if self._trouble:
            facts["trouble"] = self._trouble
        self._done.set()
        reader.join()
        self._on_done(facts)

    def _read(self, facts: dict[str, object]) -> None:
        began = time.monotonic()
        size = read_into_cache(list_weights(self._model))
        facts |= {"read_s": round(time.monotonic() - began, 1), "read_gib": round(size / 2**30, 2)}


def install(wheels: Path, folder: Path, *, log: Path) -> str:
    """Install the wheels of a lock into a folder; return what went wrong, empty where nothing did."""
    lock = next(wheels.rglob(VLLM_LOCK), None) if wheels.is_dir() else None
    if lock is None:
        return f"no {VLLM_LOCK} in {wheels}"
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--require-hashes"]
    command += ["--no-compile", "--no-warn-script-location", "--quiet", "--disable-pip-version-check"]
    command += ["--find-links", str(lock.parent), "--target", str(folder), "--requirement", str(lock)]
    with log.open("ab") as file:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.PIPE, check=False)
        file.write(done.stderr)
    return find_cause_of_end(done.stderr.decode(errors="replace")) if done.returncode else ""


def read_into_cache(files: Sequence[Path]) -> int:
    """Read files side by side, so that the system has them in memory when they are read again; return their bytes.

    A file that cannot be read counts as nothing: who reads it next tells better what is wrong.
    """
    parts = [
        (file, start, part)
        for file in files
        for size in [file.stat().st_size]
        for part in [-(-size // _READERS)]
        for start in range(0, size, max(1, part))
    ]
    with ThreadPoolExecutor(_READERS, thread_name_prefix="mathlete-read") as pool:
        return sum(pool.map(lambda part: _read_part(*part), parts))


def _read_part(file: Path, start: int, size: int) -> int:
    read = 0
    try:
        with file.open("rb", buffering=0) as data:
            data.seek(start)
            while read < size and (piece := data.read(min(_PIECE, size - read))):
                read += len(piece)
    except OSError:
        return read
    return read
