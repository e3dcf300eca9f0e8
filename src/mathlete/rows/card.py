"""The dataset card beside the rows: what they were made of, what was left out and why, what was proved of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mathlete.corpus import SourceSpec
from mathlete.rows.figures import FormatFigures

REASONS = {
    "wrong": "the checker finds another answer than the gold",
    "unknown": "the checker cannot tell whether its answer is right",
    "unclosed": "the reasoning never ends",
    "no answer": "the trace reaches no answer",
    "no gold": "the problem has no answer to check against",
    "no trace": "the row has no trace",
    "unfit": "its source marks it as unfit",
    "empty": "there is no text between the marks",
    "marks": "a mark of the chat format within the trace",
    "tool output": "the trace holds what a tool wrote, which a model must not learn to write",
    "two boxes": "two boxes with different answers",
    "language": "letters of another script than the problem's",
    "loop": "it repeats itself",
    "too short": "fewer tokens than `--filters.min-tokens`",
    "too long": "more tokens than `--rows.max-tokens`; rows are never cut",
    "duplicate": "another row has the same statement and trace",
    "policy": "another trace of the problem was kept",
    "parity": "its tokens differ from those that are served and must be written",
}
"""{reason to leave a trace out: what it means}; only `in SUITE` is missing."""


def make_card(figures: FormatFigures, *, specs: Sequence[SourceSpec], settings: Mapping[str, object]) -> str:
    """Return the card as Markdown with the front matter that the hub reads; equal figures give equal cards."""
    licences = sorted({entry.licence for spec in specs if (entry := spec.registered)})
    front = {"pretty_name": "Mathematical problems with verified reasoning traces", "tags": ["math", "reasoning"]}
    return "\n".join(
        [
            "---",
            *(f"{key}: {json.dumps(value)}" for key, value in front.items()),
            "license: other",
            f"license_name: {json.dumps('; '.join(licences) or 'that of the files it was made of')}",
            "---",
            "# Token rows for training",
            "",
            f"{figures.rows} rows to train on (`train/`) and {figures.heldout} held out (`heldout/`), "
            f"{figures.tokens} tokens, {figures.trained_tokens} of them with loss. Load a side with "
            '`datasets.load_from_disk("train")`.',
            "",
            "## Made of",
            *_table(("source", "rows taken", "set", "commit", "gold", "licence"), _source_lines(figures, specs)),
            "",
            "## Left out",
            *_table(("reason", "traces", "which means"), _drop_lines(figures.drops)),
            f"\nRows that could not be read: {figures.bad_rows.rows}.",
            "",
            "## Proved",
            f"- Kept clear of {', '.join(figures.suites) or 'no suite'}: the pairs stand in `overlap.jsonl`.",
            f"- Parity: of {figures.parity.rows} rows each, the tokens before the loss are those of the served "
            f"prompt, and the rest reads as trace, answer and eos; {figures.parity.mismatches} rows failed and "
            "were left out.",
            f"- Packed into sequences of {figures.packing.budget} tokens they fill "
            f"{figures.packing.efficiency:.1%} of {figures.packing.sequences}.",
            "",
            "## Settings",
            "```json",
            json.dumps(settings, indent=2, ensure_ascii=False, default=str),
            "```",
            "",
        ]
    )


def explain_reason(reason: str) -> str:
    """Return what a reason for leaving a trace out means.

    >>> explain_reason("unclosed")
    'the reasoning never ends'
    """
    return REASONS.get(reason, "its problem is one of that suite's")


def _source_lines(figures: FormatFigures, specs: Sequence[SourceSpec]) -> list[Sequence[object]]:
    lines: list[Sequence[object]] = []
    for spec in specs:
        entry = spec.registered
        hub, licence = (entry.hub, entry.licence) if entry else ("", "")
        commit = figures.commits.get(spec.name) or ("" if entry is None else "from a mirror")
        name = spec.name if entry else Path(spec.name).name
        # Where the gold was read out of the trace itself, the check proves only that there is an answer.
        extracted = entry is not None and entry.gold == "extracted" and entry.answer == entry.trace
        gold = "read out of the trace" if extracted else "its own"
        lines.append((name, figures.sources[spec.name], hub, commit, gold, licence))
    return lines


def _drop_lines(drops: Mapping[str, int]) -> list[Sequence[object]]:
    return [(reason, count, explain_reason(reason)) for reason, count in drops.items()]


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines: list[Sequence[object]] = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]
