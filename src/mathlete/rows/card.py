"""The dataset card beside the rows: what they were made of, what was left out and why, what was proved of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mathlete.corpus import SourceSpec
from mathlete.rows.figures import FormatFigures

REASONS = {
    "wrong": (
        "the checker finds another answer than the gold",
        "mend the gold, or give more problems with right traces",
    ),
    "unknown": ("the checker cannot tell whether its answer is right", "write the gold as a number or in plain LaTeX"),
    "unclosed": ("the reasoning never ends", "take traces that were not cut off: sample with more tokens"),
    "no answer": (
        "the trace reaches no answer",
        "box the answer at the trace's end, or give a column answer; replies that have none are trained on with "
        "--task chat",
    ),
    "no gold": (
        "the problem has no answer to check against",
        "put the right answers into a column gold, or trust the marked answers with --filters.unverified keep",
    ),
    "no trace": ("the row has no trace", "give each row its reasoning, or leave the row out"),
    "unfit": ("its source marks it as unfit", "take more rows of the source, or another one"),
    "empty": ("there is no text between the marks", "give traces with reasoning, not answers alone"),
    "marks": (
        "a mark of the chat format, or a hidden turn, within the statement or the trace",
        "take the marks out: statement and trace are one turn's text each",
    ),
    "template": (
        "the chat template takes no such conversation",
        "leave out the turns that it has no form for, such as a system turn, or use the model's own template",
    ),
    "tool output": (
        "the trace holds what a tool wrote, which a model must not learn to write",
        "keep it without loss, with --filters.tool-output mask",
    ),
    "two boxes": ("two boxes with different answers", "box one answer, or keep them with --filters.two-boxes keep"),
    "language": ("letters of another script than the problem's", "raise --filters.foreign"),
    "loop": ("it repeats itself", "raise --filters.repeats, or sample again"),
    "too short": ("fewer tokens than `--filters.min-tokens`", "lower --filters.min-tokens"),
    "too long": (
        "more tokens than `--rows.max-tokens`; rows are never cut",
        "use longer rows with --rows.max-tokens, or --rows.shorten",
    ),
    "duplicate": ("another row has the same statement and trace", "give other problems, or other traces of these"),
    "policy": ("another trace of the problem was kept", "keep more of them with --rows.policy all"),
    "parity: prompt": (
        "the tokens before the loss are not those that a server makes",
        "use the tokenizer.json and the chat template of one and the same model",
    ),
    "parity: completion": (
        "the tokens with loss do not read back as the text that must be written",
        "use the base model's own tokenizer.json, with a transformers version that reads it right",
    ),
    "parity: eos": (
        "it does not end on the token that ends a served turn, or has that inside",
        "name the token that ends a turn as eos_token in tokenizer_config.json",
    ),
    "parity: bos": (
        "bos is there more often than the template writes it, or twice for one turn",
        "take the second bos_token out of the chat template",
    ),
    "parity: labels": (
        "loss on what the model does not write, or none on what it does",
        "report it, with the trace: a row that is made here must not have this",
    ),
}
"""{reason to leave a trace out: (what it means, what the user can do)}; only `in SUITE` is missing."""
_IN_SUITE = ("its problem is one of that suite's", "give problems that no suite has")


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
            *_column_lines(figures),
            "",
            "## Left out",
            *_table(("reason", "traces", "which means", "cure"), _drop_lines(figures.drops)),
            f"\nRows that could not be read: {figures.bad_rows.rows}.",
            "",
            "## Proved",
            f"- Checked against a gold: {figures.kept - figures.unverified} of {figures.kept} kept traces."
            f"{_describe_unverified(figures, settings)}",
            f"- Kept clear of {', '.join(figures.suites) or 'no suite'}: the pairs stand in `overlap.jsonl`.",
            f"- Parity: of {figures.parity.rows} rows each, the tokens before the loss are those of the served "
            f"prompt, and the rest reads as trace, answer and eos; {figures.parity.mismatches} rows failed and "
            f"were left out.{f' The first, {figures.parity.first}.' if figures.parity.first else ''}",
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
    return REASONS.get(reason, _IN_SUITE)[0]


def find_cure(reason: str) -> str:
    """Return what the user can do about traces that were left out for a reason.

    >>> find_cure("in math500"), find_cure("parity: bos")
    ('give problems that no suite has', 'take the second bos_token out of the chat template')
    """
    return REASONS.get(reason, _IN_SUITE)[1]


def _column_lines(figures: FormatFigures) -> list[str]:
    """Return a line for each source of any columns: what was read of it, and what was not."""
    lines = []
    for name, use in figures.columns.items():
        others = f"; not read: {', '.join(use['unread'])}" if use["unread"] else ""
        lines.append(f"- Columns of {Path(name).name}: read {', '.join(use['read'])}{others}.")
    return ["", *lines] if lines else []


def _describe_unverified(figures: FormatFigures, settings: Mapping[str, object]) -> str:
    if not figures.unverified:
        return ""
    if settings.get("task") == "chat":
        return f" {figures.unverified} replies are trained as they stand: nothing has verified them."
    return f" {figures.unverified} were trusted: they have no gold, and the answer that they mark was taken for right."


def _source_lines(figures: FormatFigures, specs: Sequence[SourceSpec]) -> list[Sequence[object]]:
    lines: list[Sequence[object]] = []
    for spec in specs:
        entry = spec.registered
        hub, licence = (entry.hub, entry.licence) if entry else ("", "")
        commit = figures.commits.get(spec.name) or ("" if entry is None else "from a mirror")
        name = spec.name if entry else Path(spec.name).name
        # Where the gold was read out of the trace itself, the check proves only that there is an answer.
        extracted = entry is not None and entry.golds.gold == "extracted" and entry.golds.answer == entry.trace
        gold = "read out of the trace" if extracted else "its own"
        lines.append((name, figures.sources[spec.name], hub, commit, gold, licence))
    return lines


def _drop_lines(drops: Mapping[str, int]) -> list[Sequence[object]]:
    return [(reason, count, explain_reason(reason), find_cure(reason)) for reason, count in drops.items()]


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines: list[Sequence[object]] = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]
