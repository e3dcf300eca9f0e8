"""How a fault is injected for real into a rehearsal (`mathlete.rehearsal.fault_matrix` lists them).

A fault changes the draft before the rehearsal: one more cell before the notebook serves (it patches the installed
package, or starts another engine), other mounts, another test.csv, less disk. Each must end in a full valid submission
or in a refusal with rule, value and cure; anything else is a lost day.
"""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from mathlete.rehearsal.draft import Draft
from mathlete.submission import with_cell

Inject = Callable[[Draft], None]


def cell(source: str) -> Inject:
    """One more cell before the notebook serves."""

    def inject(draft: Draft) -> None:
        draft.text = with_cell(draft.text, source=source)

    return inject


def solving(statement: str) -> Inject:
    """The solve loop does this instead, in the first question only; later ones are solved as ever."""
    return cell(f"""\
import sys, time
import mathlete.kernel.answering as answering
_solve, _calls = answering.solve, []


def solve(problem, **more):
    _calls.append(problem)
    if len(_calls) == 1:
        {statement}
    return _solve(problem, **more)


answering.solve = solve
""")


def engine(body: str, *, on: str = "stream") -> Inject:
    """The engine's process runs this first; `sampler` and `problem` are at hand in stream, `settings` in open."""
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


def opened(settings):
    {body if on == "open" else "pass"}
    return Faulty(_open(settings))


child.open_sampler = opened
child.main()
"""
    return cell(f"""\
import sys
from mathlete.kernel.engine import EngineProcess

EngineProcess.__init__.__kwdefaults__["command"] = (sys.executable, "-c", {code!r})
""")


TEXT = "yield from (replace(s, text={0!r}) for s in self.sampler.stream(problem, seeds=seeds, config=config)); return"


def saying(text: str) -> Inject:
    """Every second question's samples say this."""
    return engine(f"""if len(_calls) % 2 == 0:
            {TEXT.format(text)}""")


def raw(body: str) -> Inject:
    """A notebook whose own predict does this, without our server around it."""
    return cell(f"""\
import importlib, itertools, sys, time
import numpy as np
import pandas as pd
import polars as pl
import mathlete.kernel.server as server

turns = itertools.count(1)


def predict(identity, problem):
    row = identity.item()
    {body}


server.make_predict = lambda answerer, rules: predict
""")


def without(part: str) -> Inject:
    """An input is not mounted."""

    def inject(draft: Draft) -> None:
        draft.inputs = {name: path for name, path in draft.inputs.items() if part not in name}

    return inject


def _copied(draft: Draft, part: str) -> Path:
    """A copy of an input that a fault may spoil, mounted in its place."""
    name = next(name for name in draft.inputs if part in name)
    copy = draft.folder / f"spoilt-{part}"
    shutil.copytree(draft.inputs[name], copy)
    draft.inputs[name] = copy
    return copy


def empty_wheels(draft: Draft) -> None:
    """The data set holds no wheel."""
    for wheel in _copied(draft, "wheels").glob("*.whl"):
        wheel.unlink()


def wrong_tag(draft: Draft) -> None:
    """The project's wheel says it is for Windows."""
    for wheel in _copied(draft, "wheels").glob("mathlete-*.whl"):
        wheel.rename(wheel.with_name(wheel.name.replace("py3-none-any", "cp39-cp39-win_amd64")))


def broken_wheel(draft: Draft) -> None:
    """The project's wheel is cut off."""
    for wheel in _copied(draft, "wheels").glob("mathlete-*.whl"):
        wheel.write_bytes(wheel.read_bytes()[:5000])


def unpacked_wheel(draft: Draft) -> None:
    """The project's wheel arrives as a folder."""
    for wheel in _copied(draft, "wheels").glob("mathlete-*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(wheel.with_suffix(""))
        wheel.unlink()


def old_model(draft: Draft) -> None:
    """The model is mounted as before 2026."""
    name = next(name for name in draft.inputs if name.startswith("models/"))
    draft.inputs[name.split("/", 2)[2]] = draft.inputs.pop(name)


def no_tokenizer(draft: Draft) -> None:
    """The export has no tokenizer."""
    (_copied(draft, "model") / "tokenizer.json").unlink()


def cut_weights(draft: Draft) -> None:
    """Half of the weights are there."""
    file = _copied(draft, "model") / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def rewritten(change: Callable[[list[list[str]]], list[list[str]]]) -> Inject:
    """The hidden test.csv, rows changed."""

    def inject(draft: Draft) -> None:
        import csv

        with draft.test.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.reader(lines))
        with draft.test.open("w", encoding="utf-8", newline="") as lines:
            csv.writer(lines).writerows(change(rows))

    return inject


def staged(**settings: object) -> Inject:
    """Other settings of the stage."""
    return lambda draft: draft.stage.update(settings)


def both(*faults: Inject) -> Inject:
    """Several faults at once."""

    def inject(draft: Draft) -> None:
        for fault in faults:
            fault(draft)

    return inject


def slow_start(draft: Draft) -> None:
    """The server comes up after the start-up limit, which is shortened to 12 s."""
    draft.startup_s = 12.0
    cell("time.sleep(60)")(draft)


def edited(old: str, new: str) -> Inject:
    """The notebook's text is changed."""

    def inject(draft: Draft) -> None:
        assert old in draft.text
        draft.text = draft.text.replace(old, new)

    return inject


def broken_off(limit_s: float) -> Inject:
    """The rehearsal is broken off so early: for faults that would never end."""

    def inject(draft: Draft) -> None:
        draft.limit_s = limit_s

    return inject
