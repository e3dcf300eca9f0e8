"""Which keys a competition's file needs, which say nothing beside the others, and what follows from what it says."""

from dataclasses import is_dataclass

from mathlete.competitions.reading import CURE, Said
from mathlete.competitions.scorer import Reading, ScorerRules
from mathlete.errors import UserError, require

FOLLOWING = (
    "fallback",
    "reserve_s",
    "submission_columns",
    "runs",
    "points",
    "machine",
    "placeholders",
    "scorer",
)
"""Keys whose default follows from other keys."""
_NEEDED: dict[str, tuple[str, ...]] = {
    "notebook": ("wall_s", "predict_deadline_s", "machine", "gateway"),
    "adapter": ("adapter", "sampling"),
    "csv": (),
    "integer": ("answer_min", "answer_max"),
    "number": (),
    "text": (),
}
"""Keys that a deliverable, or a type of answers, cannot do without."""
_IN_NOTEBOOKS = ("predict_deadline_s", "question_min_s", "question_max_s", "placeholders", "gateway")
_IDLE: dict[str, tuple[str, ...]] = {
    "notebook": ("adapter", "prompt", "sampling"),
    "adapter": ("wall_s", "reserve_s", *_IN_NOTEBOOKS),
    "csv": ("adapter", *_IN_NOTEBOOKS),
    "integer": (),
    "number": ("modulus", "fallback"),
    "text": ("answer_min", "answer_max", "modulus", "fallback"),
}
"""Keys that say nothing there: whoever writes one means something else."""
_MOST_RUNS = 100
"""Runs of a private set that a file may say; a competition has had two."""
_RESERVE_S = 600.0
"""Seconds left unused at the end of the wall where a file names none; of a short wall a tenth."""


def check_keys(said: Said, *, where: str) -> None:
    """Raise UserError where a key is missing, or idle, beside the deliverable and the type of answers that are said."""
    there = {*said, *(("machine",) if "machines" in said else ())}
    for name in ("deliverable", "answer_type"):
        chosen = said[name]
        for key in _NEEDED[chosen]:
            if key not in there:
                raise UserError(f"{where} must say {key} where {name} is {chosen}", value="nothing", cure=CURE)
        for key in _IDLE[chosen]:
            if key in said:
                rule = f"{where}: {key} must be left out where {name} is {chosen}"
                value = "a table" if is_dataclass(said[key]) else said[key]
                raise UserError(rule, value=value, cure=f"leave {key} out, or change {name}")
    # Before the defaults, which count by them.
    for key in ("answer_min", "answer_max") if said["answer_type"] == "integer" else ():
        require((key, said[key], isinstance(said[key], int), "an integer"), prefix=f"{where}: ", cure=CURE)
    runs = said.get("runs", 1)
    require(("runs", runs, 1 <= runs <= _MOST_RUNS, f"1 to {_MOST_RUNS}"), prefix=f"{where}: ", cure=CURE)


def make_defaults(said: Said) -> Said:
    """Return the defaults that follow from what a file says, by their keys."""
    runs = said.get("runs", 1)
    reads: tuple[Reading, ...] = ("last-box",) if said["deliverable"] == "adapter" else ("submission",)
    return {
        **_make_integers(said),
        "reserve_s": min(_RESERVE_S, said["wall_s"] / 10) if "wall_s" in said else None,
        "submission_columns": (said["columns"][0], "answer"),
        "runs": runs,
        "points": tuple(right / runs for right in range(runs + 1)),
        "machine": said.get("machines", (None,))[0],
        "scorer": ScorerRules(rule=said["answer_type"], reads=reads),
    }


def _make_integers(said: Said) -> Said:
    """Return the defaults that follow from the range of integers; without one there is nothing to send."""
    if said["answer_type"] != "integer":
        return {"fallback": None, "placeholders": {}}
    nearest_to_0 = min(max(said["answer_min"], 0), said["answer_max"])
    number = said.get("fallback", nearest_to_0)
    # Their answers are in the range, so that a commit run shows what a rerun would.
    placeholders = {
        "000aaa": f"What is ${number + 1}-1$?",
        "111bbb": f"What is ${number}\\times1$?",
        "222ccc": f"Solve $4+x={number + 4}$ for $x$.",
    }
    return {"fallback": nearest_to_0, "placeholders": placeholders if said["deliverable"] == "notebook" else {}}
