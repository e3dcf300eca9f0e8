"""The day on which a base model was released, which the rules of a competition may bound."""

from datetime import date
from pathlib import Path

from mathlete.competitions import Competition
from mathlete.errors import UserError
from mathlete.licences import read_card
from mathlete.runs import read_json
from mathlete.submission.metadata import Names

RELEASED = {
    "DeepSeek-R1-Distill": date(2025, 1, 20),
    "openai/gpt-oss-20b/": date(2025, 8, 5),
    "openai/gpt-oss-120b/": date(2025, 8, 5),
}
"""{part of a base model's name, or of a mounted model's on Kaggle: the day it was released}. Sources:
huggingface.co/deepseek-ai, openai.com/index/introducing-gpt-oss."""


def check_release(model: Path, names: Names, *, rules: Competition, released: str) -> None:
    """Check that the base of a model was released before the day that the rules name, where they name one.

    Args:
        model: the export, or the folder that describes a mounted model.
        names: on Kaggle.
        rules: the competition's.
        released: the day as the user says it, YYYY-MM-DD; empty: known by the model's name.

    Raises:
        UserError: it was not, the day is not known, or what is said is no day.
    """
    day = read_day(released)
    if (cutoff := rules.released_before) is None:
        return
    base = _base_name(model) if names.uploads_model else names.model_instance
    day = day or _find_release(base)
    if day is None:
        rule, cure = "the day the base model was released must be known", "build with --released YYYY-MM-DD"
        raise UserError(f"{rule}: the rules have a cutoff", value=f"base {base or 'unknown'}", cure=cure)
    if day >= cutoff:
        rule = f"{rules.name} admits models released before {cutoff}"
        raise UserError(rule, value=str(day), cure="use an older base model")


def read_day(text: str) -> date | None:
    """Return the day that a text names; None for an empty one.

    Raises:
        UserError: it names none.
    """
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        rule = f"--released must be a day ({error})"
        raise UserError(rule, value=repr(text), cure="write it as 2025-01-20") from error


def _find_release(base: str) -> date | None:
    if base.startswith("mathlete/"):
        # This project trained it from random weights on generated problems, so no release day applies.
        return date.min
    return next((day for part, day in RELEASED.items() if part in base), None)


def _base_name(model: Path) -> str:
    """Return the base model of an export: the pocket model, its card's `base_model`, or its configuration's name."""
    config = read_json(model / "config.json")
    vocabulary = config.get("vocab_size")
    # Only the pocket model has a vocabulary this small.
    if isinstance(vocabulary, int) and vocabulary < 2000:
        return "mathlete/pocket"
    return str(read_card(model).get("base_model") or config.get("_name_or_path") or "")
