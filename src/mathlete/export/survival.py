"""Survival: what merge and 8-bit export cost, measured against the model as it was trained (4-bit base + adapter).

KL(trained || other), nats a token, is the mean over the held-out completions' tokens of the Kullback-Leibler divergence
of the next-token distributions. Greedy answers are drawn by the batch that serves the model, but fed in an order of its
own: LLM.int8 looks for outliers in the whole batch, so that an answer may depend on its neighbours, and neighbours that
depend on threads would make every measurement another one.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.answers import compare
from mathlete.metrics import Interval, paired_difference
from mathlete.problems import Problem
from mathlete.prompts import PromptFormat
from mathlete.rows import RowFiles

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from mathlete.sampling.embedded.batch import Request

_KEPT_BYTES = 2**30
"""Reference log-probabilities held at a time."""
_KV_BYTES, _MAX_ROWS = 4 * 2**30, 256
"""Bytes of keys and values, and rows, of a greedy batch. The free memory of a machine must not choose them."""


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
    import torch

    from mathlete.sampling.completion import CompletionReader
    from mathlete.sampling.embedded.batch import Batch
    from mathlete.solve.solver import read_answer

    reader = CompletionReader(prompts.tokenizer, eos_ids={int(prompts.tokenizer.eos_token_id)})
    found: dict[str, str | None] = {}
    with torch.inference_mode():
        for some in _greedy_batches(model, prompts=prompts, problems=problems, max_tokens=max_tokens):
            batch = Batch(model, reader=reader, max_rows=len(some), max_tokens=2**62)
            batch.admit(some)
            while len(batch):
                found |= {
                    request.problem_id: read_answer(sample.text, cut=sample.finish == "length")
                    for request, sample in batch.step()
                }
    return found


def _greedy_batches(
    model: Any, *, prompts: PromptFormat, problems: Sequence[Problem], max_tokens: int
) -> "Iterator[deque[Request]]":
    from mathlete.sampling.embedded.batch import Request
    from mathlete.sampling.samples import SamplingConfig

    config = SamplingConfig(temperature=0.0, top_p=1.0, max_tokens=max_tokens)
    shape = model.config.get_text_config()
    requests = []
    for problem in problems:
        prompt = prompts.prompt_ids(problem.statement)
        room = max(1, min(max_tokens, shape.max_position_embeddings - len(prompt)))
        requests.append(
            Request(problem_id=problem.id, prompt=prompt, config=config, max_tokens=room, waiting=deque([(0, 0)]))
        )
    width = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    token_bytes = 2 * 2 * width * shape.num_key_value_heads * shape.num_hidden_layers
    longest = max(request.longest for request in requests)
    size = max(1, min(_MAX_ROWS, _KV_BYTES // (token_bytes * longest)))
    for start in range(0, len(requests), size):
        yield deque(requests[start : start + size])


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
