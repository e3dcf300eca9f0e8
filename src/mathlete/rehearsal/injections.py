"""How a fault is put for real into a rehearsal (`mathlete.rehearsal.fault_matrix` lists them).

A fault changes the draft before the rehearsal: one more cell before the notebook serves (it patches the installed
package, or starts another engine), other mounts, another test.csv, less disk. At the moment it strikes, `mark()` in the
injected code leaves a mark. For what is changed outside the notebook, a probe in its container sees the change and
leaves the mark. A fault that leaves none has tested nothing.
"""

import csv
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from mathlete.rehearsal.containers import NOTEBOOK_LOG, PROBE_LOG, Disks
from mathlete.rehearsal.draft import Draft, Part
from mathlete.submission import with_cell

Inject = Callable[[Draft], None]
_MARKS = "struck.txt"
# The file outlives a killed kernel, the log outlives a full disk and a container that is ended from outside.
MARK = f"""\
def mark():
    import contextlib, sys
    with contextlib.suppress(OSError), open({_MARKS!r}, "a") as file:
        print("struck", {{name!r}}, file=file)
    print("struck", {{name!r}}, file=sys.stderr, flush=True)


"""
TEXT = """\
for sample in self.sampler.stream(problem, seeds=seeds, config=config):
            mark()
            yield replace(sample, text={0!r})
        return"""
"""Body of an engine whose samples all say the same."""


def has_struck(name: str, stage: Path) -> bool:
    """Return whether the fault of that name left its mark in the folder of a stage."""
    files = (stage / PROBE_LOG, stage / NOTEBOOK_LOG, stage / "notebook" / _MARKS)
    texts = (file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file())
    # At the end of a line only: a traceback in the log shows the line that would print the mark.
    return any(re.search(rf"\bstruck {re.escape(name)}$", text, re.MULTILINE) for text in texts)


# By their names in JSON, which the wheels of an older build have, too.
CLOCK = "clock = CONFIG.to_json(); "
"""Gives the code of a cell the notebook's clock, as clock['wall_s']."""


LITTLE_RAM = "import resource; resource.setrlimit(resource.RLIMIT_AS, (600 * 2**20,) * 2); mark()"
"""A process may have 600 MiB."""


def cell(source: str, *, before: str = "serve") -> Inject:
    """Put one more cell into the notebook, before the cell of a tag; its source calls `mark()` when it strikes."""

    def inject(draft: Draft) -> None:
        draft.text = with_cell(draft.text, source=MARK.format(name=draft.fault) + source, before=before)

    return inject


def run_instead_of_solving(statement: str) -> Inject:
    """Have the solve loop run a statement instead, in the first question only; later ones are solved as ever."""
    return cell(f"""\
import sys, time
import mathlete.kernel.answering as answering
_solve, _calls = answering.solve, []


def solve(problem, **more):
    _calls.append(problem)
    if len(_calls) == 1:
        mark()
        {statement}
    return _solve(problem, **more)


answering.solve = solve
""")


def engine(body: str, *, on: str = "stream") -> Inject:
    """Have the engine's process run a body first, which calls `mark()` when it strikes.

    `sampler`, `problem`, `seeds` and `config` are at hand in "stream", `settings` in "open".
    """
    code = f"""\
import os, signal, sys, time
from dataclasses import replace
import mathlete.kernel.engine_child as child
_open, _calls = child.open_sampler, []


class Faulty:
    name = "faulty"

    def __init__(self, sampler):
        self.sampler = sampler

    def stream(self, problem, *, seeds, config):
        _calls.append(problem)
        {body if on == "stream" else "pass"}
        yield from self.sampler.stream(problem, seeds=seeds, config=config)

    def close(self):
        self.sampler.close()


def open_sampler(settings, *more):
    {body if on == "open" else "pass"}
    return Faulty(_open(settings, *more))


child.open_sampler = open_sampler
child.main()
"""

    def inject(draft: Draft) -> None:
        # The process is another one than the notebook's, so it has a `mark` of its own.
        marking = MARK.format(name=draft.fault) + code
        draft.text = with_cell(
            draft.text,
            source=f"""\
import sys
from mathlete.kernel.engine import EngineProcess

EngineProcess.__init__.__kwdefaults__["command"] = (sys.executable, "-c", {marking!r})
""",
        )

    return inject


def replace_texts(text: str) -> Inject:
    """Have every second question's samples say this."""
    body = TEXT.format(text).replace("\n", "\n    ")
    return engine(f"""if len(_calls) % 2 == 0:
            {body}""")


def replace_predict(body: str, *, strikes_in: int = 1) -> Inject:
    """Give the notebook a `predict` of its own, without our server around it.

    `turn` counts its calls from 1; ID and ANSWER are the submission's columns, GOOD is an answer that it may hold.
    """
    return cell(f"""\
import itertools, os, signal, sys, time
import numpy as np
import pandas as pd
import polars as pl
import mathlete.kernel.server as server

turns = itertools.count(1)
ID, ANSWER = CONFIG.competition.submission_columns
GOOD = CONFIG.fallback


def predict(identity, problem):
    row, turn = identity.item(), next(turns)
    if turn >= {strikes_in}:
        mark()
    {body}


server.make_predict = lambda answerer, rules: predict
""")


def probe_container(seen: str, *, place: str = "") -> Inject:
    """Mark where the expression `seen` is true in the notebook's container, before the notebook starts.

    `place`, a path there, is at hand in it, and `promised(FILE)`: how many bytes a safetensors file should have.
    """

    def inject(draft: Draft) -> None:
        draft.probe = f"""\
import glob, json, os, zipfile

place = {place!r}


def promised(file):
    data = open(file, "rb").read()
    length = 8 + int.from_bytes(data[:8], "little")
    tensors = json.loads(data[8:length])
    return length + max(tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__")


{MARK.format(name=draft.fault)}if {seen}:
    mark()
"""

    return inject


def _find_mount(draft: Draft, part: Part) -> tuple[str, str]:
    """Return the name of an input, and the folder where the notebook sees it."""
    name, _ = draft.mounts[part]
    return name, f"/kaggle/input/{name}"


def unmount(part: Part) -> Inject:
    """Do not mount an input."""

    def inject(draft: Draft) -> None:
        name, place = _find_mount(draft, part)
        del draft.inputs[name]
        probe_container("os.path.isdir('/kaggle/input') and not os.path.exists(place)", place=place)(draft)

    return inject


def spoil_input(part: Part, spoil: Callable[[Path], None], *, seen: str) -> Inject:
    """Mount a spoilt copy of an input; the expression `seen` is true where it is, `place` being its folder."""

    def inject(draft: Draft) -> None:
        name, place = _find_mount(draft, part)
        copy = draft.folder / f"spoilt-{part}"
        shutil.copytree(draft.inputs[name], copy)
        spoil(copy)
        draft.inputs[name] = copy
        probe_container(f"os.path.isdir(place) and {seen}", place=place)(draft)

    return inject


def delete_wheels(folder: Path) -> None:
    """Delete every wheel."""
    for wheel in folder.glob("*.whl"):
        wheel.unlink()


def retag_wheel(folder: Path) -> None:
    """Have the project's wheel say that it is for Windows."""
    for wheel in folder.glob("mathlete-*.whl"):
        wheel.rename(wheel.with_name(wheel.name.replace("py3-none-any", "cp39-cp39-win_amd64")))


def cut_wheel(folder: Path) -> None:
    """Cut the project's wheel off."""
    for wheel in folder.glob("mathlete-*.whl"):
        wheel.write_bytes(wheel.read_bytes()[:5000])


def unpack_wheel(folder: Path) -> None:
    """Make a folder of the project's wheel."""
    for wheel in folder.glob("mathlete-*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(wheel.with_suffix(""))
        wheel.unlink()


def delete_tokenizer(folder: Path) -> None:
    """Delete the export's tokenizer."""
    (folder / "tokenizer.json").unlink()


def cut_model() -> Inject:
    """Mount the model with half of its weights."""
    file = "place + '/model.safetensors'"
    return spoil_input("model", _cut_weights, seen=f"os.path.getsize({file}) < promised({file})")


def _cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def mount_model_in_other_layout(draft: Draft) -> None:
    """Mount the model as in the other layout, whatever that of the rest."""
    name, other = draft.mounts["model"]
    draft.inputs[other] = draft.inputs.pop(name)
    place = f"/kaggle/input/{name}"
    probe_container(f"os.path.isdir('/kaggle/input/{other}') and not os.path.exists(place)", place=place)(draft)


def rewrite_test_rows(change: Callable[[list[list[str]]], list[list[str]]], *, seen: str) -> Inject:
    """Change the rows of the hidden test.csv; `seen` is true of the `columns` that reach predict in a changed row."""

    def inject(draft: Draft) -> None:
        with draft.test.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.reader(lines))
        with draft.test.open("w", encoding="utf-8", newline="") as lines:
            csv.writer(lines).writerows(change(rows))
        cell(f"""\
import mathlete.kernel.server as server
_make_predict = server.make_predict


def make_predict(answerer, rules):
    guarded = _make_predict(answerer, rules)

    def predict(*columns):
        if {seen}:
            mark()
        return guarded(*columns)

    return predict


server.make_predict = make_predict
""")(draft)

    return inject


def on_disks(disks: Disks) -> Inject:
    """Give the notebook other disks."""

    def inject(draft: Draft) -> None:
        draft.disks = disks

    return inject


def combine(*faults: Inject) -> Inject:
    """Do several changes."""

    def inject(draft: Draft) -> None:
        for fault in faults:
            fault(draft)

    return inject


def start_within(limit_s: float) -> Inject:
    """Shorten the start-up limit: a gateway that looks on the wrong ports waits for all of it."""

    def inject(draft: Draft) -> None:
        draft.startup_s = limit_s * draft.slow

    return inject


def start_slowly(draft: Draft) -> None:
    """Have the server come up after the start-up limit, which is shortened to 12 s."""
    draft.startup_s = 12.0
    cell("mark()\ntime.sleep(60)")(draft)


def edit_notebook(*pairs: tuple[str, str]) -> Inject:
    """Replace parts of the notebook's text, each (old, new); the new may call `mark()`."""

    def inject(draft: Draft) -> None:
        for old, new in pairs:
            assert old in draft.text
            draft.text = draft.text.replace(old, new)
        cell("", before="start")(draft)

    return inject


def stop_after(limit_s: float) -> Inject:
    """Break the rehearsal off so early: for faults that would never end."""

    def inject(draft: Draft) -> None:
        draft.limit_s = limit_s * draft.slow

    return inject
