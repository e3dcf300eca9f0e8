"""DeepConf's cut within samples, tried on a recorded run: bench/deepconf.py.

Fu et al. 2025, "Deep think with confidence" (arXiv:2508.15260), section 3: a token's confidence is minus the mean
log-probability of the k likeliest tokens, a group's is the mean over a sliding window, and a sample is stopped once a
group falls below a threshold, which the first samples of the question set: the percentile of their lowest groups.
Samples are weighed by their lowest group in the vote, or counted.

The recorded texts are scored by the model anew (the recording holds no tokens), at temperature 1. A cut is simulated:
it saves what the sample said after it, and takes its vote. Only problems with right and wrong samples are scored: no
cut changes the result of another one.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import tyro

from mathlete.metrics import paired_difference
from mathlete.models import find_model, load_model, load_prompt_format
from mathlete.scoring import EvalRun
from mathlete.scoring.pool import Recorded

Confidences = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """What is scored."""

    run: Path
    """Folder of a finished evaluation with texts."""
    model: str
    """The model that drew them."""
    cache: Path
    """Folder of the scores: a killed run goes on from there."""
    top: int = 20
    """Likeliest tokens of a token's confidence; vLLM gives 20 at most."""
    windows: tuple[int, ...] = (16, 32, 64)
    """Tokens of a group. The paper's 1,024 and 2,048 are for traces of tens of thousands of tokens."""
    kept: tuple[float, ...] = (0.9, 0.5, 0.1)
    """Shares of the first samples that the threshold would keep: the paper's are 0.9 (high) and 0.1 (low)."""
    warmup: int = 4
    """First samples of a question, which are never cut. The paper takes 16."""


def score_run(settings: BenchSettings, problems: Sequence[Recorded]) -> dict[str, list[Confidences]]:
    """Return each token's confidence, nats, for the samples of each problem in order of their index."""
    settings.cache.mkdir(parents=True, exist_ok=True)
    source = find_model(settings.model)
    prompts = load_prompt_format(source)
    model = load_model(source, dtype="bfloat16")
    scores: dict[str, list[Confidences]] = {}
    for number, item in enumerate(problems):
        file = settings.cache / f"{number}.npz"
        if not file.is_file():
            prompt = prompts.prompt_ids(item.problem.statement)
            rows = [score_sample(model, prompt, prompts.said_ids(one.text), top=settings.top) for one in item.samples]
            np.savez(file, *rows)
            print(f"{number + 1} of {len(problems)} problems", flush=True)
        with np.load(file) as saved:
            scores[item.problem.id] = [saved[name] for name in saved.files]
    return scores


@torch.inference_mode()
def score_sample(model: torch.nn.Module, prompt: Sequence[int], said: Sequence[int], *, top: int) -> Confidences:
    """Return the confidence of each token of a sample, given all before it."""
    logits = model(torch.tensor([[*prompt, *said]])).logits[0, len(prompt) - 1 : -1].float()
    confidences: Confidences = -logits.log_softmax(-1).topk(top).values.mean(-1).double().numpy()
    return confidences


def lowest_groups(confidences: Confidences, window: int) -> Confidences:
    """Return, for each token, the lowest mean of a whole window up to it; infinite before the first is whole."""
    if len(confidences) < window:
        return np.full(len(confidences), np.inf)
    sums = np.concatenate([[0.0], confidences.cumsum()])
    means = (sums[window:] - sums[:-window]) / window
    return np.concatenate([np.full(window - 1, np.inf), np.minimum.accumulate(means)])


@dataclass(frozen=True, kw_only=True)
class Cut:
    """One way of cutting, over all problems."""

    right: list[float]
    """Of each problem, whether the vote is right: a tie counts its share."""
    share: float
    """Of the tokens that are drawn nevertheless."""


def cut_samples(
    problems: Sequence[Recorded],
    scores: dict[str, list[Confidences]],
    *,
    window: int,
    kept: float,
    warmup: int,
    weighed: bool,
) -> Cut:
    """Return what a threshold keeps, each problem's samples in each rotation of their order."""
    right: list[float] = []
    drawn = total = 0
    for item in problems:
        lows = [lowest_groups(one, window) for one in scores[item.problem.id]]
        ends = [float(low[-1]) if len(low) else np.inf for low in lows]
        outcomes = []
        for first in range(len(lows)):
            order = [(first + step) % len(lows) for step in range(len(lows))]
            known = [ends[index] for index in order[:warmup] if np.isfinite(ends[index])]
            threshold = float(np.percentile(known, 100 * (1 - kept))) if known else -np.inf
            votes: dict[int, float] = {}
            for place, index in enumerate(order):
                low, label = lows[index], item.labels[index]
                cut = place >= warmup and bool(len(low)) and ends[index] < threshold
                drawn += int(np.argmax(low < threshold)) + 1 if cut else len(low)
                total += len(low)
                if label >= 0 and not cut:
                    weight = ends[index] if weighed and np.isfinite(ends[index]) else 1.0
                    votes[label] = votes.get(label, 0.0) + weight
            best = [label for label, weight in votes.items() if weight == max(votes.values())]
            outcomes.append(sum(label in item.right_classes for label in best) / len(best) if best else 0.0)
        right.append(sum(outcomes) / len(outcomes))
    return Cut(right=right, share=drawn / max(total, 1))


def main(settings: BenchSettings) -> None:
    """Print each cut's paired change against the majority of all samples."""
    every = EvalRun.read(settings.run).pool.problems
    problems = [item for item in every if 0 < sum(one == "equal" for one in item.verdicts) < len(item.samples)]
    print(f"{len(problems)} of {len(every)} problems have right and wrong samples", flush=True)
    scores = score_run(settings, problems)
    base = cut_samples(problems, scores, window=1, kept=1.0, warmup=10**9, weighed=False)
    rows = []
    for weighed in (False, True):
        for window in settings.windows:
            for kept in (1.0, *settings.kept):
                warmup = 10**9 if kept == 1.0 else settings.warmup
                cut = cut_samples(problems, scores, window=window, kept=kept, warmup=warmup, weighed=weighed)
                others = [0.0] * (len(every) - len(problems))
                change = paired_difference([*base.right, *others], [*cut.right, *others])
                row = {
                    "vote": "lowest group" if weighed else "count",
                    "window": window,
                    "kept": kept,
                    "change": 100 * change.value,
                    "low": 100 * change.lo,
                    "high": 100 * change.hi,
                    "tokens": cut.share,
                }
                rows.append(row)
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(tyro.cli(BenchSettings, description=__doc__))
