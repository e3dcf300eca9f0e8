"""Pairs for DPO, built from the formatted traces: a problem's shortest right trace, and a longer or a wrong one.

That is what AIMO-2's second place trained on, to make a reasoning model answer in fewer tokens. Wrong traces are those
that the format step found wrong and kept aside (`--keep-dropped`).
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mathlete.corpus.programs import served_form
from mathlete.corpus.selection import key_of
from mathlete.errors import UserError
from mathlete.prompts import PromptFormat
from mathlete.rows.format import DROPPED, TRAIN
from mathlete.tune.recipe import Dpo


def preference_pairs(data: Path, *, prompts: PromptFormat, config: Dpo, max_tokens: int) -> list[dict[str, Any]]:
    """Rows {"prompt_ids", "chosen_ids", "rejected_ids", "tokens", "kind"}; kind is "longer" or "wrong".

    Args:
        data: the format step's folder.
        prompts: of the model that is trained.
        config: what counts as shorter, and how many pairs a problem gives.
        max_tokens: longest prompt and completion.

    Raises:
        UserError: no problem has two traces to choose between.
    """
    import datasets

    rows = datasets.load_from_disk(data / TRAIN)
    right: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        right[key_of(row["statement"])].append(row)
    wrong = _wrong_traces(data / DROPPED, prompts=prompts)
    pairs = []
    for key, some in right.items():
        pairs += [pair for pair in _pairs(some, wrong[key], config) if pair["tokens"] <= max_tokens][: config.pairs]
    if not pairs:
        raise UserError(
            "--method dpo needs problems with a right trace and a longer or a wrong one",
            value=f"no such pair in {len(right)} problems",
            cure="use a --source with several traces a problem, with --keep-dropped and --rows.policy all",
        )
    return pairs


def _wrong_traces(file: Path, *, prompts: PromptFormat) -> dict[str, list[list[int]]]:
    """{problem's key: completions of its wrong traces}."""
    found: dict[str, list[list[int]]] = defaultdict(list)
    if file.is_file():
        with file.open(encoding="utf-8") as lines:
            for one in map(json.loads, lines):
                if one["reason"] == "wrong":
                    trace = served_form(one["trace"])
                    found[key_of(one["statement"])].append(prompts.completion_ids(trace=trace, answer=one["answer"]))
    return found


def _pairs(rows: list[dict[str, Any]], wrong: list[list[int]], config: Dpo) -> Iterator[dict[str, Any]]:
    """Pairs of one problem, wrong traces and longer ones in turn, the longest first."""
    best = min(rows, key=lambda row: (row["tokens"], row["input_ids"]))
    at = best["prompt_tokens"]
    prompt, chosen = best["input_ids"][:at], best["input_ids"][at:]
    others = [row["input_ids"][row["prompt_tokens"] :] for row in rows]
    longer = [ids for ids in others if len(chosen) <= config.shorter * len(ids)]
    kinds = {kind: sorted(some, key=len) for kind, some in (("wrong", wrong), ("longer", longer))}
    while any(kinds.values()):
        for kind, some in kinds.items():
            if some:
                rejected = some.pop()
                tokens = at + max(len(chosen), len(rejected))
                yield {
                    "prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected, "tokens": tokens, "kind": kind
                }  # fmt: skip
