"""The samples that a folder lacks, drawn and recorded, and the problems solved with them; a killed run goes on."""

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from mathlete.command import busy, note_on_stop, progress
from mathlete.drawing.plan import DrawingPlan
from mathlete.engines import OpenEngine, open_engine
from mathlete.lost import LostLog, OnRefused, raise_refusal
from mathlete.reasoning import closes_unopened, has_marks
from mathlete.sampling import Sample, SampleLog
from mathlete.solve import RealClock, Solution, solve_all, solve_in_turn
from mathlete.text import agree

SAMPLES, SPENT, LOST = "samples.jsonl", "spent.jsonl", "lost.jsonl"
"""Files of a folder: its samples, the seconds of each problem on a shared clock, and the tries that came to nothing."""


class Tally(Protocol):
    """What a bar says of the samples so far; they may be added from several threads."""

    samples: int
    """Those that were recorded before among them."""
    new_tokens: int
    """Of the samples drawn now."""

    def add(self, sample: Sample) -> None:
        """Count one sample."""
        ...

    def describe(self) -> str:
        """Return how it stands, in words."""
        ...


@dataclass(frozen=True, kw_only=True)
class Watching:
    """Who is told of a drawing as it goes on."""

    title: str
    """Of the bar."""
    count: Callable[[Sequence[Sample]], Tally]
    """Begins to count, with the samples that are recorded."""
    on_open: Callable[[], None] = lambda: None
    """Called once the engine is there: what it may change of a folder stays as it is where no engine ever is."""
    on_solution: Callable[[Solution], None] = lambda solution: None
    """Called with each solution as it is there, from any thread."""
    on_refused: OnRefused = raise_refusal
    """Called where a question is refused, though others may not be, from any thread; raises where the run must end."""
    say: Callable[[str], None]
    """Prints a line."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """All problems solved."""

    solutions: list[Solution]
    """Those of this run, in the problems' order."""
    engine_facts: dict[str, object]
    tokens: int
    """Of the samples drawn now, without those that were recorded before."""
    seconds: float
    resumed_samples: int


def draw_samples(folder: Path, plan: DrawingPlan, watching: Watching, *, solved: Collection[str] = ()) -> Drawn:
    """Draw the samples that the folder lacks, and solve with them all problems but those of the ids in `solved`."""
    say = watching.say
    with SampleLog(folder / SAMPLES) as samples:
        plan.check_recorded(samples)
        lost = LostLog(folder / LOST)
        with busy("loading the model"):
            engine = open_engine(replace(plan.engine, on_lost=lost.append))
        with closing(engine.sampler):
            watching.on_open()
            if samples.dropped_bytes:
                say(f"dropped a half-written last line of {SAMPLES} ({samples.dropped_bytes} bytes)")
            if samples.recorded:
                say(f"going on: {len(samples.recorded)} of {plan.samples} samples are there")
            if lost.earlier:
                say(f"{lost.earlier} tries were lost before ({LOST}); what they should have given is drawn now")
            if engine.opening is not None:
                say(f"thoughts {engine.opening.describe()}")
            tally, started = watching.count(samples.recorded), time.monotonic()
            left = replace(plan, problems=[problem for problem in plan.problems if problem.id not in solved])
            with note_on_stop(lambda: [f"{folder / SAMPLES}, {tally.samples} of {plan.samples} samples"]):
                solutions = _solve_problems(left, engine, samples, tally, watching, folder=folder, most=plan.samples)
            samples.join_harvest()
            if warning := doubt_opening(engine, solutions):
                say(warning)
            return Drawn(
                solutions=solutions,
                engine_facts={**engine.facts, **_count_lost(lost, solutions, say=say)},
                tokens=tally.new_tokens,
                seconds=time.monotonic() - started,
                resumed_samples=len(samples.recorded),
            )


def doubt_opening(engine: OpenEngine, solutions: Sequence[Solution]) -> str:
    """Return what speaks against prompts that open no reasoning, where it matters to a sample; "" for nothing."""
    samples = [sample for solution in solutions for sample in solution.samples]
    cut = [one for one in samples if one.was_cut and one.answer is not None and not has_marks(one.text)]
    closing = sum(closes_unopened(one.text) for one in samples) if cut and engine.opens_thoughts is False else 0
    if not closing:
        return ""
    return (
        f"{len(cut)} cut samples vote with what may be a thought: {closing} others end a reasoning that they have not "
        "opened. If the prompt opens it, run it again with --servers.opens-thoughts yes, in another folder"
    )


def _count_lost(lost: LostLog, solutions: Sequence[Solution], *, say: Callable[[str], None]) -> dict[str, object]:
    """Return what results.json says of lost tries, and say which samples never came; nothing where none was lost."""
    if not lost.tries:
        return {}
    over = {one.problem_id: {sample.index for sample in one.samples} for one in solutions if one.ended == "time"}
    keys = {(one.problem_id, one.index) for one in lost.tries}
    never = sum(name in over and index not in over[name] for name, index in keys)
    if never:
        many = f"{never} samples stay lost: the time of their problems"
        words = agree(never, "1 sample stays lost: the time of its problem", many)
        say(f"{words} was over before another try ({LOST})")
    return {"lost_tries": len(lost.tries), "lost_samples": never}


def _solve_problems(
    plan: DrawingPlan,
    engine: OpenEngine,
    samples: SampleLog,
    tally: Tally,
    watching: Watching,
    *,
    folder: Path,
    most: int,
) -> list[Solution]:
    """Solve the problems, with a progress bar: one after another under a shared clock, else side by side."""
    with progress(watching.title) as bar:
        task = bar.add_task(tally.describe(), total=most, completed=tally.samples)
        began = time.monotonic()

        def on_sample(sample: Sample) -> None:
            tally.add(sample)
            speed = tally.new_tokens / max(1e-9, time.monotonic() - began)
            bar.update(task, advance=1, description=f"{tally.describe()} · {speed:,.0f} tokens/s")
            if forced is not None and sample.needs_harvest:
                to_force.append(sample)
                bar.update(forced, total=len(to_force))

        to_force = [sample for sample in samples.recorded if sample.needs_harvest]
        forced = bar.add_task("forced answers", total=len(to_force)) if plan.policy.harvest else None

        def on_harvest(sample: Sample) -> None:
            if forced is not None:
                if sample.finish == "clock":
                    to_force.append(sample)
                bar.update(forced, advance=1, total=len(to_force))

        if plan.budget is not None:
            return solve_in_turn(
                plan.problems,
                sampler=engine.sampler,
                clock=RealClock(),
                policy=plan.policy,
                samples=samples,
                spent=folder / SPENT,
                budget=plan.budget,
                on_sample=on_sample,
                on_harvest=on_harvest,
                on_solution=watching.on_solution,
                on_refused=watching.on_refused,
                thinking=engine.opens_thoughts,
            )
        return solve_all(
            plan.problems,
            sampler=engine.sampler,
            clock=RealClock(),
            policy=plan.policy,
            samples=samples,
            on_sample=on_sample,
            on_harvest=on_harvest,
            on_solution=watching.on_solution,
            on_refused=watching.on_refused,
            # Samples for two batches: rows of the batch that become free are filled at once.
            at_once=min(len(plan.problems), 2 * engine.rows // plan.policy.fewest_samples + 2),
            thinking=engine.opens_thoughts,
        )
