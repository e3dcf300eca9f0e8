"""Pairs for DPO, built from the formatted traces: a problem's shortest right trace, and a longer or a wrong one.

That is what AIMO-2's second place trained on, to make a reasoning model answer in fewer tokens. Wrong traces are those
that the format step found wrong and kept aside (`--keep-dropped`).
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mathlete.errors import UserError
from mathlete.overlap import hash_statement
from mathlete.prompts import PromptFormat
from mathlete.rows import RowFiles
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

    files = RowFiles(data)
    rows = datasets.load_from_disk(files.train)
    right: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        right[hash_statement(row["statement"])].append(row)
    wrong: dict[str, list[list[int]]] = defaultdict(list)
    for statement, completion in files.wrong_completions(prompts):
        wrong[hash_statement(statement)].append(completion)
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
