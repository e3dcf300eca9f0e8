"""A run as an eval log of Inspect, which its viewer opens: written through inspect_ai's own log API."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.errors import UserError
from mathlete.files import replace_when_done
from mathlete.organiser import Grade
from mathlete.reasoning import split
from mathlete.sampling import Sample
from mathlete.scoring.facts import RunFacts
from mathlete.scoring.grading import Graded
from mathlete.scoring.scores import Scores

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample, EvalScore, EvalSpec
    from inspect_ai.model import ChatMessageAssistant

_STOPS = {"stop": "stop", "boxed": "stop", "length": "max_tokens", "cancelled": "unknown", "clock": "unknown"}
_LETTERS = {"equal": "C", "different": "I", "unknown": "I", "none": "N"}
"""Inspect's own letters: correct, incorrect, no answer."""
_SCORER = "mathlete"


def write_inspect_log(
    out: Path, *, graded: Sequence[Graded], scores: Scores, facts: RunFacts, manifest: dict[str, Any]
) -> Path:
    """Write the log of a finished run, each of a problem's samples as an epoch; returns its path.

    Raises:
        UserError: inspect_ai is not installed, or the name is not that of a log.
    """
    try:
        from inspect_ai.log import write_eval_log
    except ImportError as error:
        cure = "pip install 'mathlete[inspect]' into an environment of its own, for its pins are not those of this one"
        raise UserError("eval logs for Inspect need inspect_ai, which is not installed", cure=cure) from error
    if out.suffix not in (".eval", ".json"):
        raise UserError("a log's name ends in .eval or .json", value=out.name, cure="use --out NAME.eval")
    out.parent.mkdir(parents=True, exist_ok=True)
    with replace_when_done(out) as temporary:
        write_eval_log(_log(graded, scores, facts, manifest), temporary)
    return out


def _log(graded: Sequence[Graded], scores: Scores, facts: RunFacts, manifest: dict[str, Any]) -> "EvalLog":
    from inspect_ai.log import EvalLog, EvalResults, EvalStats

    samples = [sample for item in graded for sample in _samples(item, model=facts.model)]
    finished = manifest["finished"]
    started = datetime.fromisoformat(finished) - timedelta(seconds=manifest["seconds"])
    return EvalLog(
        status="success",
        eval=_spec(graded, facts, manifest),
        results=EvalResults(total_samples=len(samples), completed_samples=len(samples), scores=[_scores(scores)]),
        stats=EvalStats(started_at=started.isoformat(), completed_at=finished),
        samples=samples,
    )


def _spec(graded: Sequence[Graded], facts: RunFacts, manifest: dict[str, Any]) -> "EvalSpec":
    from inspect_ai.log import EvalConfig, EvalDataset, EvalSpec
    from inspect_ai.model import GenerateConfig

    settings, sampling = facts.settings, facts.settings.policy.sampling
    ids: list[str | int] = [item.problem.id for item in graded]
    return EvalSpec(
        created=manifest["finished"],
        task=settings.suite,
        # Made of the step's key: the same run gives the same log.
        eval_id=manifest["key"][:22],
        run_id=manifest["key"][:22],
        task_id=settings.suite_sha[:22],
        dataset=EvalDataset(name=settings.suite, samples=len(ids), sample_ids=ids),
        model=f"{settings.engine}/{facts.model}",
        model_generate_config=GenerateConfig(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or None,
            stop_seqs=[*sampling.stop] or None,
            max_tokens=sampling.max_tokens,
        ),
        config=EvalConfig(epochs=facts.n),
        packages=manifest["packages"],
        metadata={
            "model_sha": settings.model_sha,
            "prompt_sha": facts.prompt_sha,
            "suite_sha": settings.suite_sha,
            "precision": settings.precision,
            "commit": facts.commit,
            "dirty": facts.dirty,
            "policy": settings.policy.to_json(),
        },
    )


def _scores(scores: Scores) -> "EvalScore":
    from inspect_ai.log import EvalMetric, EvalScore

    values = {"pass@1": scores.pass_at_1, "stderr": scores.pass_at_1_se, f"maj@{scores.k}": scores.maj_at_k.value}
    metrics = {name: EvalMetric(name=name, value=value) for name, value in values.items() if value is not None}
    return EvalScore(name=_SCORER, scorer=_SCORER, metrics=metrics)


def _samples(item: Graded, *, model: str) -> list["EvalSample"]:
    build = _sample_builder(item, model)
    return [build(*pair) for pair in zip(item.solution.samples, item.verdicts, strict=True)]


def _sample_builder(item: Graded, model: str) -> Callable[[Sample, Grade], "EvalSample"]:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatCompletionChoice, ChatMessageUser, ModelOutput, ModelUsage
    from inspect_ai.scorer import Score

    problem = item.problem
    facts = {"subset": problem.subset, "voted": item.solution.answer, "vote": item.verdict}

    def build(sample: Sample, verdict: Grade) -> EvalSample:
        reply = _reply(sample.text, model)
        stop: Any = _STOPS[sample.finish]
        usage = ModelUsage(output_tokens=sample.tokens, total_tokens=sample.tokens)
        return EvalSample(
            id=problem.id,
            epoch=sample.index + 1,
            input=problem.statement,
            target=problem.gold,
            messages=[ChatMessageUser(content=problem.statement), reply],
            output=ModelOutput(
                model=model, choices=[ChatCompletionChoice(message=reply, stop_reason=stop)], usage=usage
            ),
            scores={
                _SCORER: Score(value=_LETTERS[verdict], answer=sample.answer, explanation=f"against gold: {verdict}")
            },
            metadata={
                **facts,
                "seed": sample.seed,
                "finish": sample.finish,
                "logprob_mean": sample.logprob_mean,
                "logprob_tail": sample.logprob_tail,
                **({"in_thoughts": True} if sample.in_thoughts else {}),
            },
            model_usage={model: usage},
            total_time=sample.seconds,
        )

    return build


def _reply(text: str, model: str) -> "ChatMessageAssistant":
    from inspect_ai.model import ChatMessageAssistant, ContentReasoning, ContentText

    halves = split(text)
    if halves is None:
        return ChatMessageAssistant(content=text, model=model, source="generate")
    thought, answer = halves
    parts = [ContentReasoning(reasoning=thought.strip()), ContentText(text=answer.strip())]
    return ChatMessageAssistant(content=parts, model=model, source="generate")
