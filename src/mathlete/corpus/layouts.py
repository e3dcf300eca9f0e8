"""Rows of files in any columns as problems with traces: each layout is recognised by its structure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from pathlib import Path

from mathlete.corpus.cells import (
    GOLDS,
    IDS,
    STATEMENTS,
    SUBSETS,
    WORKED,
    Cells,
    TableRow,
    find_gold,
    format_gold,
    is_long,
    tidy,
    unwrap_texts,
)
from mathlete.corpus.chats import chat_of, make_chat
from mathlete.corpus.columns import ColumnUse, Reading
from mathlete.corpus.pairs import REPLIES, RowPlace, add_system, as_list, find_reply, read_pairs, require_text
from mathlete.corpus.requests import drop_requests
from mathlete.corpus.tables import read_rows
from mathlete.corpus.turns import (
    REASONINGS,
    find_conversation,
    make_turn,
    read_rendered_turns,
    read_turns,
    unwrap_turns,
)
from mathlete.errors import OnBad, UserError, stop
from mathlete.problems import Problem, parse_problem, read_problems
from mathlete.reasoning import has_marks
from mathlete.traces import Completion, Trace, TracedProblem, Turn, read_completion, read_trace

SAMPLES, PROBLEMS = "samples.jsonl", "problems.jsonl"
"""The files of an evaluation run that are read."""
_FINISHED = ("stop", "boxed")
"""How a sample ended that came to its end."""
_OWN = ({"statement", "trace"}, {"statement", "gold", "answer"})
_SAMPLE = {"problem_id", "seed", "text", "finish"}
_SEVERAL = ("generations", "responses", "solutions", "completions", "outputs", "samples")
"""Columns with a list of texts, each of them a whole reply."""
_LAYOUTS = (
    "id, statement, gold, trace, answer",
    "a conversation: a list of {role, content} or {from, value}",
    "instruction, input, output",
    "prompt, completion",
    f"{SAMPLES} of an evaluation run, beside its {PROBLEMS}",
    f"a statement (problem, question) and its reply ({', '.join(REPLIES[:6])}), or reasoning "
    f"({', '.join(REASONINGS[:3])})",
    "a text that a chat template has rendered",
)
"""The layouts in words."""
_CURE = 'write one {"id": "…", "statement": "…", "gold": "…", "trace": "…", "answer": "…"} a line'
_REPEATED = (
    "this is a set of preferences, whose chosen and rejected are whole conversations that repeat the prompt: keep the "
    "last turn of chosen alone, as completion, and leave rejected out"
)


def read_traced(path: Path, *, on_bad: OnBad = stop) -> Iterator[TracedProblem]:
    """Yield the traced problems of a file; a problem may have several traces in one row, or in several.

    Raises:
        UserError: columns of no known layout; with `stop`, an incomplete row. The message names file and row.
    """
    return chain.from_iterable(read_traced_rows(read_rows(path, on_bad=on_bad), path, on_bad=on_bad))


def read_traced_rows(
    rows: Iterable[tuple[str, TableRow]],
    path: Path,
    *,
    on_bad: OnBad = stop,
    reading: Reading | None = None,
    use: ColumnUse | None = None,
) -> Iterator[list[TracedProblem]]:
    """Yield the traced problems of one row of a table after the other, and note which columns were read.

    Args:
        rows: (`file:line`, row).
        path: the file, or a set's hub id, after which rows without an id are named.
        on_bad: receives the error of a row that cannot be read.
        reading: what the command line says of the columns.
        use: counts what was read.
    """
    reading = reading or Reading()
    for number, (where, row) in enumerate(rows):
        place = RowPlace(where=where, name=f"{path.stem}-{number}", path=path, reading=reading)
        try:
            cells = reading.prepare(tidy(row, where=where), where=where)
            traced = _read_row(cells, place)
            if use is not None:
                use.note(cells, where=where)
        except UserError as error:
            on_bad(error)
        except RecursionError:
            on_bad(UserError(f"{where}: a row must not be nested so deep", cure="leave out the nested column"))
        else:
            yield traced


def _read_row(row: Cells, place: RowPlace) -> list[TracedProblem]:
    chats = place.reading.task == "chat"
    if not place.reading.columns:
        if row.row.keys() >= _SAMPLE:
            traced = _read_sample(row, place)
            return chat_of(traced) if chats else [traced]
        if any(columns <= row.row.keys() for columns in _OWN) and not (chats and "trace" not in row):
            traced = _read_own(row, place)
            return chat_of(traced) if chats else [traced]
    conversations = [unwrap_turns(turns) for turns in _read_conversations(row, place)]
    if chats:
        return [one for turns in conversations for one in _make_chat(row, turns, place)]
    return [_make_traced(row, turns, place) for turns in conversations]


def _read_conversations(row: Cells, place: RowPlace) -> list[list[Turn]]:
    """Return the conversations in a row: one, or one for each of several replies to the same question."""
    questions = row.find_columns(place.reading.names("statement", (*STATEMENTS, "input")))
    replies = row.find_columns(REPLIES)
    several = next((name for name in row.find_columns(_SEVERAL) if isinstance(unwrap_texts(row.row[name]), list)), "")
    named = bool({"statement", "trace"} & {*place.reading.columns})
    if not named and not (several and questions):
        column = find_conversation(row, usual_only=bool(questions and replies))
        # A prompt may be a list of messages, whose reply stands in another column.
        if column and not (column in questions and replies):
            turns = read_turns(row, column, where=place.where, ignore=place.reading.ignore)
            return [add_system(row, _add_reasoning(row, turns, place))]
    # Without a question, the error tells that it is missing.
    if named or replies or several or (questions and any(find_reply(row, place))):
        return read_pairs(row, several, place)
    return [_read_rendered(row, place)]


def _read_rendered(row: Cells, place: RowPlace) -> list[Turn]:
    """Return the conversation in a text that a template has rendered.

    Raises:
        UserError: the row has none, and so no layout that is known.
    """
    for column, text in row.row.items():
        if isinstance(text, str) and (rendered := read_rendered_turns(text)):
            row.read.add(column)
            return rendered
    raise UserError(
        f"{place.where}: a row of traced problems must have the columns of a known layout",
        value=f"columns {', '.join(map(str, row))}",
        cure=f"use one of: {'; '.join(_LAYOUTS)}; or say which is which with --columns statement=… trace=… gold=…",
    )


def _add_reasoning(row: Cells, turns: list[Turn], place: RowPlace) -> list[Turn]:
    """Return a conversation with the reasoning that stands in a column beside it, before its only reply."""
    reasoning = find_reply(row, place)[1]
    if not reasoning or [turn.role for turn in turns].count("assistant") != 1 or turns[-1].thought:
        return turns
    thought = require_text(as_list(row.row[reasoning])[0], reasoning, where=place.where)
    reply = make_turn("assistant", turns[-1].text, thought)
    if reply.thought:
        row.read.add(reasoning)
    return [*turns[:-1], replace(reply, trained=turns[-1].trained)]


def _read_own(row: Cells, place: RowPlace) -> TracedProblem:
    rest = {name: value for name, value in row.items() if value is not None}
    own = {name: rest.pop(name, None) for name in ("trace", "answer")}
    problem = parse_problem(rest, where=place.where)
    for name, value in own.items():
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{place.where}: a traced problem needs its {name} as text", value=repr(value), cure=_CURE)
    text, answer = str(own["trace"]), str(own["answer"])
    # A trace may come with the marks around it; without them it is reasoning only, without an ending.
    parts = read_completion(text) if has_marks(text) else Completion(thought=text, ending="")
    trace = Trace(
        problem_id=problem.id,
        text=parts.thought,
        answer=answer,
        generator=place.file,
        ending=parts.ending,
        flaw=parts.flaw,
    )
    return TracedProblem(problem=problem, trace=trace, where=place.where)


def _read_sample(row: Cells, place: RowPlace) -> TracedProblem:
    """Read a sample of an evaluation run: what a model wrote becomes a trace that it, or another, is trained on."""
    row.read.update(row)  # the columns are our own
    problem = _read_run_problems(place.path.parent / PROBLEMS).get(str(row.get("problem_id")))
    if problem is None:
        raise UserError(
            f"{place.where}: a sample's problem must stand in {PROBLEMS} beside it",
            value=repr(row.get("problem_id")),
            cure="give the run's own folder, as `python -m eval` wrote it",
        )
    # A model may end at once: an empty text is a sample without a trace, and no broken row.
    text = row.get("text")
    if not isinstance(text, str):
        raise UserError(f"{place.where}: a sample needs its text as text", value=repr(text)[:80], cure="mend the row")
    trace = read_trace(text, problem=problem, generator=place.file, thinks=row.get("in_thoughts") is True)
    # A sample that the cap or the vote ended has an answer only by chance: it would teach to stop in the middle.
    flaw = trace.flaw if row.get("finish") in _FINISHED or not text else "unclosed"
    return TracedProblem(problem=problem, trace=replace(trace, flaw=flaw), where=place.where)


@lru_cache(maxsize=4)
def _read_run_problems(path: Path) -> dict[str, Problem]:
    return {problem.id: problem for problem in read_problems(path)}


def _repeats_prompt(row: Mapping[str, object]) -> bool:
    """Return whether a row is a preference whose chosen conversation begins with the user's turn, beside a prompt."""
    chosen = row.get("chosen")
    first = chosen[0] if isinstance(chosen, list) and chosen else None
    role = first.get("role", first.get("from")) if isinstance(first, Mapping) else None
    return "prompt" in row and "rejected" in row and role in ("user", "human")


def _make_traced(row: Cells, turns: Sequence[Turn], place: RowPlace) -> TracedProblem:
    # System messages are left out: the model is served without one, as R1's authors advise.
    spoken = [turn for turn in turns if turn.role != "system"]
    if spoken and all(turn.role == "user" for turn in spoken):
        raise UserError(
            f"{place.where}: a row must have a reply to learn from, reasoning or a solution",
            value="a question alone",
            cure="have a model solve them, with python -m eval source:FILE --n 4, and train on that run's folder",
        )
    if [turn.role for turn in spoken] != ["user", "assistant"]:
        raise UserError(
            f"{place.where}: a conversation must be one question and one answer",
            value=", ".join(turn.role for turn in turns) or "no turn",
            cure=_REPEATED
            if _repeats_prompt(row.row)
            else "take the first two turns, give each its own row, or train on all of them with --task chat",
        )
    text = spoken[1].completion
    # The prompt adds the model's own instruction; one that came with the question would stand there twice.
    statement = drop_requests(spoken[0].text)
    # Behind reasoning in a field of its own, a reply that is the answer alone equals the gold, and repeats nothing.
    reply = spoken[1].text
    repeated = "" if spoken[1].thought and not WORKED.search(reply) and not is_long(reply) else reply
    problem = _make_problem(row, statement, place, gold=_read_gold(row, repeated, place))
    trace = read_trace(text, problem=problem, generator=place.file)
    # Without a gold, and without a marked answer, the row has none at all, and says so.
    flaw = "unfit" if not spoken[1].trained or _is_rejected(row) else trace.flaw or ("" if problem.gold else "no gold")
    return TracedProblem(problem=problem, trace=replace(trace, flaw=flaw), where=place.where)


def _is_rejected(row: Cells) -> bool:
    """Return whether a row says that its completion is a bad one, as TRL's unpaired preferences do."""
    return {"prompt", "completion"} <= row.row.keys() and isinstance(row.row.get("label"), bool) and not row["label"]


def _make_problem(row: Cells, statement: str, place: RowPlace, *, gold: str) -> Problem:
    if not statement.strip():
        raise UserError(f"{place.where}: a row needs a statement", value=sorted(map(str, row)), cure="mend the row")
    _, subset = row.first(place.reading.names("subset", SUBSETS))
    return Problem(
        id=_read_id(row, place) or place.name,
        statement=statement,
        gold=gold,
        source=place.file,
        subset=str(subset or ""),
    )


def _make_chat(row: Cells, turns: Sequence[Turn], place: RowPlace) -> list[TracedProblem]:
    """Return each reply of a conversation with what was said before it."""
    asked = next((turn.text for turn in turns if turn.role == "user"), "")
    problem = _make_problem(row, asked, place, gold="")
    replies = [number for number, turn in enumerate(turns) if turn.role == "assistant"]
    if not replies or turns[0].role == "assistant" or not any(turns[number].trained for number in replies):
        raise UserError(
            f"{place.where}: a chat must have a question and a reply to it",
            value=", ".join(turn.role if turn.trained else f"{turn.role} without loss" for turn in turns) or "no turn",
            cure="mend the row, or leave it out",
        )
    made = [make_chat(problem, turns[: number + 1], where=place.where) for number in replies if turns[number].trained]
    return [replace(one, trace=replace(one.trace, flaw="unfit")) for one in made] if _is_rejected(row) else made


def _read_id(row: Cells, place: RowPlace) -> str:
    _, value = row.first(place.reading.names("id", IDS))
    if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
        # 424e18 without quotes is a float, and the id is lost before it can be read.
        raise UserError(f"{place.where}: an id must be text or a whole number", value=repr(value), cure="quote it")
    return "" if value is None else str(value)


def _read_gold(row: Cells, text: str, place: RowPlace) -> str:
    """Return the gold as text; "" where the row has none."""
    columns = row.find_columns(place.reading.names("gold", GOLDS))
    column, value = find_gold(row, columns, solution=text)
    if not column:
        return ""
    gold = format_gold(value, column, where=place.where)
    if not gold:
        rule = f"{place.where}: {column} must not be empty"
        raise UserError(rule, value=repr(value), cure="mend or delete the row")
    return gold
