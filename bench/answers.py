"""Right and fast, beside math-verify in the same run: python bench/answers.py [CASES.jsonl …] [--traces SAMPLES.jsonl].

Without a file the cases are the project's golden pairs and texts, which were written for this checker; a fair
comparison needs cases from elsewhere. "lighteval-style" is math-verify without dollar signs around bare strings, which
is how lighteval calls its fork; "strings" compares the text of the last box, normalised as the MATH data set's grader
does. `ratio` is this checker's cases per second over math-verify's; `integers_per_s` its pairs of plain integers a
second. With `--traces` the recorded completions of a model are read too, as Qwen2.5-Math's evaluation writes them (`gt`
and the lists `code` and `score`), and have a ratio of their own, `traces`.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from mathlete.answers import Verdict, compare, extract, last_box, parse
from mathlete.answers.check import (
    Case,
    Figures,
    Judgement,
    Report,
    judge,
    math_verify_verdict,
    measure,
    our_verdict,
    read_cases,
)
from mathlete.answers.isolation import warm_up

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """What is judged."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """JSONL as for `python -m eval check`; default: the golden rows."""
    traces: Path | None = None
    """JSONL of recorded completions."""
    every: int = 1
    """Judges each so-manieth case only."""


def read_golden_cases() -> list[Case]:
    cases = []
    for number, line in enumerate((GOLDEN / "answers_pairs.jsonl").read_text().splitlines()):
        row = json.loads(line)
        source = row["about"]
        cases.append(
            Case(
                id=f"p{number}", kind="equiv", gold=row["other"], given=row["one"], expected=row["same"], source=source
            )
        )
    for number, line in enumerate((GOLDEN / "answers_texts.jsonl").read_text().splitlines()):
        row = json.loads(line)
        if row["kind"] == "value":
            cases.append(Case(id=f"t{number}", kind="extract", gold=row["answer"], given=row["text"], expected=True))
    return cases


def read_traces(file: Path) -> list[Case]:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [
        Case(id=f"{row['idx']}.{at}", kind="extract", gold=str(row["gt"]), given=text, expected=bool(row["score"][at]))
        for row in rows
        for at, text in enumerate(row["code"])
    ]


def compare_speed(cases: list[Case], *, rounds: int = 3) -> dict[str, float | int]:
    """The cases a second of both checkers over each other, in the best of some rounds, and their share as recorded."""
    best: list[Figures] = []
    for checker in (our_verdict, math_verify_verdict):
        figures = []
        for _ in range(rounds):
            parse.cache_clear()  # each round reads anew
            figures.append(measure(cases, judge(cases, checker)))
        best.append(max(figures, key=lambda one: one.cases_per_s))
    ours, theirs = best
    ratio = round(ours.cases_per_s / theirs.cases_per_s, 1)
    return {"cases": len(cases), "ratio": ratio, "as_recorded": ours.accuracy, "math_verify": theirs.accuracy}


def lighteval_style(case: Case) -> tuple[Verdict, None]:
    from math_verify import parse, verify

    gold, answer = parse(case.gold), parse(case.given)
    if not gold or not answer:
        return Verdict("unknown", "nothing to read"), None
    return Verdict("equal" if verify(gold, answer) else "different", ""), None


def strings(case: Case) -> tuple[Verdict, None]:
    box = last_box(case.given) if case.kind == "extract" else None
    given = box.content if box is not None else case.given
    return Verdict("equal" if normalise(given) == normalise(case.gold) else "different", ""), None


def normalise(text: str) -> str:
    """Hendrycks et al. 2021, MATH, `modeling/math_equivalence.py`, without its rules for fractions."""
    for old, new in (
        *(("\\!", ""), ("tfrac", "frac"), ("dfrac", "frac"), ("\\left", ""), ("\\right", ""), ("^\\circ", "")),
        *(("^{\\circ}", ""), ("\\$", ""), ("$", ""), ("\\%", ""), ("%", ""), (" ", ""), ("\n", "")),
    ):
        text = text.replace(old, new)
    head, sign, tail = text.rpartition("=")
    return tail if sign and len(head) <= 2 else text.rstrip(".")


def measure_integers_per_s(count: int = 200_000) -> float:
    pairs = [(str(n), str(n + n % 2)) for n in range(count)]
    start = time.perf_counter()
    equal = sum(compare(answer=a, gold=b).outcome == "equal" for a, b in pairs)
    seconds = time.perf_counter() - start
    assert equal == count // 2
    return count / seconds


def count_integer_extraction(cases: list[Case], judgements: list[Judgement]) -> dict[str, int]:
    """Texts with a gold integer of up to six digits: how many, and how many were read right."""
    right = [
        one.right
        for case, one in zip(cases, judgements, strict=True)
        if case.kind == "extract" and case.expected and case.gold.lstrip("-").isdecimal() and len(case.gold) <= 6
    ]
    return {"cases": len(right), "right": sum(right)}


def time_megabyte() -> float:
    text = "We consider $a_n = n^2$. " * 40_000 + r"\boxed{42}"
    start = time.perf_counter()
    assert extract(text).string == "42"
    return round(1000 * (time.perf_counter() - start), 1)


def main() -> None:
    settings = tyro.cli(BenchSettings, description=__doc__)
    cases = [case for file in settings.files for case in read_cases(file)] or read_golden_cases()
    cases = cases[:: settings.every]
    warm_up()
    math_verify_verdict(Case(id="", kind="equiv", gold=r"\sqrt{2}", given="1", expected=False))
    ours, theirs = judge(cases, our_verdict), judge(cases, math_verify_verdict)
    others = {"lighteval-style": judge(cases, lighteval_style), "strings": judge(cases, strings)}
    Console(stderr=True).print(Report(cases=cases, ours=ours, peer="math-verify", theirs=theirs).table())
    judged = {"mathlete": ours, "math-verify": theirs, **others}
    figures = {name: measure(cases, judgements) for name, judgements in judged.items()}
    for name, row in figures.items():
        print(f"{name:<16} accuracy {row.accuracy:.3f}  false accepts {row.false_accepts}", file=sys.stderr)
    megabyte_ms = time_megabyte()
    line: dict[str, object] = {
        "cases": len(cases),
        "ratio": round(figures["mathlete"].cases_per_s / figures["math-verify"].cases_per_s, 1),
        "integers_per_s": round(measure_integers_per_s()),
        "integer_extraction": count_integer_extraction(cases, ours),
        "megabyte_ms": megabyte_ms,
        **{
            name: {key: getattr(row, key) for key in ("accuracy", "false_accepts", "unknown")}
            for name, row in figures.items()
        },
    }
    if settings.traces:
        line["traces"] = compare_speed(read_traces(settings.traces)[:: settings.every])
    print(json.dumps(line))


if __name__ == "__main__":
    main()
