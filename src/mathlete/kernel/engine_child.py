"""The engine's own process: `python -m mathlete.kernel.engine_child`, one JSON value a line in and out.

In: first {"model", "engine", "vllm", "max_tokens", "scores", "precision", "threads", "tools", "prompt"}; then
{"request", "problem", "seeds", "config"}, {"request", "problem", "cut", "max_tokens", "timeout_s"} or {"cancel"}.
Out: {"ready", "engine", "opens_thoughts"} once the model is loaded; {"request", "sample"} as each finishes,
{"request", "done"} or {"request", "error"}. End of input ends the process and all that it started, at any moment.
"""

import json
import os
import select
import signal
import sys
import threading
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any, TextIO

from mathlete.engines import EngineSettings, open_engine
from mathlete.kernel.vocabularies import show_vocabularies
from mathlete.lost import EngineGone
from mathlete.models import Device, find_model
from mathlete.problems import Problem
from mathlete.prompts import PromptSettings
from mathlete.sampling import Sample, Sampler, SamplingConfig
from mathlete.sampling.served import VllmSettings
from mathlete.temporary import remove_own
from mathlete.tir import ToolSampler, ToolSettings

Command = Mapping[str, Any]
"""A parsed line of the input."""
_GONE = 70
"""Exit code where the engine has ended while this process lived on (EX_SOFTWARE of sysexits.h)."""


def open_sampler(settings: Mapping[str, Any], facts: dict[str, object] | None = None) -> Sampler:
    """Open the engine over the model that the settings name; add to `facts` how its prompts end."""
    engine = open_engine(
        EngineSettings(
            name=settings.get("engine", "transformers"),
            source=replace(find_model(settings["model"]), prompt=PromptSettings.from_json(settings.get("prompt", {}))),
            max_tokens=settings.get("max_tokens"),
            scores=settings.get("scores", True),
            own=(VllmSettings(**settings.get("vllm", {})),),
            precision=settings["precision"],
            threads=settings["threads"],
            tools=ToolSettings(**settings["tools"]),
        )
    )
    if isinstance(engine.sampler, ToolSampler):
        print(f"the model's programs run behind: {', '.join(engine.sampler.layers)}", file=sys.stderr, flush=True)
    if facts is not None:
        facts["opens_thoughts"] = engine.opens_thoughts
    return engine.sampler


class Replies:
    """Writes lines to the parent, from many threads."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._lock = file, threading.Lock()

    def send(self, **value: object) -> None:
        """Send one line at once."""
        with self._lock:
            self._file.write(json.dumps(value) + "\n")
            self._file.flush()


def serve(commands: TextIO, replies: Replies, sampler: Sampler) -> None:
    """Answer requests until the input ends."""
    cancelled: set[int] = set()
    for line in commands:
        command = json.loads(line)
        if "cancel" in command:
            cancelled.add(command["cancel"])
        else:
            arguments = (command, cancelled, replies, sampler)
            threading.Thread(target=_stream, args=arguments, daemon=True).start()


def _stream(command: Command, cancelled: set[int], replies: Replies, sampler: Sampler) -> None:
    number = command["request"]
    try:
        with closing(_draw(command, sampler)) as stream:
            for sample in stream:
                if number in cancelled:
                    break
                replies.send(request=number, sample=sample.to_json())
    except EngineGone as error:
        # Nothing will ever come of this process; the parent starts another, or another engine.
        print(*str(error).split(), file=sys.stderr, flush=True)
        remove_own()
        os._exit(_GONE)
    except Exception as error:
        # Errors cross to the parent as text; it raises an EngineError of it.
        replies.send(request=number, error=f"{type(error).__name__}: {error}"[:500])
    else:
        replies.send(request=number, done=True)


def _draw(command: Command, sampler: Sampler) -> Generator[Sample, None, None]:
    """Return the samples that a request asks for: new ones, or what those that were cut must answer."""
    problem = Problem(**command["problem"])
    if "cut" in command:
        cut = [Sample.from_json(row, where="the request") for row in command["cut"]]
        how = {name: command[name] for name in ("max_tokens", "timeout_s")}
        return sampler.force_answers(problem, cut=cut, **how)
    seeds = {int(index): seed for index, seed in command["seeds"].items()}
    draw = sampler.stream_all if command.get("keep") else sampler.stream
    return draw(problem, seeds=seeds, config=SamplingConfig.from_json(command["config"]))


def end_with_input() -> None:
    """Have this process and its group end as soon as nobody can write commands any more, though a model is loading."""
    poll = select.poll()
    poll.register(sys.stdin.fileno(), 0)

    def wait() -> None:
        poll.poll()
        remove_own()
        os.killpg(0, signal.SIGKILL)  # the group is its own: vLLM's processes are in it

    threading.Thread(target=wait, daemon=True).start()


def describe_torch() -> dict[str, object]:
    """Return what torch computes on in this process, and in what type; with vLLM's version where that is the engine."""
    import torch

    device, vllm = Device.current(), sys.modules.get("vllm")
    return {
        **({"vllm": str(getattr(vllm, "__version__", ""))} if vllm else {}),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "device": device.name,
        "memory_gib": round(device.memory_gib, 1),
        "capability": device.capability,
        "dtype": device.dtype,
    }


def main() -> None:
    """Load the model that the first line names, then serve."""
    replies = Replies(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    # What a library prints on stdout must not get between the lines: it goes to stderr, which is the log.
    os.dup2(2, 1)
    end_with_input()
    show_vocabularies()
    facts: dict[str, object] = {}
    sampler = open_sampler(json.loads(sys.stdin.readline()), facts)
    replies.send(ready=True, engine=describe_torch(), **facts)
    serve(sys.stdin, replies, sampler)


if __name__ == "__main__":
    main()
