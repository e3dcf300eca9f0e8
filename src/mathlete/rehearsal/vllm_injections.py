"""How a fault of vLLM is put into a rehearsal, where vLLM itself is too slow to boot for every one of them.

The notebook, its ladder, its watchdog and the process of each step are real. In the processes of vLLM's steps the own
decode loop draws in vLLM's place, and does what vLLM does when it fails: it says vLLM's very words and ends, says
nothing any more, is killed, or does for real what vLLM would, such as to write where nothing can be written. While it
loads it says nothing: that it goes on is seen as it is of vLLM, by what it reads. The packages that the notebook
installs are a stand-in's; the last step of the ladder is the embedded engine as it is.
"""

import zipfile
from hashlib import sha256
from pathlib import Path

from mathlete.kaggle_image import VLLM_LOCK
from mathlete.rehearsal.draft import Draft
from mathlete.rehearsal.injections import MARK, Inject
from mathlete.submission import with_cell

FIRST, SAFER, EVERY = ("vllm",), ("vllm", "vllm with safer settings"), ()
"""Steps of the ladder that a fault strikes: the first, the first two, all of vLLM's."""
_MODULE = "mathlete_vllm_stand_in"
_HASH = "--hash=sha256:"
_CHILD = """\
import os, signal, sys, time
from dataclasses import replace
import mathlete.kernel.engine_child as child
from mathlete.lost import EngineGone
_open, _calls = child.open_sampler, []
_again, _quiet_s = os.path.exists("struck.txt"), {quiet_s}


def say(text):
    print(text, file=sys.stderr, flush=True)


def name_step(given):
    if given["max_model_len"] is not None:
        return "vllm with half the context"
    if given["at_once"] > 64:
        return "vllm"
    alone = given["tensor_parallel"] == 1 and os.path.exists("/tmp/gpus")  # a CPU counts as one all the time
    return "vllm on one GPU" if alone else "vllm with safer settings"


class Faulty:
    name = "faulty"

    def __init__(self, sampler):
        self.sampler = sampler

    def stream(self, problem, *, seeds, config):
        _calls.append(problem)
        {on_stream}
        yield from self.sampler.stream(problem, seeds=seeds, config=config)

    def close(self):
        self.sampler.close()


def open_sampler(settings, *more):
    import {module}  # of the packages that the notebook installed for vLLM alone

    strikes = not {steps} or name_step(settings["vllm"]) in {steps}
    if strikes:
        {on_open}
    sampler = _open({{**settings, "engine": "transformers"}}, *more)
    return Faulty(sampler) if strikes else sampler


def open_embedded_or(settings, *more):
    return (open_sampler if settings["engine"] == "vllm" else _open)(settings, *more)


child.open_sampler = open_embedded_or
child.main()
"""
_CELL = """\
import sys
import mathlete.kernel.server as server
from mathlete.kernel.engine import EngineProcess

server.QUIET_S = {quiet_s}
EngineProcess.__init__.__kwdefaults__["command"] = (sys.executable, "-c", {code!r})
{setup}
"""
_GPUS = """\
import os

# As many GPUs as nvidia-smi tells of.
os.makedirs("/tmp/gpus", exist_ok=True)
with open("/tmp/gpus/nvidia-smi", "w") as file:
    file.write("#!/bin/sh\\n" + "echo 'NVIDIA L4, 23034, 8.9, 570.124.06'\\n" * {count})
os.chmod("/tmp/gpus/nvidia-smi", 0o755)
os.environ["PATH"] = "/tmp/gpus:" + os.environ["PATH"]
CONFIG = replace(CONFIG, vllm=replace(CONFIG.vllm, tensor_parallel={parallel}))
"""
_LIMIT = """
from mathlete.kernel import config_from

CONFIG = config_from({{**CONFIG.to_json(), "load_max_s": {load_max_s}}})
"""


def write_stand_in_wheels(folder: Path) -> None:
    """Write a wheel of one module, and the lock that names it, as vLLM's wheels lie in their folder."""
    info = f"{_MODULE}-1.0.dist-info"
    files = {
        f"{_MODULE}.py": '"""Stands in for vLLM\'s packages in a rehearsal with a fault."""\n',
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {_MODULE}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: mathlete\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    wheel = folder / f"{_MODULE}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(name, text)
    data = wheel.read_bytes()
    pin = f"{_MODULE.replace('_', '-')}==1.0 {_HASH}{sha256(data).hexdigest()}  # {len(data)} bytes\n"
    (folder / VLLM_LOCK).write_text(pin, encoding="utf-8")


def vllm_process(
    body: str = "pass",
    *,
    on: str = "open",
    steps: tuple[str, ...] = EVERY,
    quiet_s: float = 240.0,
    load_max_s: float | None = None,
    setup: str = "",
) -> Inject:
    """Have the processes of vLLM's steps run a body first, which calls `mark()` when it strikes.

    Args:
        body: what goes wrong; `settings` is at hand in "open", `problem`, `seeds`, `config` and `_calls` in "stream",
            and `_again`, whether an earlier process was struck; in both `_quiet_s`, the watchdog's seconds.
        on: "open", while it loads, or "stream", in a question.
        steps: those of the ladder that it strikes; empty: all of vLLM's.
        quiet_s: seconds without a sign of life after which the watchdog ends a step that loads, at the clock's fastest.
        load_max_s: seconds in which all steps must have loaded, likewise; None: the rehearsal's.
        setup: code of the notebook, before it serves.
    """

    def inject(draft: Draft) -> None:
        lines = body.replace("\n", "\n        ")
        filled = {"on_open": lines if on == "open" else "pass", "on_stream": lines if on == "stream" else "pass"}
        code = _CHILD.format(module=_MODULE, steps=repr(steps), quiet_s=quiet_s * draft.slow, **filled)
        marking = MARK.format(name=draft.fault) + code
        limit = "" if load_max_s is None else _LIMIT.format(load_max_s=load_max_s * draft.slow)
        cell = _CELL.format(quiet_s=quiet_s * draft.slow, code=marking, setup=setup + limit)
        draft.text = with_cell(draft.text, source=cell)

    return inject


def fails_with(words: str, *, steps: tuple[str, ...] = EVERY, setup: str = "") -> Inject:
    """Have the processes of vLLM's steps say these words of vLLM's while they load, and end."""
    return vllm_process(f"mark(); say({words!r}); os._exit(1)", steps=steps, setup=setup)


def show_gpus(count: int, *, parallel: int | None) -> str:
    """Return code by which the notebook sees so many GPUs, and vLLM is asked to share the model among `parallel`."""
    return _GPUS.format(count=count, parallel=parallel)


def delete_wheel(folder: Path) -> None:
    """Delete the first wheel."""
    sorted(folder.glob("*.whl"))[0].unlink()


def change_wheel(folder: Path) -> None:
    """Change the first wheel, so that its hash is another than in the lock."""
    wheel = sorted(folder.glob("*.whl"))[0]
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("changed.txt", "changed")
