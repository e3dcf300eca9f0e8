"""Traces and data inside the page: whole where there is room, openly cut where there is none, never markup."""

import gzip
import json
import random
from base64 import b64decode

from hypothesis import given
from hypothesis import strategies as st

from mathlete.report.html.pages import island
from mathlete.report.html.traces import ShownText, _cut, pack_traces
from tests.conftest import CHARACTERS, dear


@dear(10)
@given(st.lists(st.lists(st.text(CHARACTERS, max_size=400), min_size=1, max_size=4), min_size=1, max_size=8))
def test_traces_come_back_as_they_were_where_there_is_room(texts: list[list[str]]) -> None:
    traces = [[ShownText(text=text, leading=False, facts=[place]) for place, text in enumerate(some)] for some in texts]
    unpacked = [json.loads(gzip.decompress(b64decode(block))) for block in pack_traces(traces, trace_bytes=10**9)]
    assert unpacked == [[[place, text, "", 0] for place, text in enumerate(some)] for some in texts]


@given(st.text(CHARACTERS), st.integers(1, 50))
def test_a_cut_trace_says_what_is_left_out(text: str, most: int) -> None:
    front, back, left = _cut(text, most)
    assert len(front) + len(back) + left == len(text)
    assert text.startswith(front)
    assert text.endswith(back)
    assert len(front) + len(back) <= max(most, 0) or not left


def test_leading_traces_keep_most_where_room_is_short() -> None:
    draw = random.Random(0)
    long = [" ".join(str(draw.random()) for _ in range(500)) for _ in range(8)]
    traces = [
        [ShownText(text=text, leading=place == 0, facts=[]) for place, text in enumerate(long)] for _ in range(20)
    ]
    blocks = pack_traces(traces, trace_bytes=200_000)
    assert sum(map(len, blocks)) <= 200_000
    first, *others = json.loads(gzip.decompress(b64decode(blocks[0])))
    assert all(len(first[0] + first[1]) > 5 * len(other[0] + other[1]) for other in others)


@given(st.dictionaries(st.text(CHARACTERS), st.text(CHARACTERS)))
def test_data_never_ends_its_element(told: dict[str, str]) -> None:
    assert "<" not in island(told)
    assert json.loads(island(told)) == told
