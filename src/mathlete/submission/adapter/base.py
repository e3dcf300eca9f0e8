"""Which base an adapter is handed in for: the name that the rules give it, and where its files are here."""

from collections.abc import Mapping
from pathlib import Path

from mathlete.adapters import is_same_base
from mathlete.competitions import AdapterRules
from mathlete.errors import UserError
from mathlete.models import ModelSource, find_model
from mathlete.submission.refusal import Refusal

BASE_KEY = "base_model_name_or_path"
"""peft's word for the base."""


def find_base_refusal(config: Mapping[str, object], rules: AdapterRules) -> Refusal | None:
    """Return why the base that an adapter names is none of the competition's; None where it is one of them."""
    named = str(config.get(BASE_KEY) or "")
    if _name_in_rules(named, rules):
        return None
    return Refusal(
        rule=f"the adapter must be of the competition's base, {rules.base[0]}",
        value=named or f"no {BASE_KEY}",
        cure="hand in one that was trained on it; where this one was and its name is another, name the very base that "
        "it was trained on with --adapter.base, a folder here or a hub id",
    )


def settle_base(config: Mapping[str, object], *, rules: AdapterRules, base: str) -> tuple[str, ModelSource | None]:
    """Return (the base's name in the rules, its files here or None).

    Args:
        config: the adapter's settings.
        rules: what the competition says of an adapter.
        base: the base here, as the user says it: a folder, a hub id, a name of the rules; empty: as the adapter says.

    Raises:
        UserError: the adapter is of another base.
    """
    named = str(config.get(BASE_KEY) or "")
    source = find_model(base) if base else _find_named(named)
    known = (named, source.public_name if source else "", base)
    name = next((name for word in known if (name := _name_in_rules(word, rules))), "")
    if base and source is not None:
        # A folder has no owner: who names it says that it is the competition's base.
        name = name or (rules.base[0] if source.folder is not None else "")
        same = named in ("", base) or _name_in_rules(named, rules) or is_same_base(named, source)
        name = name if same else ""
    if not name:
        refusal = find_base_refusal(config, rules)
        assert refusal is not None  # a name of the rules would have been seen above
        raise refusal.error()
    return name, _require_here(source) if base else _find_here(source or find_model(name))


def _name_in_rules(word: str, rules: AdapterRules) -> str:
    """Return the name of a base as the rules write it; "" where the word names none of them."""
    return next((name for name in rules.base if name.lower() == word.strip("/").lower()), "")


def _find_named(named: str) -> ModelSource | None:
    """Return the model that an adapter names, where that can be one."""
    if Path(named).is_dir() and not (Path(named) / "config.json").is_file():
        return None
    return find_model(named) if Path(named).is_dir() or named.count("/") == 1 else None


def _require_here(source: ModelSource | None) -> ModelSource | None:
    if source is not None:
        source.read_config()
    return source


def _find_here(source: ModelSource) -> ModelSource | None:
    """Return the source, where its config can be read; None where it is neither here nor on the hub."""
    try:
        source.read_config()
    except UserError:
        return None
    return source
