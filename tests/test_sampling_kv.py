"""The decode loop's KV cache: what a row reads back is what was written, and attention over it is full attention."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mathlete.sampling.embedded.kv import PromptKV, RowKV, _Layer, attend, token_bytes
from tests.conftest import dear

CPU = torch.device("cpu")
LAYERS, HEADS, KEY_HEADS, WIDTH, VALUE_WIDTH = 2, 4, 2, 3, 5
Rows = list[list[torch.Tensor]]
"""What each row should hold: a list of rows, each a list with one (tokens, key heads, width) tensor a layer."""


def random_prompt(length: int) -> PromptKV:
    prompt = PromptKV()
    for layer in range(LAYERS):
        prompt.update(torch.randn(1, KEY_HEADS, length, WIDTH), torch.randn(1, KEY_HEADS, length, VALUE_WIDTH), layer)
    return prompt


def attend_plainly(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    sliding_window: int | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    """Return the last token's attention, written down plainly: (heads, width), for keys (key heads, tokens, width)."""
    key, value = (tensor.repeat_interleave(HEADS // KEY_HEADS, dim=0) for tensor in (key, value))
    scores = (query[:, -1:] @ key.transpose(1, 2) * WIDTH**-0.5)[:, 0]
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if sliding_window is not None:
        scores[:, : max(0, scores.shape[1] - sliding_window)] = -torch.inf
    return (torch.softmax(scores, -1)[:, None] @ value)[:, 0]


HOW = st.fixed_dictionaries(
    {"sliding_window": st.none() | st.integers(1, 24), "softcap": st.none() | st.sampled_from([0.5, 50.0])}
)


class Model:
    """A RowKV beside plain lists of what every row was given."""

    def __init__(self, **how: Any) -> None:
        self.how = how
        self.kv = RowKV(device=CPU)
        self.keys: Rows = []
        self.values: Rows = []

    def add(self, *prompts: tuple[PromptKV, int]) -> None:
        self.kv.add(prompts)
        for prompt, copies in prompts:
            for _ in range(copies):
                self.keys.append([key[0].transpose(0, 1).clone() for key in prompt.keys])
                self.values.append([value[0].transpose(0, 1).clone() for value in prompt.values])

    def step(self) -> list[torch.Tensor]:
        """Write a random token to every row; return each layer's attention, beside which the plain one is put."""
        self.kv.open_column()
        results = []
        for layer in range(LAYERS):
            key, value = (torch.randn(len(self.keys), KEY_HEADS, 1, width) for width in (WIDTH, VALUE_WIDTH))
            query = torch.randn(len(self.keys), HEADS, 1, WIDTH)
            whole, _ = self.kv.update(key, value, layer)
            for row in range(len(self.keys)):
                self.keys[row][layer] = torch.cat((self.keys[row][layer], key[row].transpose(0, 1)))
                self.values[row][layer] = torch.cat((self.values[row][layer], value[row].transpose(0, 1)))
            mixed, _ = attend(torch.nn.Identity(), query, whole, whole, None, **self.how)
            assert mixed.shape == (len(self.keys), 1, HEADS, VALUE_WIDTH)
            results += [mixed, self.plain_attention(query, layer)]
        self.kv.close_column()
        return results

    def plain_attention(self, query: torch.Tensor, layer: int) -> torch.Tensor:
        rows = []
        for row in range(len(self.keys)):
            key, value = (kept[row][layer].transpose(0, 1) for kept in (self.keys, self.values))
            rows.append(attend_plainly(query[row], key, value, **self.how)[:, None])
        return torch.stack(rows).transpose(1, 2)

    def remove(self, gone: list[int]) -> None:
        order = self.kv.remove(gone)
        assert sorted(order) == [row for row in range(len(self.keys)) if row not in gone]
        self.keys, self.values = ([kept[row] for row in order] for kept in (self.keys, self.values))

    def check(self) -> None:
        """Every row holds what was written to it, in every layer, and nothing else is open to it."""
        assert self.kv.lengths.tolist() == [len(row[0]) for row in self.keys]
        row = 0
        for segment in self.kv._segments:
            for slot in range(segment.rows):
                length = len(self.keys[row][0])
                open_columns = (segment.mask[slot, 0, 0] == 0).nonzero()[:, 0].tolist()
                assert open_columns == [*range(length)]
                for layer in range(LAYERS):
                    assert torch.equal(segment.keys[layer][slot, :, :length].transpose(0, 1), self.keys[row][layer])
                    assert torch.equal(segment.values[layer][slot, :, :length].transpose(0, 1), self.values[row][layer])
                row += 1
        assert row == len(self.keys)


def test_a_prompt_s_row_is_a_copy_without_the_padding() -> None:
    prompts = PromptKV()
    for layer in range(LAYERS):
        prompts.update(torch.randn(3, KEY_HEADS, 9, WIDTH), torch.randn(3, KEY_HEADS, 9, VALUE_WIDTH), layer)
    one = prompts.row(1, 4)
    assert one.length == 4
    for whole, part in ((prompts.keys, one.keys), (prompts.values, one.values)):
        for layer in range(LAYERS):
            assert torch.equal(part[layer], whole[layer][1:2, :, :4])
            # The padded tensors of all prompts can be freed.
            assert part[layer].untyped_storage().data_ptr() != whole[layer].untyped_storage().data_ptr()


@pytest.mark.parametrize("lengths", [[1], [5, 5], [3, 17, 1], [40, 2]])
def test_rows_hold_their_prompt_and_then_what_is_written(lengths: list[int]) -> None:
    torch.manual_seed(0)
    model = Model()
    model.add(*[(random_prompt(length), copies) for copies, length in enumerate(lengths, start=1)])
    model.check()
    # Past the spare columns of the narrowest segment, so that one is widened.
    for _ in range(20):
        model.step()
    model.check()


@dear(16)
@given(data=st.data())
def test_whatever_joins_and_leaves_every_row_reads_back_what_was_written(data: st.DataObject) -> None:
    torch.manual_seed(1)
    model = Model()
    for _ in range(data.draw(st.integers(1, 8))):
        if not model.keys or data.draw(st.booleans()):
            lengths = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=3))
            model.add(*[(random_prompt(length), data.draw(st.integers(1, 3))) for length in lengths])
        for _ in range(data.draw(st.integers(0, 3))):
            model.step()
        gone = data.draw(st.lists(st.integers(0, len(model.keys) - 1), unique=True))
        model.remove(gone)
        model.check()


@dear(8)
@given(data=st.data())
def test_attention_over_the_cache_is_plain_attention_over_each_row(data: st.DataObject) -> None:
    torch.manual_seed(2)
    model = Model(**data.draw(HOW))
    for _ in range(data.draw(st.integers(1, 6))):
        model.add((random_prompt(data.draw(st.integers(1, 20))), data.draw(st.integers(1, 3))))
        results = model.step()
        for ours, full in zip(results[::2], results[1::2], strict=True):
            torch.testing.assert_close(ours, full, rtol=1e-4, atol=1e-5)
        model.remove(data.draw(st.lists(st.integers(0, len(model.keys) - 1), unique=True, max_size=2)))
        if not model.keys:
            return


@dear(8)
@given(how=HOW, tokens=st.integers(1, 40))
def test_attention_over_a_prompt_is_plain_attention_of_each_token(how: dict[str, Any], tokens: int) -> None:
    torch.manual_seed(3)
    query, key, value = (
        torch.randn(2, heads, tokens, width)
        for heads, width in ((HEADS, WIDTH), (KEY_HEADS, WIDTH), (KEY_HEADS, VALUE_WIDTH))
    )
    mixed, _ = attend(torch.nn.Identity(), query, key, value, None, **how)
    for at in range(tokens):
        for row in range(2):
            seen = slice(0, at + 1)
            plain = attend_plainly(query[row, :, seen], key[row, :, seen], value[row, :, seen], **how)
            torch.testing.assert_close(mixed[row, at], plain, rtol=1e-4, atol=1e-5)


def test_a_step_copies_neither_prompts_nor_rows() -> None:
    """Between joins a step writes into the tensors that are there: only a full segment is copied, to be widened."""
    model = Model()
    model.add((random_prompt(50), 3))
    model.kv.open_column()
    model.kv.close_column()
    places = [tensor.data_ptr() for segment in model.kv._segments for tensor in (*segment.keys, *segment.values)]
    for _ in range(4):
        model.step()
        now = [tensor.data_ptr() for segment in model.kv._segments for tensor in (*segment.keys, *segment.values)]
        assert now == places


def test_the_neighbours_nearest_in_width_are_merged() -> None:
    model = Model()
    for length in (5, 60, 61, 6, 7):
        model.add((random_prompt(length), 1))
        model.check()
    assert [segment.rows for segment in model.kv._segments] == [1, 2, 1, 1]
    # A merged segment knows its longest row, wherever that came from: it is widened in time.
    for _ in range(40):
        model.step()
    model.check()


def test_rows_of_other_lengths_do_not_widen_a_segment() -> None:
    model = Model()
    model.add((random_prompt(4), 2))
    narrow = model.kv._segments[0].columns
    model.add((random_prompt(400), 1))
    assert [segment.columns > 400 for segment in model.kv._segments] == [False, True]
    assert model.kv._segments[0].columns == narrow


def test_no_row_is_left_without_a_segment_and_no_segment_without_a_row() -> None:
    model = Model()
    model.add((random_prompt(3), 2))
    model.add((random_prompt(9), 1))
    model.remove([0, 1])
    assert [segment.rows for segment in model.kv._segments] == [1]
    model.remove([0])
    assert model.kv._segments == []
    assert model.kv.lengths.tolist() == []
    model.add((random_prompt(2), 1))
    model.step()
    model.check()


def test_a_prompt_is_read_causally() -> None:
    torch.manual_seed(3)
    query, key, value = (torch.randn(2, heads, 6, WIDTH) for heads in (HEADS, KEY_HEADS, KEY_HEADS))
    mixed, _ = attend(torch.nn.Identity(), query, key, value, None)
    first, _ = attend(torch.nn.Identity(), query[:, :, :3], key[:, :, :3], value[:, :, :3], None)
    torch.testing.assert_close(mixed[:, :3], first)


def test_attention_sinks_are_refused() -> None:
    query = torch.randn(1, HEADS, 1, WIDTH)
    with pytest.raises(NotImplementedError, match="attention without sinks"):
        attend(torch.nn.Identity(), query, _Layer([], 0), _Layer([], 0), None, s_aux=torch.zeros(4))


def test_the_size_of_a_token_follows_from_the_shape() -> None:
    shape = SimpleNamespace(num_hidden_layers=28, num_key_value_heads=4, hidden_size=3584, num_attention_heads=28)
    model: Any = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: shape))
    # R1-Distill-Qwen-7B: two tensors x 28 layers x 4 heads x 128 numbers x 2 bytes.
    assert token_bytes(model, itemsize=2) == 57344
