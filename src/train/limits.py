"""Which settings of a step say what a hop may cost, and change no weight."""

from collections.abc import Mapping

LIMITS = ("kl_merged", "kl_int8", "kl_4bit", "times_noise", "greedy", "accuracy", "loss")
"""Settings of `Survival` that say what a hop may cost, and change no weight."""


def differs_in_limits(old: Mapping[str, Mapping[str, object]], new: Mapping[str, Mapping[str, object]]) -> bool:
    """Return whether two records differ only in what a hop may cost: that changes no file but survival's."""
    limits = {name: value for name, value in new["settings"].items() if name in LIMITS}
    same = {**old, "key": new["key"], "settings": {**old["settings"], **limits}}
    return bool(limits) and all(same.get(name) == value for name, value in new.items())
