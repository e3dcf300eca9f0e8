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
from mathlete.errors import UserError
from mathlete.problems import Problem
from mathlete.prompts import PromptFormat
from mathlete.tune.format import HELDOUT
from mathlete.tune.settings import Survival

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from rich.table import Table

    from mathlete.sampling.batch import Request

_KEPT_BYTES = 2**30
"""Reference log-probabilities held at a time."""
_KV_BYTES, _MAX_ROWS = 4 * 2**30, 256
"""Bytes of keys and values, and rows, of a greedy batch. The free memory of a machine must not choose them."""


def heldout_rows(data: Path) -> "Dataset":
    """The rows that were kept from training."""
    import datasets

    found: Dataset = datasets.load_from_disk(data / HELDOUT)
    return found


def log_probabilities(model: Any, rows: "Dataset") -> "torch.Tensor":
    """Log-probabilities of the next token, (tokens, vocabulary), at the positions that predict completion tokens.

    All of them, or evenly spaced ones where all would need more than a GiB.
    """
    import torch

    vocabulary = int(model.config.get_text_config().vocab_size)
    total = sum(len(ids) for ids in rows["input_ids"]) - sum(rows["prompt_tokens"])
    every = -(-total * vocabulary * 4 // _KEPT_BYTES)
    found, before = [], 0
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row["input_ids"]], device=model.device)
            first, last = row["prompt_tokens"] - 1, ids.shape[1] - 1
            positions = torch.arange(first + (-before) % every, last, every, device=model.device)
            before += last - first
            if len(positions):
                logits = model(input_ids=ids, logits_to_keep=positions, use_cache=False).logits[0]
                found.append(torch.log_softmax(logits.float(), dim=-1).cpu())
    return torch.cat(found)


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

    from mathlete.sampling.batch import Batch
    from mathlete.sampling.completion import CompletionReader
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
    from mathlete.sampling.batch import Request
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

    @property
    def share(self) -> float | None:
        """Unchanged answers as a share of the answered problems; None where neither model answers any."""
        return self.unchanged / self.answered if self.answered else None


def compare_greedy(
    problems: Sequence[Problem], *, before: dict[str, str | None], after: dict[str, str | None]
) -> Greedy:
    """Counts the unchanged and the right answers."""
    pairs = [(before[problem.id], after[problem.id]) for problem in problems]
    golds = {problem.id: problem.gold for problem in problems}
    return Greedy(
        problems=len(problems),
        answered=sum(a is not None or b is not None for a, b in pairs),
        unchanged=sum(a is not None and b is not None and _same(a, b) for a, b in pairs),
        right_before=sum(_same(answer, golds[name]) for name, answer in before.items()),
        right_after=sum(_same(answer, golds[name]) for name, answer in after.items()),
    )


def _same(answer: str | None, gold: str) -> bool:
    return answer is not None and (answer == gold or compare(answer=answer, gold=gold).outcome == "equal")


def require_survival(figures: dict[str, Any], limits: Survival) -> None:
    """Checks the figures against their limits.

    Raises:
        UserError: the first that is out of its limit.
    """
    for key, limit, flag in (
        ("kl_merged", limits.kl_merged, "kl-merged"),
        ("kl_int8", limits.kl_int8, "kl-int8"),
    ):
        # Written so that a KL that is no number is a breach too.
        if key in figures and not figures[key] <= limit:
            name = key.removeprefix("kl_")
            raise UserError(
                f"KL(trained || {name}) must be at most {limit:g} nats a token",
                value=f"{figures[key]:.2e}",
                cure="merge with --merge-base dequant, train with a lower --tune.rate, "
                f"or accept the loss with --survival.{flag}",
            )
    share = figures.get("greedy_unchanged")
    if share is not None and share < limits.greedy:
        raise UserError(
            f"int8 must leave at least {limits.greedy:.0%} of greedy answers unchanged",
            value=f"{share:.1%} of {figures['greedy_answered']}",
            cure="train with a lower --tune.rate, or accept the loss with --survival.greedy",
        )


def survival_table(figures: dict[str, Any], limits: Survival) -> "Table":
    """What each hop cost, beside what it may cost."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        box=SIMPLE_HEAD, title=f"against the trained model: KL in nats over {figures['kl_tokens']} held-out tokens"
    )
    for name in ("", "KL", "at most", "greedy unchanged", "at least", "greedy right"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    problems, share = figures["greedy_problems"], figures["greedy_unchanged"]
    unchanged = "none answered" if share is None else f"{share:.1%} of {figures['greedy_answered']}"
    table.add_row("trained", "0", "", "", "", f"{figures['greedy_right_trained']} of {problems}")
    table.add_row("merged", f"{figures['kl_merged']:.1e}", f"{limits.kl_merged:.0e}")
    right = f"{figures['greedy_right_int8']} of {problems}"
    table.add_row(
        "int8", f"{figures['kl_int8']:.1e}", f"{limits.kl_int8:.0e}", unchanged, f"{limits.greedy:.0%}", right
    )
    return table
