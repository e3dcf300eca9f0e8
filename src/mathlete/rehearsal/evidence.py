"""What a rehearsal must have shown before its build is pushed."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from mathlete.competitions import Competition, describe_changes
from mathlete.errors import UserError, require
from mathlete.rehearsal.report import RehearsalReport, load_report
from mathlete.rehearsal.verdict import RunFigures
from mathlete.submission import Check, Hashes, Refusal


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What a rehearsal must have shown."""

    fallbacks_max: float = 0.2
    """Share of questions without an answer of the model."""
    empty_max: float = 0.2
    """Share of empty completions."""
    right_min: float = 0.1
    """Share of the canaries solved; their answers are never 0."""
    tokens_per_s_min: float = 1.0
    """On the machine of the rehearsal."""
    same_min: float = 0.995
    """Of an adapter: share of its greedy answers beside the base that are peft's."""
    by_peft: bool = False
    """Of an adapter: take a rehearsal in which peft served it, where vLLM can't be had."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range, so that nothing could be refused by it, or all is."""
        require(
            ("fallbacks-max", self.fallbacks_max, 0 <= self.fallbacks_max <= 1, "0 to 1"),
            ("empty-max", self.empty_max, 0 <= self.empty_max <= 1, "0 to 1"),
            ("right-min", self.right_min, 0 <= self.right_min <= 1, "0 to 1"),
            ("same-min", self.same_min, 0 <= self.same_min <= 1, "0 to 1"),
            ("tokens-per-s-min", self.tokens_per_s_min, self.tokens_per_s_min >= 0, "0 or more"),
            prefix="--limits.",
            cure="leave it out",
        )


def check_rehearsal(hashes: Hashes, *, folder: Path, thresholds: Thresholds, rules: Competition) -> Check:
    """Check the report of the last rehearsal.

    Args:
        hashes: of the build as it is now.
        folder: the build's, which holds the report.
        thresholds: what the rehearsal must have shown.
        rules: the competition's as they are now; a rehearsal under others does not count.
    """
    what, report = "rehearsal", load_report(folder)
    if report is not None and report.settings.stand_in:
        what = "rehearsal of the wiring: another model stood in, so speed and answers are Kaggle's to show"
    if report is not None and report.settings.skips_vllm:
        what = f"{what} without vLLM, of which it says nothing: the embedded engine answered"
    left = dict.fromkeys(one for run in (report.runs if report else ()) for one in run.left)
    if left:
        what = f"{what}; engines that were left for the next: {len(left)}, {'; '.join(left)}"
    return Check(what=what, refusals=tuple(_refusals(hashes, folder, thresholds, rules)))


def _refusals(hashes: Hashes, folder: Path, thresholds: Thresholds, rules: Competition) -> Iterator[Refusal]:
    report, again = load_report(folder), "run `python -m submit rehearse`"
    if report is None:
        yield Refusal(rule="there must be a rehearsal", value=f"no {folder / RehearsalReport.file_name}", cure=again)
        return
    changed = sorted(part for part, digest in asdict(hashes).items() if report.hashes.get(part) != digest)
    if changed:
        rule = "the rehearsal must be of this very build"
        yield Refusal(rule=rule, value=f"changed since: {', '.join(changed)}", cure=again)
    if report.rules:
        yield from refuse_other_rules(report.rules, rules, cure=again)
    if report.commit:
        yield Refusal(rule="the rerun must be rehearsed", value="a commit run", cure=again)
        return
    if not report.settings.image:
        rule = "the rehearsal must run on the versions that the image has"
        yield Refusal(rule=rule, value="it ran on this machine's", cure=f"{again} without --image none")
    if report.outcome != "valid":
        yield Refusal(rule="the rehearsal must end valid", value=str(report.runs[-1].refusal), cure=again)
        return
    # What several runs break is told once, with each run's value.
    broken: dict[tuple[str, str], list[str]] = {}
    for number, run in enumerate(report.runs):
        name = f"run {number}" if len(report.runs) > 1 else ""
        for one in _figures(run, thresholds):
            broken.setdefault((one.rule, one.cure), []).append(f"{one.value} in {name}" if name else one.value)
    for (rule, cure), values in broken.items():
        yield Refusal(rule=rule, value=", ".join(values), cure=cure)


def refuse_other_rules(rehearsed: Mapping[str, object], now: Competition, *, cure: str) -> Iterator[Refusal]:
    """Yield which rules were others when it was rehearsed.

    Args:
        rehearsed: the rules in its report.
        now: those as they are now.
        cure: what helps.
    """
    try:
        other = describe_changes(Competition.from_json(rehearsed), now)
    except UserError as error:
        other = f"another version's: {error.rule}"
    if other:
        yield Refusal(rule="the rehearsal must be under the rules as they are now", value=other, cure=cure)


def _figures(run: RunFigures, thresholds: Thresholds) -> Iterator[Refusal]:
    questions, samples = max(1, run.questions), max(1, run.samples)
    for rule, value, limit in (
        ("share of fallbacks must be at most {}", run.fallbacks / questions, thresholds.fallbacks_max),
        ("share of empty completions must be at most {}", run.empty / samples, thresholds.empty_max),
    ):
        if value > limit:
            cure = "look into the rehearsal's journal.jsonl"
            if "fallbacks" in rule and (run.fallbacks - run.out_of_time) / questions <= limit:
                cure = "rehearse at a slower --speed, or with --stand-in pocket: this machine ran out of time"
            yield Refusal(rule=rule.format(limit), value=f"{value:.2f}", cure=cure)
    # The placeholders of a commit run have no golds.
    if not run.commit and run.right / questions < thresholds.right_min:
        rule = f"share of canaries solved must be at least {thresholds.right_min}"
        yield Refusal(rule=rule, value=f"{run.right / questions:.2f}", cure="check model, prompt and extraction")
    if (run.tokens_per_s or 0.0) < thresholds.tokens_per_s_min:
        rule = f"tokens a second must be at least {thresholds.tokens_per_s_min}"
        yield Refusal(rule=rule, value=str(run.tokens_per_s), cure="check engine and machine")
