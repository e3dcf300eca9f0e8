"""What differs between two records of a step, in words: settings by their name, inputs by their files.

A record has the keys step, version, settings and inputs, as a step's mark and its manifest have them.

>>> there = {"step": "eval", "version": 1, "settings": {"policy": {"n": 4, "seed": 0}}, "inputs": {}}
>>> here = {**there, "settings": {"policy": {"n": 5, "seed": 0}}, "inputs": {"model": {"config.json": "0a"}}}
>>> list_differences(there, here)
['policy.n is 4 there, 5 here', 'input model has another config.json']
"""

import json
import re
from collections.abc import Iterator, Mapping

_WIDEST = 60
_ABSENT = object()
_UNSAID = {"dtype": "none said (float32 on a CPU)"}
"""{setting that records leave out where it has one value: what a reader is told then}."""


def list_differences(there: Mapping[str, object], here: Mapping[str, object]) -> list[str]:
    """Return each difference in a few words; at least one, for the two are known to differ."""
    if not isinstance(there.get("settings"), Mapping):
        return ["an earlier version of mathlete began it and did not keep its settings"]
    words = [
        *_compare("step", there.get("step"), here.get("step")),
        *_compare("the step's version", there.get("version", 1), here.get("version")),
        *_compare("", there["settings"], here["settings"]),
        *(f"input {line}" for line in _compare_inputs(there.get("inputs"), here.get("inputs"))),
    ]
    return words or ["its key, which was changed"]


def _compare(name: str, there: object, here: object) -> Iterator[str]:
    """Yield the leaves that differ, named by their way through nested objects."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in dict.fromkeys((*there, *here)):
            below = f"{name}.{key}" if name else str(key)
            yield from _compare(below, there.get(key, _ABSENT), here.get(key, _ABSENT))
        return
    old, new = (_write(value, absent=_UNSAID.get(name, "none")) for value in (there, here))
    if old != new:
        yield f"{name} is {old} there, {new} here"


def _compare_inputs(there: object, here: object) -> Iterator[str]:
    for name in dict.fromkeys((*_as_mapping(there), *_as_mapping(here))):
        old, new = (_as_mapping(_as_mapping(inputs).get(name)) for inputs in (there, here))
        files = [file for file in dict.fromkeys((*old, *new)) if old.get(file) != new.get(file)]
        if files:
            more = f" and {len(files) - 3} more" if len(files) > 3 else ""
            yield f"{name} has another {', '.join(files[:3])}{more}"


def _as_mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _write(value: object, *, absent: str) -> str:
    if value is _ABSENT:
        return absent
    text = json.dumps(value, ensure_ascii=False, default=str)
    if re.fullmatch(r'"[0-9a-f]{64}"', text):
        return f"{text[1:9]}…"  # a hash: the first digits tell two apart
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"
