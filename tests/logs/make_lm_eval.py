"""Makes samples of lm-evaluation-harness: `python make_lm_eval.py REPEATS`, in an environment that has lm_eval."""

import json
import sys
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager

SUMS = json.loads((Path(__file__).parent / "sums.json").read_text())
TASK = """task: pocket_sums
dataset_path: json
dataset_kwargs:
  data_files: {rows}
test_split: train
output_type: generate_until
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{answer}}}}"
repeats: {repeats}
generation_kwargs:
  until: ["Question:"]
  do_sample: true
  temperature: 0.6
  max_gen_toks: 64
metric_list:
  - metric: exact_match
    regexes_to_ignore: ["(?s).*#### "]
filter_list:
  - name: flexible
    filter:
      - function: regex
        regex_pattern: "(-?[0-9]+)"
        group_select: -1
      - function: take_first
  - name: last
    filter:
      - function: take_first
"""
"""GSM8K's shape: the target is a worked solution, and every row is written once for each of two filters."""


class Scripted(LM):  # type: ignore[misc]
    """A model that gives a problem's answers in their order."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[str, int] = {}

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """A text for each request."""
        texts = []
        for request in requests:
            problem = next(one for one in SUMS["problems"] if one["statement"] in request.args[0])
            number = self._counts[problem["id"]] = self._counts.get(problem["id"], -1) + 1
            answer = SUMS["answers"][problem["id"]][number % 4]
            texts.append("I cannot say" if answer is None else f"So it is \\boxed{{{answer}}}")
        return texts

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
        """Nothing here asks for it."""
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood


def main(repeats: int) -> None:
    """Write the task, run it, and leave what the harness logs in the folder `out`."""
    rows = [{"question": one["statement"], "answer": f"It is {one['gold']}\n#### {one['gold']}"}
            for one in SUMS["problems"]]  # fmt: skip
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("pocket_sums.yaml").write_text(TASK.format(rows=Path("rows.jsonl").resolve(), repeats=repeats))
    tracker = EvaluationTracker(output_path="out")
    results = simple_evaluate(
        model=Scripted(),
        tasks=["pocket_sums"],
        task_manager=TaskManager(include_path=str(Path.cwd())),
        log_samples=True,
        evaluation_tracker=tracker,
        bootstrap_iters=0,
    )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in results["configs"]:
        tracker.save_results_samples(task_name=task, samples=samples[task])


if __name__ == "__main__":
    main(int(sys.argv[1]))
