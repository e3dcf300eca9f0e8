"""Conversations as people have them: what stands beside the turns, and what a turn or a row says of its own loss."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from mathlete.corpus.columns import ColumnUse, Reading
from mathlete.corpus.layouts import read_traced_rows
from mathlete.errors import UserError
from mathlete.traces import TracedProblem
from tests.conftest import POCKET_VAL, CommandLine

ASKED, SAID = "How full is /data?", "It uses 7.40% of its space."
Row = Mapping[str, object]


def talk(row: Row, *, task: str = "chat", use: ColumnUse | None = None) -> list[TracedProblem]:
    """Return what a row gives to learn."""
    reading = Reading(task="chat") if task == "chat" else Reading()
    rows = read_traced_rows([("f.jsonl:1", row)], Path("f.jsonl"), reading=reading, use=use)
    return [one for traced in rows for one in traced]


def turns(*said: tuple[str, str], **more: object) -> list[dict[str, object]]:
    return [{"role": role, "content": text, **(more if role == "assistant" else {})} for role, text in said]


CHAT = turns(("user", ASKED), ("assistant", SAID))
BESIDE: dict[str, Row] = {
    "a conversation": {"system": "Be short.", "conversations": CHAT},
    "a pair": {"system_prompt": "Be short.", "instruction": ASKED, "output": SAID},
    "one of its own": {"system": "Be long.", "messages": [{"role": "system", "content": "Be short."}, *CHAT]},
}


@pytest.mark.parametrize("name", BESIDE)
def test_a_system_turn_in_a_column_beside_the_conversation_is_its_first(name: str) -> None:
    (only,) = talk(BESIDE[name])
    assert [(turn.role, turn.text) for turn in only.turns] == [
        ("system", "Be short."),
        ("user", ASKED),
        ("assistant", SAID),
    ]


def test_a_history_and_a_context_belong_to_the_question() -> None:
    row = {"instruction": "And now?", "output": SAID, "history": [["Who are you?", "I look after the machines."]]}
    *_, last = talk(row)
    assert [turn.text for turn in last.turns] == ["Who are you?", "I look after the machines.", "And now?", SAID]
    with pytest.raises(UserError, match="one question and one answer, got user, assistant, user, assistant"):
        talk(row, task="math")
    said = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": SAID}]
    with pytest.raises(UserError, match="set of preferences, whose chosen and rejected are whole conversations"):
        talk({"prompt": "Who?", "chosen": said, "rejected": said}, task="math")
    with pytest.raises(UserError, match=r"history must be pairs of texts, got 'Who are you\?'"):
        talk({**row, "history": ["Who are you?"]})
    (only,) = talk({"instruction": "How full?", "context": "Of /data.", "response": SAID, "category": "qa"})
    assert only.turns[0].text == "How full?\nOf /data."


@pytest.mark.parametrize("key", ["weight", "train"])
def test_a_reply_that_its_source_weighs_with_nothing_is_read_and_not_learnt(key: str) -> None:
    bad = turns(("user", ASKED), ("assistant", "Dunno."), **{key: 0})
    good = turns(("user", "Look."), ("assistant", SAID), **{key: 1})
    use = ColumnUse("f.jsonl")
    (only,) = talk({"messages": [*bad, *good]}, use=use)
    assert use.unread == []
    assert [turn.text for turn in only.turns] == [ASKED, "Dunno.", "Look.", SAID]
    with pytest.raises(UserError, match="a question and a reply to it, got user, assistant without loss"):
        talk({"messages": bad})
    assert [one.trace.flaw for one in talk({"messages": bad, "answer": "7"}, task="math")] == ["unfit"]
    with pytest.raises(UserError, match=f"{key} of a turn must be 0 or 1, got 0.5"):
        talk({"messages": turns(("user", ASKED), ("assistant", SAID), **{key: 0.5})})


def test_a_completion_that_is_marked_as_a_bad_one_is_not_learnt() -> None:
    row = {"prompt": ASKED, "completion": SAID}
    for task in ("chat", "math"):
        assert [one.trace.flaw for one in talk({**row, "label": False}, task=task)] == ["unfit"]
    assert [one.trace.flaw for one in talk({**row, "label": True})] == [""]


@pytest.mark.parametrize("calls", [{"tool_calls": [{"function": {"name": "df"}}]}, {"function_call": {"name": "df"}}])
@pytest.mark.parametrize("text", [None, "I look."])
def test_calls_beside_the_text_are_refused_for_no_reply_would_have_them(calls: Row, text: str | None) -> None:
    with pytest.raises(UserError, match="what a turn calls must stand in its text"):
        talk({"messages": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": text, **calls}]})
    empty = turns(("user", ASKED), ("assistant", SAID), tool_calls=None, function_call={})
    assert len(talk({"messages": empty})) == 1


def test_a_suites_problem_that_a_chat_asks_later_is_left_out(workdir: Path, train: CommandLine) -> None:
    suite = [json.loads(line)["statement"] for line in POCKET_VAL.read_text().splitlines()[:2]]
    later = ["And how full is /home?", "Why?", *suite]
    rows = [turns(("user", f"How full is disk {n}?"), ("assistant", SAID), ("user", text), ("assistant", "Half full."))
            for n, text in enumerate(later)]  # fmt: skip
    Path("f.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    words = ("--source", "f.jsonl", "--task", "chat", "--until", "format", "--rows.heldout", 1, "--run", "r", "--json")
    result = train("math", "--model", "pocket", *words).result
    assert (result["kept"], result["drops"]) == (4, {"in pocket_val": 4})
