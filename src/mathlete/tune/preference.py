"""Pairs for DPO, made of the formatted traces: a problem's shortest right trace, and a longer or a wrong one.

That is what AIMO-2's second place trained on, to make a reasoning model answer in fewer tokens. Wrong traces are those
that the format step judged wrong and kept aside (`--keep-dropped`).
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mathlete.errors import UserError
from mathlete.overlap import hash_statement
from mathlete.prompts import PromptFormat
from mathlete.rows import RowFiles
from mathlete.text import counted
from mathlete.tune.settings import Dpo


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A row of TRL's DPOTrainer."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    tokens: int
    """Of the prompt with the longer completion."""
    kind: Literal["longer", "wrong"]
    """Why the other one is rejected."""


def make_pairs(data: Path, *, prompts: PromptFormat, config: Dpo, max_tokens: int) -> list[Pair]:
    """Make the pairs of all problems.

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
    right: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in datasets.load_from_disk(files.train):
        right[hash_statement(row["statement"])].append(row)
    wrong: dict[str, list[list[int]]] = defaultdict(list)
    for statement, completion in files.wrong_completions(prompts):
        wrong[hash_statement(statement)].append(completion)
    pairs = []
    for key, rows in right.items():
        pairs += [pair for pair in _pairs(rows, wrong[key], config) if pair.tokens <= max_tokens][: config.pairs]
    if not pairs:
        raise UserError(
            "--method dpo needs problems with a right trace and a longer or a wrong one",
            value=f"no such pair in {counted(len(right), 'problem')}",
            cure="use a --source with several traces a problem, with --keep-dropped and --rows.policy all",
        )
    return pairs


def _pairs(rows: list[dict[str, Any]], wrong: list[list[int]], config: Dpo) -> Iterator[Pair]:
    """Yield the pairs of one problem, wrong traces and longer ones in turn, the longest first."""
    # Of equally short traces any would do; the tokens decide, so that the same rows give the same pairs.
    best = min(rows, key=lambda row: (row["tokens"], row["input_ids"]))
    start = best["prompt_tokens"]
    prompt, chosen = best["input_ids"][:start], best["input_ids"][start:]
    completions = [row["input_ids"][row["prompt_tokens"] :] for row in rows]
    longer = [ids for ids in completions if len(chosen) <= config.shorter * len(ids)]
    rejected: dict[Literal["wrong", "longer"], list[list[int]]] = {
        "wrong": sorted(wrong, key=len),
        "longer": sorted(longer, key=len),
    }
    while any(rejected.values()):
        for kind, remaining in rejected.items():
            if remaining:
                ids = remaining.pop()
                tokens = start + max(len(chosen), len(ids))
                yield Pair(prompt_ids=prompt, chosen_ids=chosen, rejected_ids=ids, tokens=tokens, kind=kind)
