"""A file of labelled cases, judged by this checker and by math-verify in the same run: accuracy, mistakes, speed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from mathlete.answers.answer import parse
from mathlete.answers.comparison import compare
from mathlete.answers.completions import read_answer
from mathlete.answers.extraction import Kind, extract
from mathlete.answers.isolation import warm_up
from mathlete.answers.verdict import Outcome, Verdict
from mathlete.errors import UserError
from mathlete.reasoning import is_within_thoughts
from mathlete.runs import write_atomically
from mathlete.text import parse_json

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
    answers: str = ""
    """The conventions of its suite where they are not the default."""
    cut: bool = False
    """Whether the text would have gone on, as its key "cut" says."""
    thinking: bool | None = None
    """Whether its prompt had opened the thoughts; None where its key "thinking" does not say."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A checker's verdict on a case."""

    id: str
    expected: bool
    outcome: Outcome
    reason: str
    answer: str | None
    """The answer as extracted or given."""
    ms: float
    """Wall time, milliseconds."""

    @property
    def right(self) -> bool:
        """Whether the case was accepted just where it must be; unknown is not accepted."""
        return (self.outcome == "equal") == self.expected


Checker = Callable[[Case], tuple[Verdict, str | None]]
"""A case's verdict and the answer that was judged."""


def read_cases(path: Path, *, rows: Iterable[tuple[str, object]] | None = None) -> list[Case]:
    """Return the cases of a JSONL file, or of the rows of a table, (`file:line`, row), that were read from it.

    Raises:
        UserError: the file cannot be read, a line is no case, or there is no case at all.
    """
    table = ((where, _read_words(row)) for where, row in rows or ())
    cases = [_make_case(row, where=where) for where, row in (_read_lines(path) if rows is None else table)]
    if not cases:
        raise UserError("the file must hold a case", value=path, cure=f"write lines of {_SHAPE}")
    return cases


def _read_lines(path: Path) -> Iterator[tuple[str, object]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise UserError("the file must exist", value=path, cure="check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("the file must be readable JSONL", value=path, cure=f"give one that is ({error})") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield f"{path}:{number}", parse_json(line)
            except ValueError as error:
                where = f"{path}:{number}"
                raise UserError(f"{where} must be JSON", value=repr(line[:60]), cure=f"mend it: {error}") from error


_WORDS = {"true": True, "1": True, "false": False, "0": False}
"""What `expected` is in a CSV, whose cells are all text."""


def _read_words(row: object) -> object:
    """Return a row of a table with `expected` as what its words say, but where it is the answer that must come out."""
    if not isinstance(row, Mapping) or row.get("kind") == "extract":
        return row
    return {**row, "expected": _WORDS.get(str(row.get("expected")).strip().lower())}


def _make_case(row: Any, *, where: str) -> Case:
    kind = row.get("kind") if isinstance(row, dict) else None
    given = {"equiv": "pred", "extract": "text"}.get(str(kind))
    if given is None:
        raise UserError(f"{where} must have the kind equiv or extract", value=repr(kind), cure=f"write {_SHAPE}")
    if kind == "extract" and isinstance(row.get("expected"), str):
        # Peers' suites write the answer that must come out.
        row = {**row, "gold": row["expected"], "expected": True}
    # Golds and ids may be whole numbers: a table of integers says the same as one of text.
    whole = {name: str(value) for name in ("id", "gold", given) if type(value := row.get(name)) is int}
    row = {**row, **whole}
    for name, wanted in {"id": str, "gold": str, given: str, "expected": bool}.items():
        if not isinstance(row.get(name), wanted):
            value = f"{row.get(name)!r}"[:60]
            raise UserError(f"{where}: {name} must be {_NAMES[wanted]}", value=value, cure=f"write {_SHAPE}")
    source = str(row.get("source", ""))
    return Case(
        id=row["id"],
        kind=row["kind"],
        gold=row["gold"],
        given=row[given],
        expected=row["expected"],
        source=source,
        answers=str(row.get("answers", "")),
        cut=row.get("cut") is True,
        thinking=None if row.get("thinking") is None else row["thinking"] is True,
    )


_NAMES = {str: "a string", bool: "true or false"}


def extraction_kind(gold: str) -> Kind:
    """Return the kind of answer that the task wants, as its gold shows."""
    node = parse(gold).node
    if node is not None and node.op == "letter" and gold.strip().strip("()").isupper():
        return "choice"
    return "list" if node is not None and node.op in ("set", "tuple", "point") else "value"


def our_verdict(case: Case) -> tuple[Verdict, str | None]:
    """Return the verdict of mathlete's checker."""
    if case.kind == "equiv":
        return compare(answer=case.given, gold=case.gold, settings=case.answers), case.given or None
    within = is_within_thoughts(case.given, cut=case.cut, thinking=case.thinking)
    extracted = extract(case.given, kind=extraction_kind(case.gold), thinking=within)
    if case.cut and read_answer(case.given, cut=True, thinking=case.thinking) is None:
        return Verdict("unknown", "a text that was cut before its answer"), None
    verdict = compare(answer=extracted.string, gold=case.gold, settings=case.answers)
    reason = f"{verdict.reason}, read from: {extracted.provenance}"
    return Verdict(verdict.outcome, reason), extracted.string or None


def math_verify_verdict(case: Case) -> tuple[Verdict, str | None]:
    """Return math-verify's verdict; as its documentation says, golds and bare answers stand between dollar signs,
    and golds that are letters of a choice are read as strings.

    Raises:
        UserError: the package is not installed.
    """
    try:
        from math_verify import ExprExtractionConfig, LatexExtractionConfig, StringExtractionConfig, verify
        from math_verify import parse as read
    except ImportError as error:
        cure = 'pip install "mathlete[against]" -c constraints.txt'
        raise UserError("--against math-verify needs its package", value=str(error), cure=cure) from error

    if extraction_kind(case.gold) == "choice":
        # Its page: multiple choice is read as strings.
        letters = StringExtractionConfig(strings=tuple("ABCDEFGHIJ"))
        gold = read(case.gold.strip().strip("()"), [letters])
        answer = read(case.given, [letters, LatexExtractionConfig(), ExprExtractionConfig()])
    else:
        gold = read(f"${case.gold}$")
        answer = read(case.given if case.kind == "extract" else f"${case.given}$")
    if not gold or not answer:
        return Verdict("unknown", f"cannot read the {'answer' if gold else 'gold'}"), None
    return Verdict("equal" if verify(gold, answer) else "different", "math-verify"), str(answer[-1])


PEERS: dict[Peer, Checker] = {"math-verify": math_verify_verdict}


def judge(cases: Iterable[Case], checker: Checker) -> list[Judgement]:
    """Return the checker's verdict on each case with the time it took."""
    return [_judge_one(case, checker) for case in cases]


def _judge_one(case: Case, checker: Checker) -> Judgement:
    start = perf_counter()
    verdict, answer = checker(case)
    ms = 1000 * (perf_counter() - start)
    return Judgement(
        id=case.id, expected=case.expected, outcome=verdict.outcome, reason=verdict.reason, answer=answer, ms=ms
    )


@dataclass(frozen=True, kw_only=True)
class Group:
    """The cases of one kind or source."""

    cases: int
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A checker's accuracy, mistakes of both kinds, unknowns and speed."""

    cases: int
    accuracy: float
    false_accepts: int
    false_rejects: int
    unknown: int
    cases_per_s: float
    p50_ms: float
    p95_ms: float
    max_ms: float
    by_kind: dict[str, Group]
    by_source: dict[str, Group]


def measure(cases: Sequence[Case], judgements: Sequence[Judgement]) -> Figures:
    """Return the figures of a checker that judged the cases in their order."""
    times = sorted(one.ms for one in judgements)
    both = list(zip(cases, judgements, strict=True))
    return Figures(
        cases=len(judgements),
        accuracy=_share([one.right for one in judgements]),
        false_accepts=sum(one.outcome == "equal" and not one.expected for one in judgements),
        false_rejects=sum(one.outcome != "equal" and one.expected for one in judgements),
        unknown=sum(one.outcome == "unknown" for one in judgements),
        cases_per_s=round(1000 * len(times) / sum(times), 1),
        p50_ms=round(times[len(times) // 2], 3),
        p95_ms=round(times[len(times) * 95 // 100], 3),
        max_ms=round(times[-1], 3),
        by_kind=_group([(case.kind, one.right) for case, one in both]),
        by_source=_group([(_origin(case.source), one.right) for case, one in both]),
    )


def _origin(source: str) -> str:
    """Return the repository or suite that a source names.

    Sources look like `AReaL:tests/test_x.py:3` or `https://github.com/owner/name/issues/3`.
    """
    if source.startswith("https://"):
        return "/".join(source.split("/")[3:5])
    return source.partition(":")[0]


def _share(right: Sequence[bool]) -> float:
    return round(sum(right) / len(right), 4)


def _group(pairs: Sequence[tuple[str, bool]]) -> dict[str, Group]:
    groups: dict[str, list[bool]] = {}
    for name, right in pairs:
        groups.setdefault(name, []).append(right)
    return {name: Group(cases=len(right), accuracy=_share(right)) for name, right in sorted(groups.items())}


@dataclass(frozen=True, kw_only=True)
class Report:
    """The verdicts on a file's cases, in the file's order."""

    cases: Sequence[Case]
    ours: Sequence[Judgement]
    peer: Peer | None = None
    theirs: Sequence[Judgement] = ()

    def as_json(self) -> dict[str, object]:
        """Return the figures; those of the peer under "against"."""
        ours = asdict(measure(self.cases, self.ours))
        return ours if self.peer is None else {**ours, "against": {self.peer: asdict(measure(self.cases, self.theirs))}}

    def table(self) -> Table:
        """Return the figures side by side."""
        from mathlete.tables import FittingTable

        columns = {"mathlete": measure(self.cases, self.ours)}
        if self.peer is not None:
            columns[self.peer] = measure(self.cases, self.theirs)
        table = FittingTable(columns=("", *columns))
        for name in _TOTALS:
            table.add_row(name.replace("_", " "), *(_format(name, getattr(one, name)) for one in columns.values()))
        for group in ("by_kind", "by_source"):
            table.add_section()
            for name, part in getattr(columns["mathlete"], group).items():
                shares = [_format("accuracy", getattr(one, group)[name].accuracy) for one in columns.values()]
                table.add_row(f"{name or 'no source'} ({part.cases})", *shares)
        return table


_TOTALS = [name for name in Figures.__dataclass_fields__ if not name.startswith("by_")]


def _format(name: str, value: float) -> str:
    if name == "accuracy":
        return f"{100 * value:.1f}%"
    return str(value) if isinstance(value, int) else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def check_file(
    path: Path,
    *,
    rows: Iterable[tuple[str, object]] | None = None,
    against: Peer | None = None,
    out: Path | None = None,
    answers: str = "",
) -> Report:
    """Return the report on a file of cases; with `out`, write each verdict as a line of JSON.

    Args:
        path: the file.
        rows: its rows, where it is a table that was read already; None: it is JSONL.
        against: another checker that judges the same cases.
        out: a file to write to.
        answers: conventions of the cases that name none of their own.

    Raises:
        UserError: the file cannot be read, or a line is no case.
    """
    cases = [case if case.answers else replace(case, answers=answers) for case in read_cases(path, rows=rows)]
    for settings in {case.answers for case in cases}:
        parse("1", settings)  # an unknown convention is refused before anything is judged
    warm_up()
    ours = judge(cases, our_verdict)
    theirs: list[Judgement] = []
    if against is not None:
        # The peer imports and compiles at its first case; that is no part of its speed.
        first = Case(id="", kind="equiv", gold=r"\sqrt{2}", given=r"\frac{1}{2}", expected=False)
        PEERS[against](first)
        theirs = judge(cases, PEERS[against])
    if out is not None:
        write_atomically(out, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in _as_rows(ours, theirs)))
    return Report(cases=cases, ours=ours, peer=against, theirs=theirs)


def _as_rows(ours: Sequence[Judgement], theirs: Sequence[Judgement]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [{**asdict(one), "right": one.right} for one in ours]
    for row, other in zip(rows, theirs, strict=False):
        row["against"] = other.outcome
    return rows
