"""Runs as the project writes them, of samples made up for the tests of the report, and what its page holds."""

import gzip
import json
import re
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mathlete.problems import Problem, write_problems
from mathlete.runs import MANIFEST, sha256_tree, write_json
from mathlete.sampling.record import SampleLog
from mathlete.sampling.samples import Sample, SamplingConfig
from mathlete.scoring import EvalRun, Results, RunFacts, RunSettings
from mathlete.solve.budget import BudgetSettings
from mathlete.solve.policy import Policy

EVIL = '</script><script>window.alive = 1</script><img src=x onerror="window.alive = 2"><b>${alive = 3}</b>'
Drawn = Sequence[tuple[Problem, Sequence[dict[str, Any]]]]
TOOL = "First $x^2 = 9$.\n```python\nprint(3 * 3)\n```\n```output\n9\n```\nSo it is \\boxed{9}."
LONG_TEXTS = {
    "formulas": "Then $x^2 + \\frac{1}{2}$ holds. " * 35_000,
    "fences": "```python\nprint(1)\n```\n" * 100_000,
    "fences of nothing": "```" * 300_000,
    "one block": "```text\n" + "let x = 1;\n" * 100_000,
    "one line": "x" * 1_000_000,
    "displays that never close": "\\[ x " * 200_000,
    "dollars": "$" * 1_000_001,
    "boxes that never close": "\\boxed{" * 140_000,
    "boxes in boxes": "\\boxed{" * 100_000 + "}" * 100_000,
    "matrices that never close": "\\begin{pmatrix} 1 & 2 " * 45_000,
    "tags": "<think></think>" * 70_000,
    "half tags": "<|" * 500_000,
    "one long formula": "$$" + "{x+" * 150_000 + "1" + "}" * 150_000 + "$$",
}


def record(folder: Path, drawn: Drawn, budget: BudgetSettings | None = None) -> Path:
    """Return a finished evaluation run of these samples, written as the project writes its own."""
    folder.mkdir(parents=True)
    write_problems(folder / "problems.jsonl", [problem for problem, _ in drawn])
    with SampleLog(folder / "samples.jsonl") as log:
        for problem, samples in drawn:
            for index, told in enumerate(samples):
                sample = {"tokens": 40, "finish": "stop", "seconds": 1.0, "text": "", **told}
                log.append(Sample(problem_id=problem.id, index=index, seed=index, **sample))
    n = len(drawn[0][1])
    settings = RunSettings(
        suite="six", suite_sha="5" * 64, problems=len(drawn), precision="dense", engine="transformers",
        policy=Policy(n=n, sampling=SamplingConfig(max_tokens=100)), budget=budget, tools=None, model_sha="m1",
    )  # fmt: skip
    facts = RunFacts(
        settings=settings, n=n, model="m", engine_facts={"threads": 1}, prompt_sha="p1", commit="c1", dirty=False,
        seconds=3.0, tokens_per_s=5.0, resumed_samples=0,
    )  # fmt: skip
    Results.of(EvalRun.read(folder).graded, facts).write(folder, began=0.0)
    return folder


def problem(name: str, gold: str = "9", **more: str) -> Problem:
    return Problem(
        **{"id": name, "statement": f"What is $3^2$ in {name}?", "gold": gold, "subset": "algebra/1", **more}
    )


def answers(*words: str | None, text: str = "It is {}.") -> list[dict[str, Any]]:
    return [{"answer": word, "text": text.format(word)} for word in words]


def six() -> Drawn:
    """Right, wrong, outvoted, close, without any answer, cut at the cap."""
    cut = [{**sample, "finish": "length", "tokens": 100} for sample in answers(None, "9", "9", "9")]
    return [
        (problem("sure"), [{"answer": "9", "text": TOOL}, *answers("9", "9", "9")]),
        (problem("wrong", subset="geometry/2"), answers("7", "7", "7", "7")),
        (problem("outvoted", subset="geometry/2"), answers("7", "7", "7", "9")),
        (problem("close"), answers("9", "9", "7", "8")),
        (problem("silent"), answers(None, None, None, None, text="a needle in the hay")),
        (problem("capped"), cut),
    ]


def blocks(page: str) -> list[list[list[Any]]]:
    texts = re.findall(r'<script type="text/plain" id="block-\d+">([^<]*)</script>', page)
    return [json.loads(gzip.decompress(b64decode(block))) for block in texts]


def data(page: str) -> dict[str, Any]:
    script = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert script
    told: dict[str, Any] = json.loads(script[1])
    return told


def train_run(folder: Path, losses: Sequence[float] = (2.0, 1.0)) -> Path:
    """Return a training run's files, as the steps write them."""
    row = {"problem_id": "p", "gold": "9", "prompt": "Q?<think>", "trained": "so\n</think>\\boxed{9}",
           "prompt_tokens": 3, "trained_tokens": 7, "spans": [["Q?<think>", False]]}  # fmt: skip
    left = {"reason": "two boxes", "id": "q", "statement": "Q", "gold": "1", "source": "s", "trace": EVIL}
    points = [{"step": step, "loss": loss, "learning_rate": 1e-4} for step, loss in enumerate(losses, start=1)]
    for name, text in (("data/head.jsonl", json.dumps(row)), ("data/dropped.jsonl", json.dumps(left)),
                       ("adapter/metrics.jsonl", "\n".join(map(json.dumps, points)))):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n")
    told = json.loads((Path(__file__).parent / "golden" / "train_run.json").read_text())
    # Manifests vouch for the other files, so they come last.
    for name, value in sorted(told.items(), key=lambda item: item[0].endswith(MANIFEST)):
        vouched = {"outputs": sha256_tree((folder / name).parent)} if name.endswith(MANIFEST) else {}
        write_json(folder / name, {**value, **vouched})
    return folder


def list_shown(page: Any, *, count: int | str) -> list[str]:
    # The policy of the page forbids what `wait_for_function` does: evaluate a string.
    page.wait_for_selector(f"#count:text-matches('^{count} of ')")
    return page.eval_on_selector_all("#list > button", "all => all.map(one => one.dataset.id)")  # type: ignore[no-any-return]
