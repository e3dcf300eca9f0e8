"""`python -m eval replay`: what recorded samples would have scored under other policies, without the model."""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from eval.judged import require_runs
from eval.repair import repair_samples
from mathlete.command import Command, console, progress
from mathlete.competitions import Competition, competition
from mathlete.errors import UserError, require
from mathlete.runs import MANIFEST, Leftovers, read_json, run_step, sha256_file, sha256_json, verify_if_made, write_json
from mathlete.shipped import find_recording, name_recording, suggest_recording
from mathlete.text import agree

if TYPE_CHECKING:
    from rich.console import Console

    from mathlete.replay import Choice, Replay
    from mathlete.scoring import Pool

REPLAY, PAGE, PLOT = "replay.json", "replay.html", "replay.png"

_VOTED = (4, 8, 16)
"""Samples a problem with which votes are compared."""
_MOST = 50_000_000
"""Questions of all simulated submissions together: some twenty bytes each are held, several times over."""


@dataclass(frozen=True, kw_only=True)
class PolicyWords:
    """The policies: all combinations of these are tried."""

    n: tuple[int, ...] = ()
    """Number of samples for each problem; default: a quarter of those recorded, at least 4, and with --vote all 4, 8
    and 16."""
    max_tokens: tuple[int, ...] = ()
    """Caps on a sample, tokens, up to the recorded one where that cut samples; default: none below it."""
    stop: tuple[str, ...] = ("none", "exact", "beta95+exact", "beta99+exact", "esc8", "votes4", "aimo2")
    """Stopping rules."""
    vote: tuple[str, ...] = ("majority",)
    """Votes: majority, logprob, tail, length, strength, or all. On the pocket model's recording length and strength do
    not beat majority at 95% with n = 4, 8, 16; logprob and tail do with n = 4 and 8, but not with 16. On the real one
    logprob and tail do with n = 4 but not with 8, and length with neither; with 16 too few problems differ to say."""
    harvest: tuple[float, ...] = (0.0,)
    """Weights of the answers that cut samples were made to give (`python -m eval SUITE --harvest`), 0 to 1; 0: none."""
    budget: tuple[str, ...] = ("none",)
    """Clocks of a submission: none, SECONDS (each question gets 5/6 to 5/2 of an even share),
    SECONDS:FLOOR:CEILING[:RESERVE], or SECONDS:free (no allowances; an overrun loses all). Without RESERVE what the
    competition's notebook keeps back."""


@dataclass(frozen=True, kw_only=True)
class SimulationSettings:
    """The submissions."""

    questions: int | None = None
    """Questions of a submission; default: the competition's, or all problems where there are fewer."""
    competition: str = "aimo-3"
    """Whose questions, clock and score: a competition's name, or a file of its rules, NAME.toml."""
    simulations: int = 10_000
    """Submissions simulated for each policy."""
    slots: int | None = None
    """Samples of a problem that run at once; default: all n."""
    seed: int = 0
    """Another seed draws other samples and questions."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        most = _MOST // max(1, self.questions or 50)
        require(
            ("questions", self.questions, self.questions is None or 1 <= self.questions <= _MOST, f"from 1 to {_MOST}"),
            ("simulations", self.simulations, 1 <= self.simulations <= most, f"from 1 to {most} for so many questions"),
            ("seed", self.seed, self.seed >= 0, "at least 0"),
            ("slots", self.slots, self.slots is None or self.slots >= 1, "at least 1"),
            cure="leave it out",
        )


@dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """Which of several candidates to hand in: every policy is one."""

    select: int | None = None
    """Submissions of each candidate, of which the competition counts one: says which candidate to select, what
    choosing by the highest public score costs, and how many submissions tell two candidates apart."""
    versus: tuple[Path, ...] = ()
    """Runs of other models, on which the policies are candidates too; with --select."""

    def check(self, *, simulations: int) -> None:
        """Raise UserError where a value is out of its range, does nothing, or so many simulations say nothing of it."""
        few = self.select is not None and simulations < 2
        require(("simulations", simulations, not few, "at least 2 with --select"), cure="leave it out")
        require(
            ("select", self.select, self.select is None or 1 <= self.select <= 100, "1 to 100"),
            ("versus", [*map(str, self.versus)], not self.versus or self.select is not None, "given with --select"),
            cure="write --select 5 for five submissions of each candidate",
        )


@dataclass(frozen=True, kw_only=True)
class ReplaySettings:
    """Which recorded samples, which policies, which submissions."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN")]
    """Folders with problems.jsonl and samples.jsonl, or a shipped recording's name: pocket, or qwen-coder-0.5b-gsm8k, a
    real model's. Several of one model, with different seeds, are pooled."""
    policies: Annotated[PolicyWords, tyro.conf.arg(name="")] = field(default_factory=PolicyWords)
    simulation: Annotated[SimulationSettings, tyro.conf.arg(name="")] = field(default_factory=SimulationSettings)
    selection: Annotated[SelectionSettings, tyro.conf.arg(name="")] = field(default_factory=SelectionSettings)
    run: Annotated[Path | None, tyro.conf.arg(aliases=["--out"])] = None
    """Folder for replay.json, replay.html and replay.png; default: runs/replay-RUN-HASH, one a choice of policies."""
    overwrite: bool = False
    """Delete what was replayed with other settings in the folder."""
    write_policy: Path | None = None
    """Write the best of the policies to this file, for `python -m submit build --policy-file`."""
    repair: bool = False
    """Cut a half-written last line off samples.jsonl first."""
    accept_refused: str = ""
    """Why to replay a run that is not finished, or whose model the gates of its training refused: for the manifest."""
    json: bool = False
    """End with one line of JSON on stdout."""

    @property
    def words(self) -> dict[str, str]:
        """The settings that change the result, flat and as text: the key of a finished replay is made of these."""
        rules = competition(self.simulation.competition)
        scored = {"asked": rules.problems, "points": rules.points}
        words = {**asdict(self.policies), **asdict(self.simulation), **scored}
        if {*self.policies.budget} != {"none"}:
            words["clock"] = (rules.wall_s, rules.reserve_s, rules.predict_deadline_s)
        # What is not asked is no part of the key: a replay without it is the one that it was.
        words |= {key: value for key, value in asdict(self.selection).items() if value}
        # Earlier versions kept no outcomes of the other models, and so handed in the first one's.
        if self.selection.versus:
            words["handed in"] = "the best of all models'"
        # Earlier versions did not say what a vote alone changes, and replayed some that weigh by what a run lacks.
        if {*self.policies.vote} != {"majority"} or any(self.policies.harvest):
            words["votes"] = "against majority under the same stop"
        # Earlier versions replayed any cap: what they finished is replayed anew.
        if self.policies.max_tokens:
            words["caps"] = "up to the recorded one"
        if not any(self.policies.harvest):
            del words["harvest"]
        return {key: str(value) for key, value in words.items()}

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where the samples are."""
        return tuple(map(find_recording, self.runs))

    @property
    def others(self) -> tuple[Path, ...]:
        """Where the other models' samples are."""
        return tuple(map(find_recording, self.selection.versus))

    @property
    def folder(self) -> Path:
        """The replay's folder; the default name is made of the settings and of what was recorded."""
        if self.run is not None:
            return self.run
        recorded = [
            sha256_file(file) for folder in (*self.folders, *self.others) if (file := folder / MANIFEST).is_file()
        ]
        name = "-".join(folder.resolve().name for folder in self.folders)
        return Path("runs") / f"replay-{name}-{sha256_json([self.words, recorded])[:8]}"


def replay(settings: ReplaySettings) -> dict[str, object]:
    """Print what each policy would score and cost, write it, and return it."""
    from mathlete.replay import Choice, Replay

    settings.simulation.check()
    settings.selection.check(simulations=settings.simulation.simulations)
    out = console(json=settings.json)
    if settings.repair:
        repair_samples((*settings.folders, *settings.others), say=out.print)
    every = (*settings.folders, *settings.others)
    if not settings.runs:
        cure = "name folders that `python -m eval` wrote, or a recording that ships: pocket, qwen-coder-0.5b-gsm8k"
        raise UserError("a replay is of one run or more", value="none", cure=cure)
    if missing := [str(folder) for folder in every if not folder.is_dir()]:
        cure = suggest_recording(Path(missing[0]))
        raise UserError("a run that is replayed must be a folder", value=", ".join(missing), cure=cure)
    for folder in every:
        verify_if_made(folder)
    outcome = require_runs(every, reason=settings.accept_refused, say=partial(out.print, markup=False))
    if settings.write_policy:
        Choice.require_place(settings.write_policy)
    step = run_step(
        "replay",
        folder=settings.folder,
        inputs={str(folder): find_recording(folder) for folder in (*settings.runs, *settings.selection.versus)},
        settings={**settings.words, **outcome.to_json()},
        build=lambda folder: replay_runs(folder, settings, say=out.print),
        leftovers=Leftovers(overwrite=settings.overwrite, writes=(REPLAY, PAGE, PLOT)),
    )
    result = Replay.from_json(read_json(step.folder / REPLAY))
    print_replay(result, say=out.print)
    out.print(f"{'nothing changed, skipped: ' if step.skipped else ''}{step.folder}")
    hand_in(result, settings, out=out)
    return {"run": str(step.folder), **result.to_json()}


def hand_in(result: "Replay", settings: ReplaySettings, *, out: "Console") -> None:
    """Print the command that takes the best policy (`Replay.find_best`); write that into the file that was asked for.

    The command leaves out a clock that is not the notebook's, and a line says why.

    Raises:
        UserError: a file was asked for, and no policy is one that a notebook can have.
    """
    from mathlete.replay import Choice

    rules, file = competition(settings.simulation.competition), settings.write_policy
    best = result.find_best(rules)
    if file and not best:
        raise UserError(
            "a policy to hand on needs a clock with allowances, or none",
            value="only clocks of the form SECONDS:free",
            cure="try --budget SECONDS or SECONDS:FLOOR:CEILING too",
        )
    if not best:
        out.print("nothing to hand in: no notebook has a clock without allowances; try --budget SECONDS or none too")
        return
    if not (best.is_fit or file):
        out.print(f"nothing to hand in: {best.unfit}", markup=False)
        return
    folders = (settings.folders, *((folder,) for folder in settings.others))[best.model]
    drawn = Choice.read_drawn(folders)
    choice = Choice.of(
        best.outcome,
        capped=bool(settings.policies.max_tokens),
        questions=result.questions,
        recordings=(settings.runs, *((run,) for run in settings.selection.versus))[best.model],
        drawn=drawn,
        rules=rules,
    )
    if file:
        choice.write(file)
        out.print(f"{file}: {choice.words} · expected {choice.score:.2f} of {choice.questions}", markup=False)
    if choice.unsaid and not file:
        out.print(
            f"no command line can carry {', '.join(choice.unsaid)}: several words begin with a hyphen; add "
            "--write-policy FILE, and build with --policy-file FILE",
            markup=False,
        )
        return
    if unsaid := drawn.list_unsaid(forced=choice.harvest > 0):
        out.print(
            "the recordings do not say how their samples were drawn, or differ, so these are not carried: "
            f"{', '.join(unsaid)}"
        )
    if drawn.others:
        out.print(f"what no word of a notebook says changed the samples too: {', '.join(drawn.others)}", markup=False)
    # An adapter is served with its organiser's own sampling, so no policy is carried there.
    if rules.deliverable == "adapter":
        out.print(f"nothing to build: {rules.name} takes no notebook, its deliverable is {rules.deliverable}")
        return
    _print_refused_clocks(result, rules, out=out)
    of = f" of {', '.join(map(name_recording, folders))}" if settings.others else ""
    out.print(f"to hand in the policy{of} with the highest score{best.describe_rule()}:", markup=False)
    # In one line, however narrow the terminal: it is to be pasted.
    model, chosen = find_model_of(folders), settings.simulation.competition
    by = "" if chosen == SimulationSettings().competition else f" --competition {shlex.quote(chosen)}"
    command = "build" if rules.deliverable == "notebook" else "answer TABLE"
    words = _write_words(choice, file, rules)
    out.print(f"python -m submit {command} --model {model}{by} {words}", markup=False, soft_wrap=True)


def _write_words(choice: "Choice", file: Path | None, rules: Competition) -> str:
    """Return the words of the command, without a clock that is not the notebook's."""
    unfit = choice.refuse_clock(rules)
    if file:
        return f"--policy-file {shlex.quote(str(file))}{' --budget none' if unfit else ''}"
    return choice.words.removesuffix(f" --budget {choice.budget if unfit else 'none'}")


def _print_refused_clocks(result: "Replay", rules: Competition, *, out: "Console") -> None:
    shared = [one.wall for one in result.outcomes if one.wall and one.wall.floor_s is not None]
    refused = [wall.refuse(questions=result.questions, rules=rules) for wall in shared]
    for told in dict.fromkeys(f"{one.rule}, got {one.value}; {one.cure}" for one in refused if one):
        out.print(f"no clock of the notebook's: {told}", markup=False)


def print_replay(result: "Replay", *, say: Callable[[object], None]) -> None:
    """Print a replay, finished now or before: its tables, then what follows from them."""
    say(result.to_table())
    if (table := result.to_votes_table()) is not None:
        say(table)
    if result.selection:
        say(result.selection.to_table())
    for sentence in result.words:
        say(sentence)


def find_model_of(folders: Sequence[Path]) -> str:
    """Return the folder of the model that the samples are of, as a word of a command line; MODEL where it is gone."""
    for folder in folders:
        results = read_json(folder / "results.json") if (folder / "results.json").is_file() else {}
        if (model := str(results.get("model", ""))) and Path(model).is_dir():
            return shlex.quote(model)
    return "MODEL"


def choose_votes(words: tuple[str, ...], pools: "Sequence[Pool]", *, say: Callable[..., None]) -> tuple[str, ...]:
    """Return the votes of `--vote`; of all, those that can be replayed, and say which cannot."""
    from mathlete.replay import list_recorded_votes
    from mathlete.solve import Policy

    if words != ("all",):
        return words
    votes = tuple(vote for vote in Policy.known_votes() if all(vote in list_recorded_votes(pool) for pool in pools))
    if left_out := [vote for vote in Policy.known_votes() if vote not in votes]:
        word = agree(len(left_out), f"vote {left_out[0]} weighs", f"votes {', '.join(left_out)} weigh")
        say(f"not recorded, and so not tried: what the {word} samples by")
    return votes


def replay_runs(folder: Path, settings: ReplaySettings, *, say: Callable[..., None]) -> dict[str, object]:
    """Replay the runs into a folder; returns the step's figures."""
    from mathlete.replay import Grid, Submissions, Wall, replay_pool, usual_n
    from mathlete.report import write_replay
    from mathlete.scoring import Pool

    began = time.monotonic()
    pool, *others = Pool.share([Pool.read(settings.folders), *(Pool.read([folder]) for folder in settings.others)])
    policies, simulation = settings.policies, settings.simulation
    for cap, of in product(policies.max_tokens, (pool, *others)):
        of.require_cap(cap)
    rules = competition(simulation.competition)
    questions = simulation.questions or min(rules.problems, len(pool.problems))
    stops = policies.stop
    if stops == PolicyWords().stop and not all(one.is_ordered for one in (pool, *others)):
        stops = ("none",)
        say("without the samples' own seconds nobody knows which finished first: no stopping rule is tried")
    fewest = min((pool, *others), key=lambda one: one.fewest)
    votes = choose_votes(policies.vote, (pool, *others), say=say)
    # Where votes are compared, what they are worth at several n is the question.
    sizes = tuple(n for n in _VOTED if n <= fewest.fewest) if policies.vote == ("all",) else ()
    grid = Grid(
        n=policies.n or sizes or usual_n(fewest),
        max_tokens=policies.max_tokens or (max(1, pool.longest),),
        stop=stops,
        vote=votes,
        walls=tuple(Wall.parse(words, questions=questions, rules=rules) for words in policies.budget),
        harvest=policies.harvest,
    )
    grid.check()
    submissions = Submissions(
        simulations=simulation.simulations,
        questions=questions,
        rules=rules,
        slots=simulation.slots,
        seed=simulation.seed,
    )
    with progress("replay") as bar:
        task = bar.add_task("policies", total=grid.size * (1 + len(others)))
        result = replay_pool(
            pool,
            grid,
            submissions,
            began=began,
            select=settings.selection.select,
            versus=others,
            on_outcome=lambda: bar.advance(task),
        )

    write_json(folder / REPLAY, result.to_json())
    # The page and the picture are made of the replay alone; neither is read again.
    recording = ", ".join(folder.resolve().name for folder in settings.folders)
    timed = "seconds" not in pool.missing
    write_replay(result, folder, recording=recording, names=result.name_policies(pool), timed=timed)
    return {"seconds": result.seconds, "policies": len(result.outcomes)}


REPLAY_COMMAND = Command(
    settings=ReplaySettings,
    run=replay,
    help="Tries policies on recorded samples: expected score with intervals, P(overrun), samples and seconds spent.\n\n"
    "Examples:\n\npython -m eval replay runs/base\n\n"
    "python -m eval replay runs/base --n 8 16 --stop none beta95+exact --budget 18000 18000:free\n\n"
    "python -m eval replay qwen-coder-0.5b-gsm8k --stop none --vote all\n\n"
    "python -m eval replay runs/base --stop none exact --select 5 --versus runs/tuned",
)
