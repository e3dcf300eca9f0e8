"""A file of cases judged by this checker, and by math-verify in the same run: who is right, how often, how fast."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from mathlete.answers.answer import Outcome, compare, parse
from mathlete.answers.extract import Kind, extract
from mathlete.errors import UserError
from mathlete.runs import write_atomically

if TYPE_CHECKING:
    from rich.table import Table

Peer = Literal["math-verify"]
CaseKind = Literal["equiv", "extract"]
_SHAPE = '{"id", "kind": "equiv", "gold", "pred", "expected"} or {"id", "kind": "extract", "gold", "text", "expected"}'


@dataclass(frozen=True, kw_only=True)
class Case:
    """One line of a file: an answer, or a text that holds one, and whether it must be accepted against the gold."""

    id: str
    kind: CaseKind
    gold: str
    given: str
    """The answer as written, or the model's text."""
    expected: bool
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a checker said of a case."""

    id: str
    expected: bool
    outcome: Outcome
    reason: str
    answer: str | None
    """As extracted or given."""
    ms: float
    """Wall time, milliseconds."""

    @property
    def right(self) -> bool:
        """Whether it was accepted just where it must be; unknown is not accepted."""
        return (self.outcome == "equal") == self.expected


Checker = Callable[[Case], tuple[Outcome, str, str | None]]
"""Outcome, reason and answer of a case."""


def read_cases(path: Path) -> list[Case]:
    """The cases of a JSONL file.

    Raises:
        UserError: a file that cannot be read, a line that is no case, or no case at all.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("the file must be readable JSONL", value=path, cure=f"give one that is ({error})") from error
    cases = [_case(line, where=f"{path}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not cases:
        raise UserError("the file must hold a case", value=path, cure=f"write lines of {_SHAPE}")
    return cases


def _case(line: str, *, where: str) -> Case:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} must be JSON", value=repr(line[:60]), cure=f"mend it: {error}") from error
    kind = row.get("kind") if isinstance(row, dict) else None
    given = {"equiv": "pred", "extract": "text"}.get(str(kind))
    if given is None:
        raise UserError(f"{where} must have the kind equiv or extract", value=repr(kind), cure=f"write {_SHAPE}")
    if kind == "extract" and isinstance(row.get("expected"), str):
        # Peers' suites write the answer that must come out.
        row = {**row, "gold": row["expected"], "expected": True}
    for name, wanted in {"id": str, "gold": str, given: str, "expected": bool}.items():
        if not isinstance(row.get(name), wanted):
            value = f"{row.get(name)!r}"[:60]
            raise UserError(f"{where}: {name} must be {_NAMES[wanted]}", value=value, cure=f"write {_SHAPE}")
    source = str(row.get("source", ""))
    return Case(
        id=row["id"], kind=row["kind"], gold=row["gold"], given=row[given], expected=row["expected"], source=source
    )


_NAMES = {str: "a string", bool: "true or false"}


def extraction_kind(gold: str) -> Kind:
    """What kind of answer the gold shows that the task asks for."""
    node = parse(gold).node
    if node is not None and node.op == "letter" and gold.strip().strip("()").isupper():
        return "choice"
    return "list" if node is not None and node.op in ("set", "tuple") else "value"


def our_verdict(case: Case) -> tuple[Outcome, str, str | None]:
    """This checker's."""
    if case.kind == "equiv":
        answer, provenance = case.given, ""
    else:
        found = extract(case.given, kind=extraction_kind(case.gold))
        answer, provenance = found.string or "", f", read from: {found.provenance}"
    verdict = compare(answer=answer, gold=case.gold)
    return verdict.outcome, verdict.reason + provenance, answer or None


def math_verify_verdict(case: Case) -> tuple[Outcome, str, str | None]:
    """math-verify's, which gets golds and bare answers between dollar signs, as its documentation asks."""
    try:
        from math_verify import parse as read
        from math_verify import verify
    except ImportError as error:
        cure = 'pip install "mathlete[against]" -c constraints.txt'
        raise UserError("--against math-verify needs its package", value=str(error), cure=cure) from error

    gold = read(f"${case.gold}$")
    answer = read(case.given if case.kind == "extract" else f"${case.given}$")
    if not gold or not answer:
        return "unknown", f"cannot read the {'answer' if gold else 'gold'}", None
    return ("equal" if verify(gold, answer) else "different"), "math-verify", str(answer[-1])


PEERS: dict[Peer, Checker] = {"math-verify": math_verify_verdict}


def judge(cases: Iterable[Case], checker: Checker) -> list[Judged]:
    """Each case's verdict with the time it took."""
    return [_timed(case, checker) for case in cases]


def _timed(case: Case, checker: Checker) -> Judged:
    start = perf_counter()
    outcome, reason, answer = checker(case)
    ms = 1000 * (perf_counter() - start)
    return Judged(id=case.id, expected=case.expected, outcome=outcome, reason=reason, answer=answer, ms=ms)


@dataclass(frozen=True, kw_only=True)
class Report:
    """The verdicts on a file's cases, in the file's order."""

    cases: Sequence[Case]
    ours: Sequence[Judged]
    peer: Peer | None = None
    theirs: Sequence[Judged] = ()

    def as_json(self) -> dict[str, object]:
        """The figures; those of the peer under "against"."""
        ours = figures(self.cases, self.ours)
        return ours if self.peer is None else {**ours, "against": {self.peer: figures(self.cases, self.theirs)}}

    def table(self) -> Table:
        """The figures side by side."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        columns = {"mathlete": figures(self.cases, self.ours)}
        if self.peer is not None:
            columns[self.peer] = figures(self.cases, self.theirs)
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name in ("", *columns):
            table.add_column(name, justify="right" if name else "left", no_wrap=True)
        for name in _FIGURES:
            table.add_row(name.replace("_", " "), *(_shown(name, found[name]) for found in columns.values()))
        for group in ("by_kind", "by_source"):
            table.add_section()
            for name, part in columns["mathlete"][group].items():
                shares = [_shown("accuracy", found[group][name]["accuracy"]) for found in columns.values()]
                table.add_row(f"{name or 'no source'} ({part['cases']})", *shares)
        return table


_FIGURES = (
    "cases",
    "accuracy",
    "false_accepts",
    "false_rejects",
    "unknown",
    "cases_per_s",
    "p50_ms",
    "p95_ms",
    "max_ms",
)


def _shown(name: str, value: Any) -> str:
    if name == "accuracy":
        return f"{100 * value:.1f}%"
    return str(value) if isinstance(value, int) else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def figures(cases: Sequence[Case], judged: Sequence[Judged]) -> dict[str, Any]:
    """Accuracy, mistakes of both kinds, unknowns and speed; accuracy by kind and by source."""
    times = sorted(one.ms for one in judged)
    both = list(zip(cases, judged, strict=True))
    return {
        "cases": len(judged),
        "accuracy": _share([one.right for one in judged]),
        "false_accepts": sum(one.outcome == "equal" and not one.expected for one in judged),
        "false_rejects": sum(one.outcome != "equal" and one.expected for one in judged),
        "unknown": sum(one.outcome == "unknown" for one in judged),
        "cases_per_s": round(1000 * len(times) / sum(times), 1),
        "p50_ms": round(times[len(times) // 2], 3),
        "p95_ms": round(times[len(times) * 95 // 100], 3),
        "max_ms": round(times[-1], 3),
        "by_kind": _grouped([(case.kind, one.right) for case, one in both]),
        "by_source": _grouped([(_origin(case.source), one.right) for case, one in both]),
    }


def _origin(source: str) -> str:
    """The repository or suite that a source names: `AReaL:tests/test_x.py:3`, `https://github.com/owner/name/issues/3`."""
    if source.startswith("https://"):
        return "/".join(source.split("/")[3:5])
    return source.partition(":")[0]


def _share(right: Sequence[bool]) -> float:
    return round(sum(right) / len(right), 4)


def _grouped(pairs: Sequence[tuple[str, bool]]) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[bool]] = {}
    for name, right in pairs:
        groups.setdefault(name, []).append(right)
    return {name: {"cases": len(right), "accuracy": _share(right)} for name, right in sorted(groups.items())}


def check_file(path: Path, *, against: Peer | None = None, out: Path | None = None) -> Report:
    """The report on a file of cases; with `out`, each verdict as a line of JSON.

    Raises:
        UserError: a file or a line that is none of cases.
    """
    from mathlete.answers.isolation import warm_up

    cases = read_cases(path)
    warm_up()
    ours = judge(cases, our_verdict)
    theirs: list[Judged] = []
    if against is not None:
        warm = Case(id="", kind="equiv", gold=r"\sqrt{2}", given=r"\frac{1}{2}", expected=False)
        PEERS[against](warm)
        theirs = judge(cases, PEERS[against])
    if out is not None:
        write_atomically(out, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in _lines(ours, theirs)))
    return Report(cases=cases, ours=ours, peer=against, theirs=theirs)


def _lines(ours: Sequence[Judged], theirs: Sequence[Judged]) -> list[dict[str, object]]:
    lines: list[dict[str, object]] = [{**asdict(one), "right": one.right} for one in ours]
    for line, other in zip(lines, theirs, strict=False):
        line["against"] = other.outcome
    return lines
