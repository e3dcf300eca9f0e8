"""A run's scores in the shape of lm-evaluation-harness, for what reads its result files.

Keys and types as in its `lm_eval/result_schema.py` (https://github.com/EleutherAI/lm-evaluation-harness, commit
293c9dfb6983aa36fd40accb05a1ad32f135edcd): `metric,filter` pairs, of which the filter `none` is every sample by itself
and `maj@k` the vote of k, as in its self-consistency tasks. Not covered: its log of samples.
"""

import math
from collections.abc import Mapping
from typing import Any

LM_EVAL = "lm_eval.json"


def harness_results(found: Mapping[str, Any], *, date: float) -> dict[str, Any]:
    """The content of lm_eval.json.

    Args:
        found: the content of results.json.
        date: when the evaluation began, seconds since 1970.
    """
    suite, policy = found["suite"], found["policy"]
    parts = {suite: found, **{f"{suite}/{name}": part for name, part in found["subsets"].items() if name}}
    names = [*parts]
    generation = {**policy["sampling"], "do_sample": policy["sampling"]["temperature"] > 0}
    return {
        "results": {name: _scores(name, part) for name, part in parts.items()},
        "group_subtasks": {suite: names[1:]},
        "configs": {
            suite: {
                "task": suite,
                "output_type": "generate_until",
                "num_fewshot": 0,
                "repeats": found["n"],
                "generation_kwargs": generation,
                "metadata": {"version": found["suite_sha"], "policy": policy},
            }
        },
        "versions": dict.fromkeys(names, found["suite_sha"]),
        "n-shot": dict.fromkeys(names, 0),
        "higher_is_better": {name: {"exact_match": True, "pass": True} for name in names},
        "n-samples": {name: dict.fromkeys(("original", "effective"), part["problems"]) for name, part in parts.items()},
        "config": {
            "model": found["engine"],
            "model_args": {"pretrained": found["model"], "precision": found["precision"]},
            "model_sha": found["model_sha"],
            "batch_size": None,
            "limit": None,
            "gen_kwargs": generation,
            "random_seed": policy["seed"],
        },
        "git_hash": found["commit"],
        "date": date,
        "model_source": found["engine"],
        "model_name": found["model"],
        "model_name_sanitized": found["model"].replace("/", "__"),
        "chat_template_sha": found["prompt_sha"],
        "task_hashes": {suite: found["suite_sha"]},
        "total_evaluation_time_seconds": str(found["seconds"]),
    }


def _scores(name: str, part: Mapping[str, Any]) -> dict[str, Any]:
    votes = {k: vote["value"] for k, vote in part["maj_at"].items()} | {str(part["k"]): part["maj_at_k"]}
    whole = part["maj_at_k"]
    # As the harness takes the error of a mean of right and wrong; Wilson's interval is in results.json.
    error = math.sqrt(whole * (1 - whole) / (part["problems"] - 1)) if part["problems"] > 1 else "N/A"
    return {
        "name": name,
        "alias": name,
        "sample_len": part["problems"],
        "exact_match,none": part["pass_at_1"],
        "exact_match_stderr,none": "N/A" if part["pass_at_1_se"] is None else part["pass_at_1_se"],
        **{f"exact_match,maj@{k}": value for k, value in votes.items()},
        **{f"exact_match_stderr,maj@{k}": error if k == str(part["k"]) else "N/A" for k in votes},
        **{f"pass,pass@{k}": value for k, value in part["pass_at"].items()},
    }
