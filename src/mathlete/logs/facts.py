"""Facts of a table's row: its model and settings, under the names that tables and requests give them."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from mathlete.logs.entries import Facts, LogRow, as_text, sampling_of

_MODEL = ("model", "modelname", "modelid", "modelpath", "llm", "llmname", "modelconfig")
_NAMES = {
    "temperature": ("temperature", "temp", "samplingtemperature"),
    "top_p": ("topp", "samplingtopp"),
    "max_tokens": ("maxtokens", "maxnewtokens", "maxcompletiontokens", "maxoutputtokens", "maxgentokens", "maxgentoks"),
}
_WITHIN = {
    "request", "requestbody", "sampling", "samplingparams", "samplingparameters", "generationconfig",
    "generationparameters", "params", "parameters", "config", "settings",
}  # fmt: skip
"""Columns that hold the settings as an object."""


def find_facts(row: LogRow) -> Facts:
    """Return the model and the settings that a row of a table has, in whatever spelling.

    >>> find_facts({"Model_Name": "small", "request": {"temperature": 0.6, "max_new_tokens": 64}})
    Facts(model='small', task=None, sampling={'temperature': 0.6, 'max_tokens': 64.0}, doubted=(), \
guessed=('temperature', 'max_tokens'), left_out='')
    """
    spelled = _spell(row)
    # What stands beside a sample is nearer to it than its request.
    within = [spelled[name] for name in spelled if name in _WITHIN and isinstance(spelled[name], Mapping)]
    places = [spelled, *map(_spell, within)]
    sampling: dict[str, float] = {}
    for name, names in _NAMES.items():
        told = (sampling_of({name: value}) for value in _find(places, names))
        sampling |= next((one for one in told if one), {})
    model = (text for value in _find(places, _MODEL) if (text := as_text(value)) is not None)
    # Under another name it is likely that setting, and may be what was asked of this very sample.
    guessed = tuple(name for name in sampling if not sampling_of({name: row.get(name)}))
    return Facts(model=next(model, None), sampling=sampling, guessed=guessed)


def _spell(row: LogRow) -> LogRow:
    return {_bare(str(name)): value for name, value in row.items()}


@lru_cache(maxsize=1024)
def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _find(places: Iterable[Mapping[str, object]], names: Iterable[str]) -> Iterable[object]:
    return (place[name] for place in places for name in names if name in place)
