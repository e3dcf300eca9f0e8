"""The tables of a competition's file: how a notebook is asked, and what the organiser fixes."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from keyword import iskeyword
from typing import TYPE_CHECKING, Literal

from mathlete.errors import Rule
from mathlete.templates import SWITCHES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GatewayApi = Literal["inference-server", "iterator"]
"""The notebook serves `predict` and the gateway asks it · the notebook iterates over the questions (AIMO-1)."""
Dtype = Literal["float32", "float16", "bfloat16"]
"""How a tensor of an adapter may be held."""


@dataclass(frozen=True, kw_only=True)
class GatewayRules:
    """How the questions reach the notebook."""

    api: GatewayApi
    module: str
    """The competition's module: inside `kaggle_evaluation` for a server, at the top of its data for an iterator."""
    server: str | None = None
    """The module's class that serves; None for an iterator."""
    package: str | None = None
    """Version of its kaggle_evaluation, which a rehearsal imitates as it was measured; None for an iterator."""
    real: str | None = None
    """MODULE:CLASS of Kaggle's own gateway inside kaggle_evaluation, for `submit rehearse --real-package`."""
    names_columns: bool = False
    """Whether the gateway names the submission's columns, so that a bare integer may be an answer."""

    def list_rules(self) -> Iterator[Rule]:
        """Yield what must hold of the values."""
        server, package, serves = self.server, self.package, self.api == "inference-server"
        names = [*self.module.split("."), *([server] if server else [])]
        yield (
            "gateway.server and gateway.package",
            f"{server} and {package}",
            [server is not None, package is not None] == [serves] * 2,
            "there for an inference-server, and left out for an iterator",
        )
        # They are written into Python: what is no name there would end the notebook.
        good = all(name.isidentifier() and not iskeyword(name) for name in names)
        yield "gateway.module and gateway.server", names, good, "names in Python"
        yield "gateway.package", package, _is_version(package), "a version, as 0.9.0"
        yield (
            "gateway.real",
            self.real,
            self.real is None or (serves and bool(re.fullmatch(r"[\w.]+:\w+", self.real))),
            "MODULE:CLASS for an inference-server, and left out for an iterator",
        )


@dataclass(frozen=True, kw_only=True)
class PromptRules:
    """What the organiser puts around a problem, where competitors do not choose it themselves."""

    system: str | None = None
    """The system's message; None: there is none."""
    suffix: str = ""
    """What follows the statement in the user's message, with its own line break."""
    template: Mapping[str, bool | int | float | str] | None = None
    """Arguments of the chat template, such as enable_thinking."""

    def list_rules(self) -> Iterator[Rule]:
        """Yield what must hold of the values."""
        for name, value in (self.template or {}).items():
            good = name not in SWITCHES or isinstance(value, bool)
            yield f"prompt.template.{name}", value, good, "true or false"

    def is_same(self, *, instruction: str, template: Mapping[str, object]) -> bool:
        """Return whether a prompt with this second paragraph and these arguments is the organiser's."""
        return self.system is None and self.suffix == f"\n{instruction}" and {**(self.template or {})} == {**template}

    def render(self, statement: str, *, tokenizer: "PreTrainedTokenizerBase") -> str:
        """Return the text of a problem's prompt, by the tokenizer's chat template, up to where the model goes on.

        Raises:
            jinja2.TemplateError: the template takes no such conversation.
            ValueError: the tokenizer has no chat template.
        """
        turns = [] if self.system is None else [{"role": "system", "content": self.system}]
        turns.append({"role": "user", "content": f"{statement}{self.suffix}"})
        render: Callable[..., object] = tokenizer.apply_chat_template
        return str(render(turns, tokenize=False, add_generation_prompt=True, **(self.template or {})))


@dataclass(frozen=True, kw_only=True)
class SamplingRules:
    """How the organiser's vLLM samples; None: the competition does not say."""

    temperature: float
    max_tokens: int
    """Cap on the tokens of an answer."""
    top_p: float = 1.0
    top_k: int | None = None
    samples: int = 1
    """Samples of a problem."""
    seed: int | None = None
    max_model_len: int | None = None
    """Cap on prompt and answer together, tokens."""
    max_num_seqs: int | None = None
    """Problems that are sampled at the same time: another number may change a greedy answer."""
    gpu_memory_utilization: float | None = None
    """Share of the GPU's memory that vLLM takes."""

    def list_rules(self) -> Iterator[Rule]:
        """Yield what must hold of the values."""
        length, share = self.max_model_len, self.gpu_memory_utilization
        yield "sampling.temperature", self.temperature, self.temperature >= 0, "0 or more"
        yield "sampling.top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1"
        for name in ("max_tokens", "top_k", "samples", "max_num_seqs"):
            value: int | None = getattr(self, name)
            yield f"sampling.{name}", value, value is None or value >= 1, "at least 1"
        yield (
            "sampling.samples",
            self.samples,
            self.samples == 1 or self.temperature > 0,
            "1 at temperature 0, where all are the same",
        )
        yield "sampling.max_model_len", length, length is None or length > self.max_tokens, "above sampling.max_tokens"
        yield "sampling.gpu_memory_utilization", share, share is None or 0 < share <= 1, "above 0 and at most 1"


@dataclass(frozen=True, kw_only=True)
class AdapterRules:
    """What an adapter that is handed in must be."""

    base: tuple[str, ...]
    """Names of the base model, OWNER/NAME: the first is the hub's, the others its copies."""
    max_rank: int
    """Highest rank that the organiser's vLLM takes."""
    targets: tuple[str, ...] | None = None
    """Modules that may be adapted; None: all that vLLM adapts."""
    dtypes: tuple[Dtype, ...] | None = None
    """How its tensors may be held; None: the rules do not say."""
    max_mib: int | None = None
    """Largest zip, MiB."""
    file: str = "submission.zip"
    """Name of the zip."""
    vllm: str | None = None
    """Version of vLLM that serves it."""

    def list_rules(self) -> Iterator[Rule]:
        """Yield what must hold of the values."""
        named = all(re.fullmatch(r"[\w.-]+/[\w.-]+", name) for name in self.base)
        yield "adapter.base", [*self.base], named, "names of models, OWNER/NAME each"
        yield "adapter.max_rank", self.max_rank, self.max_rank >= 1, "at least 1"
        yield "adapter.max_mib", self.max_mib, self.max_mib is None or self.max_mib >= 1, "at least 1"
        yield "adapter.file", self.file, bool(re.fullmatch(r"[\w.-]+\.zip", self.file)), "a zip's name, without folders"
        yield "adapter.vllm", self.vllm, _is_version(self.vllm), "a version, as 0.17.1"


def _is_version(text: str | None) -> bool:
    return text is None or bool(re.fullmatch(r"\d+\.\d+\.\d+", text))
