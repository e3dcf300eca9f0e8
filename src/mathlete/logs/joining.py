"""Joining: the logs of one run's slices become one list of problems and samples, and what they lack is named."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from mathlete.answers import read_answer
from mathlete.corpus import Suite
from mathlete.errors import UserError
from mathlete.logs.entries import NO_STATEMENT, Entry, Log, name_problem
from mathlete.logs.matching import describe_golds, is_hidden, make_finder
from mathlete.logs.repeats import Placed, describe_alike, forget_shared_ids, number_of, number_samples, take_once
from mathlete.logs.thoughts import Reading, Told, find_opening, read_cut
from mathlete.problems import Problem
from mathlete.reasoning import Opening
from mathlete.sampling import Sample
from mathlete.scoring import RunFacts
from mathlete.text import agree, counted

SETTINGS = ("temperature", "top_p", "max_tokens")
_FIELDS: dict[str, Callable[[Entry], object]] = {
    "text": lambda entry: entry.text,
    "tokens": lambda entry: entry.tokens,
    "seconds": lambda entry: entry.seconds,
    "finish": lambda entry: entry.finish,
    "logprobs": lambda entry: entry.logprob_mean,
    "seed": lambda entry: entry.seed,
}


@dataclass(frozen=True, kw_only=True)
class Joined:
    """The samples of all logs; `of_log` and `logged_verdicts` are in the order of the samples."""

    logs: Sequence[Log]
    problems: list[Problem]
    samples: list[Sample]
    of_log: list[int]
    """Which of the logs a sample is from."""
    logged_verdicts: list[Mapping[str, bool]]
    """What the log's own scorers said of it, by their names."""
    sampling: dict[str, float]
    missing: dict[str, int]
    """{what the logs do not say: samples of which they do not}."""
    words: list[str]
    """Sentences: what was left out, and why."""
    pace: float | None = None
    """Tokens a second by which seconds were made of tokens; None where none were."""
    opening: Opening | None = None
    """Whether the prompts opened the reasoning; None where no text of another tool's was read."""

    @property
    def counts(self) -> Counter[str]:
        """Samples of each problem; what a deadline cut counts as none."""
        return Counter(sample.problem_id for sample in self.samples if sample.finish != "clock")

    @property
    def own_facts(self) -> RunFacts | None:
        """What all logs say of themselves where all are finished runs of this project; else None."""
        facts = [log.run_facts for log in self.logs]
        return facts[0] if all(facts) else None


def join_logs(
    logs: Sequence[Log],
    *,
    suite: Suite | None,
    pace: float | None,
    own_answers: bool,
    opens_thoughts: Told = "auto",
    model: str | None = None,
) -> Joined:
    """Join the logs of one run's slices: of other problems, or of the same ones with other seeds.

    Args:
        logs: what was read of each file.
        suite: where statements and golds come from; None where the logs have them.
        pace: tokens a second of one sample, for seconds where a log has only tokens.
        own_answers: whether answers are the log's, and not those that are read in the texts.
        opens_thoughts: whether the prompts opened the reasoning; auto: what the logs show.
        model: the model's name or folder, in place of the logs'.

    Raises:
        UserError: settings differ, a sample stands twice with two contents, a problem has no gold answer, or no sample
            has a text or an answer.
    """
    sampling, differing = _check_settings(logs)
    placed, problems = _place(logs, suite)
    placed, forgotten = forget_shared_ids(logs, placed)
    once = take_once(placed)
    kept = number_samples(once)
    if not kept:
        said = "; ".join(["none", *_describe_failed(logs)])
        raise UserError("the logs must hold at least one sample", value=said, cure="check the files, or ask anew")
    _require_said(kept)
    order = {problem.id: place for place, problem in enumerate(suite.problems)} if suite else {}
    opening = None if own_answers else find_opening(logs, told=opens_thoughts, model=model)
    return Joined(
        logs=logs,
        problems=sorted(problems.values(), key=lambda problem: order.get(problem.id, 0)),
        samples=[_sample(one, pace, read_cut(one.entry, opening, told=opens_thoughts), own_answers) for one in kept],
        of_log=[one.log for one in kept],
        logged_verdicts=[one.entry.verdicts for one in kept],
        sampling=sampling,
        missing=_count_missing(logs, kept, problems, sampling, pace),
        words=[*forgotten, *differing, *_describe(logs, once, problems, placed, suite)],
        pace=pace if any(one.entry.seconds is None and one.entry.tokens is not None for one in kept) else None,
        opening=opening,
    )


def _require_said(kept: Sequence[Placed]) -> None:
    """Raise UserError where no sample has what can be scored: a score of 0 would speak of the model."""
    if all(one.entry.sample is None and one.entry.text is None and one.entry.answer is None for one in kept):
        raise UserError(
            "the logs must hold a text or an answer of at least one sample",
            value=f"none in {counted(len(kept), 'sample')}, first {kept[0].entry.where}",
            cure="name the column that has them, --columns text=… or answer=…",
        )


def _check_settings(logs: Sequence[Log]) -> tuple[dict[str, float], list[str]]:
    """Return the settings that the logs name, and sentences on guessed ones that differ, which are not known then.

    Raises:
        UserError: others differ.
    """
    for name, both in _find_differing(logs, guessed=False).items():
        raise UserError(
            f"files are joined only as slices of one run, with the same {name}",
            value=both,
            cure="import them one by one, and put them side by side with `python -m eval compare`",
        )
    differing = _find_differing(logs, guessed=True)
    # What the rows of one file differ in is known of no other one either; the file's own sentence says it.
    unknown = {name for log in logs for name in log.facts.doubted}
    words = [
        f"the logs differ in {name}, which is not known then: {both}"
        for name, both in differing.items()
        if name not in unknown
    ]
    known = {name: value for log in logs for name, value in log.facts.sampling.items()}
    return {name: known[name] for name in known if name not in unknown.union(differing)}, words


def _find_differing(logs: Sequence[Log], *, guessed: bool) -> dict[str, str]:
    """Return {what logs say otherwise: its values, and where each stands}, also of what is `guessed`, or without it."""
    values: dict[str, dict[str, str]] = {}
    for log in logs:
        for name, value in _told_settings(log).items():
            if guessed or name not in log.facts.guessed:
                values.setdefault(name, {})[str(value)] = str(log.path)
    return {
        name: " and ".join(f"{value} in {path}" for value, path in of.items())
        for name, of in values.items()
        if len(of) > 1
    }


def _told_settings(log: Log) -> dict[str, object]:
    """Return {name: value} of what a log says that slices of one run have in common."""
    if log.run_facts is None:
        return {**log.facts.sampling, **({"model": log.facts.model} if log.facts.model else {})}
    fixed = {name: value for name, value in log.run_facts.settings.fixed.items() if name not in SETTINGS}
    return {**log.facts.sampling, "prompt_sha": log.run_facts.prompt_sha, **fixed}


def _place(logs: Sequence[Log], suite: Suite | None) -> tuple[list[Placed], dict[str, Problem]]:
    """Give every entry its problem; returns the entries and the problems that have any, by id."""
    find = make_finder(suite) if suite else None
    asked = [log.problems for log in logs]
    conventions = [Suite.find_conventions(log.facts.task or "")[1] for log in logs]
    placed: list[Placed] = []
    # A clock may have left a problem of a finished run without a sample: it counts there as it does here.
    of_runs = [of for log, of in zip(logs, asked, strict=True) if log.run_facts and not suite]
    problems = {name: problem for of in of_runs for name, problem in of.items()}
    for number, log in enumerate(logs):
        for entry in log.entries:
            own = asked[number].get(entry.problem_id or "")
            problem = find(entry) if find else own or _problem(entry, conventions[number])
            known = problems.get(problem.id, problem)
            problems[problem.id] = _merge(known, problem, entry)
            placed.append(Placed(log=number, problem_id=problem.id, entry=entry, number=number_of(entry)))
    if lacking := [problem.id for problem in problems.values() if not problem.gold]:
        raise UserError(
            "every problem must have its gold answer, without which nothing can be scored",
            value=f"none for {len(lacking)} of {len(problems)}, first {lacking[0]}",
            cure="give --problems SUITE or FILE.jsonl, or name the column, --columns gold=…",
        )
    return placed, problems


def _problem(entry: Entry, answers: str) -> Problem:
    name = entry.problem_id or (name_problem(entry.statement) if entry.statement else None)
    if name is None:
        raise UserError(
            f"{entry.where}: a sample must say which problem it is of",
            value="no id and no statement",
            cure="name the column, --columns problem_id=…",
        )
    statement, gold = entry.statement or NO_STATEMENT, entry.gold or ""
    return Problem(id=name, statement=statement, gold=gold, subset=entry.subset, answers=answers)


def _merge(known: Problem, problem: Problem, entry: Entry) -> Problem:
    """Return the problem of two entries of one id, of which one may say less."""
    if known == problem:
        return known
    full = replace(
        known,
        statement=problem.statement if known.statement == NO_STATEMENT else known.statement,
        gold=known.gold or problem.gold,
        subset=known.subset or problem.subset,
        answers=known.answers or problem.answers,
    )
    for name, ours, theirs, nothing in (
        ("statement", full.statement, problem.statement, NO_STATEMENT),
        ("gold", full.gold, problem.gold, ""),
        ("convention of answers", full.answers, problem.answers, ""),
    ):
        if theirs not in (ours, nothing):
            raise UserError(
                f"{entry.where}: equal ids must be equal problems, but the {name} of {full.id} differs",
                value=f"{ours[:60]!r} and {theirs[:60]!r}",
                cure="import the files one by one, or give --problems",
            )
    return full


def _sample(one: Placed, pace: float | None, reading: Reading, own_answers: bool) -> Sample:
    entry, finish = one.entry, one.entry.finish or "stop"
    seconds = entry.seconds
    if seconds is None and pace is not None and entry.tokens is not None:
        seconds = round(entry.tokens / pace, 6)
    if (own := entry.sample) is not None:
        took = own.seconds if seconds is None else seconds
        return replace(own, problem_id=one.problem_id, index=entry.index or 0, seconds=took)
    read = entry.text is not None and not own_answers
    cut, within = reading
    return Sample(
        problem_id=one.problem_id,
        index=entry.index or 0,
        seed=one.number if entry.seed is None else entry.seed,
        text=entry.text or "",
        answer=read_answer(entry.text or "", cut=cut, thinking=within) if read else entry.answer,
        tokens=entry.tokens or 0,
        finish=finish,
        seconds=seconds or 0.0,
        logprob_mean=entry.logprob_mean,
        logprob_tail=entry.logprob_tail,
        in_thoughts=within,
    )


def _count_missing(
    logs: Sequence[Log],
    kept: Sequence[Placed],
    problems: Mapping[str, Problem],
    sampling: Mapping[str, float],
    pace: float | None,
) -> dict[str, int]:
    # The seeds of an import of a log without any are numbers that the import gave.
    numbered = [number for number, log in enumerate(logs) if "seed" in log.missing]
    counts = {
        name: sum(value(one.entry) is None or (name == "seed" and one.log in numbered) for one in kept)
        for name, value in _FIELDS.items()
    }
    # Seconds that can be made of tokens are there.
    if pace is not None:
        counts["seconds"] = sum(one.entry.seconds is None and one.entry.tokens is None for one in kept)
    counts["statement"] = sum(is_hidden(problems[one.problem_id].statement) for one in kept)
    counts |= {name: len(kept) for name in sorted(SETTINGS) if name not in sampling}
    return {name: number for name, number in counts.items() if number}


def _describe_failed(logs: Sequence[Log]) -> list[str]:
    return [
        f"{log.path}: {counted(len(log.failed), 'request')} ended in an error or without an answer and "
        f"{agree(len(log.failed), 'has', 'have')} no sample, first {log.failed[0]}"
        for log in logs
        if log.failed
    ]


def _describe_conventions(logs: Sequence[Log]) -> list[str]:
    """Return a sentence on each suite whose conventions hold for logs of its problems."""
    told = {task: Suite.find_conventions(task) for log in logs if not log.run and (task := log.facts.task)}
    return [
        f"answers of {task} are judged by the conventions of {name}, {answers} (docs/answers.md)"
        for task, (name, answers) in told.items()
        if answers
    ]


def _describe(
    logs: Sequence[Log],
    once: Sequence[Placed],
    problems: Mapping[str, Problem],
    placed: Sequence[Placed],
    suite: Suite | None,
) -> list[str]:
    sentences = [*_describe_failed(logs), *(words for log in logs for words in log.words)]
    sentences += [] if suite else _describe_conventions(logs)
    if repeats := len(placed) - len(once):
        word = agree(repeats, "sample stands twice and was", "samples stand twice and were")
        sentences.append(f"{repeats} {word} taken once")
    sentences += describe_alike(logs, once)
    if suite:
        sentences += describe_golds(suite, ((one.entry, problems[one.problem_id]) for one in placed))
    if suite and (left := len(suite.problems) - len(problems)):
        sentences.append(
            f"{left} of {counted(len(suite.problems), 'problem')} of {suite.name} {agree(left, 'has', 'have')} no "
            f"sample, and {agree(left, 'is', 'are')} left out"
        )
    return sentences
