"""Makes logs of Inspect: `python make_inspect.py eval|json|chunked`, in an environment that has inspect_ai."""

import json
import sys
from pathlib import Path
from typing import Any

from inspect_ai import Task, eval  # noqa: A004
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    ModelOutput,
    ModelUsage,
    get_model,
)
from inspect_ai.scorer import match
from inspect_ai.solver import generate

SUMS = json.loads((Path(__file__).parent / "sums.json").read_text())
COUNTS: dict[str, int] = {}


def reply(asked: list[Any], *_: object) -> ModelOutput:
    """The next answer to a problem; every second one with reasoning, which is long enough to be stored apart."""
    problem = next(one for one in SUMS["problems"] if one["statement"] == asked[-1].text)
    number = COUNTS[problem["id"]] = COUNTS.get(problem["id"], -1) + 1
    answer = SUMS["answers"][problem["id"]][number % 4]
    text = "I cannot say" if answer is None else f"So it is \\boxed{{{answer}}}, or {answer}"
    content = [ContentReasoning(reasoning="Let me count. " * 9), ContentText(text=text)] if number % 2 else text
    message = ChatMessageAssistant(content=content, source="generate")
    stop: Any = "max_tokens" if answer is None else "stop"
    return ModelOutput(
        model="pocket",
        choices=[ChatCompletionChoice(message=message, stop_reason=stop)],
        usage=ModelUsage(input_tokens=9, output_tokens=20 + number, total_tokens=29 + number),
    )


def main(kind: str) -> None:
    """Run the task and leave its log in the folder `logs`."""
    samples = [Sample(id=one["id"], input=one["statement"], target=one["gold"]) for one in SUMS["problems"]]
    model = get_model(
        "mockllm/model",
        custom_outputs=reply,
        memoize=False,
        config=GenerateConfig(temperature=0.7, top_p=0.9, max_tokens=64),
    )
    task = Task(
        name="pocket_sums", dataset=MemoryDataset(samples), solver=generate(), scorer=match(numeric=True), epochs=4
    )
    log_format: Any = "json" if kind == "json" else "eval"
    eval(task, model=model, log_dir="logs", log_format=log_format, display="none", max_samples=1)
    if kind == "chunked":
        from inspect_ai.log._recorders.chunked import convert_eval_logs_to_chunked

        convert_eval_logs_to_chunked("logs", "chunked")


if __name__ == "__main__":
    main(sys.argv[1])
