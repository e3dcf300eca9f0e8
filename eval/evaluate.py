"""`python -m eval SUITE`: evaluate a model on a suite, step by step."""

from collections.abc import Iterator

from eval.plan import print_plan
from eval.settings import EvalSettings
from mathlete.command import Command, busy, console
from mathlete.competitions import Competition, competition
from mathlete.corpus import SUITE_NAMES
from mathlete.foreign_flags import EVALUATING_FLAGS
from mathlete.gates import GateOutcome, require_passed
from mathlete.mistakes import require_address_space
from mathlete.prompts import SavedPrompt
from mathlete.solve import Policy
from mathlete.text import counted

_SUMMARY = (
    *("suite", "model", "n", "problems", "samples", "right", "pass_at_1", "pass_at_1_se", "k", "maj_at_k"),
    *("maj_at_k_interval", "unanswered", "unknown", "tokens", "seconds", "tokens_per_s", "fallbacks"),
)
"""Keys of results.json that the line of JSON repeats."""


def evaluate(settings: EvalSettings) -> dict[str, object]:
    """Evaluate the model, or continue a run that was stopped; print and return the scores."""
    require_address_space()
    out = console(json=settings.json)
    policy = settings.solving.to_policy()
    if settings.plan:
        return print_plan(settings, say=out.print)
    rules = competition(settings.competition) if settings.competition else None
    settings.planned.check(plan=settings.plan)
    with busy("loading the libraries"):
        from eval.run import Evaluation, run_evaluation
        from mathlete.finish_order import describe_finish_order
        from mathlete.organiser import ScorerResult
        from mathlete.scoring import Results

    engine, reason = settings.model.choose(max_tokens=policy.longest_tokens)
    if policy.harvest:
        engine.require_continuing()
    folder = engine.source.folder
    outcome = require_passed(folder, reason=settings.accept_refused) if folder else GateOutcome()
    suite = settings.load_problems()
    out.print(reason)
    if suite.origin:
        out.print(
            f"suite {suite.name}: {counted(len(suite.problems), 'problem')}, sha256 {suite.sha256[:12]}; {suite.origin}"
        )
    budget = settings.solving.to_budget(questions=len(suite.problems))
    evaluation = Evaluation(
        suite=suite,
        engine=engine,
        policy=policy,
        budget=budget,
        folder=settings.run,
        overwrite=settings.overwrite,
        gates=outcome,
        rules=rules,
    )
    step = run_evaluation(evaluation, say=out.print)

    results = Results.read(step.folder)
    out.print(results.to_table())
    out.print(results.describe())
    if results.harvest:
        out.print(results.harvest.describe())
    if results.losses:
        out.print(results.losses.describe())
    if results.finish_order:
        out.print(describe_finish_order(results.finish_order))
    scored = ScorerResult.read(step.folder) if rules else None
    other = describe_conditions(rules, policy, prompt=engine.source.served_prompt) if rules else ()
    for line in (*(scored.describe() if scored else ()), *other):
        out.print(line, markup=False)
    out.print(f"{'nothing changed, skipped: ' if step.skipped else ''}{step.folder}")
    content = results.to_json()
    more = {"harvest": content["harvest"]} if results.harvest else {}
    if scored:
        more["scorer"] = {"competition": scored.competition, **scored.to_summary()}
    return {"run": str(step.folder), **{key: content[key] for key in _SUMMARY}, **more, "skipped": step.skipped}


def describe_conditions(rules: Competition, policy: Policy, *, prompt: SavedPrompt) -> Iterator[str]:
    """Yield in what a run differs from how the organiser samples, where the competition says that."""
    if rules.sampling is None:
        return
    own = {
        "temperature": policy.sampling.temperature,
        "top_p": policy.sampling.top_p,
        "max_tokens": policy.longest_tokens,
    }
    other = {name: (value, getattr(rules.sampling, name)) for name, value in own.items()}
    differ = [f"{name} {theirs:g}, here {value:g}" for name, (value, theirs) in other.items() if value != theirs]
    if (
        rules.prompt
        and prompt.organiser != rules.prompt
        and not rules.prompt.is_same(instruction=prompt.instruction, template=prompt.template_args)
    ):
        differ.append("another prompt, which --prompt.organiser would take from its rules")
    if rules.scorer.reads_text:
        differ.append("its samples go on behind a box, ours end there")
    if differ:
        yield f"{rules.name} is sampled otherwise, so these are not quite its points: {'; '.join(differ)}"


EVALUATE = Command(
    settings=EvalSettings,
    run=evaluate,
    foreign_flags=EVALUATING_FLAGS,
    fails=lambda result: result.get("fits") is False,
    help="Runs a model on a suite: n samples a problem, majority vote, pass@1 and maj@k with intervals.\n\n"
    f"Suites: {', '.join(SUITE_NAMES)}, a file of problems (.jsonl, .json, .csv, .parquet), "
    "or source:NAME, the problems of a training source or file.\n\n"
    "Examples:\n\npython -m eval pocket_val\n\npython -m eval aimo_val --model r1-qwen-7b --n 16 --limit 20\n\n"
    "python -m eval aimo_val --model r1-qwen-7b --n 16 --plan --device t4x2",
)
