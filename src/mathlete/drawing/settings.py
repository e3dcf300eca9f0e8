"""Settings of what draws samples, as every command has them that draws some."""

from dataclasses import dataclass, field, replace
from typing import Literal

from mathlete.engines import EngineSettings
from mathlete.errors import UserError
from mathlete.models import ModelSource, Precision, find_model, pick_default_model
from mathlete.prompts import PromptSettings
from mathlete.sampling.served import RaySettings, ServerSettings, VllmSettings
from mathlete.tir import ToolSettings


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The model, and the engine that draws its samples."""

    model: str | None = None
    """pocket, a preset, a folder or a hub id; default: what this machine can run."""
    precision: Precision = "auto"
    """How weights are held; auto: as the model's folder says."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What the embedded engine computes in; auto: what the GPU is made for, on a CPU float32, or bfloat16 where the CPU
    has instructions for it and the model 50 million parameters or more."""
    engine: str = "transformers"
    """What draws the samples: transformers, vllm, openai or ray."""
    threads: int | None = None
    """CPU threads; default: 1 for a small model, else as many as are fastest."""
    prompt: PromptSettings = field(default_factory=PromptSettings)
    vllm: VllmSettings = field(default_factory=VllmSettings)
    servers: ServerSettings = field(default_factory=ServerSettings)
    ray: RaySettings = field(default_factory=RaySettings)
    tools: ToolSettings = field(default_factory=ToolSettings)

    def choose(self, *, max_tokens: int) -> tuple[EngineSettings, str]:
        """Return (the engine's settings, which model it is and why); completions have so many tokens at most.

        Raises:
            UserError: the model or the engine is unknown, or a value is out of its range.
        """
        self.prompt.check()
        source, reason = self._find_source()
        engine = EngineSettings(
            name=self.engine,
            source=replace(source, prompt=self.prompt),
            precision=self.precision,
            dtype=self.dtype,
            max_tokens=max_tokens,
            threads=self.threads,
            tools=self.tools,
            own=(self.vllm, self.servers, self.ray),
        )
        engine.check()
        return engine, f"model {source.name}: {reason}"

    def _find_source(self) -> tuple[ModelSource, str]:
        """Return (the model's files, why it is this one)."""
        if self.model:
            return find_model(self.model), "named by --model"
        if self.engine != "openai":
            name, reason = pick_default_model()
            return find_model(name), reason
        if self.servers.api == "completions":
            raise UserError(
                "the prompt is made here, so the served model's tokenizer must be here",
                value="--engine openai without --model",
                cure="name it, as in --model r1-qwen-7b, or have the server make the prompt with --servers.api chat",
            )
        name = self.servers.model or ""
        return ModelSource(name=name or "hosted", location=name, hosted=True), "its server alone has it"
