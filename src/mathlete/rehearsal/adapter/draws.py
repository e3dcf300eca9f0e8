"""What an adapter answers beside its base: drawn by vLLM as the organiser draws it, and by peft to compare with.

Every answer is on the disk before the next ones are drawn, so that a killed rehearsal goes on where it was.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypedDict, cast

from mathlete.adapters import WEIGHTS
from mathlete.competitions import AdapterRules, SamplingRules
from mathlete.errors import UserError
from mathlete.jsonl import JsonLines
from mathlete.models import Device, ModelSource, load_model
from mathlete.rehearsal.adapter import child
from mathlete.runs import write_json
from mathlete.signals import Guard, ending_with_parent

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, device
    from transformers import PreTrainedTokenizerBase

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as its highest rank (0.19.1, config/lora.py)."""
_LOOK_S = 0.5
_AT_ONCE = 16
"""Prompts of one batch of peft's."""
VLLM_LOG = "vllm.log"
Watch = Callable[[int, int], None]
"""Told how many answers there are, and how many there will be."""


@dataclass(frozen=True, kw_only=True)
class DrawnTexts:
    """What was drawn for one prompt."""

    prompt_ids: tuple[int, ...]
    texts: tuple[str, ...]
    """One of each sample."""
    ids: tuple[tuple[int, ...], ...]
    finish: tuple[str, ...]
    """stop or length, by vLLM's words."""

    @classmethod
    def from_json(cls, row: "_Row") -> "DrawnTexts":
        """Return what a line of a file of draws holds."""
        samples = row["samples"]
        return cls(
            prompt_ids=tuple(row["prompt_ids"]),
            texts=tuple(one["text"] for one in samples),
            ids=tuple(tuple(one["ids"]) for one in samples),
            finish=tuple(one["finish"] for one in samples),
        )


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Answers of one model to the prompts, in a file of their own."""

    file: Path

    def read(self, name: str) -> dict[str, DrawnTexts]:
        """Return {problem id: what was drawn} under a name."""
        return {row["id"]: DrawnTexts.from_json(row) for row in self._rows() if row.get("draw") == name}

    def facts(self) -> dict[str, object]:
        """Return what drew them: versions and the type that it computed in."""
        return dict(next((row for row in self._rows() if "draw" not in row), {}))

    def _rows(self) -> list["_Row"]:
        return [cast("_Row", row) for _, row in JsonLines(self.file).read()]


class _Sample(TypedDict):
    """One answer, as a line has it."""

    ids: list[int]
    text: str
    finish: str


class _Row(TypedDict, total=False):
    """A line of a file of draws: an answered prompt, or what answers."""

    draw: str
    id: str
    prompt_ids: list[int]
    samples: list[_Sample]


def draw_with_vllm(
    draws: Draws,
    *,
    python: Path,
    base: ModelSource,
    adapter: Path,
    rules: AdapterRules,
    sampling: Mapping[str, SamplingRules],
    prompts: Mapping[str, str],
    dtype: str,
    watch: Watch,
) -> None:
    """Draw with vLLM in a process of another Python, as far as it is not drawn yet.

    Args:
        draws: where the answers go.
        python: the interpreter of an environment that has vLLM.
        base: the base, which is loaded as it is.
        adapter: folder of the adapter.
        rules: what the competition says of an adapter.
        sampling: {name of a draw: how it samples}; all have the same room for a prompt and its answer.
        prompts: {problem id: the prompt's text}, which vLLM makes tokens of, as the organiser has it do.
        dtype: what vLLM computes in; auto: what the base is stored in.
        watch: told how far it is.

    Raises:
        UserError: vLLM is not there, or refuses the base or the adapter.
    """
    settings = next(iter(sampling.values()))
    on_cpu = Device.current().capability is None
    names = ("max_model_len", "max_num_seqs", *(() if on_cpu else ("gpu_memory_utilization",)))
    said = {name: value for name in names if (value := getattr(settings, name)) is not None}
    job = {
        "engine": {
            "model": base.location,
            "dtype": dtype,
            "enable_lora": True,
            "max_lora_rank": next((rank for rank in _RANKS if rank >= rules.max_rank), rules.max_rank),
            "enforce_eager": on_cpu,
            **({"revision": base.revision} if base.revision else {}),
            **said,
        },
        "adapter": str(adapter.resolve()),
        "draws": [
            {"name": name, "sampling": to_vllm(one), "at_once": one.max_num_seqs or 64, "prompts": dict(prompts)}
            for name, one in sampling.items()
        ],
    }
    job_file, log = draws.file.with_suffix(".job.json"), draws.file.with_name(VLLM_LOG)
    write_json(job_file, job)
    command = [str(python), str(Path(child.__file__).resolve()), str(job_file), str(draws.file)]
    JsonLines(draws.file).cut_half_line()
    total = len(prompts) * len(sampling)
    with log.open("wb") as out:
        _run(command, out=out, eager=on_cpu, look=lambda: watch(_count(draws.file), total), log=log)
    watch(total, total)


def _run(command: Sequence[str], *, out: IO[bytes], eager: bool, look: Callable[[], None], log: Path) -> None:
    """Run vLLM's process to its end, and call `look` meanwhile; whatever ends this one, nothing of it stays.

    Raises:
        UserError: it ended with an error.
    """
    # vLLM's engine is a process of its own, which does not miss a killed parent.
    guard = Guard()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=out,
        env=_environment(eager=eager),
        start_new_session=True,
        preexec_fn=ending_with_parent(),
    )
    try:
        while process.poll() is None:
            look()
            time.sleep(_LOOK_S)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        guard.end()
    if process.returncode:
        raise UserError(
            "vLLM must load the adapter beside its base and answer", value=_last_error(log), cure=f"read {log}"
        )


def to_vllm(sampling: SamplingRules) -> dict[str, object]:
    """Return the arguments of vLLM's SamplingParams."""
    top_k, seed = sampling.top_k, sampling.seed
    return {
        "n": sampling.samples,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        **({} if top_k is None else {"top_k": top_k}),
        **({} if seed is None else {"seed": seed}),
    }


def _environment(*, eager: bool) -> dict[str, str]:
    """Return the environment of the other Python: none of this one's folders, and no network of vLLM's own.

    Without compiling at all where it is `eager`: vLLM's own switch leaves functions that are compiled at the first
    answer, which takes a CPU minutes.
    """
    kept = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    }
    usual = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    return {**usual, **({"TORCH_COMPILE_DISABLE": "1"} if eager else {}), **kept}


def _count(file: Path) -> int:
    return file.read_bytes().count(b'"draw"') if file.is_file() else 0


def _last_error(log: Path) -> str:
    """Return the first line of the log that names an error, of the process that it began in."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    errors = [line for line in lines if "Error: " in line or line.startswith("No module named")]
    return (errors or [line for line in lines if line] or ["nothing"])[-1 if not errors else 0][-400:]


def draw_with_peft(
    draws: Draws,
    *,
    base: ModelSource,
    adapter: Path,
    merged: bool,
    sampling: Mapping[str, SamplingRules],
    prompt_ids: Mapping[str, Sequence[int]],
    tokenizer: "PreTrainedTokenizerBase",
    dtype: str | None,
    watch: Watch,
) -> None:
    """Draw with transformers, the adapter beside the base by peft or merged into it, as far as it is not drawn yet.

    Args:
        draws: where the answers go.
        base: the base.
        adapter: folder of the adapter.
        merged: whether it becomes part of the weights first.
        sampling: {name of a draw: how it samples}.
        prompt_ids: {problem id: the prompt's tokens}.
        tokenizer: the base's.
        dtype: what is computed in, by torch's name; None: this device's own.
        watch: told how far it is.
    """
    JsonLines(draws.file).cut_half_line()
    done = {name: draws.read(name) for name in sampling}
    left = {name: [one for one in prompt_ids if one not in done[name]] for name in sampling}
    total = len(prompt_ids) * len(sampling)
    if not any(left.values()):
        watch(total, total)
        return
    import torch
    from peft import PeftModel

    model = PeftModel.from_pretrained(load_model(base, precision="dense", dtype=dtype), str(adapter)).eval()
    _require_loaded(model, adapter)
    generate: Callable[..., Tensor] = (model.merge_and_unload(safe_merge=True) if merged else model).generate
    first, lines = next(model.parameters()), JsonLines(draws.file)
    if not draws.facts():
        lines.append({"torch": torch.__version__, "dtype": str(first.dtype).removeprefix("torch.")})
    for name, how in sampling.items():
        # Prompts of like length share a batch, which is padded to its longest.
        ids = sorted(left[name], key=lambda one: (len(prompt_ids[one]), one))
        for start in range(0, len(ids), _AT_ONCE):
            some = {one: prompt_ids[one] for one in ids[start : start + _AT_ONCE]}
            for row in _generate(generate, base, some, how, tokenizer=tokenizer, device=first.device):
                lines.append({"draw": name, **row})
            watch(_count(draws.file), total)


def _require_loaded(model: "PeftModel", adapter: Path) -> None:
    """Check that peft has put every tensor of the adapter into a layer: it leaves others out with a warning.

    Raises:
        UserError: it has left some out.
    """
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(adapter / WEIGHTS, framework="np") as file:
        left_out = sorted({*file.keys()} - get_peft_model_state_dict(model, save_embedding_layers=False).keys())
    if left_out:
        raise UserError(
            "peft must load every tensor of the adapter, or its answers are no measure of vLLM's",
            value=f"{len(left_out)} left out, {left_out[0]} among them",
            cure="name the layers as transformers does: a model's own code may call them otherwise",
        )


def _generate(
    generate: "Callable[..., Tensor]",
    base: ModelSource,
    prompts: Mapping[str, Sequence[int]],
    how: SamplingRules,
    *,
    tokenizer: "PreTrainedTokenizerBase",
    device: "device",
) -> Iterator[dict[str, object]]:
    """Yield a row for each prompt of a batch, by transformers' own `generate`."""
    import torch
    from transformers import GenerationConfig

    ends = _list_ends(base, tokenizer)
    longest, pad = max(map(len, prompts.values())), ends[0]
    rows = [[pad] * (longest - len(ids)) + [*ids] for ids in prompts.values()]
    mask = [[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts.values()]
    greedy = how.temperature == 0
    drawing = {} if greedy else {"temperature": how.temperature, "top_p": how.top_p, "top_k": how.top_k or 0}
    room = how.max_tokens if how.max_model_len is None else min(how.max_tokens, how.max_model_len - longest)
    # A configuration of its own: the model's would add what it is sampled with elsewhere, as vLLM does not.
    make: Callable[..., GenerationConfig] = GenerationConfig
    config = make(
        do_sample=not greedy,
        max_new_tokens=max(1, room),
        eos_token_id=ends,
        pad_token_id=pad,
        num_return_sequences=how.samples,
        **drawing,
    )
    torch.manual_seed(how.seed or 0)
    with torch.inference_mode():
        out = generate(
            input_ids=torch.tensor(rows, device=device),
            attention_mask=torch.tensor(mask, device=device),
            generation_config=config,
        )
    written = [_cut(row.tolist()[longest:], ends) for row in out]
    for number, (problem, ids) in enumerate(prompts.items()):
        own = written[number * how.samples : (number + 1) * how.samples]
        samples = [
            {"ids": one, "text": tokenizer.decode(one, skip_special_tokens=True), "finish": _finish(one, ends)}
            for one in own
        ]
        yield {"id": problem, "prompt_ids": [*ids], "samples": samples}


def _list_ends(base: ModelSource, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """List the tokens at which vLLM ends an answer: those of the generation settings, and the tokenizer's own eos.

    Read from its file: here another may stand for it, with which the template ends a turn.
    """
    own = base.read_described("tokenizer_config.json").get("eos_token")
    text = own.get("content") if isinstance(own, dict) else own
    ids = [] if text is None else [tokenizer.convert_tokens_to_ids(str(text))]
    return sorted({*base.eos_ids(), *(one for one in ids if isinstance(one, int))})


def _cut(ids: list[int], ends: Sequence[int]) -> list[int]:
    """Return the tokens up to the one that ends the answer, with it."""
    end = next((place for place, one in enumerate(ids) if one in ends), len(ids))
    return ids[: end + 1]


def _finish(ids: Sequence[int], ends: Sequence[int]) -> str:
    return "stop" if ids and ids[-1] in ends else "length"
