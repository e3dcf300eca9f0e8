"""What the rehearsal of an adapter must have shown before its zip is handed in."""

from collections.abc import Iterator
from pathlib import Path

from mathlete.rehearsal.adapter.rehearsing import AdapterReport, load_adapter_report
from mathlete.rehearsal.evidence import Thresholds, refuse_other_rules
from mathlete.submission import Check, Refusal
from mathlete.submission.adapter import AdapterBuild

_AGAIN = "run `python -m submit rehearse`"


def check_adapter_rehearsal(build: AdapterBuild, *, folder: Path, thresholds: Thresholds) -> Check:
    """Check the report of the last rehearsal.

    Args:
        build: the zip and the rules as they are now.
        folder: the build's, which holds the report.
        thresholds: what the rehearsal must have shown.
    """
    report, what = load_adapter_report(folder), "rehearsal"
    if report is not None:
        score = f"{report.organiser.points:g} of {report.problems} points"
        what = f"rehearsal by {report.engine}: {score}, {report.organiser.cut} answers cut"
        if report.max_tokens < report.asked_tokens:
            what += f" at {report.max_tokens:,} tokens, where the organiser gives {report.asked_tokens:,}"
    return Check(what=what, refusals=tuple(_refuse(build, report, folder=folder, thresholds=thresholds)))


def _refuse(
    build: AdapterBuild, report: AdapterReport | None, *, folder: Path, thresholds: Thresholds
) -> Iterator[Refusal]:
    if report is None:
        yield Refusal(rule="there must be a rehearsal", value=f"no {folder / AdapterReport.file_name}", cure=_AGAIN)
        return
    if report.zip != build.hashes().weights:
        rule = "the rehearsal must be of this very zip"
        yield Refusal(rule=rule, value=f"{build.zip} has changed since", cure=_AGAIN)
    yield from refuse_other_rules(report.rules, build.competition, cure=_AGAIN)
    if report.engine != "vllm" and not thresholds.by_peft:
        rule = "the adapter must have been served by vLLM, which takes fewer adapters than peft"
        cure = "rehearse with --adapter.vllm PYTHON, or take this one with --limits.by-peft"
        yield Refusal(rule=rule, value=f"by {report.engine}", cure=cure)
    same = report.same_as_peft
    if same is not None and same < thresholds.same_min:
        rule = f"share of greedy answers that are peft's must be at least {thresholds.same_min}"
        cure = "compare the answers in the rehearsal's folder: vLLM serves another model than was trained"
        yield Refusal(rule=rule, value=f"{same:.3f}", cure=cure)
    right = report.organiser.right / max(1, report.problems)
    if right < thresholds.right_min:
        rule = f"share of problems solved must be at least {thresholds.right_min}"
        yield Refusal(rule=rule, value=f"{right:.2f}", cure="check prompt, answers' length and scorer")
