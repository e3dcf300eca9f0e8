"""Makes details of lighteval with its own writer: `python make_lighteval.py`, in an environment that has lighteval."""

import json
from pathlib import Path

from lighteval.logging.evaluation_tracker import EvaluationTracker
from lighteval.models.dummy.dummy_model import DummyModelConfig
from lighteval.models.model_output import ModelResponse
from lighteval.tasks.requests import Doc, SamplingMethod

SUMS = json.loads((Path(__file__).parent / "sums.json").read_text())


def main() -> None:
    """Log every problem with four texts, of 20 to 23 tokens under a cap of 23; they go to the folder `out`."""
    tracker = EvaluationTracker(output_dir="out", save_details=True)
    tracker.general_config_logger.log_model_info(model_config=DummyModelConfig(model_name="me/pocket"))
    for problem in SUMS["problems"]:
        answers = SUMS["answers"][problem["id"]]
        texts = ["I cannot say" if answer is None else f"So it is \\boxed{{{answer}}}" for answer in answers]
        doc = Doc(
            query=f"Solve: {problem['statement']}",
            original_query=problem["statement"],
            choices=[f" {problem['gold']}"],
            gold_index=0,
            id=problem["id"],
            task_name="pocket_sums|0",
            sampling_methods=[SamplingMethod.GENERATIVE],
            generation_size=23,
            num_samples=4,
        )
        response = ModelResponse(text=texts, output_tokens=[[7] * (20 + number) for number in range(4)])
        tracker.details_logger.log("pocket_sums|0", doc, response, {"extractive_match": 0.5})
    tracker.save()


if __name__ == "__main__":
    main()
