"""With what prompt, tools and sampling recorded samples were drawn: what was replayed holds for these alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from shlex import join
from typing import Any, Self

from mathlete.prompts import PromptSettings
from mathlete.runs import read_json
from mathlete.sampling import SamplingConfig
from mathlete.tir import ToolSettings

_CLOCKS = ("max_tokens", "timeout_s", "enough")
"""Words of SamplingConfig that are no part of `DrawnAs.sampling`: the cap is a field of its own, and a notebook's clock
says the rest."""


@dataclass(frozen=True, kw_only=True)
class DrawnAs:
    """How the samples of some runs were drawn; a field is None where a run does not say it, or where runs differ."""

    sampling: Mapping[str, object] | None = None
    """By SamplingConfig's names."""
    max_tokens: int | None = None
    """Cap on a sample, tokens."""
    harvest_tokens: int | None = None
    """Cap on what fills the box of a forced answer; None also where none was asked for."""
    tools: Mapping[str, object] | None = None
    """By ToolSettings' names; {}: the model had none."""
    prompt: Mapping[str, object] | None = None
    """By PromptSettings' names; {}: as the model's folder says."""
    others: tuple[str, ...] = ()
    """What changed the samples too, and is no word of a notebook's."""

    @classmethod
    def read(cls, folders: Sequence[Path]) -> Self:
        """Return what the results of recorded runs say.

        A run that was imported from another tool's log says it in part at most, so it counts as one that does not.
        """
        rows = [_read_run(folder / "results.json") for folder in folders] or [{}]
        others = tuple(dict.fromkeys(word for one in rows for word in one.pop("others", ())))
        same = {name: value for name, value in rows[0].items() if all(one.get(name) == value for one in rows)}
        return cls(**same, others=others)

    @property
    def unsaid(self) -> list[str]:
        """What no run says, or not all alike, in words."""
        parts = {"sampling": self.sampling, "cap": self.max_tokens, "tools": self.tools, "prompt": self.prompt}
        return [name for name, value in parts.items() if value is None]


def _read_run(file: Path) -> dict[str, Any]:
    row = read_json(file) if file.is_file() else {}
    policy = row.get("policy")
    sampling = policy.get("sampling") if isinstance(policy, dict) else None
    if (
        "imported" in str(row.get("engine", "imported"))
        or not isinstance(policy, dict)
        or not isinstance(sampling, dict)
    ):
        return {}
    own = {"precision": row.get("precision"), "sampling.timeout-s": sampling.get("timeout_s")}
    return {
        "sampling": {name: value for name, value in sampling.items() if name not in _CLOCKS},
        "max_tokens": sampling.get("max_tokens"),
        "harvest_tokens": policy.get("harvest_tokens"),
        "tools": row.get("tools") or {},
        "prompt": row.get("prompt") or {},
        "others": [f"{name} {value}" for name, value in own.items() if value not in (None, "auto")],
    }


def list_words(group: str, values: Mapping[str, object], usual: SamplingConfig | ToolSettings | PromptSettings) -> str:
    """Return the flags of settings that differ from the usual ones, each behind a space; "" where none does.

    >>> list_words("--tools.", {"turns": 2, "timeout_s": 6.0}, ToolSettings())
    ' --tools.turns 2'
    """
    plain = {one.name: getattr(usual, one.name) for one in fields(usual)}
    said = {name: value for name, value in values.items() if value != plain[name] and value is not None}
    return "".join(
        f" {group}{name.replace('_', '-')} {join(map(str, value if isinstance(value, list | tuple) else [value]))}"
        for name, value in said.items()
    )
