"""Whether the prompts behind other tools' logs opened the reasoning, so that a text without its end never ended it.

A log seldom holds the prompt as the model saw it. What shows it, in this order: who imports it says so, the row's own
prompt, the template in the model's folder, and other texts of the log, which end a reasoning that they have not opened.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mathlete.answers import extract
from mathlete.errors import UserError
from mathlete.files import is_folder
from mathlete.logs.entries import Entry, Log
from mathlete.models import find_model, load_prompt_format
from mathlete.reasoning import Opening, closes_unopened, find_unfinished, has_marks, is_within_thoughts, split

Told = Literal["auto", "yes", "no"]
"""What `--opens-thoughts` says; auto: the logs show it."""
Reading = tuple[bool, bool]
"""(whether the text was cut, whether it stands in thoughts that its prompt had opened)."""


def find_opening(logs: Sequence[Log], *, told: Told = "auto", model: str | None = None) -> Opening | None:
    """Return what is known of the prompts of the logs' texts; None where no text stands in another tool's log.

    Raises:
        UserError: prompts open the reasoning, and nothing in the logs shows whether their texts are of it or behind it.
    """
    entries = [entry for log in logs if log.layout != "mathlete" for entry in log.entries if entry.text is not None]
    if not entries:
        return None
    if told != "auto":
        return Opening(thinking=told == "yes", because=f"--opens-thoughts {told}")
    _require_ends(entries)
    # Prompts are known, a template may have been another when the log was made, and texts only hint.
    if all(entry.thinking is not None for entry in entries):
        return _as_prompts_show(logs, entries)
    name = model or next((log.facts.model for log in logs if log.facts.model), None)
    if (prefilled := _read_template(name)) is not None:
        return Opening(thinking=prefilled, because=f"the chat template in {name}")
    texts = [entry.text or "" for entry in entries]
    if closing := sum(map(closes_unopened, texts)):
        words = f"{closing} of {len(texts)} texts end a reasoning that they have not opened"
        return Opening(thinking=None, because=words)
    if any(entry.thinking for entry in entries):
        return Opening(thinking=None, because="other samples of the log say that theirs was")
    # Nothing speaks of reasoning: what is read is said, with how many texts it concerns.
    cut = sum(entry.finish != "stop" and not has_marks(entry.text or "") for entry in entries)
    words = f"nothing in the logs says so; {cut} texts without marks of reasoning were cut, or may have been"
    return Opening(thinking=False, because=words if cut else "no text was cut")


def read_cut(entry: Entry, opening: Opening | None, *, told: Told = "auto") -> Reading:
    """Return how an entry's text is to be read.

    Where a log does not say why a text ended, one that stands in thoughts was cut, or that says nothing behind them:
    models end them and answer, as far as they can.
    """
    text = entry.text or ""
    untold, cut = entry.finish is None, entry.finish in ("length", "cancelled")
    by_itself = entry.thinking is not None and told == "auto"
    thinking = entry.thinking if by_itself or opening is None else opening.thinking
    within = opening is not None and is_within_thoughts(text, cut=cut or untold, thinking=thinking)
    return cut or (untold and (within or _says_nothing_behind_thoughts(text))), within


def _require_ends(entries: Sequence[Entry]) -> None:
    opened = [entry for entry in entries if entry.thinking]
    if not opened or any(entry.finish for entry in opened) or any(has_marks(entry.text or "") for entry in entries):
        return
    raise UserError(
        "texts behind prompts that open the reasoning must show where it ends, or why they ended",
        value=f"neither in any of {len(opened)}",
        cure="say --opens-thoughts no where the tool left the reasoning out, so that they are answers, or yes where "
        "they were cut within it",
    )


def _says_nothing_behind_thoughts(text: str) -> bool:
    parts = split(text)
    return find_unfinished(text) is not None or (parts is not None and extract(parts[1]).string is None)


def _as_prompts_show(logs: Sequence[Log], entries: Sequence[Entry]) -> Opening:
    opened = sum(entry.thinking is True for entry in entries)
    how = f"{opened} of {len(entries)} prompts in the logs end in its mark"
    if left_out := next((log.facts.left_out for log in logs if log.facts.left_out), None):
        how = f"{opened} of {len(entries)} texts go on from its mark; with {left_out} a tool kept no reasoning"
        how += ", and what was cut within one can't be told from an answer"
    return Opening(thinking=bool(opened), because=how)


def _read_template(name: str | None) -> bool | None:
    """Return whether the template in a model's folder opens the reasoning; None where there is none to look at."""
    if name is None or not is_folder(name) or not (Path(name) / "tokenizer_config.json").is_file():
        return None
    try:
        return load_prompt_format(find_model(name)).prefilled
    except UserError:
        # A log may name any folder: that of a model without a template says nothing, and stops no import.
        return None
