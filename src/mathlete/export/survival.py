"""Survival: what merge and 8-bit export cost, measured against the model as it was trained (4-bit base + adapter).

KL(trained || other), nats a token, is the mean over the held-out completions' tokens of the Kullback-Leibler divergence
of the next-token distributions. Greedy answers come from `draw_greedy`, whose batches follow from the problems alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.answers import compare, read_answer
from mathlete.metrics import Interval, paired_difference
from mathlete.problems import Problem
from mathlete.prompts import PromptFormat
from mathlete.rows import RowFiles

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

_KEPT_BYTES = 2**30
"""Reference log-probabilities held at a time."""


def heldout_rows(data: Path) -> "Dataset":
    """The rows that were kept from training."""
    import datasets

    found: Dataset = datasets.load_from_disk(RowFiles(data).heldout)
    return found


def log_probabilities(model: Any, rows: "Dataset") -> "torch.Tensor":
    """Log-probabilities of the next token, (tokens, vocabulary), at the positions that predict completion tokens.

    All of them, or evenly spaced ones where all would need more than a GiB.
    """
    import torch

    found = []
    with torch.inference_mode():
        for tokens, positions in asked(rows, vocabulary=int(model.config.get_text_config().vocab_size)):
            ids, places = torch.tensor([tokens], device=model.device), torch.tensor(positions, device=model.device)
            logits = model(input_ids=ids, logits_to_keep=places, use_cache=False).logits[0]
            found.append(torch.log_softmax(logits.float(), dim=-1).cpu())
    return torch.cat(found)


def asked(rows: "Dataset", *, vocabulary: int) -> Iterator[tuple[list[int], range]]:
    """Yields (token ids, positions whose next token is looked at) of each row that has any."""
    total = sum(len(ids) for ids in rows["input_ids"]) - sum(rows["prompt_tokens"])
    every, before = -(-total * vocabulary * 4 // _KEPT_BYTES), 0
    for row in rows:
        ids = row["input_ids"]
        first, last = row["prompt_tokens"] - 1, len(ids) - 1
        positions = range(first + (-before) % every, last, every)
        before += last - first
        if positions:
            yield ids, positions


def row_losses(found: "torch.Tensor", rows: "Dataset") -> list[float]:
    """The mean loss of each row, nats a token, by its log-probabilities (tokens, vocabulary)."""
    import torch

    losses, start = [], 0
    for ids, positions in asked(rows, vocabulary=found.shape[1]):
        part = found[start : start + len(positions)]
        start += len(positions)
        targets = torch.tensor([ids[at + 1] for at in positions])
        losses.append(-float(part.gather(1, targets[:, None]).double().mean()))
    return losses


def top1(reference: "torch.Tensor", other: "torch.Tensor") -> float:
    """Share of tokens with the same likeliest next token, of log-probabilities (tokens, vocabulary)."""
    return float((reference.argmax(1) == other.argmax(1)).double().mean())


def kl(reference: "torch.Tensor", other: "torch.Tensor") -> float:
    """KL(reference || other) in nats a token, of log-probabilities (tokens, vocabulary).

    >>> import torch
    >>> half = torch.tensor([[0.5, 0.5]]).log()
    >>> round(kl(half, torch.tensor([[0.25, 0.75]]).log()), 4)
    0.1438
    """
    import torch

    total = 0.0
    for a, b in zip(torch.split(reference, 4096), torch.split(other, 4096), strict=True):
        # In double, for the terms nearly cancel; with q - p, which sums to 0, no term is negative, so that rounded
        # probabilities cannot make the sum negative either.
        p, q = a.double().exp(), b.double().exp()
        total += float((p * (a.double() - b.double()) + q - p).sum())
    return total / len(reference)


def heldout_problems(rows: "Dataset") -> list[Problem]:
    """The held-out rows' problems, each once."""
    columns = zip(rows["problem_id"], rows["statement"], rows["gold"], strict=True)
    return list({name: Problem(id=name, statement=text, gold=gold) for name, text, gold in columns}.values())


def greedy_answers(
    model: Any, *, prompts: PromptFormat, problems: Sequence[Problem], max_tokens: int
) -> dict[str, str | None]:
    """{problem id: greedy answer}; None where the completion has none. The model cannot be used afterwards.

    The same model gives the same answers every time: which rows are decoded together follows from the problems alone.
    """
    from mathlete.sampling.embedded import draw_greedy

    samples = draw_greedy(model, prompts=prompts, problems=problems, max_tokens=max_tokens)
    return {sample.problem_id: read_answer(sample.text, cut=sample.finish == "length") for sample in samples}


@dataclass(frozen=True, kw_only=True)
class Greedy:
    """Greedy answers of the trained model beside those of another."""

    problems: int
    answered: int
    """Problems that at least one of the two answers; the others say nothing."""
    unchanged: int
    right_before: int
    right_after: int
    change: Interval
    """Right answers, after - before, as a share of the problems, with its paired 95% interval."""

    @property
    def share(self) -> float | None:
        """Unchanged answers as a share of the answered problems; None where neither model answers any."""
        return self.unchanged / self.answered if self.answered else None


def compare_greedy(
    problems: Sequence[Problem], *, before: dict[str, str | None], after: dict[str, str | None]
) -> Greedy:
    """Counts the unchanged and the right answers."""
    pairs = [(before[problem.id], after[problem.id]) for problem in problems]
    right = [[float(_same(answers[problem.id], problem.gold)) for problem in problems] for answers in (before, after)]
    return Greedy(
        problems=len(problems),
        answered=sum(a is not None or b is not None for a, b in pairs),
        unchanged=sum(a is not None and b is not None and _same(a, b) for a, b in pairs),
        right_before=int(sum(right[0])),
        right_after=int(sum(right[1])),
        change=paired_difference(*right),
    )


def _same(answer: str | None, gold: str) -> bool:
    return answer is not None and (answer == gold or compare(answer=answer, gold=gold).outcome == "equal")
