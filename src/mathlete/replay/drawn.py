"""With what prompt, tools and sampling recorded samples were drawn: what was replayed holds for these alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from shlex import join
from types import UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

from mathlete.prompts import PromptSettings
from mathlete.runs import read_json
from mathlete.sampling import SamplingConfig
from mathlete.tir import ToolSettings

_CLOCKS = ("max_tokens", "timeout_s", "enough")
"""Words of SamplingConfig that are no part of `DrawnAs.sampling`: the cap is a field of its own, and a notebook's clock
says the rest."""


_GROUPS: Mapping[str, type[SamplingConfig | ToolSettings | PromptSettings]] = {
    "sampling": SamplingConfig,
    "tools": ToolSettings,
    "prompt": PromptSettings,
}
"""{group of settings in a run's results: what it is here}."""


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

    def list_unsaid(self, *, forced: bool) -> list[str]:
        """Return what no run says, or not all alike, in words; the cap on forced answers only where there are any."""
        parts = {"sampling": self.sampling, "cap": self.max_tokens, "tools": self.tools, "prompt": self.prompt}
        parts |= {"cap on forced answers": self.harvest_tokens} if forced else {}
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
    # What a person may have set, and no word of a notebook says.
    own = {"precision": row.get("precision"), "sampling.timeout-s": sampling.get("timeout_s")}
    read = dict[str, Mapping[str, object]]()
    for group, kind in _GROUPS.items():
        said = sampling if group == "sampling" else row.get(group) or {}
        if isinstance(said, Mapping):
            hints = get_type_hints(kind)
            read[group] = {name: value for name, value in said.items() if name in hints and _suits(hints[name], value)}
            # Another version's: no word here says it.
            others = [name for name in said if name not in read[group]]
            own |= {f"{group}.{name.replace('_', '-')}": said[name] for name in others}
    known = read.pop("sampling")
    return {
        **read,
        "sampling": {name: value for name, value in known.items() if name not in _CLOCKS},
        "max_tokens": known.get("max_tokens"),
        "harvest_tokens": policy.get("harvest_tokens"),
        "others": [f"{name} {value}" for name, value in own.items() if value not in (None, "auto")],
    }


def require_types(settings: SamplingConfig | ToolSettings | PromptSettings) -> None:
    """Raise TypeError where a field's value is of another type than the field; a truth value is no number."""
    for name, hint in get_type_hints(type(settings)).items():
        if not _suits(hint, value := getattr(settings, name)):
            raise TypeError(f"{name} is {value!r:.40}")


def _suits(hint: object, value: object) -> bool:
    kinds = [get_origin(kind) or kind for kind in (get_args(hint) if isinstance(hint, UnionType) else (hint,))]
    if isinstance(value, list | tuple):
        return tuple in kinds and all(isinstance(one, str) for one in value)
    return type(value) in kinds or (type(value) is int and float in kinds)


def list_words(group: str, values: Mapping[str, object], usual: SamplingConfig | ToolSettings | PromptSettings) -> str:
    """Return the flags of settings that differ from the usual ones, each behind a space; "" where none does.

    Those that a command line has no words for (`is_sayable`) are left out.

    >>> list_words("--tools.", {"turns": 2, "timeout_s": 6.0}, ToolSettings())
    ' --tools.turns 2'
    >>> list_words("--sampling.", {"stop": ["END", "---"]}, SamplingConfig())
    ' --sampling.stop=--- END'
    """
    plain = {one.name: getattr(usual, one.name) for one in fields(usual)}
    said = {name: value for name, value in values.items() if value != plain[name] and value is not None}
    return "".join(
        _write_flag(f"{group}{name.replace('_', '-')}", value) for name, value in said.items() if is_sayable(value)
    )


def is_sayable(value: object) -> bool:
    """Return whether a command line can have a setting's value: of several words one alone may begin with a hyphen.

    >>> [is_sayable(value) for value in (["---", "END"], ["---", "--"], "--")]
    [True, False, True]
    """
    return not isinstance(value, list | tuple) or sum(str(word).startswith("-") for word in value) <= 1


def _write_flag(flag: str, value: object) -> str:
    """Return a flag with its value, or values in an order that the command line can read, behind a space."""
    words = [*map(str, value)] if isinstance(value, list | tuple) else [str(value)]
    # Behind a blank, what begins with a hyphen would be a flag.
    words.sort(key=lambda word: not word.startswith("-"))
    return f" {flag}{'=' if words[:1] and words[0].startswith('-') else ' '}{join(words)}"
