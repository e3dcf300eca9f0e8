"""What the notebook's run on Kaggle showed: the machine, the speed, and whether a submission fits the clock at that.

The notebook's journal holds all of it, or its log where the journal is cut. The placeholder questions are easy ones, so
the lengths of their samples are the shortest to expect, and the cap is the longest; a recording of real problems says
what lies between.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mathlete.errors import UserError
from mathlete.kernel import JOURNAL, JournalLine, KernelConfig, read_facts, read_journal
from mathlete.shipped import find_recording
from mathlete.submission import Build

if TYPE_CHECKING:
    from mathlete.replay import Forecast

_WAITED = 1.25
"""A question that took so many times as long as its longest sample had samples that waited for others to end."""
_TRIED = (0.5, 1, 2, 4)
"""Which n are tried, times the build's."""


@dataclass(frozen=True, kw_only=True)
class KaggleRun:
    """One run of the notebook on Kaggle, as far as its journal or log tells."""

    shape: str
    """Kaggle's name of the machine that the build asked for."""
    described: str
    """Machine and engine in a line."""
    machine: Mapping[str, object]
    engine: Mapping[str, object]
    startup_s: float
    """From the notebook's first cell to its first question."""
    load_s: float
    """Of the model, in the first question."""
    questions: int
    """Answered with at least one sample."""
    drawn: tuple[int, ...]
    """Tokens of the samples that finished."""
    token_s: float | None
    """Seconds of one token of one sample, while `rows` were drawn; None where none finished."""
    rows: int
    """Samples drawn side by side."""
    waits: bool
    """Whether further samples waited until one had ended."""

    @classmethod
    def read(cls, folder: Path, build: Build) -> "KaggleRun":
        """Read the run of a build that left this output and log."""
        files, config = [folder / JOURNAL, folder / f"{build.names.kernel}.log"], build.config
        # Of the two the one that is whole; of equal ones the journal.
        lines = max(map(read_journal, files), key=len)
        facts = max(map(read_facts, files), key=lambda one: (bool(one.machine), bool(one.engine)))
        solved = [line for line in lines if line.samples and line.tokens]
        samples = [sample for line in solved for sample in _samples_of(line)]
        tokens, seconds = sum(count for count, _ in samples), sum(each for _, each in samples)
        at_once = [_count_rows(line, n=config.policy.n) for line in solved]
        waits = any(waited for _, waited in at_once)
        return cls(
            shape=build.machine,
            described=facts.describe(),
            machine=facts.machine,
            engine=facts.engine,
            startup_s=round(max(0.0, config.clock.wall_s - lines[0].left_s - lines[0].seconds), 1) if lines else 0.0,
            load_s=round(sum(line.load_s for line in lines), 1),
            questions=len(solved),
            drawn=tuple(count for count, _ in samples),
            token_s=seconds / tokens if tokens and seconds else None,
            # Where samples waited once, the fewest rows that a question had are those of the engine.
            rows=min((rows for rows, waited in at_once if waited == waits), default=config.policy.n),
            waits=waits,
        )

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> "KaggleRun":
        """Return the run in a value that `to_json` made; what else is in it is left aside.

        Raises:
            UserError: it is another value.
        """
        match value:
            case {
                "shape": str(shape),
                "described": str(described),
                "machine": dict(machine),
                "engine": dict(engine),
                "startup_s": int() | float() as startup_s,
                "load_s": int() | float() as load_s,
                "questions": int(questions),
                "drawn": [*drawn],
                "token_s": float() | None as token_s,
                "rows": int(rows),
                "waits": bool(waits),
            }:
                return cls(
                    shape=shape,
                    described=described,
                    machine=machine,
                    engine=engine,
                    startup_s=startup_s,
                    load_s=load_s,
                    questions=questions,
                    drawn=tuple(count for count in drawn if isinstance(count, int)),
                    token_s=token_s,
                    rows=rows,
                    waits=waits,
                )
        rule = "the ledger's line of a push must hold the run that Kaggle showed"
        raise UserError(rule, value=f"{str(dict(value))[:80]}", cure="delete that line")

    def to_json(self) -> dict[str, object]:
        """Return the run as JSON values; `from_json` reads them back."""
        return {**asdict(self), "tokens_per_s": self.tokens_per_s}

    @property
    def tokens_per_s(self) -> float | None:
        """Of all samples side by side; None where none finished."""
        return round(self.rows / self.token_s, 1) if self.token_s else None

    def describe(self) -> Iterator[str]:
        """Yield in words what it ran on and how fast it was."""
        yield f"ran on {self.described}"
        if self.token_s is None:
            yield "no sample finished, so its speed is not known"
            return
        yield (
            f"drew {self.tokens_per_s:g} tokens/s: {self.rows} samples side by side, {1 / self.token_s:.1f} each, in "
            f"{self.questions} questions; {self.startup_s + self.load_s:.0f} s from the first cell to the loaded model"
        )


def _samples_of(line: JournalLine) -> list[tuple[int, float]]:
    """Return (tokens, seconds) of a question's samples; of an earlier version's journal their mean."""
    each = (line.tokens // line.samples, line.seconds - line.load_s)
    return [*line.drawn] or [each] * line.samples


def _count_rows(line: JournalLine, *, n: int) -> tuple[int, bool]:
    """Return how many samples of a question were drawn side by side, and whether others waited.

    >>> quick = JournalLine(id="a", fallback=False, why="", seconds=6, samples=2, tokens=9, drawn=((5, 6.0), (4, 5.0)))
    >>> _count_rows(quick, n=8)
    (8, False)
    >>> late = JournalLine(id="a", fallback=False, why="", seconds=6, samples=4, tokens=9, drawn=((5, 3.0),) * 4)
    >>> _count_rows(late, n=4)
    (2, True)
    """
    samples, took_s = _samples_of(line), line.seconds - line.load_s
    if took_s <= _WAITED * max(seconds for _, seconds in samples):
        return n, False
    # Those that the end of the question cancelled were being drawn, or waited.
    at_once = sum(seconds for _, seconds in samples) / took_s
    return max(1, min(n, round(at_once))), True


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """What to expect where samples have certain lengths."""

    of: str
    """Whose lengths, in words."""
    forecasts: "tuple[Forecast, ...]"


@dataclass(frozen=True, kw_only=True)
class ClockFit:
    """Whether a build's submission fits its clock at the speed of a run on Kaggle."""

    run: KaggleRun
    n: int
    """The build's."""
    questions: int
    clock_s: float
    """For all questions: the wall, less the reserve and what passes before the first of them."""
    lengths: tuple[Lengths, ...]
    recordings: tuple[Path, ...] = ()
    """Whose lengths were taken."""

    def to_json(self) -> dict[str, object]:
        """Return run and forecasts as JSON values."""
        lengths = [{"lengths": one.of, "n": [each.to_json() for each in one.forecasts]} for one in self.lengths]
        asked = {"questions_asked": self.questions, "clock_s": self.clock_s, "clock": lengths}
        return {**self.run.to_json(), **asked, "recordings": [str(one) for one in self.recordings]}

    def describe(self) -> Iterator[str]:
        """Yield the table in words, a line each."""
        yield from self.run.describe()
        if not self.clock_s:
            yield "clock: it is over before the first question"
        if not self.lengths:
            return
        yield f"clock: {self.questions} questions in {self.clock_s:.0f} s, this build draws {self.n} samples of each"
        yield f"{'n':>6} {'tokens of all':>15} {'hours':>8} {'fits':>5} {'samples':>8} {'P(out of time)':>15}"
        for one in self.lengths:
            yield f"  samples as long as {one.of}, {one.forecasts[0].mean_tokens:.0f} tokens"
            for each in one.forecasts:
                fits = "yes" if each.fits else "NO"
                yield (
                    f"{each.n:>6} {each.tokens:>15,} {each.hours:>8.2f} {fits:>5} {each.samples:>8.1f} "
                    f"{each.p_out_of_time:>15.1%}"
                )
        yield from map(self._verdict, self.lengths)

    def _verdict(self, lengths: Lengths) -> str:
        (own,) = [each for each in lengths.forecasts if each.n == self.n]
        fit = "fit" if own.fits else "do NOT fit"
        late = f", {own.p_out_of_time:.1%} of the questions get no sample in time" if own.p_out_of_time else ""
        return f"n={self.n} as long as {lengths.of}: all {fit} ({own.hours * 3600:.0f} s of {self.clock_s:.0f} s){late}"


def fit_clock(run: KaggleRun, config: KernelConfig, *, recordings: Sequence[Path] = ()) -> ClockFit:
    """Return whether n samples of all questions fit the clock at a run's speed, for a few n.

    Args:
        run: a run on Kaggle, of this build or of one with the same weights.
        config: how this build answers.
        recordings: runs of `python -m eval`, or recordings that the project ships, whose lengths and answers are drawn
            from.

    Raises:
        UserError: a folder without a recording, or one without tokens.
    """
    shared = config.share_clock(config.clock.wall_s - run.startup_s)
    clock_s = max(0.0, config.clock.wall_s - run.startup_s - run.load_s - config.clock.reserve_s)
    lengths: tuple[Lengths, ...] = ()
    if run.token_s is not None and shared is not None and clock_s:
        # Only here: they load numpy.
        from mathlete.replay import Throughput, Wall
        from mathlete.scoring import Pool

        pace = Throughput(token_s=run.token_s, rows=run.rows, waits=run.waits)
        wall = Wall(wall_s=clock_s, floor_s=shared.floor_s, ceiling_s=shared.ceiling_s)
        kinds: list[tuple[str, Pool | Sequence[int]]] = [("the placeholders' samples", run.drawn)]
        if recordings:
            kinds.append((", ".join(map(str, recordings)), Pool.read([find_recording(one) for one in recordings])))
        kinds += [("the cap", (config.policy.sampling.max_tokens,))]
        n = sorted({max(1, int(config.policy.n * times)) for times in _TRIED})
        lengths = tuple(
            Lengths(
                of=of,
                forecasts=tuple(
                    pace.forecast(samples, policy=config.policy, wall=wall, questions=config.problems, n=n)
                ),
            )
            for of, samples in kinds
        )
    return ClockFit(
        run=run,
        n=config.policy.n,
        questions=config.problems,
        clock_s=round(clock_s, 1),
        lengths=lengths,
        recordings=tuple(recordings),
    )
