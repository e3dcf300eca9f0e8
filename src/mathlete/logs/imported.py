"""Imported: joined logs written as the folder of a run, with scores, what is missing, and each slice's figures."""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mathlete.answers import compare, label_classes, parse
from mathlete.environment import code_state
from mathlete.gates import GateOutcome
from mathlete.logs.entries import IMPORTED, Log, dig
from mathlete.logs.joining import SETTINGS, Joined
from mathlete.problems import Problem, hash_problems, write_problems
from mathlete.reasoning import Opening
from mathlete.runs import write_atomically, write_json
from mathlete.sampling import Sample, SamplingConfig
from mathlete.scoring import Graded, Results, RunFacts, RunSettings, grade
from mathlete.solve import Policy, Solution

SLICES = "slices.json"
_LONG = 100
"""Characters of an answer up to which it is kept as it is."""
_FEW = 20
"""Letters that a longer one may have in its words."""
_COMMAND = re.compile(r"\\(?:begin|end)\s*\{[^}]*\}|\\[A-Za-z]+")
_WORD = re.compile(r"[^\W\d_]{3,}")
"""A word: what has fewer letters may be a product."""
_BROKEN_OFF = {"cancelled", "boxed", "clock"}
"""Ends of samples by which a tool may have had a clock, or a rule that it stopped by."""
_LETTERS = str.maketrans("0123456789abcdef", "ghijklmnopqrstuv")
"""Digits beside words are no text to the checker."""


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How the run is written."""

    suite: str
    """What the problems are called."""
    model: str | None
    """A name for the model, in place of the logs'."""
    texts: bool
    """Whether texts and statements are kept; without them a recording may be passed on."""
    gates: GateOutcome = field(default_factory=GateOutcome)
    """What was accepted of the runs that are joined: it stays in results.json."""


def write_joined(folder: Path, joined: Joined, writing: Writing, *, began: float) -> list[str]:
    """Write problems, samples, scores and the slices' figures; returns sentences on what they rest on.

    Args:
        folder: the run's folder, which exists.
        joined: the samples.
        writing: how they are written.
        began: seconds since 1970, for lm_eval.json.
    """
    # The suite is what was asked, whether or not its statements are kept.
    facts = _facts(joined, writing)
    words = [*joined.words, *_describe_missing(joined)]
    shown = {} if writing.texts else _hide_prose(joined)
    if not writing.texts:
        joined = _without_texts(joined, shown)
    graded = grade(joined.problems, _solve(joined, shown))
    problems, samples = joined.problems, joined.samples
    write_problems(folder / "problems.jsonl", problems)
    # Not line by line: there is nothing here that a kill could interrupt for long.
    lines = [json.dumps(sample.to_json(), ensure_ascii=False) + "\n" for sample in samples]
    write_atomically(folder / "samples.jsonl", "".join(lines))
    Results.of(graded, facts).write(folder, began=began)
    write_json(folder / SLICES, _slices(joined, graded))
    return [*words, *_describe_verdicts(joined, graded)]


def _policy(joined: Joined) -> Policy:
    """Return how the samples were drawn and voted: the runs' own policy, else a majority of all under the logs'
    settings."""
    most = max(joined.counts.values(), default=1)
    facts, known = joined.own_facts, joined.sampling
    own = facts.settings.policy if facts else Policy(n=most, sampling=SamplingConfig())
    longest = max(sample.tokens for sample in joined.samples)
    # What one slice says holds for all of them: they agree in what they say.
    sampling = replace(
        own.sampling,
        temperature=known.get("temperature", SamplingConfig.temperature),
        top_p=known.get("top_p", SamplingConfig.top_p),
        max_tokens=round(known.get("max_tokens", max(1, longest))),
    )
    # A rule or a clock may have kept one run from all that it was to draw.
    return replace(own, n=most if len(joined.logs) > 1 else own.n, sampling=sampling)


def _solve(joined: Joined, shown: Mapping[tuple[str, str], str]) -> Iterator[Solution]:
    """Yield the solution of each problem, in the problems' order; `shown` are the answers that something stands for."""
    policy = _policy(joined)
    samples: defaultdict[str, list[Sample]] = defaultdict(list)
    logs: defaultdict[str, set[int]] = defaultdict(set)
    for sample, log in zip(joined.samples, joined.of_log, strict=True):
        samples[sample.problem_id].append(sample)
        logs[sample.problem_id].add(log)
    # What a run of this project solved alone keeps its solution: a clock or the model itself may have decided it.
    solved = [{item.problem.id: item.solution for item in log.run.graded} if log.run else {} for log in joined.logs]
    for problem in joined.problems:
        of_problem = sorted(samples[problem.id], key=lambda sample: sample.index)
        # A problem that no log has a sample of is one that a run came to without time.
        of = logs[problem.id] or {number for number, known in enumerate(solved) if problem.id in known}
        alone = solved[next(iter(of))].get(problem.id) if len(of) == 1 else None
        if alone and len(alone.voting) != len(of_problem):
            alone = None
        of_logs = [(log, known.get(problem.id)) for log, known in zip(joined.logs, solved, strict=True)]
        # The clock of any slice kept samples from them all.
        late = any(_was_cut(log, one) for log, one in of_logs if one is not None and one is not alone)
        settled = alone is not None and alone.ended == "rule" and not late
        votes = policy.count_votes(of_problem, settings=problem.answers, settled=settled)
        fresh = Solution(
            problem_id=problem.id,
            answer=votes[0].answer if votes else None,
            votes=votes,
            samples=[one for one in of_problem if one.finish != "clock"],
            unfinished=[one for one in of_problem if one.finish == "clock"],
            seconds=max((sample.seconds for sample in of_problem), default=0.0),
        )
        # Without texts an answer that is one is its hash, also where the run itself chose it.
        own = alone and replace(alone, answer=shown.get((problem.id, alone.answer or ""), alone.answer))
        if own and any("seconds" in joined.logs[number].missing for number in of):
            own = replace(own, seconds=fresh.seconds)
        one = replace(own, votes=votes, samples=fresh.samples, unfinished=fresh.unfinished) if own else fresh
        yield replace(one, ended="time") if late else one


def _was_cut(log: Log, solution: Solution) -> bool:
    """Return whether a clock kept samples of a problem from a run."""
    asked = log.run_facts.samples_asked(solution.ended) if log.run_facts else None
    return asked is not None and len(solution.samples) < asked


def _is_whole(joined: Joined) -> bool:
    """Return whether it is known that no rule and no clock kept samples from the logs: errors account for them all."""
    runs = [log.run for log in joined.logs if log.run]
    if any(run.pool.whole is not True for run in runs) or {one.finish for one in joined.samples} & _BROKEN_OFF:
        return False
    lost = sum(len(log.failed) for log in joined.logs)
    lost += sum(RunFacts.count_gaps(one for item in run.graded for one in item.solution.samples) for run in runs)
    return lost == RunFacts.count_gaps(joined.samples)


def _facts(joined: Joined, writing: Writing) -> RunFacts:
    own, policy = joined.own_facts, _policy(joined)
    tokens = sum(sample.tokens for sample in joined.samples)
    # A slice that was given twice took its time once.
    used = [log.run_facts for number, log in enumerate(joined.logs) if number in joined.of_log]
    runs = [run for run in used if run] if own else []
    seconds = sum(run.seconds for run in runs)
    # Samples of one commit are that commit's; what is made of several, or of another tool's log, is this one's.
    commits = {(run.commit, run.dirty) for run in runs}
    code = code_state()
    commit, dirty = commits.pop() if len(commits) == 1 else (str(code["commit"]), bool(code["dirty"]))
    return RunFacts(
        settings=_settings(joined, writing, policy),
        n=policy.n,
        model=_model(joined, writing),
        engine_facts={**_common_facts(runs), **_lacks(joined, writing), **writing.gates.to_json()},
        prompt_sha=own.prompt_sha if own else "unknown",
        commit=commit,
        dirty=dirty,
        seconds=round(seconds, 3),
        tokens_per_s=round(tokens / seconds, 1) if seconds and "tokens" not in joined.missing else None,
        resumed_samples=0,
    )


def _common_facts(runs: Sequence[RunFacts]) -> dict[str, Any]:
    """Return what the engines said, as far as no two runs contradict each other; what one alone says stands."""
    every = {name: value for run in runs for name, value in run.engine_facts.items()}
    return {
        name: value
        for name, value in every.items()
        # What the joined samples lack, and whether they are whole, is found anew.
        if name not in ("whole", "missing", "assumed")
        and all(run.engine_facts.get(name, value) == value for run in runs)
    }


def _model(joined: Joined, writing: Writing) -> str:
    return writing.model or next((log.facts.model for log in joined.logs if log.facts.model), "unknown")


def _settings(joined: Joined, writing: Writing, policy: Policy) -> RunSettings:
    suite, count = hash_problems(joined.problems), len(joined.problems)
    if own := joined.own_facts:
        # One clock over several slices is no clock that anybody had.
        budget = own.settings.budget if len(joined.logs) == 1 else None
        of_all = replace(own.settings, suite=writing.suite, suite_sha=suite, problems=count)
        return replace(of_all, policy=policy, budget=budget)
    return RunSettings(
        suite=writing.suite,
        suite_sha=suite,
        problems=count,
        precision="unknown",
        policy=policy,
        budget=None,
        tools=None,
        engine=IMPORTED,
        # Two logs of one name may be of one model: that is all that can be checked before they are pooled.
        model_sha=f"unknown, named {_model(joined, writing)}",
    )


def _lacks(joined: Joined, writing: Writing) -> dict[str, object]:
    """Return what results.json says of what the logs do not."""
    missing = sorted({*joined.missing, *(() if writing.texts else ("text", "statement"))})
    # Of an import of an import both assumptions hold.
    told = [dig(log.run_facts.engine_facts, "assumed.seconds") for log in joined.logs if log.run_facts]
    told += [] if joined.pace is None else [f"tokens / {joined.pace:g}"]
    words = ", ".join(dict.fromkeys(str(one) for one in told if one))
    assumed = {"assumed": {"seconds": words}} if words else {}
    thoughts = {} if joined.opening is None else {"thoughts": joined.opening.describe()}
    # Whether a run of this project may have stopped its own settings say.
    foreign = joined.own_facts is None or joined.own_facts.settings.engine == IMPORTED
    whole = {"whole": True} if foreign and RunFacts.count_gaps(joined.samples) and _is_whole(joined) else {}
    return {**({"missing": missing} if missing else {}), **assumed, **thoughts, **whole}


def _slices(joined: Joined, graded: Sequence[Graded]) -> dict[str, object]:
    """Return {"slices": [the figures of each file alone]}."""
    verdicts = {
        (item.problem.id, sample.index): verdict
        for item in graded
        for sample, verdict in zip(item.solution.samples, item.verdicts, strict=True)
    }
    rows: list[dict[str, object]] = []
    for number, log in enumerate(joined.logs):
        own = [sample for sample, of in zip(joined.samples, joined.of_log, strict=True) if of == number]
        samples = [sample for sample in own if sample.finish != "clock"]
        right = sum(verdicts[sample.problem_id, sample.index] == "equal" for sample in samples)
        facts = log.run_facts
        rows.append(
            {
                "file": log.path.name,
                "layout": log.layout,
                "problems": len({sample.problem_id for sample in samples}),
                "samples": len(samples),
                "right": right,
                "tokens": None if "tokens" in joined.missing else sum(sample.tokens for sample in samples),
                "seconds": facts.seconds if facts else None,
                "tokens_per_s": facts.tokens_per_s if facts else None,
            }
        )
    return {"slices": rows}


def _describe_missing(joined: Joined) -> list[str]:
    total = len(joined.samples)
    settings = [name for name in SETTINGS if name in joined.missing]
    lacking = [
        name if number == total else f"{name} ({number} of {total} samples)"
        for name, number in joined.missing.items()
        if name not in settings
    ]
    sentences = []
    if joined.opening is not None:
        sentences.append(_describe_thoughts(joined, joined.opening))
    if lacking:
        sentences.append(f"not in the logs: {', '.join(lacking)}; the replay refuses what needs them")
    if settings:
        sentences.append(f"not in the logs: {', '.join(settings)}; results.json shows defaults for them")
    return sentences


def _describe_thoughts(joined: Joined, opening: Opening) -> str:
    total = len(joined.samples)
    within = [pair for pair in zip(joined.samples, joined.logged_verdicts, strict=True) if pair[0].in_thoughts]
    words = f"thoughts {opening.describe()}; {len(within)} of {total} samples stand in unfinished thoughts"
    # A tool that leaves the reasoning out, and the mark behind it, shows no more than the answer.
    unread = [pair for pair in within if pair[0].finish == "stop" and pair[0].answer is None]
    told = [logged for _, logged in unread if opening.thinking]
    # Texts that all end so, or one that its own scorer calls right, were hardly left in mid-reasoning.
    if told and (len(told) == total or any(any(logged.values()) for logged in told)):
        words += "; if the tool left the reasoning out of its texts, --opens-thoughts no reads them as answers"
    return words


def _describe_verdicts(joined: Joined, graded: Sequence[Graded]) -> list[str]:
    """Return whether the logs' own scorers agree with the checker."""
    verdicts = {
        (item.problem.id, sample.index): (verdict, sample.answer, item.problem.gold)
        for item in graded
        for sample, verdict in zip(item.solution.samples, item.verdicts, strict=True)
    }
    told: defaultdict[str, list[tuple[Sample, bool]]] = defaultdict(list)
    for sample, logged in zip(joined.samples, joined.logged_verdicts, strict=True):
        for name, right in logged.items():
            told[name].append((sample, right))
    sentences = []
    for name, of in told.items():
        differing = [one for one in of if one[1] != (verdicts[one[0].problem_id, one[0].index][0] == "equal")]
        whose = "the logs' own scorers agree" if len(told) == 1 else f"the logs' own {name!r:.40} agrees"
        words = f"{whose} with the checker on {len(of) - len(differing)} of {len(of)} samples"
        if differing:
            sample, right = differing[0]
            verdict, answer, gold = verdicts[sample.problem_id, sample.index]
            words += (
                f"; first difference: problem {sample.problem_id} #{sample.index}, {'right' if right else 'wrong'} "
                f"there, {verdict} here (answer {answer!r}, gold {gold!r})"
            )
        sentences.append(words)
    return sentences


def _without_texts(joined: Joined, shown: Mapping[tuple[str, str], str]) -> Joined:
    problems = [replace(problem, statement=problem.fingerprint) for problem in joined.problems]
    return replace(joined, problems=problems, samples=[_without_text(sample, shown) for sample in joined.samples])


def _without_text(sample: Sample, shown: Mapping[tuple[str, str], str]) -> Sample:
    """Return the sample without its text, with numbers as exact as a replay can use."""
    rounded = [None if value is None else round(value, 4) for value in (sample.logprob_mean, sample.logprob_tail)]

    def show(answer: str | None) -> str | None:
        return shown.get((sample.problem_id, answer or ""), answer)

    forced = sample.harvest and replace(
        sample.harvest, text="", answer=show(sample.harvest.answer), seconds=round(sample.harvest.seconds, 3)
    )
    return replace(
        sample,
        text="",
        answer=show(sample.answer),
        harvest=forced,
        seconds=round(sample.seconds, 3),
        logprob_mean=rounded[0],
        logprob_tail=rounded[1],
    )


def _hide_prose(joined: Joined) -> dict[tuple[str, str], str]:
    """Return {(problem, answer): what stands for it} of answers that are texts, which is judged and votes as they did.

    It is the gold answer where it equals that, else another answer of its class, else the number that it is, else a
    hash of them all.
    """
    given = [(one.problem_id, one.answer) for one in joined.samples]
    given += [(one.problem_id, one.harvest.answer) for one in joined.samples if one.harvest]
    given += [(item.problem.id, item.solution.answer) for log in joined.logs if log.run for item in log.run.graded]
    answers: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for name, answer in given:
        if answer is not None:
            answers[name][answer] = None
    return {
        (problem.id, answer): stand_in
        for problem in joined.problems
        if any(map(_is_prose, answers[problem.id]))
        for members in _find_classes([*answers[problem.id]], problem)
        for answer, stand_in in _replace_prose(members, problem).items()
    }


def _find_classes(answers: Sequence[str], problem: Problem) -> list[list[str]]:
    classes: defaultdict[int, list[str]] = defaultdict(list)
    for answer, label in zip(answers, label_classes(answers, problem.answers), strict=True):
        classes[label].append(answer)
    return [*classes.values()]


def _replace_prose(members: Sequence[str], problem: Problem) -> dict[str, str]:
    """Return what stands for each answer of a class that is a text."""
    shown: dict[str, str] = {}
    stand_in = next((one for one in members if not _is_prose(one)), None)
    for one in filter(_is_prose, members):
        outcome = compare(answer=one, gold=problem.gold, settings=problem.answers).outcome
        stand_in = stand_in or _name_class(members, problem, is_read=outcome != "unknown")
        shown[one] = problem.gold if outcome == "equal" else stand_in
    return shown


def _is_prose(answer: str) -> bool:
    """Return whether a long answer is more of words than of signs: the checker reads a value in many a sentence."""
    words = _WORD.findall(_COMMAND.sub(" ", answer)) if len(answer) > _LONG else []
    return sum(map(len, words)) > _FEW


def _name_class(members: Sequence[str], problem: Problem, *, is_read: bool) -> str:
    """Return what stands for equal answers: their number, else a hash, which the checker reads as a text or not at
    all."""
    value = parse(members[0], problem.answers).value
    if value is not None and max(abs(value.numerator), value.denominator) < 10**_LONG:
        return str(value)
    key = min(repr(parse(one, problem.answers).key) for one in members)
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return f"hidden answer {digest.translate(_LETTERS)}" if is_read else f"hidden sha256:{digest}"
