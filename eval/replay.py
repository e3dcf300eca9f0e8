"""`python -m eval replay`: what recorded samples would have scored under other policies, without the model."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mathlete.command import Command, console, progress
from mathlete.errors import UserError, require
from mathlete.jsonl import JsonLines
from mathlete.runs import Step, read_json, run_step, write_json

REPLAY = "replay.json"


@dataclass(frozen=True, kw_only=True)
class ReplaySettings:
    """Which recorded samples, which policies: all combinations of n, cap, stop, vote and budget are tried."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN")]
    """Folders with problems.jsonl and samples.jsonl; several of one model, with different seeds, are pooled."""
    n: tuple[int, ...] = ()
    """Samples a problem; default: a quarter of those recorded, at least 4."""
    max_tokens: tuple[int, ...] = ()
    """Caps on a sample, tokens; default: none below what was recorded."""
    stop: tuple[str, ...] = ("none", "exact", "beta95+exact", "beta99+exact", "esc8", "votes4", "aimo2")
    """Stopping rules."""
    vote: tuple[str, ...] = ("majority",)
    """Votes: majority, logprob, tail, length, strength."""
    budget: tuple[str, ...] = ("none",)
    """Clocks of a submission: none, SECONDS (each question gets 5/6 to 5/2 of an even share),
    SECONDS:FLOOR:CEILING, or SECONDS:free (no allowances; an overrun loses all)."""
    questions: int | None = None
    """Questions of a submission; default: 50, or all problems where there are fewer."""
    simulations: int = 10_000
    """Submissions simulated for each policy."""
    slots: int | None = None
    """Samples of a problem that run at once; default: all n."""
    seed: int = 0
    """Another seed draws other samples and questions."""
    out: Path | None = None
    """Folder for replay.json and replay.png; default: runs/replay-RUN."""
    repair: bool = False
    """Cut a half-written last line off samples.jsonl first."""
    json: bool = False
    """End with one line of JSON on stdout."""


def replay(settings: ReplaySettings) -> dict[str, object]:
    """Prints what each policy would score and cost, writes it, and returns it."""
    questions, simulations, slots = settings.questions, settings.simulations, settings.slots
    require(
        ("questions", questions, questions is None or questions >= 1, "at least 1"),
        ("simulations", simulations, simulations >= 1, "at least 1"),
        ("slots", slots, slots is None or slots >= 1, "at least 1"),
        cure="leave it out",
    )
    out = console(json=settings.json)
    if settings.repair:
        repair(settings.runs, say=out.print)
    step = _carry_out(settings, say=out.print)
    found = read_json(step.folder / REPLAY)
    out.print(f"{'nothing changed, skipped: ' if step.skipped else ''}{step.folder}")
    return {"run": str(step.folder), **found}


def repair(folders: tuple[Path, ...], *, say: Callable[[str], None]) -> None:
    """Cuts half-written last lines off the runs' samples, and says so."""
    for folder in folders:
        if dropped := JsonLines(folder / "samples.jsonl").cut_half_line():
            say(f"{folder}: dropped a half-written last line of samples.jsonl ({dropped} bytes)")


def _carry_out(settings: ReplaySettings, *, say: Callable[..., None]) -> Step:
    from dataclasses import asdict

    facts = {key: value for key, value in asdict(settings).items() if key not in ("runs", "out", "repair", "json")}
    missing = [folder for folder in settings.runs if not folder.is_dir()]
    if missing or not settings.runs:
        raise UserError("a run that is replayed must be a folder", value=[*map(str, missing)], cure="check the path")
    return run_step(
        "replay",
        folder=settings.out or Path("runs") / f"replay-{'-'.join(folder.resolve().name for folder in settings.runs)}",
        inputs={str(folder): folder for folder in settings.runs},
        settings={key: str(value) for key, value in facts.items()},
        build=lambda folder: _build(folder, settings, say=say),
    )


def _build(folder: Path, settings: ReplaySettings, *, say: Callable[..., None]) -> dict[str, object]:
    from dataclasses import asdict

    from mathlete.replay.outcomes import Grid, Submissions, outcomes, wall_from
    from mathlete.replay.simulation import usual_n
    from mathlete.replay.tables import outcome_table, plot_outcomes, policy_json, replay_in_words
    from mathlete.scoring import Pool

    started = time.monotonic()
    pool = Pool.read(settings.runs)
    questions = settings.questions or min(50, len(pool.problems))
    grid = Grid(
        n=settings.n or usual_n(pool),
        max_tokens=settings.max_tokens or (max(1, pool.longest),),
        stop=settings.stop,
        vote=settings.vote,
        walls=tuple(wall_from(words, questions=questions) for words in settings.budget),
    )
    submissions = Submissions(
        simulations=settings.simulations, questions=questions, slots=settings.slots, seed=settings.seed
    )
    with progress("replay") as bar:
        task = bar.add_task("policies", total=grid.size)
        found = outcomes(pool, grid, submissions, on_outcome=lambda: bar.advance(task))
    seconds = round(time.monotonic() - started, 3)
    words = replay_in_words(found, pool, submissions)
    bias = pool.finish_order
    content = {
        "simulations": settings.simulations,
        "seconds": seconds,
        "policies": [policy_json(outcome) for outcome in found],
        "questions": questions,
        "problems": len(pool.problems),
        "recorded_per_problem": pool.fewest,
        "finish_order": bias and asdict(bias),
        "words": words,
    }
    write_json(folder / REPLAY, content)
    plot_outcomes(found, pool, folder / "replay.png")
    # At its own width: a narrower screen wraps it, but no figure is lost.
    say(outcome_table(found, pool, submissions), width=260, crop=False)
    for line in words:
        say(line)
    return {"seconds": seconds, "policies": len(found)}


REPLAY_COMMAND = Command(
    settings=ReplaySettings,
    run=replay,
    help="Tries policies on recorded samples: expected score with intervals, P(overrun), samples and seconds spent.\n\n"
    "Examples:\n\npython -m eval replay runs/base\n\n"
    "python -m eval replay runs/base --n 8 16 --stop none beta95+exact --budget 18000 18000:free",
)
